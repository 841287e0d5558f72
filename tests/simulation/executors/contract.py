"""What every `Executor` that trains must do; each gives an ``executor`` fixture."""

import math
from dataclasses import replace

import numpy as np
import pytest

from simulation.executors import Reduced
from tests.simulation.executors.conftest import PLAN, RECORDS, make_tasks


def assert_same(found: Reduced, wanted: Reduced) -> None:
    """To the bit, statistics and sums."""
    assert list(found.statistics) == list(wanted.statistics)
    assert len(found.sums) == len(wanted.sums)
    for ours, theirs in zip(found.sums, wanted.sums, strict=True):
        assert (ours.base_version, ours.weight, ours.task_ids) == (
            theirs.base_version,
            theirs.weight,
            theirs.task_ids,
        )
        np.testing.assert_array_equal(ours.total, theirs.total)


class ExecutorContract:
    meets_none_in_step = 2
    """Step that meets logits which are no numbers, when the first has left none behind."""

    @pytest.fixture(autouse=True)
    def _known_versions(self, executor, weights):
        for version in (1, 2, 3):
            executor.set_weights(version, weights(version))

    def test_training_early_in_any_order_gives_the_bits_of_training_when_summed(self, executor):
        tasks = make_tasks()
        lazy = executor.reduce(tasks)
        statistics = executor.train(tasks[7:2:-1])
        assert [s.task_id for s in statistics] == [t.task_id for t in tasks[7:2:-1]]
        assert executor.train(tasks[4:9]) is not None
        assert_same(executor.reduce(tasks), lazy)
        assert {s.task_id: s for s in lazy.statistics}[statistics[0].task_id] == statistics[0]

    def test_there_is_one_sum_a_base_version_with_the_weights_of_its_tasks(self, executor):
        tasks = make_tasks()
        reduced = executor.reduce(tasks)
        assert [s.base_version for s in reduced.sums] == [1, 2, 3]
        for partial in reduced.sums:
            mine = {t.task_id: t for t in tasks if t.base_version == partial.base_version}
            assert sorted(partial.task_ids) == sorted(mine)
            assert partial.weight == pytest.approx(sum(t.weight for t in mine.values()))

    def test_sums_are_weighted_sums_of_single_updates(self, executor):
        tasks = make_tasks()
        reduced = executor.reduce(tasks)
        for partial in reduced.sums:
            expected = sum(
                np.float64(t.weight)
                * executor.reduce([replace(t, weight=1.0)]).sums[0].total.astype(np.float64)
                for t in tasks
                if t.base_version == partial.base_version
            )
            np.testing.assert_allclose(partial.total, expected, atol=1e-5)

    def test_statistics_are_those_of_the_update(self, executor):
        tasks = [replace(t, weight=1.0) for t in make_tasks()]
        reduced = executor.reduce(tasks)
        assert [s.task_id for s in reduced.statistics] == [t.task_id for t in tasks]
        for task, statistics in zip(tasks, reduced.statistics, strict=True):
            alone = executor.reduce([task])
            norm = np.linalg.norm(alone.sums[0].total.astype(np.float64))
            assert statistics.update_norm == pytest.approx(norm, rel=1e-6)
            expected = min(RECORDS[task.data_client], PLAN.max_records)
            assert statistics.num_examples == expected
            assert statistics.is_finite
            assert statistics.loss_after < statistics.loss_before

    def test_updates_that_left_the_numbers_are_flagged_and_not_summed(self, executor):
        tasks = make_tasks(8, versions=2)
        tasks[3] = replace(tasks[3], learning_rate=1e30)
        tasks[6] = replace(tasks[6], learning_rate=math.inf)
        for reduced in (executor.reduce(tasks), self._eager(executor, tasks)):
            assert [s.is_finite for s in reduced.statistics] == [i not in (3, 6) for i in range(8)]
            assert reduced.statistics[6].diverged_step == self.meets_none_in_step
            kept = [t for i, t in enumerate(tasks) if i not in (3, 6)]
            assert sorted(i for s in reduced.sums for i in s.task_ids) == [t.task_id for t in kept]
            assert sum(s.weight for s in reduced.sums) == pytest.approx(sum(t.weight for t in kept))
            assert all(np.isfinite(s.total).all() for s in reduced.sums)

    def test_a_version_without_a_finite_update_has_no_sum(self, executor):
        (task,) = make_tasks(1)
        assert executor.reduce([replace(task, learning_rate=math.inf)]).sums == ()
        assert executor.reduce([]).sums == ()

    def test_versions_that_are_not_known_or_no_longer_are_refused(self, executor, weights):
        with pytest.raises(KeyError):
            executor.reduce(make_tasks(1, base_version=9))
        executor.set_weights(9, weights(9))
        executor.reduce(make_tasks(1, base_version=9))
        executor.forget_weights(before=9)
        executor.reduce(make_tasks(1, base_version=9))
        with pytest.raises(KeyError):
            executor.train(make_tasks(1, base_version=3))

    def test_an_update_is_kept_until_it_is_summed_or_forgotten(self, executor, weights):
        """Kept: other weights of the same version do not change it any more."""
        tasks = make_tasks(2, base_version=1)
        before = executor.reduce(tasks)
        executor.train(tasks)
        executor.set_weights(1, weights(17))
        assert_same(executor.reduce(tasks), before)
        after = executor.reduce(tasks)
        assert list(after.statistics) != list(before.statistics)

        executor.train(tasks)
        executor.set_weights(1, weights(1))
        executor.forget([task.task_id for task in tasks] + ["unknown"])
        assert_same(executor.reduce(tasks), before)

    def test_what_was_trained_from_a_forgotten_version_is_forgotten(self, executor, weights):
        """Another trial counts tasks and versions from 1 again."""
        tasks = make_tasks(4, base_version=1)
        executor.set_weights(1, weights(17))
        fresh = executor.reduce(tasks)
        executor.set_weights(1, weights(1))
        executor.train(tasks)
        executor.forget_weights(before=100)
        executor.set_weights(1, weights(17))
        assert_same(executor.reduce(tasks), fresh)

    def test_weights_may_be_changed_by_the_caller_afterwards(self, executor, weights):
        tasks = make_tasks(2, base_version=5)
        mine = weights(5).copy()
        executor.set_weights(5, mine)
        before = executor.reduce(tasks)
        mine[:] = 0
        assert_same(executor.reduce(tasks), before)

    @staticmethod
    def _eager(executor, tasks) -> Reduced:
        executor.train(tasks)
        return executor.reduce(tasks)
