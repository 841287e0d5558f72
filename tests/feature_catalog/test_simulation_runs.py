"""Simulation runs: found again, gone on with, ended once, and never half-written."""

import contextlib
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine

from feature_catalog.blobs import BlobStore, BlobStoreUnreachable, CorruptBlob
from feature_catalog.simulation_runs import (
    NewSimulationRun,
    RunInput,
    SimulationRunDriven,
    SimulationRunEnded,
    SimulationRuns,
    UnknownRunFile,
    UnknownSimulationRun,
)

pytestmark = pytest.mark.integration

RUN = NewSimulationRun(
    name="ads",
    kind="job",
    job_json='{"name": "ads"}',
    environment_json='{"dataset":  "clicks"}',
    inputs={"dataset": RunInput("clicks", 2, "ab" * 32), "bandwidth": RunInput("b.csv", None, "")},
    seed=2**63 - 1,
    trials=3,
    executors=2,
    code_version="0.1.0",
    versions={"numpy": "2.4"},
)


@pytest.fixture
def runs(engine: Engine, blobs: BlobStore) -> SimulationRuns:
    return SimulationRuns(engine, blobs)


def stored_blobs(tmp_path: Path) -> int:
    return sum(path.is_file() for path in (tmp_path / "blobs").rglob("*"))


def test_a_new_run_is_kept_as_it_was_given(runs: SimulationRuns) -> None:
    row = runs.create(RUN)
    assert row.run_id.startswith("s-")
    assert len(row.run_id) == 14
    assert {name: getattr(row, name) for name in NewSimulationRun.__slots__} == {
        name: getattr(RUN, name) for name in NewSimulationRun.__slots__
    }
    assert (row.status, row.summary, row.files, row.detail) == ("running", {}, {}, "")
    assert (row.checkpoint_sha256, row.finished_at) == (None, None)
    assert runs.list() == (row,)


def test_a_run_is_found_by_id_beginning_of_id_or_name(runs: SimulationRuns) -> None:
    first, second, other = (runs.create(replace(RUN, name=n)) for n in ("ads", "ads", "irc"))
    assert runs.get(first.run_id) == first
    length = next(n for n in range(3, 15) if not second.run_id.startswith(first.run_id[:n]))
    if not other.run_id.startswith(first.run_id[:length]):
        assert runs.get(first.run_id[:length]) == first
    assert runs.get("ads") == second
    assert runs.get("irc") == other
    assert [row.run_id for row in runs.list()] == [first.run_id, second.run_id, other.run_id]


def test_what_names_no_run_is_answered_with_what_there_is(runs: SimulationRuns) -> None:
    with pytest.raises(UnknownSimulationRun, match="there are none yet: start one with"):
        runs.get("ads")
    row = runs.create(RUN)
    runs.create(RUN)
    with pytest.raises(UnknownSimulationRun, match=r"did you mean ads\?"):
        runs.get("asd")
    with pytest.raises(UnknownSimulationRun, match="give more of the id"):
        runs.get("s-")
    with pytest.raises(UnknownSimulationRun, match=row.run_id):
        runs.get("s-zzzzzzzzzzzz")
    with pytest.raises(UnknownSimulationRun, match="flint runs"):
        runs.save_checkpoint("s-000000000000", b"")


def test_only_the_newest_checkpoint_is_kept(runs: SimulationRuns, tmp_path: Path) -> None:
    row = runs.create(RUN)
    assert runs.load_checkpoint(row) is None
    for state in (b"one", b"two", b"two", b"three"):
        runs.save_checkpoint(row.run_id, state)
        assert runs.load_checkpoint(runs.get(row.run_id)) == state
        assert stored_blobs(tmp_path) == 1


def test_equal_checkpoints_of_two_runs_are_two_blobs(runs: SimulationRuns) -> None:
    first, second = runs.create(RUN), runs.create(RUN)
    for row in (first, second):
        runs.save_checkpoint(row.run_id, b"state")
    runs.save_checkpoint(first.run_id, b"later state")
    assert runs.load_checkpoint(runs.get(second.run_id)) == b"state"
    confused = replace(runs.get(second.run_id), run_id=first.run_id)
    with pytest.raises(CorruptBlob, match="another run's"):
        runs.load_checkpoint(confused)


