"""Strategies in Python on the compiled engine and on the plain event loop: equal to the bit."""

from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.strategies import FedBuff, RoundState, Step
from simulation.timeline.asked_strategy import InvalidDecision, StrategyStuck
from simulation.timeline.timeline import set_up
from simulation.timeline.trial import run_compiled
from tests.simulation.python_strategies import (
    GrowingBuffer,
    PythonFedAvg,
    PythonFedBuff,
    TrickleRounds,
)
from tests.simulation.small_worlds import FEDBUFF, Phone, make_dry_run, make_job
from tests.simulation.test_fleet_properties import JOBS, PHONES, WORLDS
from tests.simulation.test_trial import MIXED_PHONES, WORLD, assert_same
from tests.simulation.timeline.test_equal_to_the_plain_loop import require_equal
from tests.simulation.timeline.test_training import CHANGES, EVALUATIONS, both, changed

ODD = st.builds(
    lambda kind, first, more, concurrency, patience_s, least: kind(
        first, first + more, concurrency, patience_s, least
    ),
    st.sampled_from([GrowingBuffer, TrickleRounds]),
    st.integers(1, 3),
    st.integers(0, 3),
    st.integers(1, 6),
    st.floats(20.0, 900.0),
    st.integers(0, 3),
)


def twin(strategy) -> PythonFedBuff | PythonFedAvg:
    """The same in Python."""
    kind = PythonFedBuff if isinstance(strategy, FedBuff) else PythonFedAvg
    return kind(*(getattr(strategy, field.name) for field in fields(strategy)))


@settings(max_examples=40, deadline=None)
@given(st.lists(PHONES, min_size=1, max_size=8), JOBS, WORLDS)
def test_a_strategy_in_python_goes_as_its_compiled_twin_and_as_in_the_plain_loop(
    phones, job, world
):
    dry_run = make_dry_run(phones, job, **world)
    asked = require_equal(replace(dry_run, own_strategy=twin(dry_run.strategy)))
    assert_same(asked, require_equal(dry_run))


@settings(max_examples=60, deadline=None)
@given(st.lists(PHONES, min_size=1, max_size=8), JOBS, WORLDS, ODD, st.integers(0, 2))
def test_any_decisions_go_as_in_the_plain_loop(phones, job, world, strategy, number):
    require_equal(replace(make_dry_run(phones, job, **world), own_strategy=strategy), number)


@pytest.mark.parametrize("kind", [GrowingBuffer, TrickleRounds])
def test_odd_decisions_come_to_every_kind_of_end(kind):
    """So the comparison in random worlds is of something."""
    strategy = kind(first=2, most=4, concurrency=6, patience_s=150.0, least=1)
    job = make_job(FEDBUFF, stop={"max_hours": 20.0})
    result = require_equal(replace(make_dry_run(MIXED_PHONES, job, **WORLD), own_strategy=strategy))
    outcomes = set(zip(*(result.tasks[n].to_pylist() for n in ("outcome", "reason")), strict=True))
    late = ("failed", "round_is_over") if strategy.pins_base_version else ("stale", "base_version")
    assert outcomes >= {("succeeded", "aggregated"), ("failed", "round_abandoned"), late}
    assert len(set(result.trajectory["updates"].to_pylist())) > 2


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_what_it_decides_is_learnt_as_on_the_plain_loop(data):
    phones = data.draw(st.lists(PHONES, min_size=1, max_size=8))
    evaluation = data.draw(EVALUATIONS)
    job = changed(data.draw(JOBS), data.draw(CHANGES), evaluation)
    world, number = data.draw(WORLDS), data.draw(st.integers(0, 2))
    spoilt = sorted(data.draw(st.sets(st.integers(0, len(phones) - 1), max_size=3)))
    rest = {"spoilt": spoilt, "number": number, "world": world, "own_strategy": data.draw(ODD)}
    _, measured = both(phones, job, **rest)
    if measured is not None and len(measured.metrics) > 1:
        target = data.draw(st.sampled_from(measured.metrics))
        both(phones, changed(job, {}, evaluation, target), **rest)


