"""Records cut off while this process trains from them: a sentence and exit code 2, no bus error."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from simulation.executors.cut_off_records import named_when_cut_off
from simulation.executors.local import LocalExecutor
from simulation.executors.records import ClientRecords
from tests.simulation.executors.child_processes import MODEL, ZEROS
from tests.simulation.executors.conftest import PLAN, make_tasks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="handled on Linux only")

CLIENTS, ROWS, FEATURES = 6, 100, 40


def file_of_records(path: Path) -> ClientRecords:
    """Records of `MODEL`: all inputs, then all labels."""
    rows = CLIENTS * ROWS
    np.random.default_rng(0).standard_normal(rows * (FEATURES + 1), np.float32).tofile(path)
    whole = np.memmap(path, np.float32, mode="r")
    x, y = whole[: rows * FEATURES].reshape(rows, FEATURES), whole[rows * FEATURES :].reshape(-1, 1)
    return ClientRecords(x, y, np.arange(CLIENTS) * ROWS, np.full(CLIENTS, ROWS), path)


class CutOffAfterTheCheck(ClientRecords):
    """The file is whole when an aggregation begins, and not when its clients are trained."""

    def require_whole(self) -> None:
        super().require_whole()
        assert self.path is not None
        os.truncate(self.path, 4096)


def main(what: str, path: Path) -> None:
    """What the tests below have done in another process."""
    records = file_of_records(path)
    if what == "training":
        held = (records.x, records.y, records.first_row, records.records)
        records = CutOffAfterTheCheck(*held, path)
        with named_when_cut_off(records, "s-7"):
            executor = LocalExecutor(MODEL, PLAN, records)
            executor.set_weights(1, ZEROS)
            executor.reduce(make_tasks(6, base_version=1))
    elif what == "another file":
        other = file_of_records(path.with_name("other"))
        with named_when_cut_off(records, "s-7"):
            os.truncate(path.with_name("other"), 0)
            other.x.sum()
    else:
        with named_when_cut_off(records, "s-7"):
            pass
        os.truncate(path, 0)
        records.x.sum()


def run(what: str, path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "faulthandler=0", "-m", __name__, what, str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_records_cut_off_within_an_aggregation_end_the_run_with_a_sentence(tmp_path):
    path = tmp_path / "records"
    done = run("training", path)
    assert done.returncode == 2
    assert done.stderr == (
        f"\nflint: the records file {path} was cut off, or its disk failed, while the run trained "
        "from it; put it back from a copy, or add its data set again, and go on with --resume s-7 "
        "[FLN-3056]\n"
    )


@pytest.mark.parametrize("what", ["another file", "afterwards"])
def test_other_bus_errors_have_the_effect_that_they_had(tmp_path, what):
    done = run(what, tmp_path / "records")
    assert done.returncode == -signal.SIGBUS
    assert "flint:" not in done.stderr


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
