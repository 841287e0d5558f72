"""SQLAlchemy's statements as text, for what takes no statement: COPY, and DuckDB.

Both speak Postgres' SQL as far as it is used here.
"""

from sqlalchemy import ClauseElement
from sqlalchemy.dialects import postgresql

_DIALECT = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]


def to_sql(statement: ClauseElement) -> str:
    """A statement or a part of one, its values in it, quoted."""
    return str(statement.compile(dialect=_DIALECT, compile_kwargs={"literal_binds": True}))


def quoted(name: str) -> str:
    """A name of a table or column, quoted where it has to be."""
    return str(_DIALECT.identifier_preparer.quote(name))
