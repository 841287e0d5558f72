"""The real gateway over gRPC and TLS: devices that mean harm, or are broken.

Whatever one device sends: that update is refused with its numbered reason and counted, round and
model are untouched, and every honest update counts.
"""

import math
import time

import grpc
import numpy as np
import pytest

from device_runtime.identity import DeviceKey, sign_upload
from device_runtime.protocol import device_pb2 as pb
from server.gateway.listening import MAX_DEVICE_MESSAGE_BYTES
from server.update_gate.rejections import RejectionReason
from tests.server.gateway.conftest import open_new_job
from tests.server.gateway.scripted_coordinator import ScriptedCoordinator
from tests.server.gateway.scripted_device import ScriptedDevice, status_of, wait_until
from tests.server.update_examples import (
    MODEL,
    changed,
    make_delta,
    make_job,
    make_payload,
    with_tensor,
)

pytestmark = pytest.mark.integration

Verdict = pb.UploadResponse
HONEST = make_payload()
KERNEL = MODEL.parameters[0].shape
ZERO = make_payload([np.zeros(p.shape, np.float32) for p in MODEL.parameters])


@pytest.fixture
def coordinator(shared_coordinator, gateway, deployment) -> ScriptedCoordinator:
    """A job that limits the norm of updates."""
    open_new_job(shared_coordinator, deployment, make_job(max_update_norm=1000.0))
    return shared_coordinator


@pytest.fixture
def device(new_device, coordinator) -> ScriptedDevice:
    return new_device()


@pytest.fixture
def honest(new_device, coordinator):
    """Two honest devices hold tasks; returns what checks that just their updates counted."""
    devices = [new_device() for _ in range(2)]
    tasks = [device.lease() for device in devices]

    def assert_only_they_count(coordinator: ScriptedCoordinator) -> None:
        for seed, (device, task) in enumerate(zip(devices, tasks, strict=True)):
            assert device.upload(task, make_payload(make_delta(seed))).verdict == Verdict.ACCEPTED
        (bucket,) = coordinator.release(f"r-{tasks[0].task_id}").buckets
        assert sorted(bucket.task_ids) == sorted(task.task_id for task in tasks)
        assert bucket.weight == 2.0
        expected = sum(np.concatenate([a.ravel() for a in make_delta(seed)]) for seed in range(2))
        np.testing.assert_allclose(np.frombuffer(bucket.sum, "<f4"), expected, rtol=1e-5)

    return assert_only_they_count


def kernel_with(value: float) -> bytes:
    array = np.zeros(KERNEL, np.float32)
    array.flat[0] = value
    return with_tensor(HONEST, array=array)


