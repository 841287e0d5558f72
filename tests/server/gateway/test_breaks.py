"""Connections, coordinators, gateways and aggregators that end in the middle of things."""

import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace

import grpc
import numpy as np
import pytest
from sqlalchemy import create_engine

from device_runtime.identity import sign_feature_request
from device_runtime.protocol import device_pb2 as pb
from device_runtime.protocol import features_pb2 as features_pb
from device_runtime.protocol.features_pb2_grpc import DeviceFeaturesStub
from device_runtime.update_codec import sha256_of
from feature_catalog.task_outcomes import TaskOutcomeRow, record_outcomes
from server.aggregation.process import AggregatorLost, aggregator_socket
from server.gateway.answers import OutcomesUnreachable
from server.gateway.catalog import CatalogEnrolment, CatalogOutcomes, EnrolmentUnavailable
from server.gateway.gateway import Gateway
from server.gateway.listening import UnreadableKeys
from server.gateway.service import TransferLimits
from server.operations.ports import PortInUse
from server.operations.settings import ServerSettings
from tests.server.gateway.conftest import Deployment, with_free_ports
from tests.server.gateway.scripted_coordinator import ScriptedCoordinator
from tests.server.gateway.scripted_device import ScriptedDevice, status_of, wait_until
from tests.server.update_examples import make_delta, make_payload

pytestmark = pytest.mark.integration

Verdict = pb.UploadResponse
State = pb.Settlement
A, B = make_payload(make_delta(1)), make_payload(make_delta(2))


@pytest.fixture
def own(deployment) -> Deployment:
    """The same database and keys with ports of this test's own."""
    return replace(deployment, settings=with_free_ports(deployment.settings))


@pytest.fixture
def coordinator(own) -> Iterator[ScriptedCoordinator]:
    coordinator = ScriptedCoordinator(own.settings)
    yield coordinator
    coordinator.stop()


@pytest.fixture
def start_gateway(own, coordinator) -> Iterator[Callable[..., Gateway]]:
    running: list[Gateway] = []

    def start(settings: ServerSettings | None = None, **options) -> Gateway:
        running.append(Gateway(settings or own.settings, **options))
        return running[-1]

    yield start
    for gateway in running:
        gateway.close()


@pytest.fixture
def new_device(own) -> Iterator[Callable[[], ScriptedDevice]]:
    devices = []

    def make(settings: ServerSettings | None = None) -> ScriptedDevice:
        devices.append(ScriptedDevice(settings or own.settings, own.enrolment_token))
        return devices[-1]

    yield make
    for device in devices:
        device.close()


def test_while_the_coordinator_is_away_uploads_are_taken_and_told_when_it_is_back(
    own, coordinator, start_gateway, new_device
):
    start_gateway()
    coordinator.open("j-away", own.blobs)
    first, second, waiting = new_device(), new_device(), new_device()
    tasks = [first.lease(), second.lease()]
    coordinator.stop()
    coordinator.forget()
    policy = waiting.check_in().policy.policy_sha256
    wait_until(lambda: not waiting.check_in(policy).HasField("task"))
    assert first.upload(tasks[0], A).verdict == Verdict.ACCEPTED
    assert second.upload(tasks[1], b"").verdict == Verdict.REJECTED
    coordinator.start()
    snapshot = coordinator.open("j-away", own.blobs)
    assert [c.task_id for c in snapshot.completed] == [tasks[0].task_id]
    assert not snapshot.leased
    assert coordinator.ended(tasks[1].task_id).reason == "wrong_names"
    assert waiting.lease().base_version == 1


def test_a_new_epoch_takes_up_what_the_old_one_left(own, coordinator, start_gateway, new_device):
    start_gateway()
    coordinator.open("j-epoch", own.blobs)
    first, second = new_device(), new_device()
    committed, left = first.lease(), second.lease()
    first.upload(committed, A)
    coordinator.release("r1")
    second.upload(left, B)
    coordinator.release("r2")
    coordinator.stop()
    coordinator.forget()
    coordinator.epoch, coordinator.sequence = 2, 0
    coordinator.start()
    snapshot = coordinator.open("j-epoch", own.blobs, committed_releases=("r1",))
    assert [c.task_id for c in snapshot.completed] == [left.task_id]
    assert first.settlement(committed, A).state == State.COMMITTED
    (bucket,) = coordinator.release("r3").buckets
    assert list(bucket.task_ids) == [left.task_id]


