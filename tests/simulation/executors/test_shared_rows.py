import os
from pathlib import Path

import numpy as np

from simulation.executors.shared_rows import SharedRows


def test_what_one_side_writes_to_a_row_the_other_reads_in_any_order():
    ours = SharedRows.create(3_001, np.float32)
    theirs = SharedRows(os.dup(ours.descriptor), 3_001, np.float32)
    for number in (0, 1, 2, 3, 6, 7, 40):
        assert not theirs.row(number).any()
        ours.row(number)[:] = number + 1
    for number in (40, 7, 6, 3, 2, 1, 0):
        np.testing.assert_array_equal(theirs.row(number), np.full(3_001, number + 1, np.float32))
    ours.close()
    theirs.row(5)[0] = 1.0
    assert not theirs.row(4).any()
    theirs.close()


def test_rows_outlive_the_descriptor_and_have_no_name():
    rows = SharedRows.create(10, np.float64)
    row = rows.row(0)
    assert "memfd:" in str(Path(f"/proc/self/fd/{rows.descriptor}").readlink())
    rows.close()
    rows.close()
    row[:] = 2.0
    assert row.sum() == 20.0
