"""The runner under conditions: a clock of its own, against the durations of a dry-run."""

import time
from dataclasses import replace
from functools import partial

import grpc
import pytest

from device_runtime import fleet_process
from device_runtime.conditioned_runner import ConditionedRunner
from device_runtime.device_state import HostDeviceState
from device_runtime.host import DeviceHost, HostSettings
from device_runtime.imposed_conditions import (
    AvailabilityWindows,
    Epoch,
    ImposedConditions,
    write_conditions,
    write_epoch,
)
from device_runtime.loaded_models import LoadedModels
from device_runtime.pacing import Pacing
from device_runtime.participation import ParticipationPolicy, UserSettings
from device_runtime.protocol import device_pb2 as pb
from device_runtime.request_signer import DeviceDescription
from device_runtime.runner import DeviceRunner
from simulation.durations import TaskWork, task_course, task_duration
from tests.device_runtime.conftest import READY, Device
from tests.device_runtime.records import draw_records

EPOCH_S = 1_700_000_000.0
RECORDS = 50
EPOCHS = 2
SPEEDS = ImposedConditions(per_example_s=0.25, down_bits_per_s=2e4, up_bits_per_s=1e4)
Outcome = pb.ReportOutcomeRequest


class Clock:
    """Moves only when a device waits."""

    def __init__(self) -> None:
        self.now_s = EPOCH_S

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def epoch(tmp_path):
    path = tmp_path / "epoch"
    write_epoch(path, EPOCH_S)
    return Epoch(path)


@pytest.fixture
def start(start_device, clock, epoch):
    """A device under conditions."""

    def begin(conditions=SPEEDS, epoch=epoch, **options) -> Device:
        options.setdefault("clock", clock)
        return start_device(
            records=RECORDS,
            runner_type=partial(ConditionedRunner, conditions=conditions, epoch=epoch),
            **options,
        )

    return begin


@pytest.fixture
def live(clock):
    """Lets a device live on the clock, waits and all, until something is so."""

    def until(device: Device, condition, limit: int = 400) -> None:
        for _ in range(limit):
            if condition():
                return
            clock.now_s += device.runner.step()
        raise AssertionError(f"not reached in {limit} steps, {clock.now_s - EPOCH_S} s")

    return until


@pytest.fixture
def work(gateway, make_task) -> TaskWork:
    """What the tasks of `make_task` are to a dry-run."""
    task = make_task()
    return TaskWork(
        local_epochs=EPOCHS,
        max_records=task.plan.max_records,
        download_bytes=len(gateway.blobs[task.parameters_sha256]),
        upload_bytes=0,  # known once there is an update
    )


def planned(work, upload_bytes, conditions=SPEEDS):
    work = replace(work, upload_bytes=upload_bytes)
    duration = task_duration(
        work,
        records=RECORDS,
        per_example_s=conditions.per_example_s,
        down_bits_per_s=conditions.down_bits_per_s,
        up_bits_per_s=conditions.up_bits_per_s,
    )
    return work, duration


@pytest.fixture
def update_bytes(gateway, start, live, make_task):
    """Size of an update, from a task nobody disturbed."""
    gateway.tasks.append(make_task("t-first"))
    device = start(name="first")
    live(device, lambda: gateway.uploads)
    size = len(gateway.uploads[0].payload)
    gateway.uploads.clear()
    return size


def leased_s(gateway, clock):
    """Notes the moment of each check-in."""
    moments = []
    gateway.on_check_in = lambda request: moments.append(clock.now_s)
    return moments


def test_a_task_takes_as_long_as_a_dry_run_says(gateway, start, live, make_task, clock, work):
    moments = leased_s(gateway, clock)
    gateway.tasks.append(make_task())
    device = start()
    live(device, lambda: gateway.uploads)
    took_s = clock.now_s - gateway.come_back_after_s - moments[-1]
    (upload,) = gateway.uploads
    work, duration = planned(work, len(upload.payload))
    assert took_s == pytest.approx(duration.total_s, abs=1e-6)
    assert upload.cost.train_s == pytest.approx(duration.train_s, abs=1e-6)
    assert upload.cost.bytes_down == work.download_bytes
    assert device.counts["imposed_bytes_down"] == work.download_bytes
    assert device.counts["imposed_bytes_up"] == len(upload.payload)
    assert device.counts["device_ms"] == pytest.approx(duration.total_s * 1000, abs=2)


def test_parameters_another_identity_has_fetched_are_charged_all_the_same(
    gateway, start, live, make_task, work
):
    gateway.tasks.extend([make_task("t-1"), make_task("t-2")])
    device = start()
    live(device, lambda: len(gateway.uploads) == 2)
    assert len(gateway.fetches) == 3
    assert [u.cost.bytes_down for u in gateway.uploads] == [work.download_bytes] * 2


