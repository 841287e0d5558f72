"""Devices that a job's `participation.device` excludes get no task of it, and are told why."""

import urllib.request

import pytest

from device_runtime.identity import sign_enrol
from device_runtime.protocol import device_pb2 as pb
from server.device_criteria import DeviceCriteria, MeasuredModel
from server.gateway.answers import OutcomesUnreachable
from server.gateway.device_screen import DeviceScreen
from server.gateway.held_back import HeldBackReason
from server.gateway.metrics import GatewayMetrics
from server.gateway.service import DeviceGatewayService
from tests.server.gateway.conftest import open_new_job
from tests.server.gateway.desk import opened
from tests.server.gateway.scripted_device import ScriptedDevice
from tests.server.update_examples import make_job

CRITERIA = DeviceCriteria(min_os_release="2019-09", max_train_s=120).with_measured(
    {"Pixel 9": MeasuredModel(train_s=4.0), "Moto E": MeasuredModel(train_s=300.0)}
)


class Register:
    """What devices said of themselves, and how often it was asked for."""

    def __init__(self, **hardware: tuple[str, str]) -> None:
        self.hardware_of = hardware
        self.asked = 0
        self.answers = True

    def hardware(self, device_id: str) -> tuple[str, str] | None:
        self.asked += 1
        if not self.answers:
            raise OutcomesUnreachable("away")
        return self.hardware_of.get(device_id)


def test_each_refusal_has_a_reason_of_its_own():
    register = Register(
        good=("Pixel 9", "2024-05"), slow=("Moto E", "2024-05"), old=("Pixel 9", "2018-01")
    )
    screen = DeviceScreen(register)
    assert screen.check(CRITERIA, "good") is None
    assert screen.check(CRITERIA, "slow").reason is HeldBackReason.DEVICE_TRAINS_TOO_LONG
    assert screen.check(CRITERIA, "old").reason is HeldBackReason.OS_RELEASE_TOO_OLD
    nobody = DeviceCriteria(max_memory_mb=1).with_measured({})
    assert screen.check(nobody, "good").reason is HeldBackReason.DEVICE_UNMEASURED
    assert screen.check(CRITERIA, "restored away").reason is HeldBackReason.OS_RELEASE_TOO_OLD


def test_a_device_is_looked_up_once_and_only_when_a_job_asks():
    register = Register(d=("Pixel 9", "2024-05"))
    screen = DeviceScreen(register)
    assert screen.check(None, "d") is None
    assert register.asked == 0
    assert [screen.check(CRITERIA, "d") for _ in range(3)] == [None] * 3
    register.answers = False
    assert screen.check(CRITERIA, "d") is None
    assert register.asked == 1
    with pytest.raises(OutcomesUnreachable):
        screen.check(CRITERIA, "other")


def test_a_flood_of_devices_takes_bounded_memory():
    register = Register(**{f"d{n}": ("Pixel 9", "2024-05") for n in range(100)})
    screen = DeviceScreen(register, most_devices=10)
    for n in range(100):
        assert screen.check(CRITERIA, f"d{n}") is None
    assert len(screen._known) == 10


def test_while_nobody_can_tell_what_a_device_is_it_waits_a_minute():
    register = Register()
    register.answers = False
    desk = opened(participation={"device": CRITERIA})
    service = DeviceGatewayService(
        desk.state, desk.intake, desk.mint, None, None, desk.outcomes, GatewayMetrics(),
        clock=lambda: desk.now_s, on_lost=pytest.fail, screen=DeviceScreen(register),
    )  # fmt: skip
    held_back = service._is_screened_out("d1")
    assert (held_back.reason, held_back.wait_s) == (HeldBackReason.DEVICE_UNMEASURED, 60.0)


class DescribedDevice(ScriptedDevice):
    """A device of a model and release of its own."""

    def __init__(self, settings, enrolment_token, device_model, os_release) -> None:
        self.described = device_model, os_release
        super().__init__(settings, enrolment_token)

    def enrol(self, enrolment_token: str) -> pb.EnrolResponse:
        device_model, os_release = self.described
        request = pb.EnrolRequest(
            enrolment_token=enrolment_token,
            app_id="com.example.mail",
            device_model=device_model,
            os_release=os_release,
        )
        sign_enrol(self.key, request)
        return self.stub.Enrol(request)


@pytest.mark.integration
def test_a_gateway_leases_only_to_the_devices_a_job_admits(deployment, gateway, shared_coordinator):
    job = make_job(participation={"device": CRITERIA})
    open_new_job(shared_coordinator, deployment, job)
    told = {}
    for model, release in (
        ("Pixel 9", "2024-05"),
        ("Pixel 9", "2019-08"),
        ("Pixel 9", "Android 16"),
        ("Moto E", "2024-05"),
        ("never benchmarked", "2024-05"),
    ):
        device = DescribedDevice(deployment.settings, deployment.enrolment_token, model, release)
        try:
            told[model, release] = device.check_in(gateway.state.job.policy.policy_sha256)
        finally:
            device.close()
    assert {who: answer.held_back_code for who, answer in told.items()} == {
        ("Pixel 9", "2024-05"): 0,
        ("Pixel 9", "2019-08"): 1294,
        ("Pixel 9", "Android 16"): 1294,
        ("Moto E", "2024-05"): 1292,
        ("never benchmarked", "2024-05"): 1291,
    }
    leased = {who for who, answer in told.items() if answer.HasField("task")}
    assert leased == {("Pixel 9", "2024-05")}
    assert all(a.come_back_after_s >= 3600 for a in told.values() if a.held_back_code)
    port = deployment.settings.gateway_metrics_ports[0]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    counted = 'flint_gateway_held_back_total{code="FLN-1294",reason="os_release_too_old"} 2.0'
    assert counted in text
