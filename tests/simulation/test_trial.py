"""Whole trials: reproducible to the bit, lazy as eager, resumed as uninterrupted; and the maths."""

import math

import numpy as np
import pytest

from device_runtime.training_plan import epoch_order
from device_runtime.update_codec import unflatten
from server.coordination.selection import shuffle_seed
from server.job import Stop
from simulation.checkpoint import decode_checkpoint, encode_checkpoint
from simulation.executors import TrainingTask
from simulation.executors.processes import ProcessExecutors
from simulation.executors.training import LocalPlan
from simulation.trajectory import events_sha256, trajectory_sha256
from simulation.trial import Trial
from simulation.update_training import outputs_needed
from tests.device_runtime.records import reference_steps
from tests.simulation.small_worlds import (
    EVERY_VERSION,
    FEDAVG,
    FEDBUFF,
    MODEL,
    Phone,
    make_dry_run,
    make_job,
    records_of,
    rows,
    run_training,
    training,
    weights_by_version,
)

DAY_S = 86_400
MIXED_PHONES = [
    Phone(
        [(at_s + 31 * i, at_s + 31 * i + 120 + 70 * i) for at_s in range(0, DAY_S, 1000)],
        per_example_s=(0.2, 1.0, 7.0)[i % 3],
        records=5 + 3 * i,
        up_kbps=(2.0, 8.0)[i % 2],
    )
    for i in range(12)
]
WORLD = {"jitter": 0.3, "dropout_per_hour": 20.0}
ADAM = {"name": "adam", "learning_rate": 0.01}
FEDBUFF_JOB = make_job(
    FEDBUFF | {"server_optimizer": ADAM, "max_staleness": 2},
    stop={"max_aggregations": 12},
    evaluation=EVERY_VERSION,
    selection={"name": "uniform"},
    participation={"user": {"min_hours_between_participations": 0.1}},
)
FEDAVG_JOB = make_job(
    FEDAVG | {"server_optimizer": {"name": "sgd", "momentum": 0.9}, "min_updates": 2},
    client={"optimizer": {"learning_rate": 0.1}, "local_epochs": 2},
    stop={"max_aggregations": 12},
    evaluation={"every": 3, "dataset": "held-out"},
)
BOTH = pytest.mark.parametrize("job", [FEDBUFF_JOB, FEDAVG_JOB], ids=["fedbuff", "fedavg"])


def with_norm_limit(job, limit: float):
    return job.model_copy(
        update={
            "privacy": job.privacy.model_copy(
                update={
                    "robustness": job.privacy.robustness.model_copy(
                        update={"max_update_norm": limit}
                    )
                }
            )
        }
    )


def assert_same(found, wanted):
    """Tables without the wall clock and weights, to the bit."""
    assert found.tasks.equals(wanted.tasks)
    columns = found.trajectory.drop_columns("wall_s"), wanted.trajectory.drop_columns("wall_s")
    assert columns[0].equals(columns[1])
    assert found.weights.tobytes() == wanted.weights.tobytes()
    assert found.stop_reason == wanted.stop_reason
    assert found.virtual_s == wanted.virtual_s
    assert trajectory_sha256(found.trajectory) == trajectory_sha256(wanted.trajectory)


def last_row(result):
    return result.trajectory.to_pylist()[-1]


# -- determinism -------------------------------------------------------------------------------


@BOTH
def test_the_same_seed_gives_the_same_run_and_another_gives_another(job):
    first, _ = run_training(MIXED_PHONES, job, world=WORLD)
    again, _ = run_training(MIXED_PHONES, job, world=WORLD)
    assert_same(again, first)
    digests = {events_sha256(first.trajectory, first.tasks)}
    for number, seed in ((1, 7), (0, 8)):
        other, _ = run_training(MIXED_PHONES, job, number=number, world=WORLD | {"seed": seed})
        digests.add(events_sha256(other.trajectory, other.tasks))
    assert len(digests) == 3


@BOTH
def test_trials_on_one_executor_are_as_trials_on_executors_of_their_own(job):
    """Lock-step and an end in the middle, so that trained updates are left of each trial."""
    job = with_norm_limit(job, 1e6).model_copy(update={"stop": Stop(max_hours=0.4)})
    dry_run = make_dry_run(MIXED_PHONES, job, **WORLD)
    executor = training(dry_run, MIXED_PHONES)
    for number in range(3):
        shared = Trial(dry_run, number, executor, weights_by_version([])).run()
        assert_same(shared, run_training(MIXED_PHONES, job, number=number, world=WORLD)[0])