def test_training_is_what_it_is_without_conditions(gateway, start, start_device, live, make_task):
    gateway.tasks.extend([make_task("t-1"), make_task("t-2")])
    live(start(), lambda: gateway.uploads)
    plain = start_device("plain", records=RECORDS)
    plain.step_until(lambda: len(gateway.uploads) == 2)
    assert gateway.uploads[0].payload == gateway.uploads[1].payload


@pytest.mark.parametrize("phase", ["download", "training", "upload"])
def test_the_end_of_its_window_interrupts_a_task(
    gateway, start, live, make_task, clock, work, update_bytes, phase
):
    work, duration = planned(work, update_bytes)
    length_s = {
        "download": duration.download_s / 2,
        "training": duration.download_s + duration.train_s / 3,
        "upload": duration.total_s - duration.upload_s / 4,
    }[phase]
    began_s = clock.now_s - EPOCH_S
    spans = ((began_s, began_s + length_s), (began_s + 5_000, began_s + 9_000))
    moments = leased_s(gateway, clock)
    gateway.tasks.append(make_task())
    device = start(replace(SPEEDS, windows=AvailabilityWindows(spans)))
    live(device, lambda: gateway.reports)
    (report,) = gateway.reports
    course = task_course(moments[-1], duration, work, window_end_s=EPOCH_S + spans[0][1])
    assert (report.outcome, report.reason) == (Outcome.INTERRUPTED, "window")
    assert clock.now_s - gateway.come_back_after_s == pytest.approx(course.end_s, abs=1e-5)
    assert report.cost.bytes_down == pytest.approx(course.bytes_down, abs=1)
    assert report.cost.bytes_up == pytest.approx(course.bytes_up, abs=1)
    trained_s = min(max(0, length_s - duration.download_s), duration.train_s)
    assert report.cost.train_s == pytest.approx(trained_s, abs=1e-5)
    assert device.counts["device_ms"] == pytest.approx(course.device_s * 1000, abs=2)
    assert gateway.uploads == []
    assert device.store.pending() == []
    # and comes back when its next window opens, not before
    live(device, lambda: len(moments) > 2)
    assert moments[-1] == pytest.approx(EPOCH_S + spans[1][0], abs=1e-5)


def test_a_task_that_needs_its_window_to_the_last_moment_completes(
    gateway, start, live, make_task, clock, work, update_bytes
):
    _, duration = planned(work, update_bytes)
    began_s = clock.now_s - EPOCH_S
    windows = AvailabilityWindows(((began_s, began_s + duration.total_s + 1e-3),))
    gateway.tasks.append(make_task())
    live(start(replace(SPEEDS, windows=windows)), lambda: gateway.uploads)
    assert gateway.reports == []


def test_outside_its_windows_a_device_does_not_check_in(gateway, start, live, clock):
    moments = leased_s(gateway, clock)
    gateway.come_back_after_s = 5.0
    windows = AvailabilityWindows(((100.0, 112.0),), repeat_every_s=1000.0)
    device = start(ImposedConditions(windows=windows))
    live(device, lambda: len(moments) >= 8)
    since_s = [round(moment - EPOCH_S, 6) for moment in moments]
    # The first look is two: the device learns the policy and checks in with its digest.
    assert since_s[:8] == [100, 100, 105, 110, 1100, 1105, 1110, 2100]


def test_before_the_epoch_a_device_enrols_and_waits(gateway, start, live, clock, tmp_path):
    moments = leased_s(gateway, clock)
    path = tmp_path / "later"
    now = [0.0]
    device = start(ImposedConditions(), epoch=Epoch(path, monotonic=lambda: now[0]))
    live(device, lambda: gateway.enrolments)
    assert device.runner.is_enrolled
    for _ in range(5):
        wait_s = device.runner.step()
        assert 0 < wait_s <= 0.5
        now[0] += wait_s
    assert moments == []
    write_epoch(path, clock.now_s + 30)
    now[0] += 1
    live(device, lambda: moments)
    assert moments[0] == pytest.approx(path_epoch(path), abs=1e-5)


def path_epoch(path) -> float:
    return float(path.read_text())


def test_a_host_slower_than_the_imposed_device_is_counted(gateway, start, live, make_task):
    gateway.tasks.append(make_task())
    device = start(ImposedConditions(per_example_s=1e-9), clock=time.time)
    device.step_until(lambda: gateway.uploads)
    assert device.counts["slower_than_imposed"] == 1
    assert gateway.uploads[0].cost.train_s > RECORDS * EPOCHS * 1e-9


def test_opting_out_while_it_only_waits_ends_the_task(gateway, start, live, make_task, clock):
    gateway.tasks.append(make_task())
    device = start()
    live(device, lambda: device.counts["trained"])
    device.store.save_settings(UserSettings(opted_out=True))
    before_s = clock.now_s
    live(device, lambda: gateway.reports)
    assert gateway.reports[0].reason == "opted_out"
    assert clock.now_s - before_s <= 5.0 + gateway.come_back_after_s
    assert gateway.uploads == []


