"""Trials that train, on the compiled engine and on the plain event loop: equal to the bit."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.coordination.next_version import ModelDiverged
from simulation.checkpoint import decode_checkpoint, encode_checkpoint
from simulation.executors.local import LocalExecutor
from simulation.executors.training import LocalPlan
from simulation.timeline.training import TimelineTrial
from simulation.trial import Trial
from tests.simulation.small_worlds import (
    EVERY_VERSION,
    FEDAVG,
    FEDBUFF,
    MODEL,
    Phone,
    make_dry_run,
    make_job,
    records_of,
    training,
    weights_by_version,
)
from tests.simulation.test_compressed_trial import CODECS, job_of
from tests.simulation.test_compressed_trial import PHONES as COMPRESSING_PHONES
from tests.simulation.test_fleet_properties import JOBS, PHONES, WORLDS
from tests.simulation.test_trial import BOTH, MIXED_PHONES, WORLD, assert_same

OPTIMIZERS = st.sampled_from(
    [
        {"name": "sgd"},
        {"name": "sgd", "momentum": 0.9, "learning_rate": 0.7},
        {"name": "adam", "learning_rate": 0.01},
        {"name": "yogi", "learning_rate": 0.02},
    ]
)
CHANGES = st.fixed_dictionaries(
    {
        "server_optimizer": OPTIMIZERS,
        "weighting": st.sampled_from(["uniform", "examples"]),
        "max_examples": st.sampled_from([None, 7]),
    }
)
EVALUATIONS = st.sampled_from([None, EVERY_VERSION, EVERY_VERSION | {"every": 3}])


def changed(job, strategy, evaluation=None, target=None):
    """The job with another strategy's settings, evaluation and target."""
    stop = job.stop.model_dump() | {"target": target}
    return make_job(
        job.strategy.model_dump() | strategy,
        client=job.client.model_dump(),
        participation=job.participation.model_dump(),
        selection=job.selection.model_dump(),
        stop=stop,
        evaluation=evaluation,
    )


class Measured:
    """An evaluation whose metric goes up and down as weights do; knows what it has measured."""

    def __init__(self) -> None:
        self.metrics: list[float] = []

    def __call__(self, weights):
        wave = np.sin(50.0 * np.abs(weights).sum(dtype=np.float64))
        self.metrics.append(float(0.5 + 0.4 * wave))
        return {"metric": self.metrics[-1], "loss": float(np.square(weights).sum())}


def both(phones, job, *, spoilt=(), number=0, world=WORLD, own_strategy=None, engine=TimelineTrial):
    """The trial on the plain loop and on the engine, and what the plain one measured."""
    dry_run = replace(make_dry_run(phones, job, **world), own_strategy=own_strategy)
    evaluations = [Measured() if job.evaluation else None for _ in range(2)]
    runs = [
        kind(dry_run, number, training(dry_run, phones, spoilt), evaluate).run()
        for kind, evaluate in zip((Trial, engine), evaluations, strict=True)
    ]
    assert_same(runs[1], runs[0])
    assert runs[1].is_exhausted == runs[0].is_exhausted
    assert runs[1].diverged == runs[0].diverged
    if evaluations[0] is not None:
        assert evaluations[0].metrics == evaluations[1].metrics
    return runs[1], evaluations[0]


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_run_learns_what_it_learns_on_the_plain_loop(data):
    phones = data.draw(st.lists(PHONES, min_size=1, max_size=8))
    evaluation = data.draw(EVALUATIONS)
    job = changed(data.draw(JOBS), data.draw(CHANGES), evaluation)
    world, number = data.draw(WORLDS), data.draw(st.integers(0, 2))
    spoilt = data.draw(st.sets(st.integers(0, len(phones) - 1), max_size=2))
    result, measured = both(phones, job, spoilt=sorted(spoilt), number=number, world=world)
    if measured is not None and len(measured.metrics) > 1:
        target = data.draw(st.sampled_from(measured.metrics))
        aimed, _ = both(
            phones,
            changed(job, {}, evaluation, target),
            spoilt=sorted(spoilt),
            number=number,
            world=world,
        )
        assert len(aimed.trajectory) <= len(result.trajectory)


@BOTH
@pytest.mark.parametrize("spoilt", [(1, 4, 6), (0, 2, 3, 5)])
def test_updates_that_diverge_fail_and_others_are_waited_for(job, spoilt):
    result, _ = both(MIXED_PHONES, job, spoilt=spoilt)
    failed = {t["client"] for t in result.tasks.to_pylist() if t["reason"] == "not_finite"}
    assert failed
    assert failed <= set(spoilt)


