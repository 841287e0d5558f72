"""Where a feature view's values come from: the cloud's tables, or events on the device."""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from feature_catalog.definitions.bounds import checked_column, checked_name
from feature_catalog.definitions.errors import InvalidDefinition, refuse
from feature_catalog.definitions.fields import Field, checked_fields

MAX_PATH_CHARACTERS = 1_024

_TABLE = re.compile(r"[a-z_][a-z0-9_]{0,62}(\.[a-z_][a-z0-9_]{0,62})?")


@dataclass(frozen=True)
class CloudSource:
    """Rows of the cloud, each true from a moment on. Give ``path`` or ``table``.

    Attributes:
        path: Parquet file, folder or URL.
        table: Postgres table, ``name`` or ``schema.name``.
        event_ts: Column with the time from which a row is true.
        created_ts: Column with the time at which a row was written, if it is known: training data
            joined as of a moment leave out what was written later.

    Raises:
        InvalidDefinition: If an attribute is impossible.
    """

    path: str | None = None
    table: str | None = None
    event_ts: str = "event_ts"
    created_ts: str | None = None

    def __post_init__(self) -> None:
        if (self.path is None) == (self.table is None):
            raise InvalidDefinition(
                "needs one of path (a Parquet file) and table (a Postgres table)", key=""
            )
        if self.path is not None:
            _check_path(self.path)
        elif not isinstance(self.table, str) or _TABLE.fullmatch(self.table) is None:
            refuse("table", self.table, "the name of a Postgres table: name or schema.name")
        checked_column(self.event_ts, "event_ts")
        if self.created_ts is not None:
            checked_column(self.created_ts, "created_ts")
            if self.created_ts == self.event_ts:
                refuse("created_ts", self.created_ts, "another column than event_ts, or left out")


@dataclass(frozen=True)
class DeviceSource:
    """Events that an app records on the device; they never leave it.

    Attributes:
        event: Its name in the app's calls.
        schema: What it holds, by name.

    Raises:
        DefinitionError: If an attribute is impossible.
    """

    event: str
    schema: tuple[Field, ...]

    def __post_init__(self) -> None:
        checked_name(self.event, "event")
        fields = checked_fields(self.schema)
        if not fields:
            refuse("schema", (), "a list with at least one field")
        object.__setattr__(self, "schema", fields)


def _check_path(path: object) -> None:
    form = f"a path or URL of Parquet, at most {MAX_PATH_CHARACTERS} printable characters"
    is_text = isinstance(path, str) and 0 < len(path) <= MAX_PATH_CHARACTERS
    if not isinstance(path, str) or not is_text or not path.isprintable() or path != path.strip():
        refuse("path", path, form)
    if not path.endswith((".parquet", "/")):
        refuse("path", path, "a Parquet file (.parquet), or a folder of them (ending with /)")
    try:
        has_secret = urlsplit(path).password is not None or "@" in urlsplit(path).netloc
    except ValueError:
        refuse("path", path, form)
    if has_secret:
        raise InvalidDefinition(
            "holds a user or password, and whoever reads the catalog would see it; leave it out "
            "and let the reader's own credentials be used",
            key="path",
        )