def test_a_finished_run_has_its_files_and_no_checkpoint(
    runs: SimulationRuns, tmp_path: Path
) -> None:
    row = runs.create(RUN)
    runs.save_checkpoint(row.run_id, b"state")
    (tmp_path / "tasks.parquet").write_bytes(b"tasks")
    files = {"trajectory": b"trajectory", "tasks": tmp_path / "tasks.parquet"}
    finished = runs.finish(row.run_id, {"trials": [{"metric": math.nan}]}, files)
    assert finished == runs.get(row.run_id)
    assert finished.status == "finished"
    assert finished.finished_at is not None
    assert finished.summary == {"trials": [{"metric": None}]}
    assert runs.file(finished, "trajectory") == b"trajectory"
    assert runs.file(finished, "tasks") == b"tasks"
    assert runs.load_checkpoint(finished) is None
    assert stored_blobs(tmp_path) == 2
    with pytest.raises(UnknownRunFile, match="it has tasks, trajectory"):
        runs.file(finished, "population")
    with pytest.raises(UnknownRunFile, match="it is running"):
        runs.file(row, "tasks")


def test_a_run_ends_once(runs: SimulationRuns) -> None:
    row = runs.create(RUN)
    runs.finish(row.run_id, {}, {})
    with pytest.raises(SimulationRunEnded, match="is finished"):
        runs.finish(row.run_id, {}, {})
    with pytest.raises(SimulationRunEnded):
        runs.fail(row.run_id, "too late")
    with pytest.raises(SimulationRunEnded):
        runs.save_checkpoint(row.run_id, b"state")
    with pytest.raises(SimulationRunEnded), runs.driving(row.run_id):
        pass


def test_files_that_cannot_be_stored_leave_the_run_as_it_was(
    runs: SimulationRuns, engine: Engine, tmp_path: Path
) -> None:
    row = runs.create(RUN)
    (tmp_path / "in-the-way").write_text("a file")
    broken = SimulationRuns(engine, BlobStore(str(tmp_path / "in-the-way" / "blobs")))
    with pytest.raises(BlobStoreUnreachable):
        broken.finish(row.run_id, {}, {"trajectory": b"trajectory"})
    assert runs.get(row.run_id) == row


def test_a_failed_run_says_why_and_goes_on_from_its_checkpoint(runs: SimulationRuns) -> None:
    row = runs.create(RUN)
    runs.save_checkpoint(row.run_id, b"state")
    runs.fail(row.run_id, "the disk is full")
    failed = runs.get(row.run_id)
    assert (failed.status, failed.detail) == ("failed", "the disk is full")
    assert failed.finished_at is not None
    with runs.driving(row.run_id):
        again = runs.get(row.run_id)
        assert (again.status, again.detail, again.finished_at) == ("running", "", None)
        assert runs.load_checkpoint(again) == b"state"


def test_one_process_drives_a_run_and_a_killed_one_does_not_block(
    runs: SimulationRuns, database_url: str, tmp_path: Path
) -> None:
    row = runs.create(RUN)
    program = (
        "import sys, time\n"
        "from feature_catalog.blobs import BlobStore\n"
        "from feature_catalog.database import connect\n"
        "from feature_catalog.simulation_runs import SimulationRuns\n"
        "runs = SimulationRuns(connect(sys.argv[1]), BlobStore(sys.argv[2]))\n"
        "with runs.driving(sys.argv[3]):\n"
        "    print('driving', flush=True)\n"
        "    time.sleep(600)\n"
    )
    arguments = [sys.executable, "-c", program, database_url, str(tmp_path / "blobs"), row.run_id]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "driving\n"
        assert runs.driven() == {row.run_id}
        with pytest.raises(SimulationRunDriven), runs.driving(row.run_id):
            pass
        os.kill(other.pid, signal.SIGKILL)
    _drive_when_free(runs, row.run_id)
    assert runs.driven() == frozenset()
    others = [runs.create(RUN).run_id for _ in range(5)]  # ids hash to both signs
    with contextlib.ExitStack() as driving:
        for run_id in (row.run_id, *others):  # the claim was given back
            driving.enter_context(runs.driving(run_id))
        assert runs.driven() == {row.run_id, *others}
    assert runs.driven() == frozenset()


def _drive_when_free(runs: SimulationRuns, run_id: str) -> None:
    # Postgres notices the death of its client within moments; the test's own limit ends the wait.
    while True:
        try:
            with runs.driving(run_id):
                return
        except SimulationRunDriven:
            continue
