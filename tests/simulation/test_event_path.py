"""How a run's events go, and what it says of that."""

from dataclasses import replace

import numpy as np
import pytest

from simulation.checkpoint import decode_checkpoint, encode_checkpoint
from simulation.event_path import choose_event_path
from simulation.experiment import Training, run_trial
from simulation.trial import Trial
from tests.simulation.python_strategies import GrowingBuffer
from tests.simulation.small_worlds import EVERY_VERSION, FEDAVG, FEDBUFF, make_dry_run, make_job
from tests.simulation.small_worlds import training as executor_of
from tests.simulation.test_trial import MIXED_PHONES, WORLD, assert_same, with_norm_limit


def measured(weights):
    return {"metric": float(np.abs(weights).mean()), "loss": 1.0}


def job_of(strategy, limit=None):
    job = make_job(strategy, stop={"max_aggregations": 6}, evaluation=EVERY_VERSION)
    return job if limit is None else with_norm_limit(job, limit)


@pytest.mark.parametrize("strategy", [FEDBUFF, FEDAVG])
def test_events_run_ahead_unless_the_gate_must_see_an_update(strategy):
    path = choose_event_path(job_of(strategy), trains=True)
    assert path.sentence.startswith("events: compiled engine, because nothing that decides")
    assert not path.in_lock_step
    limited = choose_event_path(job_of(strategy, 1.0), trains=True)
    assert limited.is_compiled
    assert limited.in_lock_step
    assert limited.sentence.startswith("events: compiled engine, in lock-step with training, ")
    assert "max_update_norm decides on trained updates" in limited.sentence
    assert not choose_event_path(job_of(strategy, 1.0), trains=False).in_lock_step


def test_a_strategy_in_python_is_asked_and_the_run_says_so():
    job = job_of(FEDBUFF)
    asked = choose_event_path(job, trains=True, own_strategy=GrowingBuffer())
    assert not asked.is_compiled
    assert not asked.in_lock_step
    assert asked.sentence == (
        "events: compiled engine, which asks the strategy in Python, because the decisions of "
        "GrowingBuffer are not compiled"
    )
    learning = GrowingBuffer(needs_training_results=True)
    path = choose_event_path(job, trains=True, own_strategy=learning)
    assert path.in_lock_step
    assert path.sentence.endswith(
        "the decisions of GrowingBuffer are not compiled, and GrowingBuffer decides on what "
        "clients learned"
    )
    assert not choose_event_path(job, trains=False, own_strategy=learning).in_lock_step


def run(dry_run, *, state=None, states=None, told=None):
    """The trial as a run drives it, with what it saves and tells."""
    return run_trial(
        dry_run,
        Training(executor_of(dry_run, MIXED_PHONES), measured, None),
        0,
        state=state,
        save=lambda kept: states.append(encode_checkpoint("r", kept)),
        checkpoint_every=0 if states is None else 4,
        on_progress=lambda *progress: (told if told is not None else []).append(progress),
    )


@pytest.mark.parametrize("own", [None, GrowingBuffer()], ids=["compiled", "asked"])
@pytest.mark.parametrize("limit", [None, 1e6, 0.17])
def test_a_trial_goes_its_way_and_is_taken_up_on_the_same(limit, own):
    dry_run = replace(make_dry_run(MIXED_PHONES, job_of(FEDBUFF, limit), **WORLD), own_strategy=own)
    states, told = [], []
    whole = run(dry_run, states=states, told=told)
    (kept,) = states
    state = decode_checkpoint("r", kept)
    assert_same(run(dry_run, state=state), whole)
    assert told[-1][0] == 0
    assert told[-1][1].version == 6
    assert told[-1][2] == whole.virtual_s


def test_a_run_with_a_limit_goes_as_on_the_plain_loop():
    dry_run = make_dry_run(MIXED_PHONES, job_of(FEDBUFF, 1e6), **WORLD)
    plain = Trial(dry_run, 0, executor_of(dry_run, MIXED_PHONES), measured).run()
    assert_same(run(dry_run), plain)
