"""The Device Farm back end: AWS's side stubbed call by call (botocore), its storage a real server.

SYNTHETIC: written after AWS's API model; none of it was recorded from Device Farm.
"""

import contextlib
import datetime as dt
import io
import json
import logging
import threading
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources

import boto3
import pytest
import yaml
from botocore.stub import ANY, Stubber
from hypothesis import given
from hypothesis import strategies as st

from android_bench.devices.adb import INSTRUMENTATION, AndroidApp, MissingApk
from android_bench.devices.base import DeviceUnavailable
from android_bench.devices.device_farm import (
    TEST_SPEC,
    DeviceFarmGroup,
    FarmDevicesFailed,
    FarmTarget,
    FarmWaitEnded,
    InvalidFarmTarget,
)
from android_bench.devices.farm_artifacts import (
    MAX_ZIP_BYTES,
    RESULT_NAME,
    NoResultInside,
    result_inside,
)
from android_bench.devices.farm_client import (
    DeviceFarmRefused,
    FarmUploadFailed,
    NoAwsCredentials,
    boto_client,
)
from android_bench.devices.farm_state import STATE_FILE, UnusableFarmState
from android_bench.devices.presigned_transfers import TransferFailed, get_bytes, put_file
from android_bench.package import BenchPackage
from android_bench.protocol import MAX_RESULT_BYTES, BenchResult
from tests.android_bench.results import SPEC, result

PROJECT = "arn:aws:devicefarm:us-west-2:123456789012:project:5e01a8c7"
POOL = "arn:aws:devicefarm:us-west-2:123456789012:devicepool:5e01a8c7/e1c97f71"
RUN = "arn:aws:devicefarm:us-west-2:123456789012:run:5e01a8c7/0fcac17b"
UPLOADS = {
    "ANDROID_APP": ("app.apk", b"PK app"),
    "INSTRUMENTATION_TEST_PACKAGE": ("test.apk", b"PK test"),
    "INSTRUMENTATION_TEST_SPEC": None,
    "EXTERNAL_DATA": None,
}
LONG_AGO = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


class Storage(ThreadingHTTPServer):
    """What presigned URLs lead to."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.put: dict[str, bytes] = {}
        self.errors: dict[str, list[int]] = {}

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}?X-Amz-Signature=SECRET"

    def give(self, path: str, data: bytes) -> str:
        self.files[path] = data
        return self.url(path)


class _Handler(BaseHTTPRequestHandler):
    server: Storage

    def do_PUT(self) -> None:
        path = self.path.lstrip("/").partition("?")[0]
        self.server.put[path] = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(path, b"")

    def do_GET(self) -> None:
        path = self.path.lstrip("/").partition("?")[0]
        self._answer(path, self.server.files.get(path))

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, path: str, data: bytes | None) -> None:
        errors = self.server.errors.get(path, [])
        status = errors.pop(0) if errors else 200 if data is not None else 404
        body = data if status == 200 and data is not None else b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def storage():
    server = Storage()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


class Farm:
    """AWS's side of the conversation, in the order in which it must be asked."""

    def __init__(self, storage: Storage) -> None:
        self.client = boto3.client(
            "devicefarm",
            region_name="us-west-2",
            aws_access_key_id="AKIA-NOT-REAL",
            aws_secret_access_key="not-a-secret",
        )
        self.stub = Stubber(self.client)
        self.storage = storage
        self.stub.activate()

    def uploads(self, *, fail: str = "", statuses=("PROCESSING", "SUCCEEDED")) -> None:
        for kind in UPLOADS:
            arn = f"arn:aws:devicefarm:us-west-2:123456789012:upload:5e01a8c7/{kind.lower()}"
            upload = {"arn": arn, "status": "INITIALIZED", "url": self.storage.url(kind)}
            asked = {"projectArn": PROJECT, "type": kind, "name": ANY, "contentType": ANY}
            self.stub.add_response("create_upload", {"upload": upload}, asked)
            for status in statuses:
                is_bad = kind == fail and status == "SUCCEEDED"
                told = {"status": "FAILED", "metadata": "no AndroidManifest"} if is_bad else {}
                answer = {"upload": {"arn": arn, "status": status} | told}
                self.stub.add_response("get_upload", answer, {"arn": arn})
            if kind == fail:
                return

    def schedule(self) -> None:
        asked = {
            "projectArn": PROJECT,
            "name": ANY,
            "appArn": ANY,
            "devicePoolArn": POOL,
            "test": {"type": "INSTRUMENTATION", "testPackageArn": ANY, "testSpecArn": ANY},
            "configuration": {"extraDataPackageArn": ANY},
            "executionConfiguration": {"jobTimeoutMinutes": 60, "videoCapture": False},
        }
        self.stub.add_response("schedule_run", {"run": {"arn": RUN}}, asked)

    def look(self, status: str, *jobs: dict, **told: str) -> None:
        self.stub.add_response("get_run", {"run": {"status": status} | told}, {"arn": RUN})
        self.stub.add_response("list_jobs", {"jobs": list(jobs)}, {"arn": RUN})

    def artifacts(self, job: dict, *artifacts: dict) -> None:
        asked = {"arn": job["arn"], "type": "FILE"}
        self.stub.add_response("list_artifacts", {"artifacts": list(artifacts)}, asked)

    def answers(self, job: dict, data: bytes) -> None:
        """A job's customer artefacts, among others of its files."""
        url = self.storage.give(job["arn"].rpartition("/")[2], zipped({RESULT_NAME: data}))
        self.artifacts(
            job,
            {"type": "DEVICE_LOG", "extension": "logcat", "url": "http://127.0.0.1:1/x"},
            {"type": "CUSTOMER_ARTIFACT", "extension": "zip", "url": url},
        )