def test_an_update_of_a_lost_gateway_is_uploaded_again_and_counted_once(
    own, coordinator, start_gateway, new_device
):
    lost = start_gateway()
    coordinator.open("j-lost", own.blobs)
    device = new_device()
    task = device.lease()
    device.upload(task, A)
    lost.close()
    coordinator.forget()
    second = start_gateway()
    assert second.state.boot_id != lost.state.boot_id
    coordinator.sequence = 0
    coordinator.open("j-lost", own.blobs)
    wait_until(lambda: device.settlement(task, A).state == State.UPLOAD_AGAIN)
    assert device.upload(task, A).verdict == Verdict.ACCEPTED
    assert coordinator.completed(task.task_id).payload_sha256 == sha256_of(A)
    assert device.upload(task, B).reason_code == 2004
    (bucket,) = coordinator.release("r-lost").buckets
    np.testing.assert_allclose(
        np.frombuffer(bucket.sum, "<f4"),
        np.concatenate([a.ravel() for a in make_delta(1)]),
        rtol=1e-6,
    )


def test_answers_outlive_a_gateway_in_the_database(own, coordinator, start_gateway, new_device):
    lost = start_gateway()
    coordinator.open("j-outlive", own.blobs)
    good, bad = new_device(), new_device()
    tasks = [good.lease(), bad.lease()]
    good.upload(tasks[0], A)
    bad.upload(tasks[1], b"")
    lost.close()
    rows = [
        TaskOutcomeRow("j-outlive", tasks[0].task_id, "", 1, "succeeded", "", 0, sha256_of(A), 2),
        TaskOutcomeRow(
            "j-outlive", tasks[1].task_id, "", 1, "rejected", "names", 2102, sha256_of(b""), None
        ),
    ]
    record_outcomes(own.engine, rows)
    coordinator.forget()
    start_gateway()
    coordinator.sequence = 0
    coordinator.open("j-outlive", own.blobs)
    assert good.settlement(tasks[0], A).state == State.COMMITTED
    assert good.upload(tasks[0], A).verdict == Verdict.COMMITTED
    assert good.upload(tasks[0], B).reason_code == 2004
    assert bad.upload(tasks[1], b"").reason_code == 2102
    assert bad.settlement(tasks[1], b"").state == State.DROPPED
    assert coordinator.release("r-outlive").buckets == []


def test_a_busy_gateway_counts_nothing_and_says_when_to_come_back(
    own, coordinator, start_gateway, new_device
):
    gateway = start_gateway(limits=TransferLimits(uploads=0, fetches=0, look_ups=0))
    coordinator.open("j-busy", own.blobs)
    device = new_device()
    task = device.lease()
    response = device.upload(task, A)
    assert response.verdict == Verdict.RETRY_LATER
    assert 0 < response.come_back_after_s < 10
    assert gateway.state.counts().held == 0
    assert device.settlement(task, A).state == State.UPLOAD_AGAIN
    status = status_of(lambda: device.fetch(task.token, task.manifest_sha256))
    assert status == grpc.StatusCode.RESOURCE_EXHAUSTED
    request = features_pb.GetManifestRequest(service="ads", manifest_format=1)
    sign_feature_request(
        device.key,
        request,
        device_id=device.device_id,
        credential=device.credential,
        timestamp_ms=device.now_ms(),
    )
    status = status_of(lambda: DeviceFeaturesStub(device.channel).GetManifest(request))
    assert status == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_an_order_that_cannot_be_carried_out_breaks_the_link_not_the_gateway(
    own, coordinator, start_gateway
):
    start_gateway()
    coordinator.wait_for(lambda m: m.HasField("hello"))
    coordinator.job_id = "j-broken"
    coordinator.send(open={"job_json": "no JSON"})
    wait_until(lambda: sum(m.HasField("hello") for m in coordinator.heard) == 2)
    coordinator.sequence = 0
    assert not coordinator.open("j-mended", own.blobs).leased


def test_a_task_nobody_answers_ends_at_its_deadline_without_anyone_asking(
    own, coordinator, start_gateway, new_device
):
    start_gateway()
    coordinator.open("j-deadline", own.blobs, slots=0)
    coordinator.send(grant={"grant_id": "short", "count": 1, "task_timeout_s": 0.3})
    coordinator.release("r-order")
    task = new_device().lease()
    ended = coordinator.ended(task.task_id)
    assert (ended.outcome, ended.reason) == ("interrupted", "deadline")


def test_heartbeats_say_how_many_devices_check_in(
    own, coordinator, start_gateway, new_device, monkeypatch
):
    monkeypatch.setattr("server.gateway.fleet_link.HEARTBEAT_S", 0.2)
    start_gateway()
    coordinator.wait_for(lambda m: m.HasField("hello"))
    device = new_device()
    for _ in range(3):
        device.check_in()
    coordinator.wait_for(lambda m: m.heartbeat.check_ins_per_s > 0)


def test_without_tls_everything_works_the_same(own, new_device):
    settings = replace(own.settings, insecure=True)
    coordinator = ScriptedCoordinator(settings)
    gateway = Gateway(settings)
    try:
        coordinator.open("j-insecure", own.blobs)
        device = new_device(settings)
        assert device.upload(device.lease(), A).verdict == Verdict.ACCEPTED
    finally:
        gateway.close()
        coordinator.stop()