@pytest.mark.integration
@BOTH
def test_any_number_of_executors_sees_the_same_events(job):
    dry_run = make_dry_run(MIXED_PHONES, job, **WORLD)
    one = Trial(dry_run, 0, training(dry_run, MIXED_PHONES), weights_by_version([])).run()
    plan = LocalPlan.of(job.client, outputs_needed(job))
    executors = ProcessExecutors(2, MODEL, plan, records_of(MIXED_PHONES))
    try:
        two = Trial(dry_run, 0, executors, weights_by_version([])).run()
    finally:
        executors.close()
    assert events_sha256(two.trajectory, two.tasks) == events_sha256(one.trajectory, one.tasks)
    np.testing.assert_allclose(two.weights, one.weights, atol=1e-5)


@BOTH
def test_the_order_in_which_what_goes_on_is_kept_does_not_matter(job):
    """The agenda, running tasks and open grants' clients, in a checkpoint turned round."""
    whole, states = run_with_states(job)
    for kept in states[::3]:
        state = decode_checkpoint("r", kept)
        agenda = state["fleet"]["agenda"]
        state["fleet"]["agenda"] = {name: column[::-1] for name, column in agenda.items()}
        state["fleet"]["running"].reverse()
        for grant in state["fleet"]["open_grants"]:
            grant["clients"].reverse()
        assert_same(resumed(job, state), whole)


# -- lazy and eager ----------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("spoilt", [(), (1, 4, 6)], ids=["", "some diverge"])
def test_training_late_is_training_early_to_the_bit(job, spoilt):
    job = make_job(
        job.strategy.model_dump(),
        stop={"max_aggregations": 12},
        evaluation=EVERY_VERSION,
    )
    lazy, versions = run_training(MIXED_PHONES, job, world=WORLD, spoilt=spoilt)
    eager, same = run_training(MIXED_PHONES, job, world=WORLD, spoilt=spoilt, at_completion=True)
    assert_same(lazy, eager)
    np.testing.assert_array_equal(versions, same)
    failed = {task["client"] for task in lazy.tasks.to_pylist() if task["reason"] == "not_finite"}
    assert failed <= set(spoilt)
    assert bool(failed) == bool(spoilt)


def test_a_round_in_which_too_many_diverge_is_abandoned():
    """Three of four updates leave the numbers at the deadline; two would be enough."""
    strategy = FEDAVG | {"cohort_size": 5, "over_commitment": 1.0, "min_updates": 2}
    phones = [Phone(windows=[(i, 250)]) for i in range(4)] + [Phone([(500, 5000)])] * 2
    job = make_job(strategy, stop={"max_aggregations": 1}, evaluation=EVERY_VERSION)
    lazy, _ = run_training(phones, job, spoilt=(0, 1, 2))
    eager, _ = run_training(phones, job, spoilt=(0, 1, 2), at_completion=True)
    assert lazy.trajectory["updates"].to_pylist() == [0, 2]
    for result in (lazy, eager):
        assert rows(result.tasks, "client", "outcome") == [
            *((client, "failed") for client in range(4)),
            *((client, "succeeded") for client in (4, 5)),
        ]
    assert lazy.trajectory["virtual_s"].equals(eager.trajectory["virtual_s"])


def test_a_fleet_whose_every_update_diverges_comes_to_an_end():
    phones = [Phone(records=5)] * 3
    job = make_job(FEDBUFF, stop={"max_aggregations": 1})
    result, _ = run_training(phones, job, spoilt=(0, 1, 2), world={"period_s": 40_000.0})
    assert result.is_exhausted
    assert "no update has arrived for 30 virtual days" in result.stop_reason
    assert set(result.tasks["outcome"].to_pylist()) <= {"failed", "over_committed"}


# -- an update's numbers, computed apart -------------------------------------------------------


def reference_delta(phones, job, versions, task, seed: int = 7) -> np.ndarray:
    """Update of a row of the task table, float64, by gradients written out by hand."""
    x, y = records_of(phones).of(task["client"], newest=job.client.max_records)
    batches = []
    for epoch in range(job.client.local_epochs):
        order = epoch_order(len(x), shuffle_seed(seed, f"t{task['task']}"), epoch)
        for first in range(0, len(x), job.client.batch_size):
            batch = order[first : first + job.client.batch_size]
            batches.append((x[batch], y[batch]))
    base = unflatten(MODEL.parameters, versions[task["base_version"]])
    local, _ = reference_steps(MODEL, base, batches, job.client.optimizer.learning_rate)
    return np.concatenate([(after - b).ravel() for after, b in zip(local, base, strict=True)])


def succeeded(result, version: int):
    return [task for task in result.tasks.to_pylist() if task["version"] == version]