@pytest.fixture
def farm(storage) -> Farm:
    return Farm(storage)


@pytest.fixture
def package(tmp_path) -> BenchPackage:
    made = BenchPackage(tmp_path / "package")
    made.folder.mkdir()
    for path in made.paths:
        path.write_bytes(path.name.encode())
    return made


@pytest.fixture
def target(tmp_path) -> FarmTarget:
    for name, data in filter(None, UPLOADS.values()):
        (tmp_path / name).write_bytes(data)
    app = AndroidApp(tmp_path / "app.apk", tmp_path / "test.apk")
    return FarmTarget(POOL, app, poll_s=0.01)


def job_of(number: int, status: str = "COMPLETED", outcome: str = "PASSED", **told: str) -> dict:
    return {
        "arn": f"{RUN.replace(':run:', ':job:')}/{number:05}",
        "name": f"Phone {number}",
        "status": status,
        "result": outcome,
        "device": {
            "arn": f"arn:aws:devicefarm:us-west-2::device:{number}",
            "name": f"Phone {number}",
        },
    } | told


def zipped(files: dict[str, bytes], **options) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED, **options) as packed:
        for name, data in files.items():
            packed.writestr(f"Host_Machine_Files/$DEVICEFARM_LOG_DIR/{name}", data)
    return made.getvalue()


GOOD = result().to_json().encode()


def collect(group: DeviceFarmGroup, package: BenchPackage, state):
    """Answers by name, and what was raised at the end."""
    answers = {}
    try:
        for answer in group.run(SPEC, package, state):
            answers[answer.name] = BenchResult.from_json(answer.data)
    except DeviceUnavailable as error:
        return answers, error
    return answers, None


def test_a_run_is_uploaded_scheduled_awaited_and_collected(farm, target, package, tmp_path):
    one, two = job_of(1), job_of(2)
    farm.uploads()
    farm.schedule()
    farm.look("PENDING_DEVICE")
    farm.look("RUNNING", one, job_of(2, "RUNNING", "PENDING"))
    farm.answers(one, GOOD)
    farm.look("COMPLETED", one, two, result="PASSED")
    farm.answers(two, GOOD)
    group = DeviceFarmGroup(target, farm.client)
    assert group.name == "device-farm:e1c97f71"
    answers, error = collect(group, package, tmp_path / "state")
    farm.stub.assert_no_pending_responses()
    assert error is None
    assert list(answers) == ["Phone 1 00001", "Phone 2 00002"]
    found = answers["Phone 2 00002"]
    assert found.runs == result().runs
    assert found.device == replace(
        result().device,
        id="arn:aws:devicefarm:us-west-2::device:2",
        backend="device-farm",
    )
    sent = farm.storage.put
    assert (sent["ANDROID_APP"], sent["INSTRUMENTATION_TEST_PACKAGE"]) == (b"PK app", b"PK test")
    assert sent["INSTRUMENTATION_TEST_SPEC"].startswith(b"# Test spec of AWS Device Farm")
    with zipfile.ZipFile(io.BytesIO(sent["EXTERNAL_DATA"])) as packed:
        assert packed.read("spec.json").decode() == SPEC.to_json()
        assert {packed.read(path.name) for path in package.paths} == {
            path.read_bytes() for path in package.paths
        }