def test_a_criterion_no_longer_met_while_it_only_waits_ends_the_task(
    gateway, start, live, make_task
):
    gateway.policy = ParticipationPolicy(min_battery=0.5)
    gateway.tasks.extend([make_task("t-1"), make_task("t-2")])
    device = start()
    live(device, lambda: device.runner.has_task)
    device.runner.step()  # fetched; the parameters are still on their way
    device.state.state = replace(READY, battery=0.2)
    live(device, lambda: gateway.reports)
    assert (gateway.reports[0].outcome, gateway.reports[0].reason) == (Outcome.DECLINED, "battery")
    device.state.state = READY
    live(device, lambda: device.counts["trained"])
    device.state.state = replace(READY, battery=0.2)
    live(device, lambda: len(gateway.reports) == 2)
    assert gateway.reports[1].reason == "battery"


@pytest.mark.parametrize("after", ["lease", "training"])
def test_the_deadline_of_a_task_is_kept_while_waiting(
    gateway, start, live, make_task, clock, after
):
    wait_s = {"lease": 0.3, "training": 15.0}[after]
    clock.now_s = time.time()
    task = make_task(deadline_ms=round((clock.now_s + wait_s) * 1000))
    gateway.tasks.append(task)
    device = start()
    live(device, lambda: gateway.reports)
    assert (gateway.reports[0].outcome, gateway.reports[0].reason) == (
        Outcome.INTERRUPTED,
        "deadline",
    )


def test_an_update_of_an_earlier_process_takes_its_time_to_upload(
    gateway, start, live, make_task, clock
):
    gateway.tasks.append(make_task())
    device = start()
    live(device, lambda: device.counts["trained"])
    size = device.store.pending()[0]
    upload_s = SPEEDS.upload_s(len(device.store.payload(size)))
    device.store.close()
    again = start()
    before_s = clock.now_s
    live(again, lambda: gateway.uploads)
    took_s = clock.now_s - gateway.come_back_after_s - before_s
    assert took_s == pytest.approx(upload_s, abs=1e-5)


def test_an_upload_asked_for_again_takes_its_time_again(gateway, start, live, make_task, clock):
    gateway.tasks.append(make_task())
    device = start()
    live(device, lambda: gateway.uploads)
    upload_s = SPEEDS.upload_s(len(gateway.uploads[0].payload))
    gateway.settlements["t-1"] = pb.Settlement.UPLOAD_AGAIN
    moments = leased_s(gateway, clock)
    live(device, lambda: len(gateway.uploads) == 2)
    took_s = clock.now_s - gateway.come_back_after_s - moments[0]
    assert took_s == pytest.approx(upload_s, abs=1e-5)


def test_an_upload_nobody_answers_is_not_tried_again_after_its_window(
    gateway, start, live, make_task, clock, work, update_bytes
):
    _, duration = planned(work, update_bytes)
    began_s = clock.now_s - EPOCH_S
    windows = AvailabilityWindows(((began_s, began_s + duration.total_s + 1.0),))
    gateway.tasks.append(make_task())
    gateway.errors["Upload"].extend([grpc.StatusCode.UNAVAILABLE] * 5)
    live(start(replace(SPEEDS, windows=windows)), lambda: gateway.reports)
    assert gateway.reports[0].reason == "window"
    assert gateway.uploads == []


def test_nothing_is_imposed_unless_it_is_asked_for(tmp_path, epoch, tiny):
    settings = HostSettings(
        "127.0.0.1:1",
        None,
        tmp_path / "cache",
        2**20,
        DeviceDescription("app", "model", "1", None),
        Pacing(),
        HostDeviceState(),
    )
    host = DeviceHost(settings, LoadedModels())
    assert type(host.open_device(tmp_path / "a")) is DeviceRunner
    assert type(host.open_device(tmp_path / "b", (SPEEDS, epoch))) is ConditionedRunner
    host.close()


def test_a_fleet_in_which_one_device_has_no_conditions_does_not_start(tmp_path, capsys):
    for name in ("000000", "000001"):
        (tmp_path / "devices" / name).mkdir(parents=True)
    conditions = tmp_path / "conditions.json"
    write_conditions(conditions, {"000000": SPEEDS})
    arguments = ["--server", "127.0.0.1:1", "--insecure", "--devices", str(tmp_path / "devices")]
    assert fleet_process.main([*arguments, "--conditions", str(conditions)]) == 2
    assert "no conditions of device 000001" in capsys.readouterr().err


def test_other_identities_go_on_while_one_waits(gateway, start, start_device, live, make_task):
    gateway.tasks.append(make_task("t-1"))
    waiting = start()
    live(waiting, lambda: waiting.counts["trained"])
    assert waiting.runner.step() > 1
    gateway.tasks.append(make_task("t-2"))
    other = start_device("other", records=0)
    other.examples.fill(*draw_records_of(gateway, other))
    other.step_until(lambda: gateway.uploads)
    assert gateway.uploads[0].task_token == b"token of t-2"


def draw_records_of(gateway, device):
    from modeling.zoo import get_model

    return draw_records(get_model("tiny_mlp"), 10)
