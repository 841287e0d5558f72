"""The compiled engine and the plain event loop, in the same worlds: the same run, to the bit."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulation.timeline.trial import run_compiled
from simulation.trajectory import events_sha256
from simulation.trial import DryRun, TrialResult
from tests.simulation.small_worlds import (
    FEDAVG,
    FEDBUFF,
    MODEL,
    NoTraining,
    Trial,
    make_dry_run,
    make_job,
)
from tests.simulation.test_fleet_properties import JOBS, PHONES, WORLDS
from tests.simulation.test_hand_computed import TEN_PHONES


def plain_loop(dry_run: DryRun, number: int = 0) -> TrialResult:
    return Trial(dry_run, number, NoTraining(MODEL.parameter_count), None).run()


def require_equal(dry_run: DryRun, number: int = 0) -> TrialResult:
    """Both runs, and that nothing but wall time tells them apart."""
    plain, compiled = plain_loop(dry_run, number), run_compiled(dry_run, number)
    for name in plain.tasks.schema.names:
        assert compiled.tasks[name].to_pylist() == plain.tasks[name].to_pylist(), name
    for name in plain.trajectory.schema.names:
        if name != "wall_s":
            columns = [run.trajectory[name].to_pylist() for run in (compiled, plain)]
            assert columns[0] == columns[1], name
    assert events_sha256(compiled.trajectory, compiled.tasks) == events_sha256(
        plain.trajectory, plain.tasks
    )
    told = [
        (run.trial, run.stop_reason, run.is_exhausted, run.virtual_s) for run in (plain, compiled)
    ]
    assert told[0] == told[1]
    assert compiled.weights.tobytes() == plain.weights.tobytes()
    return compiled


@pytest.mark.parametrize("strategy", [FEDBUFF, FEDAVG])
def test_the_world_computed_by_hand_goes_as_in_the_plain_loop(strategy):
    job = make_job(strategy, stop={"max_aggregations": 4})
    assert require_equal(make_dry_run(TEN_PHONES, job)).stop_reason == "max_aggregations 4 reached"


@settings(max_examples=100, deadline=None)
@given(st.lists(PHONES, min_size=1, max_size=8), JOBS, WORLDS, st.integers(0, 2))
def test_any_run_goes_as_in_the_plain_loop(phones, job, world, number):
    require_equal(make_dry_run(phones, job, **world), number)


@settings(max_examples=25, deadline=None)
@given(st.lists(PHONES, min_size=1, max_size=8), JOBS, WORLDS, st.sampled_from([5400.0, 86_400.0]))
def test_so_does_one_whose_trace_repeats(phones, job, world, repeat_every_s):
    require_equal(make_dry_run(phones, job, repeat_every_s=repeat_every_s, **world))
