"""Ten phones, a pencil and a sheet of paper: two jobs reproduced event by event.

Every model or update takes a second over 8 kbit/s; phones check in every 100 s without jitter.
What a phone does for a task: download, records times seconds per example, upload.

====== ========================= ========================= ==========================
phone  available                 one task takes            so
====== ========================= ========================= ==========================
c0     0 - 1000                  1 + 10 x 1 + 2 = 13 s
c1     0 - 1000                  1 + 10 x 1 + 2 = 13 s     as c0, at the same times
c2     0 - 13                    1 + 15 x 1 + 1 = 17 s     its window ends first
c3     0 - 1000                  1 + 20 x 2 + 4 = 45 s     20 of its 30 records
c4     5 - 1000                  1 +  8 x 1 + 1 = 10 s     opens later
c5     0 - 1000                  1 + 10 x 20 + 4 = 205 s   stale, over-committed
c6     0 - 1000                  1 + 10 x 30 + 1 = 302 s   meets every deadline
c7     560 - 700                 1 + 12 x 4 + 1 = 50 s     opens much later
c8     90 - 95 and 300 - 1000    1 +  3 x 1 + 1 = 5 s      fits its window to the second
c9     13 - 1000                 1 +  5 x 1 + 1 = 7 s      comes as c0 and c1 are done
====== ========================= ========================= ==========================
"""

import pytest

from tests.simulation.small_worlds import (
    BYTES,
    Phone,
    make_dry_run,
    make_job,
    rows,
    system_only,
    with_phones,
)

DAY = (0, 1000)
TEN_PHONES = [
    Phone([DAY], up_kbps=4),
    Phone([DAY], up_kbps=4),
    Phone([(0, 13)], records=15),
    Phone([DAY], per_example_s=2, records=30, up_kbps=2),
    Phone([(5, 1000)], records=8),
    Phone([DAY], per_example_s=20, up_kbps=2),
    Phone([DAY], per_example_s=30),
    Phone([(560, 700)], per_example_s=4, records=12),
    Phone([(90, 95), (300, 1000)], records=3),
    Phone([(13, 1000)], records=5),
]
TASK_COLUMNS = (
    *("task", "client", "base_version", "version", "started_s", "ended_s", "outcome", "reason"),
    *("bytes_down", "bytes_up"),
)
ROW_COLUMNS = (
    *("version", "virtual_s", "updates", "staleness_mean", "staleness_max", "tasks_started"),
    *("succeeded", "interrupted", "stale", "over_committed", "failed", "in_flight", "available"),
)
WON = ("succeeded", "aggregated", BYTES, BYTES)
NO_WINDOW = ("interrupted", "window", BYTES, 0)
LATE_ROUND = ("over_committed", "round_closed")


@pytest.fixture(scope="module")
def fedbuff():
    """A buffer of 3, four tasks at a time; 180 s between two tasks of a phone; until 00:10."""
    job = make_job(
        {"name": "fedbuff", "buffer_size": 3, "concurrency": 4, "max_staleness": 1},
        client={"max_records": 20, "task_timeout_s": 250.0, "optimizer": {"learning_rate": 0.1}},
        participation={
            "state": {"allowed_hours": "00:00-00:10"},
            "user": {"min_hours_between_participations": 0.05},
        },
        stop={"max_hours": 0.2},
    )
    return system_only(make_dry_run(TEN_PHONES, job)).run()


