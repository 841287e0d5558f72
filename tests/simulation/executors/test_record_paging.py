"""Records that are larger than what may be mapped: read ahead, let go of, never cut off."""

import ctypes
import mmap
import os
import pickle
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from simulation.executors.executor import TrainingTask
from simulation.executors.local import LocalExecutor
from simulation.executors.processes import ProcessExecutors
from simulation.executors.record_paging import RecordPaging
from simulation.executors.records import ClientRecords
from simulation.executors.whole_files import UnusableRecords
from tests.simulation.executors.child_processes import MODEL, ZEROS
from tests.simulation.executors.conftest import PLAN, make_tasks
from tests.simulation.executors.contract import assert_same

MB = 2**20
ROWS_A_CLIENT = 256
ROW_BYTES = 1028


def file_of(path: Path, clients: int, *, sparse: bool = True) -> ClientRecords:
    """Records of 256 features; all inputs, then all labels."""
    rows = clients * ROWS_A_CLIENT
    with path.open("wb") as file:
        if sparse:
            file.truncate(rows * ROW_BYTES)
        else:
            file.write(np.random.default_rng(0).bytes(rows * ROW_BYTES))
            file.flush()
            os.fsync(file.fileno())
    whole = np.memmap(path, np.float32, mode="r")
    x, y = whole[: rows * 256].reshape(rows, 256), whole[rows * 256 :].reshape(rows, 1)
    first_row = np.arange(clients) * ROWS_A_CLIENT
    return ClientRecords(x, y, first_row, np.full(clients, ROWS_A_CLIENT), path)


def mapped_bytes() -> int:
    """Of files, that this process has in memory."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssFile:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel does not say")


def tasks_on(clients) -> list[TrainingTask]:
    tasks = make_tasks(len(clients))
    return [replace(t, data_client=int(c)) for t, c in zip(tasks, clients, strict=True)]


def test_what_is_mapped_stays_bounded_over_a_file_many_times_as_large(tmp_path):
    records = file_of(tmp_path / "large", clients=800)  # 211 MB
    paging = RecordPaging(records, newest=ROWS_A_CLIENT, resident_bytes=32 * MB)
    before, most = mapped_bytes(), 0
    for clients in np.split(np.arange(800), 40):
        with paging.slice_of(tasks_on(clients)):
            for client in clients:
                records.of(int(client))[0].sum()
            most = max(most, mapped_bytes() - before)
    assert 4 * MB < most < 40 * MB


def cached_pages(column: np.ndarray) -> int:
    """Pages of a mapped array that are in the page cache."""
    start = column.ctypes.data - column.ctypes.data % mmap.PAGESIZE
    size = column.ctypes.data + column.nbytes - start
    found = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    assert ctypes.CDLL(None).mincore(ctypes.c_void_p(start), ctypes.c_size_t(size), found) == 0
    return sum(each & 1 for each in found)


def test_rows_of_tasks_to_come_are_read_without_being_touched(tmp_path):
    records = file_of(tmp_path / "cold", clients=40, sparse=False)
    with records.path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    wanted, others = records.of(3)[0], records.of(30)[0]
    if cached_pages(wanted):
        pytest.skip("files here are kept in memory")
    paging = RecordPaging(records, newest=ROWS_A_CLIENT, resident_bytes=MB)
    paging.expect(np.array([3, 5, 3]))
    deadline_s = time.monotonic() + 20
    while cached_pages(wanted) < wanted.nbytes // mmap.PAGESIZE:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    assert cached_pages(others) == 0


def test_paging_changes_no_bit_of_what_is_trained(mapped):
    tasks = [replace(t, data_client=t.data_client % 4) for t in make_tasks(12, base_version=1)]
    whole, paged = (LocalExecutor(MODEL, PLAN, mapped, resident_bytes=n) for n in (None, 0))
    for executor in (whole, paged):
        executor.set_weights(1, ZEROS)
    for _ in range(2):
        assert_same(paged.reduce(tasks), whole.reduce(tasks))
    assert RecordPaging(mapped, 400, resident_bytes=0).is_paged


def test_records_that_are_no_mapping_of_their_file_are_never_let_go_of(mapped):
    copied = replace(mapped, x=mapped.x.copy())
    assert not RecordPaging(copied, 400, resident_bytes=0).is_paged


@pytest.mark.parametrize("found", [None, 100])
def test_a_file_that_is_missing_or_cut_off_is_refused_before_anything_is_trained(mapped, found):
    whole = mapped.path.stat().st_size
    executor = LocalExecutor(MODEL, PLAN, mapped)
    executor.set_weights(1, ZEROS)
    if found is None:
        mapped.path.unlink()
        wanted = rf"of {whole} bytes cannot be opened \(No such file"
    else:
        os.truncate(mapped.path, found)
        wanted = rf"is cut off: it has {found} of {whole} bytes; put it back"
    for use in (lambda: executor.reduce(make_tasks(1)), lambda: pickle.loads(pickle.dumps(mapped))):
        with pytest.raises(UnusableRecords, match=wanted):
            use()
    with pytest.raises(UnusableRecords, match=wanted):
        ProcessExecutors(2, MODEL, PLAN, mapped)