# -- processes -------------------------------------------------------------------------------------


@pytest.fixture
def spawn() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        processes.append(
            subprocess.Popen([sys.executable, "-m", *arguments], stderr=subprocess.PIPE, text=True)
        )
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_the_gateway_process_serves_says_so_and_stops_cleanly(own, coordinator, spawn, new_device):
    own.settings.save()
    process = spawn("server.gateway", "--home", str(own.settings.home))
    coordinator.open("j-process", own.blobs)
    device = new_device()
    assert device.upload(device.lease(), A).verdict == Verdict.ACCEPTED
    url = f"http://127.0.0.1:{own.settings.gateway_metrics_port}/metrics"
    with urllib.request.urlopen(url) as answer:
        assert b"flint_gateway_updates_held 1.0" in answer.read()
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "serves devices on" in log
    assert "job j-process opened" in log
    assert "gateway stopped" in log
    assert "Traceback" not in log


def test_a_port_in_use_is_one_sentence_and_exit_code_2(own, spawn):
    own.settings.save()
    host, port = own.settings.gateway_address.split(":")
    with socket.create_server((host, int(port))):
        process = spawn("server.gateway", "--home", str(own.settings.home))
        _, log = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "FLN-1203" in log
    assert port in log
    assert "Traceback" not in log


def test_a_metrics_port_in_use_is_said_too(own, start_gateway):
    with (
        socket.create_server(("127.0.0.1", own.settings.gateway_metrics_port)),
        pytest.raises(PortInUse, match="gateway-metrics-port"),
    ):
        start_gateway()


def test_missing_certificates_are_said(own, start_gateway, tmp_path):
    settings = replace(own.settings, home=tmp_path)
    with pytest.raises(UnreadableKeys, match=r"flint up.*FLN-1266"):
        start_gateway(settings)


def test_no_settings_are_one_sentence_and_exit_code_2(spawn, tmp_path):
    process = spawn("server.gateway", "--home", str(tmp_path))
    _, log = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "FLN-1201" in log
    assert "Traceback" not in log


def test_with_the_aggregator_in_its_own_process_an_update_counts_all_the_same_until_it_dies(
    own, coordinator, start_gateway, new_device, spawn
):
    aggregator = spawn("server.aggregation", "--socket", str(aggregator_socket(own.settings.home)))
    gateway = start_gateway(replace(own.settings, aggregator="process"))
    coordinator.open("j-remote", own.blobs)
    first, second = new_device(), new_device()
    tasks = [first.lease(), second.lease()]
    assert first.upload(tasks[0], A).verdict == Verdict.ACCEPTED
    assert second.upload(tasks[1], b"").reason_code == 2102
    (bucket,) = coordinator.release("r-remote").buckets
    np.testing.assert_allclose(
        np.frombuffer(bucket.sum, "<f4"),
        np.concatenate([a.ravel() for a in make_delta(1)]),
        rtol=1e-6,
    )
    third = new_device()
    task = third.lease()
    aggregator.kill()
    aggregator.wait()
    assert third.upload(task, B).verdict == Verdict.RETRY_LATER
    assert gateway.ended.wait(5)
    assert isinstance(gateway.loss, AggregatorLost)


def test_the_gateway_loads_no_training_framework():
    code = (
        "import sys, server.gateway.gateway, server.gateway.__main__\n"
        "heavy = ('torch', 'tensorflow', 'keras', 'ray', 'flwr', 'ai_edge_litert')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert shown.stdout.strip() == b"[]", shown.stdout


def test_a_database_that_does_not_answer_is_said_not_raised_through():
    engine = create_engine("postgresql+psycopg2://nobody@127.0.0.1:1/nothing")
    with pytest.raises(OutcomesUnreachable, match="FLN-1264"):
        CatalogOutcomes(engine).find("t-1")
    with pytest.raises(EnrolmentUnavailable, match="FLN-1265"):
        CatalogEnrolment(engine).enrol("token", "d-1", b"key", "app", "model", "os")


def test_without_its_database_a_gateway_serves_those_it_knows(
    own, coordinator, start_gateway, new_device, monkeypatch
):
    start_gateway()
    coordinator.open("j-nodb", own.blobs)
    device = new_device()
    task = device.lease()

    def unreachable(*_) -> None:
        raise OutcomesUnreachable("the database does not answer")

    monkeypatch.setattr(CatalogOutcomes, "find", unreachable)
    monkeypatch.setattr(CatalogEnrolment, "enrol", unreachable)
    assert status_of(new_device) == grpc.StatusCode.UNAVAILABLE
    assert device.upload(task, A).verdict == Verdict.ACCEPTED
    coordinator.send(close={"reason": "done"})
    wait_until(lambda: device.settlement(task, A).state == State.HELD)
    assert device.upload(task, A).verdict == Verdict.RETRY_LATER
