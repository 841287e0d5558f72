"""Runs compared at the best metric all reached, on trajectories written by hand."""

import pytest

from flint.reports.comparison import Comparison, Incomparable, compare
from flint.reports.trials import split_trials
from tests.flint.reports.synthetic_runs import make_run, trajectory_row


def run_of(*rows, metric_name="auprc", trial_of=lambda index: 0, **given):
    """Rows of (metric, virtual hours, tasks started, device hours)."""
    trajectory = [
        trajectory_row(
            index,
            hours * 3600.0,
            trial=trial_of(index),
            metric=metric,
            tasks_started=tasks,
            device_s=device_hours * 3600.0,
            bytes_up=tasks * 10,
        )
        for index, (metric, hours, tasks, device_hours) in enumerate(rows)
    ]
    run = make_run(
        trajectory=trajectory, summary={"trials": [], "metric_name": metric_name}, **given
    )
    return run, split_trials(run)


SLOW = run_of((0.1, 0, 0, 0), (0.3, 6, 100, 4), (0.35, 8, 150, 6), (0.5, 12, 200, 10))
FAST = run_of((0.1, 0, 0, 0), (0.2, 1, 50, 1), (0.4, 3, 300, 5), (0.39, 4, 400, 7))


def test_the_target_is_the_best_that_the_weakest_run_reached():
    found = compare([SLOW, FAST])
    assert isinstance(found, Comparison)
    assert found.target == 0.4


def test_costs_are_those_of_the_first_version_that_reached_it_and_ratios_to_the_first_run():
    slow, fast = compare([SLOW, FAST]).costs
    assert (slow.virtual_hours.mean, fast.virtual_hours.mean) == (12.0, 3.0)
    assert (slow.aggregations.mean, fast.aggregations.mean) == (3, 2)
    assert (slow.tasks_started.mean, fast.tasks_started.mean) == (200, 300)
    assert (slow.device_hours.mean, fast.device_hours.mean) == (10.0, 5.0)
    assert (slow.speed_up, slow.tasks_ratio, slow.device_hours_ratio) == (1.0, 1.0, 1.0)
    assert (fast.speed_up, fast.tasks_ratio, fast.device_hours_ratio) == (4.0, 1.5, 0.5)
    assert fast.bytes_up.mean == 3000


def test_with_a_loss_less_is_better():
    one = run_of((0.9, 0, 0, 0), (0.5, 2, 1, 1), (0.3, 4, 2, 2), metric_name="loss")
    two = run_of((0.9, 0, 0, 0), (0.45, 1, 1, 1), (0.4, 8, 4, 2), metric_name="loss")
    found = compare([one, two])
    assert found.target == 0.4
    assert [cost.virtual_hours.mean for cost in found.costs] == [4.0, 8.0]


def test_every_trial_reaches_the_target_and_costs_are_means_over_trials():
    trials = run_of(
        (0.1, 0, 0, 0), (0.4, 2, 10, 1), (0.1, 0, 0, 0), (0.3, 1, 5, 1), (0.6, 4, 30, 3),
        trial_of=lambda index: int(index >= 2),
    )  # fmt: skip
    found = compare([trials, SLOW])
    assert found.target == 0.4
    assert found.costs[0].virtual_hours.mean == 3.0
    assert (found.costs[0].virtual_hours.least, found.costs[0].virtual_hours.most) == (2.0, 4.0)


def test_a_target_already_met_at_the_start_has_no_ratios():
    started = run_of((0.1, 0, 0, 0), (0.05, 3, 10, 1))
    costs = compare([started, SLOW]).costs
    assert [cost.virtual_hours.mean for cost in costs] == [0.0, 0.0]
    assert [cost.speed_up for cost in costs] == [None, None]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (run_of((0.4, 1, 1, 1), metric_name="accuracy"), "different metrics"),
        (run_of((None, 1, 1, 1)), "Not every run measured"),
    ],
)
def test_what_cannot_be_compared_says_why(other, said):
    found = compare([SLOW, other])
    assert isinstance(found, Incomparable)
    assert said in found.reason


def test_runs_without_metric_cannot_be_compared():
    one = run_of((None, 1, 1, 1), metric_name=None)
    assert isinstance(compare([one, one]), Incomparable)
