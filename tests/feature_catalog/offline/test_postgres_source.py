"""Joins over Postgres tables: the contract, and what is particular to a database."""

import itertools

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import NullPool, create_engine, text

from feature_catalog.definitions import (
    CloudSource,
    Entity,
    Feature,
    FeatureService,
    FeatureView,
)
from feature_catalog.definitions.catalog_set import DefinitionSet, key_of
from feature_catalog.offline import OfflineFeatures
from feature_catalog.offline.errors import UnfitValues, UnreadableSource
from feature_catalog.offline.newest_rows import newest_rows_by_index
from tests.feature_catalog.offline.examples import VALUE, rows, stats
from tests.feature_catalog.offline.join_contract import JoinContract

pytestmark = pytest.mark.integration

VIEW = stats(VALUE, created_ts=None)
NAMES = itertools.count()
SQL_TYPES = {
    "string": "text",
    "int32": "integer",
    "int64": "bigint",
    "float": "real",
    "double": "double precision",
    "null": "text",
}


def sql_type(kind: pa.DataType) -> str:
    if pa.types.is_timestamp(kind):
        return "timestamptz" if kind.tz else "timestamp"
    return f"{sql_type(kind.value_type)}[]" if pa.types.is_list(kind) else SQL_TYPES[str(kind)]


def as_text(value: object) -> object:
    """Numbers as text: as a number, SQL reads -0.0 as 0.0 with a minus, which is 0.0."""
    return repr(value) if isinstance(value, float) else value


@pytest.fixture(scope="module")
def database(postgres_server):
    """One empty database for the whole file."""
    admin = create_engine(
        postgres_server.url("postgres"), poolclass=NullPool, isolation_level="AUTOCOMMIT"
    )
    with admin.connect() as connection:
        connection.execute(text("CREATE DATABASE joins"))
    engine = create_engine(postgres_server.url("joins"))
    yield engine
    engine.dispose()
    with admin.connect() as connection:
        connection.execute(text("DROP DATABASE joins WITH (FORCE)"))


class PostgresContract(JoinContract):
    """The contract, its rows in tables."""

    @pytest.fixture(autouse=True)
    def of_database(self, database):
        self.engine = database

    def store(self, table):
        name = f"rows_{next(NAMES)}"
        columns = ", ".join(
            f'"{c}" {sql_type(table.schema.field(c).type)}' for c in table.column_names
        )
        with self.engine.begin() as connection:
            connection.execute(text(f"CREATE TABLE {name} ({columns})"))
            if table.num_rows:
                values = ", ".join(f":{column}" for column in table.column_names)
                connection.execute(
                    text(f"INSERT INTO {name} VALUES ({values})"),
                    [{c: as_text(v) for c, v in row.items()} for row in table.to_pylist()],
                )
        return CloudSource(table=name)

    def offline(self, definitions):
        return OfflineFeatures(definitions, engine=self.engine)

    def sql(self, *statements: str) -> None:
        with self.engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))