def test_fedbuff_starts_and_ends_the_tasks_that_the_pencil_says(fedbuff):
    assert rows(fedbuff.tasks, *TASK_COLUMNS) == [
        # Four slots; who comes at 0 comes in order of client. c5 and c6 come back at 100.
        (1, 0, 0, 1, 0.0, 13.0, *WON),
        (2, 1, 0, 1, 0.0, 13.0, *WON),
        (3, 2, 0, None, 0.0, 13.0, *NO_WINDOW),
        (4, 3, 0, 2, 0.0, 45.0, *WON),  # one version late
        # At 5 c4 finds no slot and comes back at 105. At 13 three make room before c9 comes.
        (5, 9, 0, 1, 13.0, 20.0, *WON),  # the third: version 1 at 20
        (6, 8, 1, 2, 90.0, 95.0, *WON),  # needs its window to the last moment
        (7, 5, 1, None, 100.0, 305.0, "stale", "base_version", BYTES, BYTES),
        (8, 6, 1, None, 100.0, 350.0, "interrupted", "deadline", BYTES, 0),
        (9, 4, 1, 2, 105.0, 115.0, *WON),  # with tasks 4 and 6: version 2 at 115
        # 180 s after 13, c0 and c1 come again. c9 rests until 200 and finds no slot: 300.
        (10, 0, 2, 3, 193.0, 206.0, *WON),
        (11, 1, 2, 3, 193.0, 206.0, *WON),
        (12, 3, 2, 3, 225.0, 270.0, *WON),  # version 3 at 270
        (13, 4, 3, 4, 295.0, 305.0, *WON),
        (14, 8, 3, 4, 300.0, 305.0, *WON),  # before c9, which comes at the same time: 400
        # At 305 task 7 is heard of before 13 and 14: it is of version 1, live are 2 and 3.
        (15, 0, 3, 4, 386.0, 399.0, *WON),  # version 4 at 399 ...
        (16, 1, 3, 5, 386.0, 399.0, *WON),  # ... and, at the same time, the first of the next
        (17, 9, 4, 5, 400.0, 407.0, *WON),
        (18, 3, 4, 5, 450.0, 495.0, *WON),  # version 5 at 495, with one update of version 3
        (19, 6, 4, None, 450.0, 600.0, *NO_WINDOW),  # the allowed hours end
        (20, 4, 4, None, 485.0, 495.0, "over_committed", "job_ended", BYTES, BYTES),
        (21, 5, 4, None, 485.0, 600.0, *NO_WINDOW),
        (22, 7, 5, None, 560.0, 600.0, *NO_WINDOW),
        (23, 0, 5, None, 579.0, 592.0, "over_committed", "job_ended", BYTES, BYTES),
        # c1, c8 and c9 come at 579, 585 and 587 and find no slot; nobody may come after 600.
    ]


def test_fedbuff_aggregates_when_the_pencil_says(fedbuff):
    assert rows(fedbuff.trajectory, *ROW_COLUMNS) == [
        (0, 0.0, 0, None, None, 0, 0, 0, 0, 0, 0, 0, 6),
        (1, 20.0, 3, 0.0, 0, 5, 3, 1, 0, 0, 0, 1, 7),
        (2, 115.0, 3, 1 / 3, 1, 9, 6, 1, 0, 0, 0, 2, 7),
        (3, 270.0, 3, 0.0, 0, 12, 9, 1, 0, 0, 0, 2, 7),
        (4, 399.0, 3, 0.0, 0, 16, 12, 2, 1, 0, 0, 1, 8),
        (5, 495.0, 3, 1 / 3, 1, 21, 15, 2, 1, 0, 0, 3, 8),
    ]
    assert "no client can check in any more" in fedbuff.stop_reason
    assert fedbuff.virtual_s == 600.0


def test_fedbuff_spends_the_seconds_and_bytes_that_the_pencil_says(fedbuff):
    *_, last = rows(fedbuff.trajectory, "device_s", "wasted_device_s", "bytes_down", "bytes_up")
    # Ended by 495, in order of task: all but 19, 20 and 21.
    useful = 13 + 13 + 45 + 7 + 5 + 10 + 13 + 13 + 45 + 10 + 5 + 13 + 13 + 7 + 45
    wasted = 13 + 205 + 250
    assert last == (useful + wasted, wasted, 18 * BYTES, 16 * BYTES)