@BOTH
def test_lock_step_rejects_exactly_what_is_too_long(job):
    job = replace_optimizer(job, {"name": "sgd"}, evaluation=EVERY_VERSION)
    free, versions = run_training(MIXED_PHONES, job, world=WORLD)
    norms = [
        np.linalg.norm(reference_delta(MIXED_PHONES, job, versions, task))
        for task in free.tasks.to_pylist()
        if task["outcome"] == "succeeded"
    ]
    limit = float(np.quantile(norms, 0.8)) * 1.01
    limited = with_norm_limit(job, limit)
    result, versions = run_training(MIXED_PHONES, limited, world=WORLD)
    decided = {"succeeded": [], "rejected": []}
    for task in result.tasks.to_pylist():
        if task["outcome"] in decided:
            norm = np.linalg.norm(reference_delta(MIXED_PHONES, limited, versions, task))
            decided[task["outcome"]].append(norm)
            if task["outcome"] == "rejected":
                assert task["reason"] == "norm_exceeded"
    assert len(decided["rejected"]) > 3
    assert max(decided["succeeded"]) <= limit * (1 + 1e-5)
    assert min(decided["rejected"]) >= limit * (1 - 1e-5)
    assert abs(np.concatenate(list(decided.values())) / limit - 1).min() > 1e-5, "too close to tell"


def replace_optimizer(job, settings, **changes):
    strategy = job.strategy.model_dump() | {"server_optimizer": settings}
    return make_job(
        strategy,
        client=job.client.model_dump(),
        stop=job.stop.model_dump(),
        participation=job.participation.model_dump(),
        **changes,
    )


def test_fresh_buffers_the_size_of_the_cohort_are_fedavg():
    """Everyone's windows are open and nobody is back before the last has finished."""
    phones = [Phone(per_example_s=0.1 * (1 + i), records=20 + i) for i in range(6)]
    options = {"stop": {"max_aggregations": 8}, "evaluation": EVERY_VERSION}
    same = {"weighting": "examples", "server_optimizer": ADAM}
    buffered = make_job({"name": "fedbuff", "buffer_size": 6, "concurrency": 6, **same}, **options)
    averaged = make_job(
        {"name": "fedavg", "cohort_size": 6, "over_commitment": 1.0, **same}, **options
    )
    ours, ours_by_version = run_training(phones, buffered)
    _, theirs_by_version = run_training(phones, averaged)
    assert set(ours.trajectory["staleness_max"].to_pylist()) == {None, 0}
    np.testing.assert_allclose(ours_by_version, theirs_by_version, atol=1e-6)
    assert np.abs(ours_by_version[-1] - ours_by_version[0]).max() > 0.01


def test_a_buffer_of_one_takes_sequential_server_steps():
    phones = MIXED_PHONES[:3]
    job = make_job(
        FEDBUFF
        | {
            **{"buffer_size": 1, "concurrency": 1},
            "server_optimizer": {"name": "sgd", "learning_rate": 0.7},
        },
        stop={"max_aggregations": 9},
        evaluation=EVERY_VERSION,
    )
    result, versions = run_training(phones, job)
    expected = versions[0].astype(np.float64)
    for version in range(1, 10):
        (task,) = succeeded(result, version)
        assert task["base_version"] == version - 1
        expected = expected + 0.7 * reference_delta(phones, job, versions, task)
        np.testing.assert_allclose(versions[version], expected, atol=1e-5)


def test_a_buffer_of_updates_three_versions_old_moves_half_as_far():
    """Two slow phones train from version 0 while two quick ones make versions 1, 2 and 3."""
    slow, quick = Phone(per_example_s=100.0), Phone([(0, 300)], per_example_s=1.0)
    job = make_job(
        {"name": "fedbuff", "buffer_size": 2, "concurrency": 4, "max_staleness": 3},
        client={"optimizer": {"learning_rate": 0.1}, "task_timeout_s": 2000.0},
        stop={"max_aggregations": 4},
        evaluation=EVERY_VERSION,
    )
    phones = [slow, slow, quick, quick]
    result, versions = run_training(phones, job)
    stale = succeeded(result, 4)
    assert [(task["client"], task["base_version"]) for task in stale] == [(0, 0), (1, 0)]
    assert last_row(result)["staleness_mean"] == 3.0

    executor = training(make_dry_run(phones, job), phones)
    executor.set_weights(0, versions[0])
    seeds = [shuffle_seed(7, f"t{task['task']}") for task in stale]
    tasks = [TrainingTask(f"{i}", i, 0, 1.0, 0.1, seed) for i, seed in enumerate(seeds)]
    fresh = executor.reduce(tasks)
    half = (0.5 * fresh.sums[0].total.astype(np.float64) / 2).astype(np.float32)
    np.testing.assert_array_equal(versions[4], versions[3] + half)
    by_hand = sum(reference_delta(phones, job, versions, task) for task in stale) / 4
    np.testing.assert_allclose(half, by_hand, atol=1e-6)


