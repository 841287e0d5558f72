"""Times in the forms logs have them."""

import datetime as dt
from pathlib import Path

import pyarrow as pa
import pytest

from simulation.availability.instants import (
    LOCAL,
    NOT_A_TIME,
    UTC,
    UnusableLogColumn,
    read_instants,
)

MOMENT = dt.datetime(2025, 3, 24, 9, 30, tzinfo=dt.UTC)


def read(values, form="auto", kind=None):
    found = read_instants(pa.array(values, kind), form, column="start", path=Path("log.csv"))
    return list(zip(found.seconds.tolist(), found.kind.tolist(), strict=True))


@pytest.mark.parametrize(
    "value",
    [
        int(MOMENT.timestamp()),
        int(MOMENT.timestamp()) * 1000,
        MOMENT.timestamp(),
        MOMENT,
        "2025-03-24T09:30:00Z",
        "2025-03-24 11:30:00+02:00",
        "2025-03-24T09:30+0000",
        "2025-03-24T09:30:00.000000000Z",
        str(int(MOMENT.timestamp())),
        f"{int(MOMENT.timestamp())}000",
        " 2025-03-24T09:30:00Z ",
    ],
)
def test_one_moment_in_every_form_is_one_moment(value):
    assert read([value]) == [(MOMENT.timestamp(), UTC)]


def test_a_time_without_offset_is_of_a_local_clock():
    naive = MOMENT.replace(tzinfo=None)
    assert read(["2025-03-24T09:30:00", "2025-03-24 09:30"]) == [(MOMENT.timestamp(), LOCAL)] * 2
    assert read([naive]) == [(MOMENT.timestamp(), LOCAL)]


def test_what_is_no_time_is_marked_and_its_neighbours_are_read():
    texts = ["2025-02-30T10:00:00Z", "2025-03-24T09:30:00Z", "noon", "", None, "2025-03-24T25:00Z"]
    kinds = [kind for _, kind in read(texts)]
    assert kinds == [NOT_A_TIME, UTC, NOT_A_TIME, NOT_A_TIME, NOT_A_TIME, NOT_A_TIME]
    assert [kind for _, kind in read([1.0, float("nan"), None])] == [UTC, NOT_A_TIME, NOT_A_TIME]


def test_milliseconds_and_trace_seconds_are_taken_at_their_word():
    assert read([86_400_000], "epoch_ms") == [(86_400.0, UTC)]
    assert read([12.5], "trace") == [(12.5, UTC)]


def test_a_column_of_lists_is_refused():
    with pytest.raises(UnusableLogColumn, match="column start holds list"):
        read([[1, 2]])
