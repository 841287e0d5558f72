"""Both real ends of flint.fleet.v1: the coordinator's `GatewayFleet` and the gateway's link."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest

from device_runtime.protocol import device_pb2 as pb
from server.coordination.events import Event, TaskCompleted, TaskEnded, TasksLost, TaskStarted
from server.coordination.fleet import OpenJob
from server.coordination.tasks import Grant, Outcome, Release
from server.fleet_protocol.endpoint import serve_gateways
from server.fleet_protocol.gateway_fleet import GatewayFleet
from server.gateway.gateway import Gateway
from tests.server.coordination.fleet_contract import CLIENTS, FleetContract
from tests.server.gateway.conftest import IMPATIENT, Deployment, with_free_ports
from tests.server.gateway.scripted_device import ScriptedDevice
from tests.server.update_examples import MODEL, make_delta, make_job, make_payload

pytestmark = pytest.mark.integration

State = pb.Settlement
A, B = make_payload(make_delta(1)), make_payload(make_delta(2))


class Coordinator:
    """A `GatewayFleet` behind its real socket."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.fleet = GatewayFleet(lost_after_s=0.5)
        self.server = serve_gateways(self.fleet, deployment.settings)

    def open(self, epoch: int = 1, committed_releases: tuple[str, ...] = ()) -> None:
        parameters, artifact, manifest = self.deployment.blobs
        self.fleet.open(
            OpenJob(
                "j-fleet",
                epoch,
                make_job(),
                MODEL,
                artifact,
                manifest,
                b"c" * 32,
                committed_releases,
            )
        )
        self.fleet.set_model(1, parameters, 0)

    def event(self, kind: type[Event]) -> Event:
        """The next event of a kind; others before it are let go."""
        deadline_s = time.monotonic() + 20
        while time.monotonic() < deadline_s:
            event = self.fleet.next_event(0.1)
            if isinstance(event, kind):
                return event
        raise AssertionError(f"no {kind.__name__} in time")

    def stop(self) -> None:
        self.server.stop(None).wait()


@pytest.fixture
def own(deployment) -> Deployment:
    return replace(deployment, settings=with_free_ports(deployment.settings))


@pytest.fixture
def coordinator(own) -> Iterator[Coordinator]:
    coordinator = Coordinator(own)
    coordinator.open()
    yield coordinator
    coordinator.stop()


@pytest.fixture
def start_gateway(own) -> Iterator[Callable[[], Gateway]]:
    running: list[Gateway] = []

    def start() -> Gateway:
        running.append(Gateway(own.settings, rates=IMPATIENT))
        return running[-1]

    yield start
    for gateway in running:
        gateway.close()


@pytest.fixture
def device(own, coordinator, start_gateway) -> Iterator[ScriptedDevice]:
    start_gateway()
    device = ScriptedDevice(own.settings, own.enrolment_token)
    yield device
    device.close()


def lease(device: ScriptedDevice) -> pb.Task:
    deadline_s = time.monotonic() + 20
    while time.monotonic() < deadline_s:
        policy = device.check_in().policy
        response = device.check_in(policy.policy_sha256)
        if response.HasField("task"):
            return response.task
        time.sleep(0.02)
    raise AssertionError("no task in time")


@dataclass
class GatewayRig:
    fleet: GatewayFleet
    devices: list[ScriptedDevice]
    quiet_s: float = 0.5

    def train(self) -> None:
        for device, payload in zip(self.devices, (A, B), strict=True):
            device.upload(lease(device), payload)


class TestGatewayFleet(FleetContract):
    @pytest.fixture
    def rig(self, own, coordinator, start_gateway):
        start_gateway()
        devices = [ScriptedDevice(own.settings, own.enrolment_token) for _ in range(CLIENTS)]
        yield GatewayRig(coordinator.fleet, devices)
        for device in devices:
            device.close()


def test_a_granted_task_becomes_an_event_a_sum_and_a_settlement(device, coordinator):
    coordinator.fleet.grant(Grant("g1", 2, None, 60.0))
    task = lease(device)
    started = coordinator.event(TaskStarted)
    assert (started.task_id, started.client_id) == (task.task_id, device.device_id)
    device.upload(task, A)
    completed = coordinator.event(TaskCompleted)
    assert completed.reference.task_id == task.task_id
    released = coordinator.fleet.release(Release("r1"))
    (partial,) = released.sums
    np.testing.assert_allclose(
        partial.total, np.concatenate([a.ravel() for a in make_delta(1)]), rtol=1e-6
    )
    coordinator.fleet.commit("r1")
    released = coordinator.fleet.release(Release("r2"))
    assert released.sums == ()
    assert device.settlement(task, A).state == State.COMMITTED
    rejected = lease(device)
    device.upload(rejected, b"")
    ended = coordinator.event(TaskEnded)
    assert (ended.outcome, ended.reason_code) == (Outcome.REJECTED, 2102)


def test_a_coordinator_that_died_finds_held_updates_and_running_tasks_again(
    device, coordinator, own
):
    coordinator.fleet.grant(Grant("g1", 1, None, 60.0))
    task = lease(device)
    device.upload(task, A)
    coordinator.event(TaskCompleted)
    released = coordinator.fleet.release(Release("r1"))
    coordinator.stop()
    second = Coordinator(own)
    try:
        second.open(epoch=2)
        assert second.event(TaskCompleted).reference.task_id == task.task_id
        again = second.fleet.release(Release("r2"))
        np.testing.assert_array_equal(again.sums[0].total, released.sums[0].total)
        second.fleet.commit("r2")
        second.fleet.grant(Grant("g2", 1, None, 60.0))
        running = lease(device)
        second.event(TaskStarted)
        assert device.settlement(task, A).state == State.COMMITTED
        assert device.upload(running, B).verdict == pb.UploadResponse.ACCEPTED
    finally:
        second.stop()


def test_a_new_boot_of_a_gateway_makes_the_old_ones_tasks_lost(coordinator, own, start_gateway):
    gateway = start_gateway()
    device = ScriptedDevice(own.settings, own.enrolment_token)
    coordinator.fleet.grant(Grant("g1", 1, None, 60.0))
    task = lease(device)
    device.upload(task, A)
    coordinator.event(TaskCompleted)
    gateway.close()
    start_gateway()
    assert coordinator.event(TasksLost).task_ids == (task.task_id,)
    deadline_s = time.monotonic() + 20
    while device.settlement(task, A).state != State.UPLOAD_AGAIN:
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    device.upload(task, A)
    assert coordinator.event(TaskCompleted).reference.task_id == task.task_id
    device.close()
