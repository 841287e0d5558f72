"""The real gateway while the system's clock is set by an hour, and started after it was."""

import time

import grpc
import pytest

from device_runtime.gateway_client import SERVER_TIME_KEY
from device_runtime.protocol import device_pb2 as pb
from server.gateway.gateway import Gateway
from tests.server.gateway.conftest import deployment, with_free_ports  # noqa: F401 - a fixture
from tests.server.gateway.scripted_coordinator import ScriptedCoordinator
from tests.server.gateway.scripted_device import ScriptedDevice
from tests.server.update_examples import make_delta, make_payload

pytestmark = pytest.mark.integration

HOUR_S = 3600.0
JUMPS = pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S], ids=["forward", "back"])
UPDATE = make_payload(make_delta(1))


@pytest.fixture
def start(deployment):  # noqa: F811
    """Starts a coordinator, a gateway and a device; the gateway again with another clock."""
    from dataclasses import replace

    settings = with_free_ports(deployment.settings)
    own = replace(deployment, settings=settings)
    coordinator = ScriptedCoordinator(settings)
    gateways, devices = [], []

    def gateway(**options):
        if gateways:
            gateways[-1].close()
            coordinator.forget()
            coordinator.sequence = 0
        gateways.append(Gateway(settings, **options))
        coordinator.open("j-clock", own.blobs)

    def device():
        devices.append(ScriptedDevice(settings, own.enrolment_token))
        return devices[-1]

    yield gateway, device, coordinator
    for one in devices:
        one.close()
    gateways[-1].close()
    coordinator.stop()


@JUMPS
def test_tasks_go_on_while_the_servers_clock_is_set(start, monkeypatch, jump_s):
    start_gateway, new_device, coordinator = start
    start_gateway()
    device, other = new_device(), new_device()
    task = device.lease()
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + jump_s)
    for one in (device, other):
        one.skew_ms = int(-jump_s * 1000)  # their own clocks are as they were
    assert other.check_in().come_back_after_s > 0
    assert device.upload(task, UPDATE).verdict == pb.UploadResponse.ACCEPTED
    coordinator.completed(task.task_id)


@JUMPS
def test_a_gateway_whose_clock_was_set_before_its_start_says_what_time_it_has(start, jump_s):
    start_gateway, new_device, coordinator = start
    start_gateway()
    device = new_device()
    task = device.lease()
    assert device.upload(task, UPDATE).verdict == pb.UploadResponse.ACCEPTED
    start_gateway(clock=lambda: time.time() + jump_s)
    with pytest.raises(grpc.RpcError) as refused:
        device.check_in()
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
    told = {m.key: m.value for m in refused.value.trailing_metadata()}
    refusal = device.upload(task, UPDATE)
    assert refusal.reason_code == 2007
    for server_time_ms in (int(told[SERVER_TIME_KEY]), refusal.server_time_ms):
        assert abs(server_time_ms - device.now_ms() - jump_s * 1000) < 10_000
    device.skew_ms = int(jump_s * 1000)
    assert device.settlement(task, UPDATE).state == pb.Settlement.UPLOAD_AGAIN
    assert device.upload(task, UPDATE).verdict == pb.UploadResponse.ACCEPTED
    assert coordinator.completed(task.task_id).base_version == 1