@pytest.mark.parametrize("least", [1, 2, 3, 4])
def test_a_round_is_given_up_when_too_many_of_it_diverge(least):
    strategy = FEDAVG | {"cohort_size": 5, "over_commitment": 1.0, "min_updates": least}
    phones = [Phone(windows=[(i, 250)]) for i in range(4)] + [Phone([(500, 5000)])] * 5
    job = make_job(strategy, stop={"max_aggregations": 1}, evaluation=EVERY_VERSION)
    result, _ = both(phones, job, spoilt=(0, 1, 2), world={})
    reasons = set(result.tasks["reason"].to_pylist())
    assert "not_finite" in reasons
    assert ("round_abandoned" in reasons) == (least > 1)


def test_a_fleet_whose_every_update_diverges_comes_to_the_same_end():
    phones = [Phone(records=5)] * 3
    job = make_job(FEDBUFF, stop={"max_aggregations": 1})
    result, _ = both(phones, job, spoilt=(0, 1, 2), world={"period_s": 40_000.0})
    assert result.is_exhausted


def test_updates_that_diverge_in_the_last_hour_are_not_heard_of():
    strategy = FEDAVG | {"cohort_size": 5, "over_commitment": 1.0, "round_deadline_s": 360}
    phones = [Phone(windows=[(0, 250)]) for _ in range(4)]
    job = make_job(strategy | {"min_updates": 1}, stop={"max_hours": 0.1})
    result, _ = both(phones, job, spoilt=(0, 1), world={})
    assert "not_finite" not in result.tasks["reason"].to_pylist()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("spoilt", [(), (0,)], ids=["", "one diverges"])
def test_compressed_updates_are_summed_as_on_the_plain_loop(codec, spoilt):
    result, _ = both(COMPRESSING_PHONES, job_of(codec), spoilt=spoilt, world={})
    assert ("not_finite" in result.tasks["reason"].to_pylist()) == bool(spoilt)


def test_a_model_that_diverges_ends_both_alike():
    optimizer = {"name": "sgd", "learning_rate": 3e38}
    job = make_job(
        FEDBUFF | {"server_optimizer": optimizer},
        client={"optimizer": {"learning_rate": 100.0}},
        stop={"max_aggregations": 3},
    )
    told = []
    for kind in (Trial, TimelineTrial):
        dry_run = make_dry_run(MIXED_PHONES, job, **WORLD)
        with pytest.raises(ModelDiverged) as raised:
            kind(dry_run, 0, training(dry_run, MIXED_PHONES), None).run()
        told.append(raised.value.sentence)
    assert told[0] == told[1]


# -- resume ------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("spoilt", [(), (1, 4)], ids=["", "some diverge"])
def test_a_run_taken_up_again_anywhere_goes_on_as_if_nothing_had_been(job, spoilt):
    dry_run = make_dry_run(MIXED_PHONES, job, **WORLD)

    def trial(state=None):
        executor = training(dry_run, MIXED_PHONES, spoilt)
        return TimelineTrial(dry_run, 0, executor, weights_by_version([]), state=state)

    first = trial()
    states = [encode_checkpoint("r", first.state())]
    whole = first.run(lambda state: states.append(encode_checkpoint("r", state)), 1)
    assert len(states) == 13
    assert ("not_finite" in whole.tasks["reason"].to_pylist()) == bool(spoilt)
    for state in states:
        assert_same(trial(decode_checkpoint("r", state)).run(), whole)


def test_a_client_goes_on_with_what_its_updates_left_out():
    job = job_of("top_k")
    dry_run = make_dry_run(COMPRESSING_PHONES, job)

    def trial(state=None):
        executor = training(dry_run, COMPRESSING_PHONES)
        return TimelineTrial(dry_run, 0, executor, weights_by_version([]), state=state)

    states = []
    whole = trial().run(lambda state: states.append(encode_checkpoint("r", state)), 4)
    for state in states:
        assert_same(trial(decode_checkpoint("r", state)).run(), whole)


def test_checkpoints_come_every_so_many_aggregations():
    job = make_job(FEDBUFF, stop={"max_aggregations": 12})
    dry_run = make_dry_run(MIXED_PHONES, job, **WORLD)
    versions = []
    trial = TimelineTrial(dry_run, 0, training(dry_run, MIXED_PHONES), None)
    trial.run(lambda state: versions.append(state["versions"]["number"]), 5)
    assert versions == [5, 10]


class Expecting(LocalExecutor):
    """Knows whose records it was told to expect, and whose came before they were."""

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self.expected: list[int] = []
        self.came: list[int] = []

    def expect(self, data_clients) -> None:
        self.expected += data_clients.tolist()
        super().expect(data_clients)

    def reduce(self, tasks):
        self.came += [task.data_client for task in tasks]
        assert self.came == self.expected[: len(self.came)]
        return super().reduce(tasks)


@BOTH
def test_records_are_expected_in_the_order_of_the_schedule_before_they_are_trained_on(job):
    dry_run = make_dry_run(MIXED_PHONES, job, **WORLD)
    executor = Expecting(MODEL, LocalPlan.of(job.client), records_of(MIXED_PHONES))
    TimelineTrial(dry_run, 0, executor, None).run()
    assert len(executor.came) > 10
