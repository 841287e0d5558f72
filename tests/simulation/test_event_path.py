"""Which way a run's events go, and what it says of that."""

import numpy as np
import pytest

from simulation.checkpoint import decode_checkpoint, encode_checkpoint
from simulation.event_path import choose_event_path
from simulation.experiment import Training, run_trial
from tests.simulation.small_worlds import EVERY_VERSION, FEDAVG, FEDBUFF, make_dry_run, make_job
from tests.simulation.small_worlds import training as executor_of
from tests.simulation.test_trial import MIXED_PHONES, WORLD, assert_same, with_norm_limit


def measured(weights):
    return {"metric": float(np.abs(weights).mean()), "loss": 1.0}


def job_of(strategy):
    return make_job(strategy, stop={"max_aggregations": 6}, evaluation=EVERY_VERSION)


@pytest.mark.parametrize("strategy", [FEDBUFF, FEDAVG])
def test_events_run_ahead_unless_the_gate_must_see_an_update(strategy):
    job = job_of(strategy)
    assert choose_event_path(job, trains=True).sentence.startswith("events: compiled engine, ")
    limited = choose_event_path(with_norm_limit(job, 1.0), trains=True)
    assert not limited.is_compiled
    assert "max_update_norm decides on trained updates" in limited.sentence
    assert choose_event_path(with_norm_limit(job, 1.0), trains=False).is_compiled


@pytest.mark.parametrize("limit", [None, 1e6])
def test_a_trial_goes_its_way_and_is_taken_up_on_the_same(limit):
    job = job_of(FEDBUFF) if limit is None else with_norm_limit(job_of(FEDBUFF), limit)
    dry_run = make_dry_run(MIXED_PHONES, job, **WORLD)
    states, told = [], []

    def trial(state=None):
        executor = executor_of(dry_run, MIXED_PHONES)
        return run_trial(
            dry_run,
            Training(executor, measured, None),
            0,
            state=state,
            save=lambda kept: states.append(encode_checkpoint("r", kept)),
            checkpoint_every=4,
            on_progress=lambda *progress: told.append(progress),
        )

    whole = trial()
    (kept,) = states
    state = decode_checkpoint("r", kept)
    assert ("timeline" in state) == (limit is None)
    assert_same(trial(state), whole)
    assert told[-1][0] == 0
    assert told[-1][1].version == 6
    assert told[-1][2] == whole.virtual_s