def test_the_runs_arn_is_on_disk_before_anybody_waits(farm, target, package, tmp_path):
    state = tmp_path / "state"
    farm.uploads()
    farm.schedule()
    farm.stub.add_client_error("get_run", "ServiceUnavailable", "down for a while")
    with pytest.raises(DeviceFarmRefused, match="ServiceUnavailable: down for a while"):
        next(DeviceFarmGroup(target, farm.client).run(SPEC, package, state))
    assert json.loads((state / STATE_FILE).read_text())["run_arn"] == RUN
    farm.look("COMPLETED", job_of(1))  # nothing is uploaded or scheduled again
    farm.answers(job_of(1), GOOD)
    answers, error = collect(DeviceFarmGroup(target, farm.client), package, state)
    farm.stub.assert_no_pending_responses()
    assert error is None
    assert list(answers) == ["Phone 1 00001"]


def test_a_run_scheduled_and_not_written_down_is_found_by_its_name(farm, target, package, tmp_path):
    state = tmp_path / "state"
    farm.uploads()
    farm.stub.add_client_error("schedule_run", "InternalFailure", "it may have been scheduled")
    with pytest.raises(DeviceFarmRefused):
        next(DeviceFarmGroup(target, farm.client).run(SPEC, package, state))
    name = json.loads((state / STATE_FILE).read_text())["run_name"]
    farm.stub.add_response(
        "list_runs", {"runs": [{"name": "x", "arn": RUN + "x"}], "nextToken": "more"}, ANY_ARN
    )
    more = ANY_ARN | {"nextToken": "more"}
    farm.stub.add_response("list_runs", {"runs": [{"name": name, "arn": RUN}]}, more)
    farm.look("COMPLETED", job_of(1))
    farm.answers(job_of(1), GOOD)
    answers, _ = collect(DeviceFarmGroup(target, farm.client), package, state)
    farm.stub.assert_no_pending_responses()
    assert list(answers) == ["Phone 1 00001"]


ANY_ARN = {"arn": PROJECT}


def test_a_run_is_taken_up_by_its_arn_without_apks(farm, package, tmp_path):
    target = FarmTarget(POOL, AndroidApp(), resume_run=RUN, poll_s=0.01)
    farm.look("COMPLETED", job_of(1))
    farm.answers(job_of(1), GOOD)
    answers, error = collect(DeviceFarmGroup(target, farm.client), package, tmp_path / "state")
    assert (list(answers), error) == (["Phone 1 00001"], None)


def test_failed_devices_are_told_by_count_and_example_and_others_are_kept(
    farm, target, package, tmp_path
):
    jobs = [
        job_of(1),
        job_of(2, outcome="ERRORED", message="device disconnected"),
        job_of(3, outcome="ERRORED"),
        job_of(4, outcome="STOPPED"),
        job_of(5),
        job_of(6, outcome="FAILED"),
        job_of(7, outcome="FAILED"),
    ]
    target = replace(target, resume_run=RUN)
    farm.look("COMPLETED", *jobs, result="ERRORED")
    farm.answers(jobs[0], GOOD)
    for job in jobs[1:4]:
        farm.artifacts(job)
    farm.answers(jobs[4], b'{"schema": "flint-be')
    farm.answers(jobs[5], GOOD)  # a failed job may have left a whole result
    other = result(spec=replace(SPEC, records=9)).to_json().encode()
    farm.answers(jobs[6], other)
    notes: list[str] = []
    group = DeviceFarmGroup(target, farm.client, notes.append)
    answers, error = collect(group, package, tmp_path / "state")
    farm.stub.assert_no_pending_responses()
    assert list(answers) == ["Phone 1 00001", "Phone 6 00006"]
    assert isinstance(error, FarmDevicesFailed)
    said = str(error)
    assert f"5 of 7 devices of run {RUN} gave no result (2 ERRORED, 1 FAILED, 1 PASSED" in said
    assert "e.g. Phone 2: it left no artefacts (device disconnected)" in said
    assert "results of the other 2 are kept" in said
    assert len(notes) == 5
    assert "is no JSON" in notes[3]


