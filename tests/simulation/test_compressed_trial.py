"""Dry-runs of jobs that compress updates: what is summed is what a server would decode."""

from itertools import pairwise

import numpy as np
import pytest

from device_runtime.compression import compress
from device_runtime.encoded_tensors import all_decoded
from device_runtime.update_codec import flatten, unflatten
from modeling.zoo import get_model
from simulation.checkpoint import decode_checkpoint, encode_checkpoint
from simulation.executors.processes import ProcessExecutors
from simulation.executors.training import LocalPlan
from simulation.trial import Trial
from simulation.update_bytes import (
    MAX_RESIDUAL_BYTES,
    ResidualsTooLarge,
    require_room_for_residuals,
    update_bytes,
)
from tests.simulation.small_worlds import (
    EVERY_VERSION,
    FEDAVG,
    FEDBUFF,
    MODEL,
    Phone,
    make_dry_run,
    make_job,
    records_of,
    run_training,
    training,
    weights_by_version,
)
from tests.simulation.test_trial import assert_same, with_norm_limit

PHONES = [Phone(per_example_s=(0.5, 2.0, 9.0)[i % 3], records=6 + 4 * i) for i in range(7)]
CODECS = {
    "float16": {"name": "float16"},
    "int8": {"name": "int8"},
    "top_k": {"name": "top_k", "fraction": 0.05},
    "top_k_int8": {"name": "top_k", "fraction": 0.1, "values": "int8"},
    "top_k_alone": {"name": "top_k", "fraction": 0.05, "error_feedback": False},
}
EVERY = pytest.mark.parametrize("codec", CODECS)
STRATEGIES = {"fedbuff": FEDBUFF | {"max_staleness": 1}, "fedavg": FEDAVG}
BOTH = pytest.mark.parametrize("strategy", STRATEGIES)


def job_of(codec: str | None, strategy: str = "fedbuff", **blocks):
    """Few phones and small buffers, so that a phone often is in two releases that follow."""
    client = {"optimizer": {"learning_rate": 0.3}, "local_epochs": 2}
    if codec is not None:
        client["compression"] = CODECS[codec]
    return make_job(
        STRATEGIES[strategy],
        client=client,
        evaluation=EVERY_VERSION,
        **{"stop": {"max_aggregations": 10}} | blocks,
    )


@EVERY
@BOTH
def test_a_job_that_compresses_gives_another_model_by_the_same_events(codec, strategy):
    plain, _ = run_training(PHONES, job_of(None, strategy))
    found, _ = run_training(PHONES, job_of(codec, strategy))
    assert found.tasks.equals(plain.tasks)
    assert not np.array_equal(found.weights, plain.weights)
    moved = np.linalg.norm(plain.weights - flatten(MODEL.initial_parameters(0)))
    limit = {"float16": 1e-3, "int8": 0.1}.get(codec, 1.0)
    assert np.linalg.norm(found.weights - plain.weights) < limit * moved


@EVERY
@BOTH
def test_training_late_is_training_early_to_the_bit(codec, strategy):
    job = job_of(codec, strategy)
    lazy, _ = run_training(PHONES, job)
    eager, _ = run_training(PHONES, job, at_completion=True)
    assert_same(eager, lazy)


@BOTH
def test_error_feedback_does_not_care_how_many_executors_there_are(strategy):
    job = job_of("top_k", strategy)
    alone, _ = run_training(PHONES, job)
    dry_run = make_dry_run(PHONES, job)
    executor = ProcessExecutors(2, MODEL, LocalPlan.of(job.client), records_of(PHONES))
    try:
        assert_same(Trial(dry_run, 0, executor, weights_by_version([])).run(), alone)
    finally:
        executor.close()


@pytest.mark.parametrize("lock_step", [False, True], ids=["lazy", "lock-step"])
@BOTH
def test_a_run_taken_up_again_carries_what_was_left_out(strategy, lock_step):
    job = job_of("top_k", strategy)
    if lock_step:
        job = with_norm_limit(job, 0.65)
    whole, _ = run_training(PHONES, job)
    assert ("norm_exceeded" in whole.tasks["reason"].to_pylist()) == lock_step
    states = []
    dry_run = make_dry_run(PHONES, job)
    first = Trial(dry_run, 0, training(dry_run, PHONES), weights_by_version([]))
    first.run(lambda state: states.append(encode_checkpoint("s", state)), 1)
    assert len(states) >= 8
    for state in states:
        taken_up = Trial(
            dry_run,
            0,
            training(dry_run, PHONES),
            weights_by_version([]),
            state=decode_checkpoint("s", state),
        )
        assert_same(taken_up.run(), whole)


