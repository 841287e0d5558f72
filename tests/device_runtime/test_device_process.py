"""Device processes, run as an operator runs them, against a real gateway."""

import json
import os
import signal
import subprocess
import sys
import time

import grpc
import pytest

from device_runtime.device_store import DeviceStore
from device_runtime.examples import SqliteExampleStore
from device_runtime.participation import UserSettings
from device_runtime.protocol import device_pb2 as pb
from modeling.zoo import get_model
from tests.device_runtime.records import draw_records
from tests.device_runtime.scripted_gateway import TOKEN

pytestmark = pytest.mark.integration

DEADLINE_S = 60.0


def wait_until(condition, what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not in {DEADLINE_S} s: {what}"
        time.sleep(0.01)


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "enrolment.token"
    path.write_text(TOKEN + "\n")
    return path


@pytest.fixture
def start(gateway, token_file):
    """Starts a device module with the options every device process takes."""
    running: list[subprocess.Popen[str]] = []

    def run(
        module: str, *options: str, trust: tuple[str, ...] = ("--insecure",)
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", f"device_runtime.{module}"),
                *("--server", gateway.address, *trust),
                *("--enrolment-token-file", str(token_file)),
                *options,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield run
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


def fill(folder, model, seed=0, records=30):
    SqliteExampleStore(folder / "examples.sqlite").fill(*draw_records(model, records, seed))


def test_a_fleet_trains_each_identity_on_its_own_records(gateway, start, make_task, tiny, tmp_path):
    gateway.come_back_after_s = 0.01
    gateway.tasks.extend(make_task(f"t-{n}") for n in range(12))
    for number in range(5):
        fill(tmp_path / "fleet" / f"d{number}", tiny, seed=number, records=20 + number)
    process = start(
        "fleet_process",
        *("--devices", str(tmp_path / "fleet"), "--first", "1", "--count", "3"),
        *("--tasks", "12", "--report-every-s", "0.05"),
    )
    stdout, stderr = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, stderr
    assert len(gateway.enrolments) == 3
    assert {update.num_examples for update in gateway.updates()} == {21, 22, 23}
    assert len({upload.proof.device_id for upload in gateway.uploads}) == 3
    assert len(gateway.fetches) == 3  # cached for all of them
    last = json.loads(stdout.splitlines()[-1])
    assert (last["devices"], last["finished_tasks"]) == (3, 12)
    assert last["counts"]["accepted"] == 12
    assert last["peak_memory_bytes"] > 0


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_a_process_told_to_stop_ends_cleanly(gateway, start, tiny, tmp_path, ending):
    fill(tmp_path / "device", tiny)
    process = start("device", "--home", str(tmp_path / "device"))
    wait_until(lambda: len(gateway.check_ins) == 2, "idle device")
    process.send_signal(ending)
    _, stderr = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0
    assert "Traceback" not in stderr


def test_a_process_told_to_stop_does_not_wait_for_a_gateway_that_hangs(
    gateway, start, tiny, tmp_path
):
    fill(tmp_path / "device", tiny)
    gateway.on_check_in = lambda _: time.sleep(20)
    process = start("device", "--home", str(tmp_path / "device"))
    wait_until(lambda: gateway.check_ins, "check-in")
    asked_s = time.monotonic()
    process.terminate()
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0
    assert time.monotonic() - asked_s < 12


def test_an_update_survives_kill_9_and_is_uploaded_again_when_asked_for(
    gateway, start, make_task, tiny, tmp_path
):
    fill(tmp_path / "device", tiny)
    gateway.tasks.append(make_task())
    process = start("device", "--home", str(tmp_path / "device"))
    wait_until(lambda: gateway.uploads, "first upload")
    # Killed before or after it noted the answer: either way the update is kept.
    process.kill()
    process.wait()

    gateway.settlements["t-1"] = pb.Settlement.UPLOAD_AGAIN
    gateway.come_back_after_s = 0.01
    process = start("device", "--home", str(tmp_path / "device"))
    wait_until(lambda: len(gateway.uploads) >= 2, "second upload")
    assert gateway.uploads[1].payload == gateway.uploads[0].payload
    gateway.settlements["t-1"] = pb.Settlement.COMMITTED
    wait_until(lambda: not gateway.check_ins[-1].pending, "settled update forgotten")
    assert len(gateway.enrolments) == 1


def test_an_update_trained_but_never_uploaded_survives_kill_9(
    gateway, start, make_task, tiny, tmp_path
):
    fill(tmp_path / "device", tiny)
    gateway.tasks.append(make_task())
    gateway.errors["Upload"].extend([grpc.StatusCode.UNAVAILABLE] * 100)
    process = start("device", "--home", str(tmp_path / "device"))
    wait_until(lambda: len(gateway.errors["Upload"]) < 100, "refused upload")
    process.kill()
    process.wait()
    gateway.errors["Upload"].clear()
    check_ins = len(gateway.check_ins)
    start("device", "--home", str(tmp_path / "device"))
    wait_until(lambda: gateway.uploads, "upload by the next process")
    assert len(gateway.check_ins) == check_ins
    assert gateway.updates()[0].num_examples == 30


def test_the_users_settings_are_kept_in_the_devices_folder(gateway, start, tiny, tmp_path):
    fill(tmp_path / "device", tiny)
    process = start(
        "device",
        *("--home", str(tmp_path / "device"), "--opt-out"),
        *("--allowed-hours", "22:00-06:00", "--min-battery", "0.5"),
    )
    wait_until(lambda: gateway.enrolments, "enrolment")
    process.terminate()
    process.communicate(timeout=DEADLINE_S)
    store = DeviceStore(tmp_path / "device")
    assert store.settings() == UserSettings(True, "22:00-06:00", 0.5)
    store.close()
    assert gateway.check_ins == []


def test_mistakes_are_one_sentence_with_a_code_and_no_traceback(start, tiny, tmp_path, gateway):
    fill(tmp_path / "device", tiny)
    home = ("--home", str(tmp_path / "device"))
    running = start("device", *home)
    wait_until(lambda: gateway.check_ins, "running device")
    for code, process in {
        "FLN-1407": start("device", *home),
        "FLN-1410": start("fleet_process", "--devices", str(tmp_path / "nowhere")),
        "FLN-1408": start("device", *home, trust=("--ca", str(tmp_path / "no.crt"))),
        "FLN-1413": start("device", *home, "--enrolment-token-file", str(tmp_path / "none")),
        "FLN-1405": start("device", *home, "--allowed-hours", "at night"),
    }.items():
        _, stderr = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 2, (code, stderr)
        (sentence,) = stderr.splitlines()
        assert code in sentence
    running.terminate()


def test_one_device_process_stays_within_its_memory(gateway, start, make_task, tmp_path):
    """The promise to host apps; benchmarks/device_memory.py measures it more closely."""
    sparse = get_model("sparse_mlp")
    gateway.come_back_after_s = 0.01
    gateway.tasks.extend(make_task(f"t-{n}", model=sparse, max_records=500) for n in range(3))
    fill(tmp_path / "device", sparse, records=500)
    process = start(
        *("device", "--home", str(tmp_path / "device"), "--tasks", "3"),
        *("--report-every-s", "3600"),
    )
    stdout, stderr = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, stderr
    assert json.loads(stdout.splitlines()[-1])["peak_memory_bytes"] <= 110e6


HEAVY = ("torch", "tensorflow", "sqlalchemy", "flwr", "pydantic", "pyarrow", "keras")


def test_a_device_process_loads_nothing_heavy():
    code = (
        "import sys, device_runtime.device, device_runtime.fleet_process\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])\n"
        "print([m for m in sys.modules"
        " if m.split('.')[0] in ('modeling', 'server', 'feature_catalog', 'flint')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=os.environ
    )
    assert done.stdout.split("\n") == ["[]", "[]", ""]
