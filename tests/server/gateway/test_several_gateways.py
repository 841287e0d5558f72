"""Several gateway processes of one deployment: whom a device reaches makes no difference."""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import pytest

from device_runtime.gateway_client import open_channel
from device_runtime.protocol import device_pb2 as pb
from device_runtime.protocol.device_pb2_grpc import DeviceGatewayStub
from server.coordination.events import TaskCompleted, TasksLost
from server.coordination.tasks import Grant, Release
from server.gateway.gateway import Gateway
from server.gateway.rate_limits import DeviceRates, Rate
from server.gateway.service import TransferLimits
from server.operations.settings import ServerSettings
from tests.server.gateway.conftest import IMPATIENT, Deployment, with_free_ports
from tests.server.gateway.scripted_device import ScriptedDevice, status_of
from tests.server.gateway.test_with_the_coordinators_fleet import Coordinator
from tests.server.update_examples import make_delta, make_payload

pytestmark = pytest.mark.integration

State, Verdict = pb.Settlement, pb.UploadResponse
A, B = make_payload(make_delta(1)), make_payload(make_delta(2))


@pytest.fixture
def own(deployment, tmp_path_factory) -> Deployment:
    return replace(deployment, settings=with_free_ports(deployment.settings))


@dataclass
class Doors:
    """Two gateways, each on a port of its own so that a test may choose."""

    settings: tuple[ServerSettings, ServerSettings]
    gateways: list[Gateway]


@pytest.fixture
def doors(own, coordinator) -> Iterator[Doors]:
    first = replace(own.settings, gateways=2, more_gateway_metrics_ports=(0,))
    other = with_free_ports(own.settings)
    second = replace(first, gateway_address=other.gateway_address, gateway_metrics_port=0)
    both = (first, second)
    made = Doors(both, [Gateway(s, n, rates=IMPATIENT) for n, s in enumerate(both)])
    # Slots go to those that are ready; a test that is no coordinator moves none later.
    until(lambda: sum(link.ready for link in coordinator.fleet._links.values()) == 2)
    yield made
    for gateway in made.gateways:
        gateway.close()


@pytest.fixture
def coordinator(own) -> Iterator[Coordinator]:
    coordinator = Coordinator(own)
    coordinator.open()
    yield coordinator
    coordinator.stop()


class TwoDoorDevice:
    """One identity that may knock at either."""

    def __init__(self, doors: Doors, token: str) -> None:
        self.device = ScriptedDevice(doors.settings[0], token)
        self.channels = [
            open_channel(s.gateway_address, None if s.insecure else s.ca_certificate)
            for s in doors.settings
        ]

    def at(self, number: int) -> ScriptedDevice:
        self.device.stub = DeviceGatewayStub(self.channels[number])
        return self.device

    def close(self) -> None:
        self.device.close()
        for channel in self.channels:
            channel.close()


@pytest.fixture
def new_device(doors, own) -> Iterator[Callable[[], TwoDoorDevice]]:
    made = []

    def make() -> TwoDoorDevice:
        made.append(TwoDoorDevice(doors, own.enrolment_token))
        return made[-1]

    yield make
    for device in made:
        device.close()


def until(condition, patience_s=20.0):
    deadline_s = time.monotonic() + patience_s
    while not (found := condition()):
        assert time.monotonic() < deadline_s, "not in time"
        time.sleep(0.02)
    return found


def lease(device: TwoDoorDevice, number: int) -> pb.Task:
    def asked():
        policy = device.at(number).check_in().policy
        response = device.at(number).check_in(policy.policy_sha256)
        return response.task if response.HasField("task") else None

    return until(asked)


def homed_at(new_device, doors, number: int) -> TwoDoorDevice:
    """A device whose home is that gateway."""
    gateways = doors.gateways
    for _ in range(50):
        device = new_device()
        known = gateways[0]._known
        if known.home_of(device.device.device_id) == gateways[number].state.boot_id:
            return device
    raise AssertionError("no device is at home there")


def test_a_device_gets_its_task_again_through_whichever_process_it_comes(
    doors, coordinator, new_device
):
    coordinator.fleet.grant(Grant("g1", 20, None, 60.0))
    for _ in range(4):
        device = new_device()
        task = lease(device, 0)
        policy = device.at(1).check_in(b"x").policy.policy_sha256
        again = device.at(1).check_in(policy).task
        assert (again.task_id, again.token) == (task.task_id, task.token)