def test_another_trial_begins_with_nothing_left_out():
    job = job_of("top_k")
    dry_run = make_dry_run(PHONES, job)
    executor = training(dry_run, PHONES)
    first = Trial(dry_run, 0, executor, weights_by_version([])).run()
    executor.forget_weights(2**62)
    assert executor.residuals() == {"counted": [], "pending": []}
    assert_same(Trial(dry_run, 0, executor, weights_by_version([])).run(), first)


def test_one_phone_with_error_feedback_step_by_step():
    """Sequential steps of a single client, against the codec and the engine's own numbers."""
    phones, job = PHONES[3:4], job_of("top_k", strategy="fedbuff")
    job = job.model_copy(
        update={"strategy": job.strategy.model_copy(update={"buffer_size": 1, "concurrency": 1})}
    )
    codec = job.client.compression.codec
    _, versions = run_training(phones, job)
    plain = job.model_copy(
        update={
            "client": job.client.model_copy(update={"compression": job_of(None).client.compression})
        }
    )
    dry_run = make_dry_run(phones, plain)
    executor = training(dry_run, phones)
    owed = np.zeros(MODEL.parameter_count, np.float32)
    for number, (before, after) in enumerate(pairwise(versions)):
        task = task_of(dry_run, number, before, executor)
        owed += task
        sent = all_decoded(compress(unflatten(MODEL.parameters, owed), codec, seed=0))
        np.testing.assert_allclose(after - before, sent, rtol=0, atol=2e-6)
        assert np.count_nonzero(sent) == codec.sent_of(MODEL.parameter_count)
        owed -= sent
    assert np.linalg.norm(owed) > 0.1 * np.linalg.norm(versions[-1] - versions[0])


def task_of(dry_run, number: int, weights, executor) -> np.ndarray:
    """What the single client learns from these weights, uncompressed."""
    from server.coordination.selection import shuffle_seed
    from simulation.executors import TrainingTask

    executor.set_weights(number, weights)
    client = dry_run.job.client
    seed = shuffle_seed(7, f"t{number + 1}")
    task = TrainingTask("alone", 0, number, 1.0, client.optimizer.learning_rate, seed)
    return executor.reduce([task]).sums[0].total.copy()


@EVERY
def test_the_bytes_of_a_task_are_those_of_a_devices_update(codec):
    for model in (MODEL, get_model("sparse_mlp")):
        size, plain = update_bytes(job_of(codec), model), update_bytes(job_of(None), model)
        per_value = {"float16": 2, "int8": 1 + 4 / 256}.get(codec)
        if per_value is None:
            settings = CODECS[codec]
            per_value = settings["fraction"] * (3.2 if settings.get("values") != "int8" else 2.2)
        framing = 40 * len(model.parameters) + 40
        assert size == pytest.approx(per_value * model.parameter_count, rel=0.1, abs=framing)
        assert size < 0.6 * plain


def test_error_feedback_of_more_clients_than_fit_is_refused_in_a_sentence():
    model = get_model("sparse_mlp")
    each = 4 * model.parameter_count
    too_many = MAX_RESIDUAL_BYTES // each + 1
    endless = job_of("top_k", stop={"max_hours": 10})
    require_room_for_residuals(endless, model, too_many - 1)
    with pytest.raises(ResidualsTooLarge, match=r"population.clients.*FLN-1722"):
        require_room_for_residuals(endless, model, too_many)
    few_updates = job_of("top_k", stop={"max_updates": 1000, "max_hours": 10})
    require_room_for_residuals(few_updates, model, 10**7)
    require_room_for_residuals(job_of("top_k_alone", stop={"max_hours": 10}), model, 10**7)
    require_room_for_residuals(job_of(None), model, 10**7)