@pytest.fixture(scope="module")
def fedavg():
    """Rounds of 3 out of 5, or what is there after 60 s if it is 2; c2 and c7 have other hours."""
    job = make_job(
        {
            **{"name": "fedavg", "cohort_size": 3, "over_commitment": 1.5, "min_updates": 2},
            "round_deadline_s": 60.0,
        },
        client={"max_records": 20, "task_timeout_s": 250.0, "optimizer": {"learning_rate": 0.1}},
        stop={"max_aggregations": 4},
    )
    phones = with_phones(
        TEN_PHONES, c2=Phone([(0, 13), (150, 170)], records=15), c7=Phone([(130, 180)], records=3)
    )
    return system_only(make_dry_run(phones, job)).run()


def test_fedavg_starts_and_ends_the_tasks_that_the_pencil_says(fedavg):
    assert rows(fedavg.tasks, *TASK_COLUMNS) == [
        # Round 1, from 0: five slots. c4, c6 and c9 find none and come back at 105, 100 and 113.
        (1, 0, 0, 1, 0.0, 13.0, *WON),
        (2, 1, 0, 1, 0.0, 13.0, *WON),
        (3, 2, 0, None, 0.0, 13.0, *NO_WINDOW),
        (4, 3, 0, 1, 0.0, 45.0, *WON),  # the third: version 1 at 45
        (5, 5, 0, None, 0.0, 60.0, *LATE_ROUND, BYTES, 0),  # works on until its deadline
        # Round 2, from 45.
        (6, 8, 1, None, 90.0, 95.0, "failed", "round_abandoned", BYTES, BYTES),
        (7, 6, 1, None, 100.0, 160.0, *LATE_ROUND, BYTES, 0),
        # At 105 c4 comes before the round's deadline is noticed; one update is too few.
        (8, 4, 1, None, 105.0, 115.0, *LATE_ROUND, BYTES, BYTES),
        # Round 3, from 105, again of version 1.
        (9, 0, 1, 2, 113.0, 126.0, *WON),
        (10, 1, 1, 2, 113.0, 126.0, *WON),  # the third: version 2 at 126
        (11, 9, 1, 2, 113.0, 120.0, *WON),
        # Round 4, from 126.
        (12, 7, 2, 3, 130.0, 135.0, *WON),
        (13, 3, 2, None, 145.0, 190.0, *LATE_ROUND, BYTES, BYTES),
        (14, 2, 2, 3, 150.0, 167.0, *WON),
        (15, 5, 2, None, 160.0, 220.0, *LATE_ROUND, BYTES, 0),
        # At 186 the deadline takes the two that are there: version 3. Round 5, from 186.
        (16, 4, 3, 4, 215.0, 225.0, *WON),
        (17, 9, 3, 4, 220.0, 227.0, *WON),
        (18, 0, 3, 4, 226.0, 239.0, *WON),  # the third: version 4 at 239
        (19, 1, 3, None, 226.0, 239.0, *LATE_ROUND, BYTES, BYTES),  # done at the same time
    ]


def test_fedavg_aggregates_when_the_pencil_says(fedavg):
    assert rows(fedavg.trajectory, *ROW_COLUMNS) == [
        (0, 0.0, 0, None, None, 0, 0, 0, 0, 0, 0, 0, 6),
        (1, 45.0, 3, 0.0, 0, 5, 3, 1, 0, 1, 0, 1, 7),
        (2, 126.0, 3, 0.0, 0, 11, 6, 1, 0, 3, 1, 1, 7),
        (3, 186.0, 2, 0.0, 0, 15, 8, 1, 0, 5, 1, 2, 7),
        (4, 239.0, 3, 0.0, 0, 19, 11, 1, 0, 6, 1, 1, 7),
    ]
    assert fedavg.stop_reason == "max_aggregations 4 reached"
    assert fedavg.virtual_s == 239.0


def test_fedavg_spends_the_seconds_and_bytes_that_the_pencil_says(fedavg):
    *_, last = rows(fedavg.trajectory, "device_s", "wasted_device_s", "bytes_down", "bytes_up")
    useful = 13 + 13 + 45 + 13 + 13 + 7 + 5 + 17 + 10 + 7 + 13
    wasted = 13 + 60 + 5 + 60 + 10 + 45 + 60
    assert last == (useful + wasted, wasted, 18 * BYTES, 14 * BYTES)
