"""Tasks that ask for a codec, by real devices against a scripted gateway."""

import numpy as np
import pytest

from device_runtime.compression import KNOWN_CODECS, UpdateCodec, compress
from device_runtime.encoded_tensors import all_decoded
from device_runtime.engine import LiteRtEngine
from device_runtime.protocol import device_pb2 as pb
from device_runtime.training import train
from device_runtime.training_plan import TrainingPlan
from device_runtime.update_codec import WireUpdate, flatten, unflatten

Verdict = pb.UploadResponse
TOP_K = UpdateCodec("top_k", 0.1, "float16", error_feedback=True)


@pytest.fixture
def learned(artifacts, tiny):
    """What a task teaches a device, by the engine alone: the delta, flat."""
    artifact = artifacts("tiny_mlp")
    engine = LiteRtEngine(artifact.model_bytes, artifact.manifest)

    def of(task: pb.Task, device) -> np.ndarray:
        records = device.examples.load(100)
        base = tiny.initial_parameters(seed=1)
        return flatten(train(engine, TrainingPlan.from_message(task.plan), base, *records).delta)

    return of


def sent(update: WireUpdate) -> np.ndarray:
    return all_decoded([tensor.encoded() for tensor in update.tensors])


def by_codec(values: np.ndarray, codec: UpdateCodec, seed: int, tiny) -> np.ndarray:
    return all_decoded(compress(unflatten(tiny.parameters, values), codec, seed=seed))


@pytest.mark.parametrize(
    "codec", [UpdateCodec("float16"), UpdateCodec("int8"), UpdateCodec("top_k", 0.2, "int8")]
)
def test_an_update_comes_in_the_codec_its_task_asks_for(
    gateway, start_device, make_task, learned, tiny, codec
):
    task = make_task(codec=codec.to_message())
    gateway.tasks.append(task)
    device = start_device()
    device.step_until(lambda: gateway.uploads)
    (update,) = gateway.updates()
    expected = by_codec(learned(task, device), codec, task.plan.shuffle_seed, tiny)
    np.testing.assert_array_equal(sent(update), expected)
    assert {tensor.dtype for tensor in update.tensors} == {codec.value_encoding}
    assert update.num_examples == 50
    assert device.store.residual("j-1", tiny.parameter_count) is None
    assert gateway.uploads[0].cost.bytes_up == len(gateway.uploads[0].payload)


def test_a_device_says_which_codecs_it_knows(gateway, start_device):
    start_device().step_until_idle()
    assert {tuple(check_in.codecs) for check_in in gateway.check_ins} == {KNOWN_CODECS}


def test_a_codec_nobody_knows_fails_the_task_not_the_device(gateway, start_device, make_task):
    gateway.tasks += [make_task("t-1", codec=pb.UpdateCodec(name="fft")), make_task("t-2")]
    device = start_device()
    device.step_until(lambda: gateway.uploads, limit=400)
    assert [report.reason for report in gateway.reports] == ["invalid_plan"]


def test_what_an_update_leaves_out_comes_with_the_next(
    gateway, start_device, make_task, learned, tiny
):
    tasks = [make_task(f"t-{n}", shuffle_seed=n, codec=TOP_K.to_message()) for n in range(3)]
    gateway.tasks += tasks
    gateway.settlements |= {"t-0": pb.Settlement.COMMITTED, "t-1": pb.Settlement.HELD}
    device = start_device()
    device.step_until(lambda: len(gateway.uploads) == 3, limit=400)
    owed = np.zeros(tiny.parameter_count, np.float32)
    for task, update in zip(tasks, gateway.updates(), strict=True):
        owed += learned(task, device)
        expected = by_codec(owed, TOP_K, task.plan.shuffle_seed, tiny)
        np.testing.assert_allclose(sent(update), expected, rtol=0, atol=1e-6)
        assert np.count_nonzero(expected) == TOP_K.sent_of(tiny.parameter_count)
        owed -= expected
    left = device.store.residual("j-1", tiny.parameter_count)
    np.testing.assert_allclose(left, owed, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "verdict", [Verdict.STALE, Verdict.OVER_COMMITTED, Verdict.REJECTED], ids=str
)
def test_an_update_that_does_not_count_leaves_the_residual_as_it_was(
    gateway, start_device, make_task, tiny, verdict
):
    gateway.tasks += [make_task(f"t-{n}", codec=TOP_K.to_message()) for n in range(2)]
    gateway.verdicts += [
        pb.UploadResponse(verdict=Verdict.COMMITTED),
        pb.UploadResponse(verdict=verdict, reason_code=2003),
    ]
    device = start_device()
    device.step_until(lambda: gateway.uploads)
    device.step_until(lambda: not device.store.pending())
    before = device.store.residual("j-1", tiny.parameter_count)
    device.step_until(lambda: len(gateway.uploads) == 2, limit=400)
    device.step_until(lambda: not device.store.pending())
    np.testing.assert_array_equal(device.store.residual("j-1", tiny.parameter_count), before)
    assert before.any()


@pytest.mark.parametrize("reason_code", [2105, 2106])
def test_an_update_refused_for_what_it_may_have_carried_lets_go_of_it(
    gateway, start_device, make_task, tiny, reason_code
):
    """Else an update too long because of it would be followed by others too long."""
    gateway.tasks += [make_task(f"t-{n}", codec=TOP_K.to_message()) for n in range(2)]
    gateway.verdicts += [
        pb.UploadResponse(verdict=Verdict.COMMITTED),
        pb.UploadResponse(verdict=Verdict.REJECTED, reason_code=reason_code),
    ]
    device = start_device()
    device.step_until(lambda: len(gateway.uploads) == 2, limit=400)
    device.step_until(lambda: not device.store.pending())
    assert device.store.residual("j-1", tiny.parameter_count) is None


def test_a_task_of_another_job_or_a_users_no_deletes_what_was_left_out(
    gateway, start_device, make_task, tiny
):
    gateway.tasks.append(make_task("t-1", codec=TOP_K.to_message()))
    device = start_device()
    device.step_until(lambda: gateway.uploads)
    device.store.settle(*device.store.pending(), counted=True)
    assert device.store.residual("j-1", tiny.parameter_count) is not None
    other = make_task("t-2")
    other.job_id = "j-2"
    gateway.tasks.append(other)
    device.step_until(lambda: len(gateway.uploads) == 2, limit=400)
    assert device.store.residual("j-1", tiny.parameter_count) is None
