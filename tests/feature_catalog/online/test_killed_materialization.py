"""A materialisation that is killed is gone on with where it was."""

import multiprocessing
import os
import signal
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from device_runtime.feature_values import encode_key
from feature_catalog.database import connect
from feature_catalog.online import OnlineStore, OnlineView
from feature_catalog.online import materialization as under_test
from feature_catalog.online.materialization import Sources, materialize
from feature_catalog.online.value_sets import list_value_sets
from tests.feature_catalog.online.clicks import (
    definitions,
    hours,
    row,
    write_parquet,
    write_table,
)

pytestmark = pytest.mark.integration


@pytest.fixture
def store(engine: Engine):
    found = OnlineStore(engine)
    yield found
    found.close()


def _killed_at(url: str, folder: Path, table: str | None, kill: tuple[int, str]) -> None:
    """Materialise, and kill the process once so many keys are written, or just before a commit."""
    under_test.CHUNK_ROWS = 2
    engine = connect(url)
    done, moment = kill
    if moment == "before commit":

        @event.listens_for(engine, "commit")
        def end_here(_connection):
            if end_here.armed:
                os.kill(os.getpid(), signal.SIGKILL)

        end_here.armed = False

    def progress(_what: str, keys: int, total: int | None) -> None:
        if "writing" in _what and keys == done:
            if moment == "before commit":
                end_here.armed = True
            else:
                os.kill(os.getpid(), signal.SIGKILL)

    materialize(
        engine,
        definitions(table=table),
        end=hours(50),
        sources=Sources(folder),
        progress=progress,
    )


@pytest.mark.parametrize(
    ("table", "kill"),
    [(None, (4, "before commit")), ("pairs", (4, "after commit"))],
)
def test_a_killed_run_is_gone_on_with_where_it_was(
    database_url, engine: Engine, store: OnlineStore, tmp_path, monkeypatch, table, kill
):
    rows = [row(f"u{i}", i, i, topic=f"t{i}") for i in range(9)]
    if table is None:
        write_parquet(tmp_path, rows)
    else:
        write_table(engine, rows)
    child = multiprocessing.get_context("spawn").Process(
        target=_killed_at, args=(database_url, tmp_path, table, kill)
    )
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    defined = definitions(table=table)
    (cut_off,) = list_value_sets(engine, defined)
    assert (cut_off.is_cut_off, cut_off.keys, cut_off.materialized_until) == (True, 4, None)

    monkeypatch.setattr(under_test, "CHUNK_ROWS", 2)
    told = []
    (done,) = materialize(
        engine,
        defined,
        end=hours(60),  # first what was cut off, then the rest
        sources=Sources(tmp_path),
        progress=lambda what, keys, total: told.append((what, keys, total)),
    )
    assert done.resumed_after == 4
    assert done.written == 5
    assert ("pairs: writing", 6, 9) in told
    assert ("pairs: writing", 2, 9) not in told
    (whole,) = list_value_sets(engine, defined)
    assert (whole.is_cut_off, whole.keys) == (False, 9)
    assert whole.materialized_until == hours(60)
    view = OnlineView.of(defined, "pairs")
    keys = [encode_key([i, f"u{i}"]) for i in range(9)]
    assert store.read(view, keys, at=hours(60)).values("topic") == [f"t{i}" for i in range(9)]


def test_a_run_cut_off_begins_anew_when_the_source_has_changed(
    database_url, engine: Engine, store: OnlineStore, tmp_path
):
    write_parquet(tmp_path, [row(f"u{i}", i, i, topic="old") for i in range(9)])
    child = multiprocessing.get_context("spawn").Process(
        target=_killed_at, args=(database_url, tmp_path, None, (4, "after commit"))
    )
    child.start()
    child.join(60)
    write_parquet(tmp_path, [row(f"u{i}", i, i, topic="corrected") for i in range(9)])
    (done,) = materialize(engine, definitions(), end=hours(50), sources=Sources(tmp_path))
    assert (done.resumed_after, done.written) == (0, 9)
    view = OnlineView.of(definitions(), "pairs")
    found = store.read(view, [encode_key([0, "u0"])], at=hours(60))
    assert found.values("topic") == ["corrected"]