def test_a_run_that_takes_too_long_is_stopped_and_what_is_done_is_kept(
    farm, target, package, tmp_path
):
    done, cut = job_of(1), job_of(2, outcome="STOPPED")
    target = replace(target, resume_run=RUN, timeout_s=0.0)
    farm.look("RUNNING", done, job_of(2, "RUNNING", "PENDING"))
    farm.answers(done, GOOD)
    farm.stub.add_response("stop_run", {"run": {"arn": RUN}}, {"arn": RUN})
    farm.look("STOPPING", done, job_of(2, "STOPPING", "PENDING"))
    farm.look("COMPLETED", done, cut)
    farm.artifacts(cut)
    answers, error = collect(DeviceFarmGroup(target, farm.client), package, tmp_path / "state")
    farm.stub.assert_no_pending_responses()
    assert list(answers) == ["Phone 1 00001"]
    assert "1 STOPPED, and it was stopped after 0 s" in str(error)


def test_a_run_without_devices_says_why(farm, target, package, tmp_path):
    target = replace(target, resume_run=RUN)
    farm.look("COMPLETED", result="ERRORED", message="no device fits the pool")
    answers, error = collect(DeviceFarmGroup(target, farm.client), package, tmp_path / "state")
    assert answers == {}
    assert "ended ERRORED before any device began (no device fits the pool)" in str(error)


def test_waiting_can_be_broken_off_and_the_run_goes_on(farm, target, package, tmp_path):
    target = replace(target, resume_run=RUN, poll_s=60.0)
    farm.look("RUNNING")
    group = DeviceFarmGroup(target, farm.client)
    closer = threading.Timer(0.2, group.close)
    closer.start()
    with pytest.raises(FarmWaitEnded, match="goes on and is taken up by resuming"):
        next(group.run(SPEC, package, tmp_path / "state"))
    closer.join()


def test_a_file_that_device_farm_does_not_take_is_said_with_its_reason(
    farm, target, package, tmp_path
):
    farm.uploads(fail="ANDROID_APP")
    with pytest.raises(FarmUploadFailed, match=r"not take app\.apk .*no AndroidManifest"):
        next(DeviceFarmGroup(target, farm.client).run(SPEC, package, tmp_path / "state"))


def test_a_state_file_of_another_benchmark_is_not_taken_up(farm, target, package, tmp_path):
    state = tmp_path / "state"
    state.mkdir()
    kept = {"pool_arn": POOL, "spec_sha256": "0" * 64, "run_name": "x", "run_arn": RUN}
    (state / STATE_FILE).write_text(json.dumps({"schema": "flint-device-farm/1"} | kept))
    group = DeviceFarmGroup(target, farm.client)
    with pytest.raises(UnusableFarmState, match="of another benchmark"):
        next(group.run(SPEC, package, state))
    (state / STATE_FILE).write_text("{")
    with pytest.raises(UnusableFarmState, match="no JSON"):
        next(group.run(SPEC, package, state))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pool_arn": "e1c97f71"}, "is no device pool"),
        ({"pool_arn": "arn:aws:devicefarm:us-west-2::devicepool:082d10e5"}, "AWS's own"),
        ({"project_arn": POOL}, "is no project"),
        ({"resume_run": "RUN"}, "is no run"),
        ({"app": AndroidApp()}, "needs the APKs"),
    ],
)
def test_what_is_no_arn_is_told_before_anything_is_called(farm, target, changes, said):
    with pytest.raises(InvalidFarmTarget, match=said):
        DeviceFarmGroup(replace(target, **changes), farm.client)


def test_an_apk_that_is_not_there_is_told_first(farm, target, tmp_path):
    app = AndroidApp(tmp_path / "gone.apk", tmp_path / "gone.apk")
    with pytest.raises(MissingApk):
        DeviceFarmGroup(replace(target, app=app), farm.client)


