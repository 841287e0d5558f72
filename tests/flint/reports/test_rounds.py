"""Which tasks belong to an aggregation, and how stale updates were, on tables written by hand."""

import numpy as np

from flint.reports.rounds import are_rounds, staleness_of, typical_window
from flint.reports.trials import split_trials
from tests.flint.reports.synthetic_runs import (
    make_run,
    plausible_run,
    task_row,
    trajectory_row,
)

VERSIONS = [trajectory_row(v, t) for v, t in enumerate([0.0, 10.0, 40.0, 60.0])]


def the_trial(tasks, versions=VERSIONS):
    (trial,) = split_trials(make_run(trajectory=versions, tasks=tasks))
    return trial


def asynchronous():
    return the_trial(
        [
            task_row(1, 0.0, 9.0, version=1, base_version=0),
            task_row(2, 0.0, 55.0, version=3, base_version=0),
            task_row(3, 12.0, 30.0, version=2, base_version=1),
            task_row(4, 38.0, 58.0, version=3, base_version=1, train_s=100.0),
            task_row(5, 41.0, 50.0, "interrupted", base_version=2),
            task_row(6, 5.0, 35.0, "interrupted", base_version=0),
            task_row(7, 59.0, 70.0, "over_committed", base_version=2),
        ]
    )


def test_staleness_is_the_versions_between_base_and_the_version_the_update_was_applied_to():
    assert sorted(staleness_of(asynchronous())) == [0.0, 0.0, 1.0, 2.0]


def test_the_typical_window_is_the_one_of_median_duration():
    window = typical_window(asynchronous())  # durations 10, 30, 20
    assert (window.version, window.begun_s, window.ended_s) == (3, 40.0, 60.0)
    assert window.duration_s == 20.0


def test_an_asynchronous_window_has_the_aggregated_and_those_lost_in_it_by_their_end():
    window = typical_window(asynchronous())
    assert not window.is_round
    assert window.boundaries_s[:, 0].tolist() == [41.0, 0.0, 38.0]  # tasks 5, 2, 4
    assert window.boundaries_s[:, 3].tolist() == [50.0, 55.0, 58.0]
    assert window.outcome.tolist() == [1, 0, 0]


def test_phases_are_cut_where_the_task_ended():
    window = typical_window(asynchronous())
    assert window.boundaries_s[2].tolist() == [38.0, 39.0, 58.0, 58.0]
    assert np.all(np.diff(window.boundaries_s, axis=1) >= 0)


def test_a_round_has_all_tasks_that_started_from_the_version_before():
    trial = the_trial(
        [
            task_row(1, 0.0, 9.0, version=1, base_version=0),
            task_row(2, 11.0, 30.0, version=2, base_version=1),
            task_row(3, 11.0, 40.0, "over_committed", base_version=1),
            task_row(4, 12.0, 20.0, "interrupted", base_version=1),
        ],
        VERSIONS[:3],
    )
    assert are_rounds(trial)
    window = typical_window(trial)  # of two windows the shorter: version 1
    assert window.version == 1
    again = the_trial(
        [task_row(n + 1, 11.0, 40.0, o, version=v, base_version=1) for n, (o, v) in enumerate(
            [("succeeded", 2), ("over_committed", None), ("interrupted", None)])],
        VERSIONS[:3],
    )  # fmt: skip
    window = typical_window(again)
    assert (window.version, window.is_round, window.outcome.tolist()) == (2, True, [0, 3, 1])


def test_without_knowledge_of_versions_there_is_no_window():
    trial = the_trial([task_row(1, 0.0, 9.0, version=None, base_version=None)])
    assert typical_window(trial) is None
    assert staleness_of(trial).size == 0
    assert not are_rounds(trial)


def test_a_plausible_asynchronous_run_has_windows_of_buffer_size():
    (trial,) = split_trials(plausible_run(aggregations=30, cohort=20))
    window = typical_window(trial)
    assert (window.outcome == 0).sum() == 20