# The rows of the measured table (what a tenth client sends to flwr 1.41.0), and more.
HOSTILE = {
    "1e9-examples": (changed(HONEST, num_examples=10**9), 2108),
    "nan": (kernel_with(math.nan), 2105),
    "infinity": (kernel_with(math.inf), 2105),
    "negative-examples": (changed(HONEST, num_examples=-80), 2107),
    "examples-that-cancel-the-others": (changed(HONEST, num_examples=-90), 2107),
    "no-examples": (changed(HONEST, num_examples=0), 2107),
    "smallest-int64-examples": (changed(HONEST, num_examples=-(2**63)), 2107),
    "largest-int64-examples": (changed(HONEST, num_examples=2**63 - 1), 2108),
    "other-key": (with_tensor(HONEST, name="other/kernel"), 2102),
    "shape-1-silent-broadcast": (with_tensor(HONEST, array=np.ones(1, np.float32)), 2103),
    "shape-2-2": (with_tensor(HONEST, array=np.ones((2, 2), np.float32)), 2103),
    "shape-3": (with_tensor(HONEST, array=np.ones(3, np.float32)), 2103),
    "rank-up": (with_tensor(HONEST, shape=(*KERNEL, 1)), 2103),
    "rank-down": (with_tensor(HONEST, shape=(math.prod(KERNEL),)), 2103),
    "rank-20": (with_tensor(HONEST, shape=(*KERNEL, *[1] * 18)), 2101),
    "float64": (with_tensor(HONEST, array=np.ones(KERNEL)), 2104),
    "int32": (with_tensor(HONEST, array=np.ones(KERNEL, np.int32)), 2104),
    "float32-as-pickle": (with_tensor(HONEST, dtype="O"), 2104),
    "bytes-missing": (with_tensor(HONEST, data=b"\0\0\0"), 2101),
    "shape-beyond-memory": (with_tensor(HONEST, shape=(2**40, 2**40)), 2101),
    "norm-too-long": (kernel_with(1e6), 2106),
    "finite-1e30": (kernel_with(1e30), 2106),
    "truncated": (HONEST[:-5], 2101),
    "noise": (bytes(range(256)), 2101),
    "empty": (b"", 2102),
    "oversize": (HONEST + bytes(10_000), 2006),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_update_is_refused_with_its_number_and_the_honest_ones_count(
    name, device, honest, coordinator
):
    payload, code = HOSTILE[name]
    task = device.lease()
    response = device.upload(task, payload)
    assert (response.verdict, response.reason_code) == (Verdict.REJECTED, code), response
    assert response.reason
    ended = coordinator.ended(task.task_id)
    assert (ended.outcome, ended.reason_code) == ("rejected", code)
    assert ended.reason == RejectionReason(code).name.lower()
    assert device.upload(task, payload).reason_code == code, "the same again, the same answer"
    assert device.settlement(task, payload).state == pb.Settlement.DROPPED
    honest(coordinator)


def test_norm_zero_is_legal(device, coordinator):
    task = device.lease()
    assert device.upload(task, ZERO).verdict == Verdict.ACCEPTED
    assert coordinator.completed(task.task_id).update_norm == 0.0


def test_a_wrong_digest_is_refused(device, honest, coordinator):
    task = device.lease()
    assert device.upload(task, HONEST, digest=b"x" * 32).reason_code == 2003
    assert coordinator.ended(task.task_id).reason == "digest_mismatch"
    honest(coordinator)


def test_a_wrong_contract_is_refused(device, honest, coordinator):
    task = device.lease()
    assert device.upload(task, HONEST, contract=b"x" * 32).reason_code == 2005
    assert coordinator.ended(task.task_id).reason == "contract_mismatch"
    honest(coordinator)


def test_an_unknown_task_is_refused_and_counted(device, honest, coordinator):
    task = device.lease()
    for token in (b"", b"x" * 100, task.token[:-1], task.token + b"\0", device.credential):
        assert device.upload(task, HONEST, token=token).reason_code == 2001
    coordinator.refused(2001)
    honest(coordinator)
    assert device.upload(task, HONEST).verdict == Verdict.ACCEPTED, "its own task is untouched"


def test_someone_elses_token_is_refused_and_its_lessee_may_still_answer(
    device, new_device, honest, coordinator
):
    task, thief = device.lease(), new_device()
    assert thief.upload(task, HONEST).reason_code == 2002
    coordinator.refused(2002)
    honest(coordinator)
    assert device.upload(task, HONEST).verdict == Verdict.ACCEPTED


def test_a_stolen_token_lets_nobody_settle_or_learn(device, new_device):
    task, thief = device.lease(), new_device()
    settlement = thief.settlement(task, HONEST)
    assert (settlement.state, settlement.reason) == (pb.Settlement.DROPPED, "unknown_task")


def test_a_replayed_upload_is_counted_once(device, honest, coordinator):
    task = device.lease()
    request = device.upload_request(task, HONEST)
    for _ in range(3):
        assert device.stub.Upload(request).verdict == Verdict.ACCEPTED
    (bucket,) = coordinator.release(f"r-replay-{task.task_id}").buckets
    assert list(bucket.task_ids) == [task.task_id]
    assert device.stub.Upload(request).verdict == Verdict.ACCEPTED
    honest(coordinator)


def test_another_digest_for_an_answered_task_is_refused(device, honest, coordinator):
    task = device.lease()
    device.upload(task, HONEST)
    assert device.upload(task, ZERO).reason_code == 2004
    coordinator.refused(2004)
    coordinator.send(drop={"base_version": 1, "outcome": "failed", "reason": "test"})
    wait_until(lambda: device.settlement(task, HONEST).state == pb.Settlement.DROPPED)
    honest(coordinator)


@pytest.mark.parametrize("forgery", ["signature", "key", "digest", "credential", "old", "future"])
def test_an_upload_its_device_did_not_sign_now_is_refused(device, honest, coordinator, forgery):
    task = device.lease()
    device.skew_ms = {"old": -301_000, "future": 301_000}.get(forgery, 0)
    request = device.upload_request(task, HONEST)
    if forgery == "signature":
        request.proof.signature = request.proof.signature[:-1] + b"\0"
    elif forgery == "key":
        sign_upload(
            DeviceKey.generate(),
            request,
            device_id=device.device_id,
            credential=device.credential,
            timestamp_ms=device.now_ms(),
        )
    elif forgery == "digest":
        request.payload_sha256 = b"y" * 32
    elif forgery == "credential":
        request.proof.credential = request.proof.credential[:-1] + b"\0"
    assert device.stub.Upload(request).reason_code == 2007
    coordinator.refused(2007)
    honest(coordinator)
    device.skew_ms = 0
    assert device.upload(task, HONEST).verdict == Verdict.ACCEPTED


@pytest.mark.parametrize("forgery", ["body", "other device", "credential", "old", "none"])
def test_a_check_in_its_device_did_not_sign_now_is_not_answered(device, new_device, forgery):
    device.skew_ms = -301_000 if forgery == "old" else 0
    request = device.check_in_request()
    if forgery == "body":
        request.satisfied_policy_sha256 = b"p" * 32
    elif forgery == "other device":
        request.proof.device_id = new_device().device_id
    elif forgery == "credential":
        request.proof.credential = new_device().credential
    elif forgery == "none":
        request.ClearField("proof")
    status = status_of(lambda: device.stub.CheckIn(request))
    assert status == grpc.StatusCode.UNAUTHENTICATED


def test_a_clock_a_little_wrong_is_accepted(device):
    device.skew_ms = 290_000
    assert device.check_in().come_back_after_s > 0


def test_blobs_a_task_does_not_name_are_not_given(device, deployment):
    task = device.lease()
    secret = b"s" * 32
    for token, digest, status in (
        (task.token, secret, grpc.StatusCode.PERMISSION_DENIED),
        (task.token, b"", grpc.StatusCode.PERMISSION_DENIED),
        (b"forged" * 10, task.parameters_sha256, grpc.StatusCode.PERMISSION_DENIED),
    ):
        assert status_of(lambda t=token, d=digest: device.fetch(t, d)) == status
    beyond = status_of(lambda: device.fetch(task.token, task.manifest_sha256, 10**9))
    assert beyond == grpc.StatusCode.OUT_OF_RANGE


def test_a_blob_that_is_not_in_the_store_is_said_to_be_missing(device, coordinator):
    coordinator.send(set_model={"version": 2, "parameters_sha256": b"gone" * 8})
    coordinator.release(f"r-{device.device_id}")
    task = device.lease()
    status = status_of(lambda: device.fetch(task.token, task.parameters_sha256))
    assert status == grpc.StatusCode.NOT_FOUND


def test_what_is_larger_than_any_message_is_refused_by_the_transport(device, honest, coordinator):
    task = device.lease()
    request = device.upload_request(task, bytes(MAX_DEVICE_MESSAGE_BYTES))
    assert status_of(lambda: device.stub.Upload(request)) == grpc.StatusCode.RESOURCE_EXHAUSTED
    honest(coordinator)
    assert device.upload(task, HONEST).verdict == Verdict.ACCEPTED


def test_a_forged_report_ends_nothing(device):
    task = device.lease()
    request = pb.ReportOutcomeRequest(
        task_token=task.token[:-1], outcome=pb.ReportOutcomeRequest.FAILED
    )
    status = status_of(lambda: device.stub.ReportOutcome(request))
    assert status == grpc.StatusCode.PERMISSION_DENIED
    request = pb.ReportOutcomeRequest(task_token=task.token)
    status = status_of(lambda: device.stub.ReportOutcome(request))
    assert status == grpc.StatusCode.INVALID_ARGUMENT
    assert device.upload(task, HONEST).verdict == Verdict.ACCEPTED


def test_costs_that_cannot_be_true_are_made_harmless(device, coordinator):
    task = device.lease()
    request = device.upload_request(task, HONEST)
    request.cost.train_s = math.inf
    request.cost.bytes_down = 2**64 - 1
    device.stub.Upload(request)
    completed = coordinator.completed(task.task_id)
    assert completed.train_s == 0.0
    assert completed.bytes_down == 2**53


def test_a_thousand_pending_updates_are_not_a_thousand_look_ups(device):
    pending = [pb.PendingUpdate(task_id=f"t{n}") for n in range(1000)]
    begun_s = time.monotonic()
    assert len(device.check_in(pending=pending).settlements) == 16
    assert time.monotonic() - begun_s < 2.0