def test_a_machine_without_credentials_is_told_to_set_them(target, package, tmp_path, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    group = DeviceFarmGroup(replace(target, resume_run=RUN))
    with pytest.raises(NoAwsCredentials, match="aws configure"):
        next(group.run(SPEC, package, tmp_path / "state"))


def test_throttling_is_left_to_botocores_own_retries(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    retries = boto_client().meta.config.retries
    assert (retries["mode"], retries["total_max_attempts"]) == ("standard", 11)


# -- transfers and zips ---------------------------------------------------------------------------


def test_a_transfer_is_tried_again_and_never_says_its_url(storage, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    path = tmp_path / "app.apk"
    path.write_bytes(b"PK")
    storage.errors["a"] = [503]
    put_file(storage.url("a"), path)
    assert storage.put["a"] == b"PK"
    storage.errors["a"] = [403]
    with pytest.raises(TransferFailed) as refused:
        put_file(storage.url("a"), path)
    assert "cannot send app.apk to AWS (HTTP 403, 1 attempt(s))" in str(refused.value)
    with pytest.raises(TransferFailed) as gone:
        get_bytes(storage.url("nothing"), 10, "the artefacts of Phone 1")
    for text in (str(refused.value), str(gone.value), caplog.text):
        assert "SECRET" not in text
        assert "http" not in text.replace("HTTP", "")


def test_more_than_is_allowed_is_not_read(storage):
    url = storage.give("big", b"x" * 1001)
    assert len(get_bytes(url, 1001, "it")) == 1001
    with pytest.raises(TransferFailed, match="longer than 1000 bytes"):
        get_bytes(url, 1000, "it")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://x/y", ""])
def test_only_http_is_followed(url, tmp_path):
    with pytest.raises(TransferFailed, match="not HTTP"):
        get_bytes(url, 10, "it")


def test_a_result_is_found_wherever_it_lies_in_the_zip():
    assert result_inside(zipped({RESULT_NAME: GOOD, "other.txt": b"x"})) == GOOD


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no zip that can be read"),
        (zipped({RESULT_NAME: GOOD})[:-30], "no zip that can be read"),
        (zipped({"logcat.txt": b"x"}), "hold no flint-bench-result.json"),
        (zipped({f"a/{RESULT_NAME}": b"x", f"b/{RESULT_NAME}": b"y"}), "hold 2 "),
        (zipped({RESULT_NAME: b"0" * (MAX_RESULT_BYTES + 1)}), "longer than"),
        (zipped({str(n): b"" for n in range(10_001)}), "10001 files"),
    ],
    ids=["empty", "cut off", "crashed", "two", "bomb", "crowd"],
)
def test_a_zip_without_a_readable_result_says_why(data, said):
    with pytest.raises(NoResultInside, match=said):
        result_inside(data)


def test_damaged_bytes_within_a_zip_are_noticed():
    data = bytearray(zipped({RESULT_NAME: GOOD}))
    at = data.index(b".json") + 40
    data[at] ^= 0xFF
    with pytest.raises(NoResultInside, match="no zip that can be read"):
        result_inside(bytes(data))


@given(st.binary(max_size=300), st.integers(0, 400))
def test_whatever_comes_as_a_zip_is_a_result_or_a_reason(noise, at):
    whole = zipped({RESULT_NAME: GOOD[:50]})
    for data in (noise, whole[:at] + noise + whole[at:], whole[: at % len(whole)]):
        found = b""
        with contextlib.suppress(NoResultInside):
            found = result_inside(data)
        assert found in (b"", GOOD[:50])  # never anything else: a zip has checksums


def test_a_path_that_leads_out_is_nowhere_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as packed:
        packed.writestr(f"../../{RESULT_NAME}", GOOD)
        packed.writestr("/etc/evil", b"x")
    assert result_inside(made.getvalue()) == GOOD
    assert list(tmp_path.iterdir()) == []
    assert MAX_ZIP_BYTES < 2**30


def test_the_test_spec_is_whole_and_starts_the_same_app():
    text = resources.files("android_bench.devices").joinpath(TEST_SPEC).read_text()
    read = yaml.safe_load(text)
    assert read["version"] == 0.1
    assert set(read["phases"]) == {"install", "pre_test", "test", "post_test"}
    assert read["artifacts"] == ["$DEVICEFARM_LOG_DIR"]
    commands = [c for phase in read["phases"].values() for c in phase["commands"]]
    assert all(isinstance(command, str) for command in commands)
    assert any(INSTRUMENTATION in command for command in commands)
    assert any(RESULT_NAME in command for command in commands)