def test_an_update_and_its_retries_are_folded_once_wherever_they_come_in(
    doors, coordinator, new_device
):
    coordinator.fleet.grant(Grant("g1", 20, None, 60.0))
    for number in range(4):
        device = new_device()
        task = lease(device, number % 2)
        for door in (1, 0, 1):
            assert device.at(door).upload(task, A).verdict == Verdict.ACCEPTED
            assert device.at(door).settlement(task, A).state == State.HELD
        assert device.at(1).upload(task, B).reason_code == 2004
        assert device.at(0).upload(task, B).reason_code == 2004
    assert sum(g.state.counts().held for g in doors.gateways) == 4
    released = coordinator.fleet.release(Release("r1"))
    assert sum(s.weight for s in released.sums) == 4
    coordinator.fleet.commit("r1")
    until(lambda: device.at(0).settlement(task, A).state == State.COMMITTED)
    assert device.at(1).settlement(task, A).state == State.COMMITTED
    assert device.at(0).upload(task, A).verdict == Verdict.COMMITTED
    assert device.at(1).upload(task, A).verdict == Verdict.COMMITTED


def test_a_forged_upload_is_refused_by_the_process_it_is_handed_to(doors, coordinator, new_device):
    coordinator.fleet.grant(Grant("g1", 20, None, 60.0))
    victim, thief = new_device(), new_device()
    task = lease(victim, 0)
    for door in (0, 1):
        assert thief.at(door).upload(task, A).reason_code == 2002
    assert victim.at(1).upload(task, A).verdict == Verdict.ACCEPTED


def test_an_unauthentic_check_in_is_refused_in_the_same_words_at_either(
    doors, coordinator, new_device
):
    device = homed_at(new_device, doors, 1)
    device.device.credential = b"no credential"
    for door in (0, 1):
        assert status_of(device.at(door).check_in) == grpc.StatusCode.UNAUTHENTICATED


def test_the_end_of_a_task_reaches_the_process_that_leased_it(doors, coordinator, new_device):
    coordinator.fleet.grant(Grant("g1", 20, None, 60.0))
    for number in (0, 1):
        device = homed_at(new_device, doors, number)
        task = lease(device, number)
        device.at(1 - number).stub.ReportOutcome(
            pb.ReportOutcomeRequest(
                task_token=task.token, outcome=pb.ReportOutcomeRequest.INTERRUPTED, reason="battery"
            )
        )
        assert doors.gateways[number].state.counts().leased == 0


def test_what_a_dead_gateway_held_is_asked_for_again_by_another_and_folded_once(
    doors, coordinator, new_device
):
    coordinator.fleet.grant(Grant("g1", 20, None, 60.0))
    device = homed_at(new_device, doors, 1)
    task = lease(device, 1)
    assert device.at(1).upload(task, A).verdict == Verdict.ACCEPTED
    coordinator.event(TaskCompleted)
    doors.gateways.pop().close()
    # Away, and perhaps back in a moment: nobody else may take the update in its place.
    first = device.at(0).upload(task, A)
    assert first.verdict in (Verdict.RETRY_LATER, Verdict.ACCEPTED)
    if first.verdict == Verdict.RETRY_LATER:
        assert device.at(0).settlement(task, A).state in (State.HELD, State.UPLOAD_AGAIN)
    assert coordinator.event(TasksLost).task_ids == (task.task_id,)
    until(lambda: device.at(0).upload(task, A).verdict == Verdict.ACCEPTED)
    assert coordinator.event(TaskCompleted).reference.task_id == task.task_id
    (partial,) = coordinator.fleet.release(Release("r1")).sums
    assert partial.task_ids == (task.task_id,)
    assert partial.weight == 1