@pytest.mark.parametrize("kind", [GrowingBuffer, TrickleRounds])
def test_it_hears_of_updates_that_diverge_one_after_the_other(kind):
    job = make_job(FEDBUFF, stop={"max_aggregations": 12})
    strategy = kind(first=2, most=4, concurrency=8)
    result, _ = both(MIXED_PHONES, job, spoilt=(0, 1, 2, 4, 6), own_strategy=strategy)
    assert result.tasks["reason"].to_pylist().count("not_finite") > 3


class Mistaken(GrowingBuffer):
    """Answers one question wrongly."""

    def __init__(self, method: str, answer: object) -> None:
        super().__init__()
        object.__setattr__(self, method, lambda _: answer)


@pytest.mark.parametrize("answer", [0.0, -1.0, float("nan"), float("inf")])
def test_a_time_out_that_is_none_is_named(answer):
    job = make_job(FEDBUFF, stop={"max_aggregations": 12})
    dry_run = make_dry_run([Phone()], job)
    with pytest.raises(InvalidDecision, match=r"Mistaken\.task_timeout_s answered .*more than 0"):
        set_up(replace(dry_run, own_strategy=Mistaken("task_timeout_s", answer)), 0)


@pytest.mark.parametrize(
    ("method", "answer", "wanted"),
    [
        ("tasks_to_start", -1, "a whole number of tasks, 0 or more"),
        ("tasks_to_start", 2.5, "a whole number of tasks, 0 or more"),
        ("tasks_to_start", "2", "a whole number of tasks, 0 or more"),
        ("deadline_s", "soon", "seconds of the fleet's clock, or None"),
        ("next_step", True, "Step.WAIT, Step.AGGREGATE or Step.ABANDON"),
        ("deadline_s", float("nan"), "seconds of the fleet's clock, or None"),
        ("oldest_live_version", 0.5, "the number of a version"),
    ],
)
def test_an_answer_that_is_none_is_named(method, answer, wanted):
    job = make_job(FEDBUFF, stop={"max_aggregations": 12})
    dry_run = make_dry_run(MIXED_PHONES, job, **WORLD)
    with pytest.raises(InvalidDecision) as raised:
        run_compiled(replace(dry_run, own_strategy=Mistaken(method, answer)), 0)
    told = raised.value.sentence
    assert told == f"Mistaken.{method} answered {answer!r}; it must return {wanted}"


def test_a_strategy_that_waits_for_a_deadline_that_is_over_is_stopped():
    class Waiting(GrowingBuffer):
        def next_step(self, state: RoundState) -> Step:
            return Step.WAIT

    job = make_job(FEDBUFF, stop={"max_aggregations": 1})
    dry_run = replace(make_dry_run([Phone()], job), own_strategy=Waiting())
    with pytest.raises(StrategyStuck, match=r"Waiting\.next_step answers WAIT"):
        run_compiled(dry_run, 0)


def test_what_a_strategy_raises_reaches_whoever_runs_it():
    class Failing(GrowingBuffer):
        def next_step(self, state: RoundState) -> Step:
            if state.version == 2:
                raise LookupError("no such buffer")
            return super().next_step(state)

    job = make_job(FEDBUFF, stop={"max_aggregations": 12})
    dry_run = make_dry_run(MIXED_PHONES, job, **WORLD)
    with pytest.raises(LookupError, match="no such buffer"):
        run_compiled(replace(dry_run, own_strategy=Failing()), 0)


def test_a_strategy_may_hold_any_number_of_updates(monkeypatch):
    monkeypatch.setattr("simulation.timeline.timeline._FIRST_TASKS", 8)
    strategy = GrowingBuffer(first=300, most=300, concurrency=10, patience_s=1e9)
    job = make_job(FEDBUFF, stop={"max_aggregations": 1})
    dry_run = replace(make_dry_run([Phone(records=1)] * 10, job), own_strategy=strategy)
    assert len(set_up(dry_run, 0).memory.held) == 8
    result = require_equal(dry_run)
    assert result.trajectory["updates"].to_pylist() == [0, 300]
