"""Trials in lock-step, on the compiled engine and on the plain event loop: equal to the bit."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.strategies import RoundState
from simulation.checkpoint import decode_checkpoint, encode_checkpoint
from simulation.executors.local import LocalExecutor
from simulation.executors.training import LocalPlan
from simulation.timeline.lock_step import LockStepTrial
from simulation.trial import Trial
from simulation.update_training import outputs_needed
from tests.simulation.python_strategies import GrowingBuffer
from tests.simulation.small_worlds import (
    EVERY_VERSION,
    FEDBUFF,
    MODEL,
    make_dry_run,
    make_job,
    records_of,
    training,
    weights_by_version,
)
from tests.simulation.test_compressed_trial import CODECS, job_of
from tests.simulation.test_compressed_trial import PHONES as COMPRESSING_PHONES
from tests.simulation.test_fleet_properties import JOBS, PHONES, WORLDS
from tests.simulation.test_trial import BOTH, MIXED_PHONES, WORLD, assert_same, with_norm_limit
from tests.simulation.timeline.test_asked_strategy import ODD
from tests.simulation.timeline.test_training import CHANGES, EVALUATIONS, Measured, both, changed

LIMITS = {"fedbuff": 0.17, "fedavg": 0.3}
"""A third to a half of the updates of these phones are longer."""


def limited(job):
    return with_norm_limit(job, LIMITS[job.strategy.name])


class InStep(LockStepTrial):
    """Presumes nothing."""

    times_again = None


class SoonInStep(LockStepTrial):
    """Presumes until it was wrong once or twice."""

    times_again = -1


WAYS = [LockStepTrial, SoonInStep, InStep]
EVERY_WAY = pytest.mark.parametrize("way", WAYS)


def in_lock_step(phones, job, *, way=LockStepTrial, **rest):
    return both(phones, job, engine=way, **rest)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_run_with_a_norm_limit_goes_as_on_the_plain_loop(data):
    phones = data.draw(st.lists(PHONES, min_size=1, max_size=8))
    evaluation = data.draw(EVALUATIONS)
    job = changed(data.draw(JOBS), data.draw(CHANGES), evaluation)
    limit = data.draw(st.sampled_from([0.1, 0.2, 0.3, 0.5, 1.0]))
    spoilt = sorted(data.draw(st.sets(st.integers(0, len(phones) - 1), max_size=2)))
    rest = {
        "spoilt": spoilt,
        "number": data.draw(st.integers(0, 2)),
        "world": data.draw(WORLDS),
        "own_strategy": data.draw(st.none() | ODD),
        "way": data.draw(st.sampled_from(WAYS)),
    }
    _, measured = in_lock_step(phones, with_norm_limit(job, limit), **rest)
    if measured is not None and len(measured.metrics) > 1:
        target = data.draw(st.sampled_from(measured.metrics))
        aimed = changed(job, {}, evaluation, target)
        in_lock_step(phones, with_norm_limit(aimed, limit), **rest)


@EVERY_WAY
@BOTH
@pytest.mark.parametrize("spoilt", [(), (1, 4, 6)], ids=["", "some diverge"])
def test_refused_updates_end_as_the_gate_says(job, spoilt, way):
    result, _ = in_lock_step(MIXED_PHONES, limited(job), spoilt=spoilt, way=way)
    ends = set(zip(*(result.tasks[n].to_pylist() for n in ("outcome", "reason")), strict=True))
    assert ends >= {("rejected", "norm_exceeded"), ("succeeded", "aggregated")}
    assert (("failed", "not_finite") in ends) == bool(spoilt)


@pytest.mark.parametrize("codec", CODECS)
def test_what_refused_updates_left_out_is_forgotten_as_on_the_plain_loop(codec):
    job = with_norm_limit(job_of(codec), 0.6)
    result, _ = in_lock_step(COMPRESSING_PHONES, job, world={})
    assert "norm_exceeded" in result.tasks["reason"].to_pylist()


class Noting(LocalExecutor):
    """Knows how many tasks it was given to train at a time, and what became of them."""

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self.batches: list[list[str]] = []
        self.summed: list[str] = []
        self.forgotten: list[str] = []

    def train(self, tasks):
        self.batches.append([task.task_id for task in tasks])
        return super().train(tasks)

    def reduce(self, tasks):
        self.summed += [task.task_id for task in tasks]
        return super().reduce(tasks)

    def forget(self, task_ids) -> None:
        self.forgotten += list(task_ids)
        super().forget(task_ids)


@BOTH
def test_in_step_tasks_are_trained_together_and_none_twice(job):
    dry_run = make_dry_run(MIXED_PHONES, limited(job), **WORLD)
    plan = LocalPlan.of(job.client, outputs_needed(dry_run.job))
    executor = Noting(MODEL, plan, records_of(MIXED_PHONES))
    result = InStep(dry_run, 0, executor, weights_by_version([])).run()
    trained = [task for batch in executor.batches for task in batch]
    assert len(set(trained)) == len(trained)
    assert max(len(batch) for batch in executor.batches) > 1
    rows = result.tasks.to_pylist()
    assert executor.summed
    assert set(executor.summed) <= set(trained)
    refused = {f"t{row['task']}" for row in rows if row["reason"] == "norm_exceeded"}
    assert refused
    assert refused <= set(executor.forgotten)


@BOTH
def test_a_limit_that_refuses_nobody_costs_no_training_one_by_one(job):
    dry_run = make_dry_run(MIXED_PHONES, with_norm_limit(job, 1e6), **WORLD)
    plan = LocalPlan.of(job.client, outputs_needed(dry_run.job))
    executor = Noting(MODEL, plan, records_of(MIXED_PHONES))
    LockStepTrial(dry_run, 0, executor, weights_by_version([])).run()
    arrived_at_the_end = [task for batch in executor.batches for task in batch]
    assert len(arrived_at_the_end) < len(executor.summed) / 5


@settings(max_examples=10, deadline=None)
@given(ODD, st.integers(0, 99))
def test_a_strategy_that_decides_on_results_goes_as_on_the_plain_loop(strategy, seed):
    job = make_job(FEDBUFF, stop={"max_aggregations": 10})
    learning = replace(strategy, needs_training_results=True)
    world = WORLD | {"seed": seed}
    in_lock_step(MIXED_PHONES, job, spoilt=(1, 4), own_strategy=learning, world=world)


class Learning(GrowingBuffer):
    """How many tasks it has at work hangs on how many updates have been trained."""

    def __init__(self, losses: dict[str, float]) -> None:
        super().__init__(first=4, most=4, needs_training_results=True)
        object.__setattr__(self, "losses", losses)

    def tasks_to_start(self, state: RoundState) -> int:
        return 1 if state.offered + state.running < 2 + len(self.losses) % 3 else 0


class Telling(LocalExecutor):
    """Writes down the losses of what was summed."""

    def __init__(self, losses, *arguments) -> None:
        super().__init__(*arguments)
        self.losses = losses

    def reduce(self, tasks):
        reduced = super().reduce(tasks)
        self.losses.update((each.task_id, each.train_loss) for each in reduced.statistics)
        return reduced


def learning_trial(kind, job, losses=None, state=None):
    """A trial whose strategy decides on what its executor has seen, or had seen before."""
    losses = dict(losses or {})
    dry_run = replace(make_dry_run(MIXED_PHONES, job, **WORLD), own_strategy=Learning(losses))
    executor = Telling(losses, MODEL, LocalPlan.of(job.client), records_of(MIXED_PHONES))
    evaluate = Measured() if job.evaluation else None
    return kind(dry_run, 0, executor, evaluate, state=state), losses, evaluate


def test_decisions_may_hang_on_what_the_executor_has_seen():
    job = make_job(FEDBUFF, stop={"max_aggregations": 8})
    assert_same(*(learning_trial(kind, job)[0].run() for kind in (Trial, LockStepTrial)))


def test_decisions_on_results_stand_when_a_target_ends_the_trial():
    job = make_job(FEDBUFF, stop={"max_aggregations": 12}, evaluation=EVERY_VERSION)
    trial, _, measured = learning_trial(Trial, job)
    trial.run()
    aimed = changed(job, {}, EVERY_VERSION, max(measured.metrics))
    runs = [learning_trial(kind, aimed)[0].run() for kind in (Trial, LockStepTrial)]
    assert_same(*runs)
    assert "target" in runs[0].stop_reason
    assert len(runs[0].trajectory) > 4


def test_decisions_on_results_stand_when_a_trial_is_taken_up():
    job = make_job(FEDBUFF, stop={"max_aggregations": 12})
    kept = []
    trial, losses, _ = learning_trial(LockStepTrial, job)
    whole = trial.run(lambda state: kept.append((encode_checkpoint("r", state), dict(losses))), 3)
    assert len(kept) == 4
    for at, (data, known) in enumerate(kept):
        state = decode_checkpoint("r", data)
        assert_same(learning_trial(LockStepTrial, job, known, state)[0].run(), whole)
        forgetful = learning_trial(LockStepTrial, job, {}, state)[0].run()
        rows, want = forgetful.trajectory.drop_columns("wall_s"), whole.trajectory
        assert rows[: 3 * at + 4].equals(want.drop_columns("wall_s")[: 3 * at + 4])


# -- resume ------------------------------------------------------------------------------------


@EVERY_WAY
@BOTH
@pytest.mark.parametrize("own", [None, GrowingBuffer()], ids=["", "asked"])
def test_a_run_taken_up_again_anywhere_goes_on_as_if_nothing_had_been(job, own, way):
    dry_run = replace(make_dry_run(MIXED_PHONES, limited(job), **WORLD), own_strategy=own)

    def trial(state=None):
        executor = training(dry_run, MIXED_PHONES, (4,))
        return way(dry_run, 0, executor, weights_by_version([]), state=state)

    first = trial()
    states = [encode_checkpoint("r", first.state())]
    whole = first.run(lambda state: states.append(encode_checkpoint("r", state)), 4)
    assert len(states) == 4
    assert {"norm_exceeded", "not_finite"} <= set(whole.tasks["reason"].to_pylist())
    for state in states:
        assert_same(trial(decode_checkpoint("r", state)).run(), whole)


@pytest.mark.parametrize("codec", ["top_k", "top_k_int8"])
def test_a_client_goes_on_with_what_its_updates_left_out(codec):
    job = with_norm_limit(job_of(codec), 0.6)
    dry_run = make_dry_run(COMPRESSING_PHONES, job)

    def trial(state=None):
        executor = training(dry_run, COMPRESSING_PHONES)
        return LockStepTrial(dry_run, 0, executor, weights_by_version([]), state=state)

    states = []
    whole = trial().run(lambda state: states.append(encode_checkpoint("r", state)), 4)
    assert states
    for state in states:
        assert_same(trial(decode_checkpoint("r", state)).run(), whole)


@EVERY_WAY
@BOTH
def test_outputs_are_of_updates_that_arrived(job, way):
    dry_run = make_dry_run(MIXED_PHONES, limited(job), **WORLD)
    asked = {"client_outputs": ("train_loss", "norms")}
    dry_run = replace(dry_run, environment=dry_run.environment.model_copy(update=asked))
    runs = [
        kind(dry_run, 0, training(dry_run, MIXED_PHONES), weights_by_version([])).run()
        for kind in (Trial, way)
    ]
    assert_same(*runs)
    norms = runs[1].tasks["update_norm"].to_pylist()
    known = [norm for norm in norms if norm is not None]
    assert np.max(known) > LIMITS[job.strategy.name]
    assert None in norms