def test_a_sum_that_is_not_stored_yet_keeps_its_updates_from_being_folded_anew(
    doors, coordinator, new_device
):
    coordinator.fleet.grant(Grant("g1", 20, None, 60.0))
    device = homed_at(new_device, doors, 1)
    task = lease(device, 1)
    device.at(1).upload(task, A)
    coordinator.event(TaskCompleted)
    released = coordinator.fleet.release(Release("r1"))
    assert [s.task_ids for s in released.sums if s.task_ids] == [(task.task_id,)]
    doors.gateways.pop().close()
    until(lambda: (coordinator.fleet.next_event(0.05), coordinator.fleet.gateways() == 1)[1])
    gone_since_s = time.monotonic()
    while time.monotonic() - gone_since_s < 1.0:  # longer than a gateway is waited for
        coordinator.fleet.next_event(0.05)
        assert device.at(0).upload(task, A).verdict == Verdict.RETRY_LATER
        assert device.at(0).settlement(task, A).state == State.HELD
    coordinator.fleet.commit("r1")
    # Stored outcomes would tell now; this coordinator stores none, so it is folded anew.
    until(lambda: device.at(0).upload(task, A).verdict == Verdict.ACCEPTED)


def test_slots_at_a_gateway_no_device_comes_to_move_to_the_one_they_come_to(
    doors, coordinator, new_device
):
    device = homed_at(new_device, doors, 0)
    coordinator.fleet.grant(Grant("g1", 8, None, 60.0))
    devices = [device]
    while len(devices) < 7:
        devices.append(homed_at(new_device, doors, 0))
    leased = set()

    def all_leased():
        coordinator.fleet.next_event(0.01)
        for each in devices:
            if each not in leased and (found := each.at(0).check_in(policy)).HasField("task"):
                leased.add(each)
                assert found.task.task_id
        return len(leased) == len(devices)

    policy = until(lambda: device.at(0).check_in(b"x").policy.policy_sha256)
    until(all_leased, patience_s=40)


def test_a_device_that_checks_in_too_often_is_told_to_come_back_later(own, coordinator):
    gateway = Gateway(own.settings, rates=DeviceRates(check_ins=Rate(0.1, 3)))
    device = ScriptedDevice(own.settings, own.enrolment_token)
    try:
        answers = [device.check_in(b"x") for _ in range(4)]
        assert answers[3].come_back_after_s >= 5
        assert not answers[3].HasField("policy")
        other = ScriptedDevice(own.settings, own.enrolment_token)
        assert other.check_in(b"x").come_back_after_s < 5.3
        other.close()
    finally:
        device.close()
        gateway.close()


def test_an_upload_is_turned_away_before_its_bytes_are_read(own, coordinator):
    gateway = Gateway(own.settings, limits=TransferLimits(received=0))
    device = ScriptedDevice(own.settings, own.enrolment_token)
    try:
        payload = bytes(40 * 2**20)
        task = pb.Task(token=b"t", contract_sha256=b"c")
        for _ in range(3):
            response = device.upload(task, payload)
            assert response.verdict == Verdict.RETRY_LATER
            assert (response.reason, response.reason_code) == ("FLN-1286", 0)
            assert response.come_back_after_s > 0
    finally:
        device.close()
        gateway.close()


def test_a_flood_of_uploads_takes_bounded_memory(own, coordinator):
    """A hundred senders keep 4 MB each on their way: 32 are read, the others told to come back."""
    own.settings.save()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "server.gateway", "--home", str(own.settings.home)]
    )
    try:
        until(lambda: coordinator.fleet.gateways() == 1)
        device = ScriptedDevice(own.settings, own.enrolment_token)
        task = pb.Task(token=b"t", contract_sha256=b"c")
        request = device.upload_request(task, bytes(4 * 2**20))
        device.close()
        before_mb = peak_resident_mb(process.pid)
        ca = None if own.settings.insecure else own.settings.ca_certificate

        def flood(_: int) -> Counter[int]:
            channel = open_channel(own.settings.gateway_address, ca)
            stub = DeviceGatewayStub(channel)
            verdicts = Counter(stub.Upload(request).verdict for _ in range(3))
            channel.close()
            return verdicts

        with ThreadPoolExecutor(100) as pool:
            verdicts = sum(pool.map(flood, range(100)), Counter())
        assert verdicts.keys() <= {Verdict.RETRY_LATER, Verdict.REJECTED}
        assert verdicts[Verdict.RETRY_LATER] > 0
        # On the wire, in gRPC and parsed: three copies of what is read at once, and no more.
        assert peak_resident_mb(process.pid) - before_mb < 32 * 4.2 * 3 + 100
    finally:
        process.terminate()
        process.wait()


def peak_resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1000
