"""Figures at the head of a report, against sums over the tasks."""

import dataclasses
import math
import statistics

import pytest

from flint.reports.key_figures import key_figures
from flint.reports.run_data import RunData
from flint.reports.trials import MeanCurve, Spread, less_is_better, mean_curve, split_trials
from tests.flint.reports.synthetic_runs import (
    empty_run,
    make_run,
    plausible_run,
    trajectory_row,
)


def figures_of(run: RunData):
    return key_figures(run, split_trials(run))


def tasks_of(run, trial):
    return [row for row in run.tasks.to_pylist() if row["trial"] == trial]


@pytest.fixture(scope="module")
def run():
    return plausible_run(trials=3, aggregations=40)


def test_figures_are_means_and_ranges_over_trials(run):
    figures = figures_of(run)
    started = [len(tasks_of(run, trial)) for trial in range(3)]
    assert figures.tasks_started.mean == pytest.approx(statistics.fmean(started))
    assert (figures.tasks_started.least, figures.tasks_started.most) == (min(started), max(started))
    bytes_up = [sum(task["bytes_up"] for task in tasks_of(run, trial)) for trial in range(3)]
    assert figures.bytes_up.mean == pytest.approx(statistics.fmean(bytes_up))


def test_wasted_share_is_device_time_of_tasks_that_did_not_succeed(run):
    shares = []
    for trial in range(3):
        lasted = [(t["outcome"], t["ended_s"] - t["started_s"]) for t in tasks_of(run, trial)]
        wasted = math.fsum(d for outcome, d in lasted if outcome != "succeeded")
        shares.append(wasted / math.fsum(d for _, d in lasted))
    assert figures_of(run).wasted_share.mean == pytest.approx(statistics.fmean(shares))


def test_every_task_is_in_one_outcome(run):
    figures = figures_of(run)
    total = sum(spread.mean for spread in figures.outcomes.values())
    assert total == pytest.approx(figures.tasks_started.mean)


def test_a_run_without_a_summary_gets_its_figures_from_the_trajectory():
    trajectory = [
        trajectory_row(0, 0.0, metric=0.2),
        trajectory_row(1, 3600.0, metric=0.5, tasks_started=3, succeeded=2, failed=1),
        trajectory_row(2, 7200.0, metric=0.4, tasks_started=6, succeeded=4, failed=2,
                       device_s=7200.0, wasted_device_s=1800.0, bytes_up=10, bytes_down=20),
    ]  # fmt: skip
    figures = figures_of(make_run(trajectory=trajectory, summary={}))
    assert figures.virtual_hours.mean == 2.0
    assert figures.aggregations.mean == 2
    assert (figures.metric.mean, figures.best_metric.mean) == (0.4, 0.5)
    assert figures.succeeded_share.mean == pytest.approx(4 / 6)
    assert (figures.device_hours.mean, figures.wasted_share.mean) == (2.0, 0.25)
    assert (figures.bytes_up.mean, figures.bytes_down.mean) == (10, 20)


def test_without_a_summary_sums_are_those_over_the_tasks(run):
    bare = dataclasses.replace(run, summary={"metric_name": "auprc"})
    with_summary, without = figures_of(run), figures_of(bare)
    assert without.tasks_started == with_summary.tasks_started
    assert without.outcomes == with_summary.outcomes
    assert without.bytes_up == with_summary.bytes_up
    assert without.device_hours.mean == pytest.approx(with_summary.device_hours.mean)
    assert without.wasted_share.mean == pytest.approx(with_summary.wasted_share.mean)


def test_the_best_loss_is_the_least_whatever_the_summary_says():
    trajectory = [trajectory_row(v, v * 10.0, metric=m) for v, m in enumerate([0.9, 0.3, 0.5])]
    trials = [{"trial": 0, "metric": 0.5, "best_metric": 0.9}]
    run = make_run(trajectory=trajectory, summary={"trials": trials, "metric_name": "eval_loss"})
    assert figures_of(run).best_metric.mean == 0.3


@pytest.mark.parametrize(
    ("name", "is_loss"),
    [("auprc", False), ("eval_loss", True), ("rmse", True), ("mse-test", True), ("maegan", False)],
)
def test_losses_and_errors_are_better_when_less(name, is_loss):
    assert less_is_better(name) is is_loss


def test_an_empty_run_has_no_metric_and_no_shares():
    figures = figures_of(empty_run())
    assert figures.metric is None
    assert figures.wasted_share is None
    assert figures.succeeded_share is None
    assert figures.aggregations.mean == 0


def test_a_mean_of_equal_values_is_that_value():
    spread = Spread.of([0.1, 0.1, 0.1])
    assert (spread.mean, spread.least, spread.most, spread.count) == (0.1, 0.1, 0.1, 3)
    assert Spread.of([None, math.nan]) is None
    assert Spread.of([None, 2.0]).count == 1


def test_the_mean_curve_of_curves_with_the_same_points_has_these_points():
    import numpy as np

    x = np.array([0.0, 1.0, 5.0])
    curve = mean_curve([(x, x), (x, 3 * x)])
    assert isinstance(curve, MeanCurve)
    assert curve.x.tolist() == x.tolist()
    assert curve.mean.tolist() == [0.0, 2.0, 10.0]
    assert curve.least.tolist() == [0.0, 1.0, 5.0]
    assert curve.most.tolist() == [0.0, 3.0, 15.0]


def test_the_mean_curve_ends_where_the_first_curve_ends():
    import numpy as np

    long, short = np.array([0.0, 10.0]), np.array([1.0, 4.0])
    curve = mean_curve([(long, long), (short, short)])
    assert (curve.x[0], curve.x[-1]) == (1.0, 4.0)
    assert curve.mean == pytest.approx(curve.x)
    assert mean_curve([(long, long), (short + 20, short)]) is None
    assert mean_curve([]) is None
