"""What a dry-run says of its pace."""

import pytest

from flint.simulation_progress import Expected, RunPace, in_words, resident_mb, share_done
from server.coordination.progress import JobProgress
from server.coordination.versions import JobTotals
from server.job import Stop


def progress(version: int, updates: int = 0) -> JobProgress:
    return JobProgress(
        version, None, None, JobTotals(0.0, updates, {"succeeded": updates}), 4, 0, 1
    )


def test_the_nearest_limit_says_how_much_is_done():
    stop = Stop(max_aggregations=100, max_updates=400, max_hours=10)
    assert share_done(stop, progress(10, updates=200), virtual_s=3600.0) == 0.5
    assert share_done(stop, progress(90, updates=200), virtual_s=3600.0) == 0.9
    assert share_done(stop, progress(101, updates=200), virtual_s=3600.0) == 1.0


def test_pace_and_time_to_go_are_those_of_the_last_seconds():
    pace = RunPace(Expected(Stop(max_aggregations=100), 2, "compiled kernel"))
    pace.see(0.0, 0, progress(0), 0.0)
    assert pace.tasks_per_s() is None
    assert pace.left_s() is None
    for second in range(5, 45, 5):
        pace.see(float(second), 0, progress(second, updates=10 * second), 0.0)
    assert pace.tasks_per_s() == pytest.approx(10.0)
    assert pace.left_s() == pytest.approx(160.0)  # 60 versions of this trial, 100 of the next


def test_another_trial_begins_a_pace_of_its_own():
    pace = RunPace(Expected(Stop(max_aggregations=10), 2, None))
    pace.see(0.0, 0, progress(9, updates=900), 0.0)
    pace.see(1.0, 1, progress(1, updates=10), 0.0)
    assert pace.tasks_per_s() is None
    pace.see(2.0, 1, progress(2, updates=20), 0.0)
    assert pace.tasks_per_s() == pytest.approx(10.0)


def test_without_limits_nothing_is_said_of_the_end():
    pace = RunPace()
    pace.see(0.0, 0, progress(1), 0.0)
    pace.see(1.0, 0, progress(2), 0.0)
    assert pace.left_s() is None


def test_times_to_go_are_told_roughly():
    assert [in_words(s) for s in (3.2, 99.0, 600.0, 7200.0)] == ["3 s", "99 s", "10 min", "2.0 h"]


def test_memory_in_use_is_that_of_a_python_process():
    found = resident_mb()
    assert found is None or 10 < found < 100_000
