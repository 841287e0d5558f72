"""Migrations lead to the schema; connecting says plainly what is wrong."""

import math
import multiprocessing

import pytest
from sqlalchemy import Engine, create_engine, inspect, make_url, text
from sqlalchemy.orm import Session

from feature_catalog.database import (
    DatabaseTooNew,
    DatabaseUnreachable,
    connect,
    upgrade,
)
from feature_catalog.embedded import EmbeddedPostgres
from feature_catalog.schema import Base, ModelLine, ModelVersionRecord

pytestmark = pytest.mark.integration


@pytest.fixture
def empty_url(postgres_server: EmbeddedPostgres, database_url: str) -> str:
    name = f"{make_url(database_url).database}_empty"
    admin = create_engine(postgres_server.url("postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    admin.dispose()
    return postgres_server.url(name)


def test_migrations_lead_to_the_schema(engine: Engine) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, Base.metadata) == []


def test_checks_and_partial_indexes_are_those_of_the_schema(engine: Engine, empty_url: str) -> None:
    """What `compare_metadata` does not look at."""

    def facts(of: Engine) -> list[tuple[str, ...]]:
        with of.connect() as connection:
            rows = connection.execute(
                text(
                    "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) "
                    "FROM pg_constraint WHERE connamespace = 'public'::regnamespace "
                    "UNION SELECT tablename, indexname, indexdef FROM pg_indexes "
                    "WHERE schemaname = 'public' ORDER BY 1, 2"
                )
            )
            return [tuple(row) for row in rows if row[0] != "alembic_version"]

    created = connect(empty_url)
    Base.metadata.create_all(created)
    assert facts(engine) == facts(created)
    created.dispose()


def test_downgrade_leaves_nothing(engine: Engine) -> None:
    from alembic import command
    from alembic.config import Config

    from feature_catalog.database import MIGRATIONS

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    assert inspect(engine).get_table_names() == ["alembic_version"]


def _upgrade(url: str, barrier: "multiprocessing.synchronize.Barrier") -> None:
    engine = connect(url)
    barrier.wait()
    upgrade(engine)


def test_three_processes_upgrading_at_once_all_succeed(empty_url: str) -> None:
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(3)
    processes = [spawn.Process(target=_upgrade, args=(empty_url, barrier)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    engine = connect(empty_url)
    assert {"jobs", "model_versions"} <= set(inspect(engine).get_table_names())
    engine.dispose()


def test_a_database_of_a_newer_flint_is_refused(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseTooNew, match="another version of FLINT"):
        upgrade(engine)


def test_numbers_json_does_not_know_are_stored_as_null(engine: Engine) -> None:

    with Session(engine) as session, session.begin():
        session.add(ModelLine(name="line"))
        session.add(
            ModelVersionRecord(
                name="line",
                number=1,
                model="m",
                parameters_sha256=b"",
                metrics={"loss": math.nan, "metric": 0.5},
                strategy_state={"nested": [{"a": math.inf}]},
                release_ids=[],
            )
        )
    with engine.connect() as connection:
        row = connection.execute(text("SELECT metrics, strategy_state FROM model_versions")).one()
    assert row.metrics == {"loss": None, "metric": 0.5}
    assert row.strategy_state == {"nested": [{"a": None}]}


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("postgresql://nobody:secret@127.0.0.1:1/flint", "does not answer"),
        ("sqlite:///file.db", "is not a Postgres database"),
        ("not a url", "cannot be read"),
    ],
)
def test_an_unreachable_database_is_said_in_one_sentence_without_its_password(
    url: str, sentence: str
) -> None:
    with pytest.raises(DatabaseUnreachable, match=sentence) as caught:
        connect(url)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
