"""The real gateway over gRPC and TLS: devices that mean well."""

import time
import urllib.request

import grpc
import numpy as np
import pytest

from device_runtime.gateway_client import open_channel
from device_runtime.identity import DeviceKey
from device_runtime.protocol import device_pb2 as pb
from device_runtime.protocol.device_pb2_grpc import DeviceGatewayStub
from device_runtime.update_codec import sha256_of
from server.fleet_protocol import fleet_pb2 as fleet_pb
from tests.server.gateway.conftest import ARTIFACT, MANIFEST, PARAMETERS
from tests.server.gateway.scripted_device import ScriptedDevice, status_of, wait_until
from tests.server.update_examples import make_delta, make_job, make_payload

pytestmark = pytest.mark.integration

Verdict = pb.UploadResponse
State = pb.Settlement
A, B = make_payload(make_delta(1)), make_payload(make_delta(2))


@pytest.fixture
def device(new_device, coordinator) -> ScriptedDevice:
    return new_device()


def test_the_life_of_an_update(device, coordinator):
    response = device.check_in()
    assert not response.HasField("task")
    assert response.policy.policy_sha256 == make_job().participation.policy().sha256()
    assert abs(response.server_time_ms - time.time() * 1000) < 5000
    task = device.check_in(response.policy.policy_sha256).task
    assert device.fetch(task.token, task.parameters_sha256) == PARAMETERS
    assert device.fetch(task.token, task.artifact_sha256) == ARTIFACT
    assert device.fetch(task.token, task.manifest_sha256) == MANIFEST
    uploaded = device.upload(task, A)
    assert uploaded.verdict == Verdict.ACCEPTED
    assert uploaded.come_back_after_s > 0
    completed = coordinator.completed(task.task_id)
    assert completed.client_id == device.device_id
    assert (completed.train_s, completed.bytes_down) == (1.5, 11)
    assert completed.bytes_up == len(A)
    assert device.settlement(task, A).state == State.HELD
    (bucket,) = coordinator.release("r-life").buckets
    assert list(bucket.task_ids) == [task.task_id]
    np.testing.assert_allclose(
        np.frombuffer(bucket.sum, "<f4"),
        np.concatenate([a.ravel() for a in make_delta(1)]),
        rtol=1e-6,
    )
    coordinator.commit("r-life")
    wait_until(lambda: device.settlement(task, A).state == State.COMMITTED)
    assert device.upload(task, A).verdict == Verdict.COMMITTED


def test_leases_and_folds_are_told_to_the_coordinator_at_once(device, coordinator):
    task = device.lease()
    coordinator.wait_for(lambda m: any(t.task_id == task.task_id for t in m.progress.leased))
    begun_s = time.monotonic()
    device.upload(task, A)
    coordinator.completed(task.task_id)
    assert time.monotonic() - begun_s < 1.0


def test_updates_of_many_devices_are_each_in_the_sum_once(new_device, coordinator):
    devices = [new_device() for _ in range(12)]
    tasks = [device.lease() for device in devices]
    payloads = [make_payload(make_delta(seed)) for seed in range(12)]
    futures = [
        device.stub.Upload.future(device.upload_request(task, payload))
        for device, task, payload in zip(devices, tasks, payloads, strict=True)
        for _ in range(2)  # each sent twice at the same time
    ]
    verdicts = [future.result().verdict for future in futures]
    assert set(verdicts) <= {Verdict.ACCEPTED, Verdict.RETRY_LATER}
    for device, task, payload in zip(devices, tasks, payloads, strict=True):
        assert device.upload(task, payload).verdict == Verdict.ACCEPTED
    (bucket,) = coordinator.release("r-many").buckets
    assert sorted(bucket.task_ids) == sorted(task.task_id for task in tasks)
    expected = sum(
        np.concatenate([a.ravel() for a in make_delta(seed)]).astype(float) for seed in range(12)
    )
    np.testing.assert_allclose(np.frombuffer(bucket.sum, "<f4"), expected, rtol=1e-4, atol=1e-4)


def test_a_device_that_lost_the_answer_gets_the_same_task_again(device):
    assert device.lease() == device.lease()


def test_a_fetch_goes_on_where_it_broke_off(device):
    task = device.lease()
    assert device.fetch(task.token, task.parameters_sha256, 700_001) == PARAMETERS[700_001:]
    assert device.fetch(task.token, task.parameters_sha256, len(PARAMETERS)) == b""


def test_a_reported_outcome_ends_the_task_with_the_devices_reason(device, coordinator):
    task = device.lease()
    device.stub.ReportOutcome(
        pb.ReportOutcomeRequest(
            task_token=task.token,
            outcome=pb.ReportOutcomeRequest.INTERRUPTED,
            reason="battery",
            cost=pb.DeviceCost(train_s=float("nan")),
        )
    )
    ended = coordinator.ended(task.task_id)
    assert (ended.outcome, ended.reason, ended.train_s) == ("interrupted", "battery", 0.0)
    assert device.lease().task_id != task.task_id