# -- resume ------------------------------------------------------------------------------------


def run_with_states(job, *, every: int = 1):
    """The whole run, and its checkpoints: before the first event and after every k-th version."""
    dry_run = make_dry_run(MIXED_PHONES, job, **WORLD)
    trial = Trial(dry_run, 0, training(dry_run, MIXED_PHONES), weights_by_version([]))
    states = [encode_checkpoint("r", trial.state())]
    whole = trial.run(lambda state: states.append(encode_checkpoint("r", state)), every)
    return whole, states


def resumed(job, state):
    dry_run = make_dry_run(MIXED_PHONES, job, **WORLD)
    executor = training(dry_run, MIXED_PHONES)
    return Trial(dry_run, 0, executor, weights_by_version([]), state=state).run()


@pytest.mark.parametrize("lock_step", [False, True], ids=["lazy", "lock_step"])
@BOTH
def test_a_run_taken_up_again_anywhere_goes_on_as_if_nothing_had_been(job, lock_step):
    is_round = job is FEDAVG_JOB
    if lock_step:
        job = with_norm_limit(job, 0.3 if is_round else 0.15)
    whole, states = run_with_states(job)
    assert len(states) == 13
    ends = set(whole.tasks["reason"].to_pylist())
    assert {"aggregated", "window", "round_closed" if is_round else "dropout"} <= ends
    assert lock_step == ("norm_exceeded" in ends)
    for state in states:
        assert_same(resumed(job, decode_checkpoint("r", state)), whole)


@BOTH
def test_a_run_can_be_taken_up_after_any_event(job):
    """Between two aggregations too: with updates held, rounds half done, drop-outs not noticed."""
    dry_run = make_dry_run(MIXED_PHONES, job, **WORLD)
    states = []

    def keep(progress, _at_s):
        if progress.version in (0, 5) and progress.held < 3:
            states.append(encode_checkpoint("r", trial.state()))

    executor = training(dry_run, MIXED_PHONES)
    trial = Trial(dry_run, 0, executor, weights_by_version([]), on_progress=keep)
    whole = trial.run()
    assert len(states) > 10
    for state in states[:: max(1, len(states) // 12)]:
        assert_same(resumed(job, decode_checkpoint("r", state)), whole)


def test_checkpoints_come_every_so_many_aggregations():
    _, states = run_with_states(FEDBUFF_JOB, every=5)
    versions = [decode_checkpoint("r", state)["versions"]["number"] for state in states]
    assert versions == [0, 5, 10]


def test_a_run_taken_up_again_twice_is_still_the_same():
    whole, states = run_with_states(FEDBUFF_JOB)
    dry_run = make_dry_run(MIXED_PHONES, FEDBUFF_JOB, **WORLD)
    later = []
    Trial(
        dry_run,
        0,
        training(dry_run, MIXED_PHONES),
        weights_by_version([]),
        state=decode_checkpoint("r", states[3]),
    ).run(lambda state: later.append(encode_checkpoint("r", state)), 4)
    kept, again = decode_checkpoint("r", later[0]), decode_checkpoint("r", states[7])
    assert kept["versions"]["number"] == again["versions"]["number"] == 7
    for state in (kept, again):
        state.pop("wall_s")
        for row in state["rows"]:
            row.pop("wall_s")
    assert encode_checkpoint("r", kept) == encode_checkpoint("r", again)
    assert_same(resumed(FEDBUFF_JOB, decode_checkpoint("r", later[0])), whole)


# -- the clock's end ---------------------------------------------------------------------------


def test_the_clock_stops_at_the_last_hour_exactly():
    job = make_job(FEDBUFF, stop={"max_hours": 1.37})
    result, _ = run_training(MIXED_PHONES, job)
    assert result.virtual_s == 1.37 * 3600
    assert result.stop_reason == "max_hours 1.37 reached"
    assert max(t for t in result.tasks["ended_s"].to_pylist()) <= result.virtual_s
    assert not result.is_exhausted


def test_weights_that_are_returned_are_those_of_the_last_version():
    result, versions = run_training(MIXED_PHONES, FEDBUFF_JOB, world=WORLD)
    np.testing.assert_array_equal(result.weights, versions[-1])
    assert math.isfinite(float(np.abs(result.weights).sum()))
    assert len(versions) == 13