class TestPostgresSources(PostgresContract):
    def test_a_table_may_be_in_a_schema_and_a_view_of_the_database(self):
        self.sql(
            "CREATE SCHEMA stats",
            "CREATE TABLE stats.raw AS SELECT 'a'::varchar(9) user_id, "
            "'2026-03-29 01:00+00'::timestamptz event_ts, 10 value",
            "CREATE VIEW stats.rows AS SELECT * FROM stats.raw",
        )
        assert self.values(VIEW, CloudSource(table="stats.rows"), rows(["a"], 2)) == [10]

    def test_numeric_and_padded_text_are_understood(self):
        self.sql(
            "CREATE TABLE padded AS SELECT 'a'::char(5) user_id, "
            "'2026-03-29 01:00+00'::timestamptz event_ts, 12.0::numeric(8, 2) value"
        )
        assert self.values(VIEW, CloudSource(table="padded"), rows(["a", "a "], 2, 2)) == [12, None]

    def test_an_infinite_time_is_no_time(self):
        self.sql(
            "CREATE TABLE always AS SELECT 'a' user_id, t::timestamptz event_ts, 1 value "
            "FROM (VALUES ('infinity'), ('-infinity')) times(t)"
        )
        assert self.values(VIEW, CloudSource(table="always"), rows(["a"], 2)) == [None]

    def test_a_type_that_no_field_is_of_is_refused(self):
        self.sql("CREATE TABLE documents AS SELECT 'a' user_id, now() event_ts, '{}'::jsonb value")
        with pytest.raises(UnfitValues, match="holds value as JSONB"):
            self.join(VIEW, CloudSource(table="documents"), rows(["a"], 2))

    def test_a_table_that_may_not_be_read_is_refused_in_a_sentence(self):
        source = self.store(rows(["a"], 1, value=[1]))
        self.sql("CREATE ROLE reader", "GRANT TEMPORARY ON DATABASE joins TO reader")
        as_reader = {"options": "-c role=reader"}
        self.engine = create_engine(self.engine.url, poolclass=NullPool, connect_args=as_reader)
        with pytest.raises(UnreadableSource, match="permission denied"):
            self.join(VIEW, source, rows(["a"], 2))

    def test_nothing_is_left_in_the_database(self):
        source = self.store(rows(["a"], 1, value=[1]))
        self.join(VIEW, source, rows(["a"], 2))
        with self.engine.connect() as connection:
            statement = text("SELECT count(*) FROM pg_class WHERE relname LIKE 'flint_asked%'")
            assert connection.execute(statement).scalar_one() == 0

    def test_without_a_database_a_table_cannot_be_joined(self):
        self.engine = None
        with pytest.raises(UnreadableSource, match="no database is given"):
            self.join(VIEW, CloudSource(table="somewhere"), rows(["a"], 2))


class TestPostgresIndexes(PostgresContract):
    """The same, where each row is looked up by an index."""

    @pytest.fixture(autouse=True)
    def always_by_index(self, monkeypatch):
        monkeypatch.setattr("feature_catalog.offline.postgres_source.ROWS_PER_LOOK_UP", -1)
        self.looked_up = 0

        def counted(*args):
            self.looked_up += 1
            return newest_rows_by_index(*args)

        monkeypatch.setattr("feature_catalog.offline.postgres_source.newest_rows_by_index", counted)

    def store(self, table):
        source = super().store(table)
        keys = [c for c in ("shop", "user_id", "ad_no") if c in table.column_names]
        if {"user_id", "event_ts"} <= set(table.column_names):
            self.sql(
                f"CREATE INDEX ON {source.table} ({', '.join([*keys, 'event_ts'])} DESC)",
                f"ANALYZE {source.table}",
            )
        return source

    def test_rows_are_looked_up_by_the_index(self):
        source = rows(["a"], 1, value=[1])
        assert self.values(VIEW, source, rows(["a"], 2)) == [1]
        assert self.looked_up == 1

    def test_without_an_index_they_are_not(self):
        source = super().store(rows(["a"], 1, value=[1]))
        assert self.values(VIEW, source, rows(["a"], 2)) == [1]
        assert self.looked_up == 0


def test_a_service_may_have_files_and_tables(database, tmp_path):
    user = Entity(name="user", join_keys=["user_id"])
    pq.write_table(rows(["a", "b"], 1, 1, value=[10, 20]), tmp_path / "filed.parquet")
    with database.begin() as connection:
        connection.execute(
            text("CREATE TABLE stored AS SELECT 'b' user_id, 7 value, now() event_ts")
        )
        connection.execute(text("UPDATE stored SET event_ts = '2026-03-29 02:00+00'"))
    filed, stored, again = (
        FeatureView(name=name, entities=[user], source=source, schema=VALUE)
        for name, source in (
            ("filed", CloudSource(path="filed.parquet")),
            ("stored", CloudSource(table="stored")),
            ("again", CloudSource(table="public.stored")),
        )
    )
    features = [Feature(f"{name}:value", name=name) for name in ("filed", "stored", "again")]
    service = FeatureService(name="all", features=features)
    each = (user, filed, stored, again, service)
    offline = OfflineFeatures(
        DefinitionSet({key_of(one): one for one in each}), data_folder=tmp_path, engine=database
    )
    found = offline.get_historical_features(
        entity_rows=rows(["b", "a", "b"], 3, 3, 1), service="all", untransformed=True
    )
    assert found.table.drop_columns(["user_id", "event_ts"]).to_pydict() == {
        "again": [7, None, None],
        "filed": [20, 10, 20],
        "stored": [7, None, None],
    }