@pytest.mark.parametrize(
    ("outcome", "reason", "told"),
    [
        (pb.ReportOutcomeRequest.FAILED, "engine", ("failed", "engine")),
        (pb.ReportOutcomeRequest.DECLINED, "", ("interrupted", "declined")),
        (pb.ReportOutcomeRequest.FAILED, "Robert'); DROP TABLE", ("failed", "other")),
    ],
)
def test_outcomes_a_device_can_report(device, coordinator, outcome, reason, told):
    task = device.lease()
    device.stub.ReportOutcome(
        pb.ReportOutcomeRequest(task_token=task.token, outcome=outcome, reason=reason)
    )
    ended = coordinator.ended(task.task_id)
    assert (ended.outcome, ended.reason) == told


def test_stale_is_an_outcome_not_a_rejection(device, coordinator):
    task = device.lease()
    coordinator.send(
        set_model=fleet_pb.SetModel(
            version=9, parameters_sha256=task.parameters_sha256, oldest_live_version=5
        )
    )
    coordinator.release("r-after-set-model")  # orders are carried out one after another
    response = device.upload(task, A)
    assert (response.verdict, response.reason_code) == (Verdict.STALE, 0)
    assert coordinator.ended(task.task_id).outcome == "stale"


def test_late_answers_of_a_closed_round_are_over_committed(device, coordinator):
    task = device.lease()
    coordinator.send(cancel=fleet_pb.Cancel(grant_id="g1", running_too=True))
    coordinator.release("r-after-cancel")
    assert device.upload(task, A).verdict == Verdict.OVER_COMMITTED
    assert coordinator.ended(task.task_id).reason == "round_closed"


def test_enrolling_the_same_key_again_gives_the_same_identity(device, deployment):
    again = device.enrol(deployment.enrolment_token)
    assert again.device_id == device.device_id


def test_an_enrolment_token_that_is_not_ours_lets_nobody_in(device):
    device.key = DeviceKey.generate()
    with pytest.raises(grpc.RpcError, match="enrolment token"):
        device.enrol("not a token")


def test_a_key_that_is_not_proven_to_be_held_is_not_enrolled(device, deployment):
    request = pb.EnrolRequest(
        enrolment_token=deployment.enrolment_token,
        public_key=DeviceKey.generate().public_key_der,
        proof_of_possession=device.key.sign(b"something else"),
    )
    assert status_of(lambda: device.stub.Enrol(request)) == grpc.StatusCode.PERMISSION_DENIED
    request.public_key = b"no key"
    assert status_of(lambda: device.stub.Enrol(request)) == grpc.StatusCode.INVALID_ARGUMENT
    request.os_release = "x" * 10_000
    assert status_of(lambda: device.stub.Enrol(request)) == grpc.StatusCode.INVALID_ARGUMENT


def test_metrics_say_what_happened(device, coordinator, deployment):
    device.upload(device.lease(), b"")
    device.upload(device.lease(), A)
    url = f"http://127.0.0.1:{deployment.settings.gateway_metrics_port}/metrics"
    with urllib.request.urlopen(url) as answer:
        lines = answer.read().decode().splitlines()
    values = {k: float(v) for k, v in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}
    assert values["flint_gateway_updates_held"] == 1
    assert values["flint_gateway_tasks_leased"] == 0
    assert values["flint_gateway_model_version"] == 1
    assert values["flint_gateway_check_ins_total"] >= 2
    assert values['flint_gateway_bytes_total{direction="up"}'] >= len(A)
    assert values["flint_gateway_fold_seconds_count"] >= 1
    assert values['flint_gateway_updates_total{outcome="rejected",reason="wrong_names"}'] >= 1


def test_without_the_deployments_ca_nobody_is_trusted(device, deployment):
    address = deployment.settings.gateway_address
    for channel in (
        grpc.secure_channel(address, grpc.ssl_channel_credentials()),
        open_channel(address, None),
    ):
        with channel:
            stub = DeviceGatewayStub(channel)
            status = status_of(lambda stub=stub: stub.CheckIn(device.check_in_request(), timeout=5))
            assert status == grpc.StatusCode.UNAVAILABLE


def test_the_coordinator_lets_in_the_gateways_certificate_only(deployment, coordinator):
    from server.fleet_protocol import fleet_pb2_grpc

    ca = deployment.settings.ca_certificate.read_bytes()
    credentials = grpc.ssl_channel_credentials(ca)
    with grpc.secure_channel(deployment.settings.coordinator_address, credentials) as channel:
        stub = fleet_pb2_grpc.FleetLinkStub(channel)
        assert status_of(lambda: next(stub.Attach(iter([])))) == grpc.StatusCode.UNAVAILABLE


def test_two_pending_updates_are_settled_at_one_check_in(device, coordinator):
    first = device.lease()
    device.upload(first, A)
    coordinator.release("r-two")
    coordinator.commit("r-two")
    second = device.lease()
    device.upload(second, B)
    wait_until(lambda: device.settlement(first, A).state == State.COMMITTED)
    settlements = device.check_in(
        pending=[device.pending(first, A), device.pending(second, B)]
    ).settlements
    assert [s.state for s in settlements] == [State.COMMITTED, State.HELD]


def test_an_update_nobody_leased_is_settled_as_dropped(device):
    forged = pb.PendingUpdate(task_id="t-x", payload_sha256=sha256_of(A), task_token=b"x" * 80)
    (settlement,) = device.check_in(pending=[forged]).settlements
    assert (settlement.state, settlement.reason) == (State.DROPPED, "unknown_task")
