"""A user's session on a server of their own, by the commands of the README, as processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from device_runtime.device_store import DeviceStore
from device_runtime.feature_client import FeatureClient
from device_runtime.feature_tasks import ACTIVITY_FILE, FeatureTasks
from device_runtime.gateway_client import GatewayClient, open_channel
from device_runtime.protocol import device_pb2 as pb
from device_runtime.request_signer import DeviceDescription, RequestSigner
from flint.demo.click_features import SERVICE, write_click_features
from flint.demo.data import generate_demo_data
from flint.deployment import Deployment
from modeling.zoo import SPARSE_MLP

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

DEVICES = 16
FEATURE_DEVICES = 12
PORTS = [
    argument
    for name in ("gateway", "coordinator", "superlink", "gateway-metrics", "coordinator-metrics")
    for argument in (f"--{name}-port", "0")
]


@dataclass(frozen=True)
class Clicks:
    """A feature service that was applied and materialised, with a data set of it."""

    definitions: Path
    contract: str


class Session:
    """Runs `flint` commands for one data directory."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {**os.environ, "FLINT_HOME": str(home), "COLUMNS": "150"}

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "flint", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=self.environment,
        )

    def text(self, *arguments: object) -> str:
        result = self.run(*arguments)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def json(self, *arguments: object) -> Any:
        return json.loads(self.text(*arguments, "--json"))

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "flint", *map(str, arguments)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            env=self.environment,
        )


def eventually(condition: Callable[[], object], within_s: float = 90.0) -> None:
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.2)


def end(process: subprocess.Popen[str], number: int) -> int:
    process.send_signal(number)
    return process.wait(timeout=60)


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    """A server that serves, with a data set and devices, all started by command."""
    home = Path(tempfile.mkdtemp(prefix="flint-session-"))
    home.chmod(0o755)
    session = Session(home)
    server = session.start("up", *PORTS, "--device-feature-service", SERVICE)
    try:
        eventually(lambda: all_ready(session, server))
        data = generate_demo_data(home / "files", training_clients=DEVICES, seed=2)
        fields = ["--client-field", "client_id", "--label-field", "clicked"]
        assert session.json("dataset", "add", data.path, *fields)["train_clients"] == DEVICES
        fleet = session.start("device", "fleet", "--dataset", "clicks", "--processes", 1)
        try:
            yield session
        finally:
            assert end(fleet, signal.SIGINT) == 130
    finally:
        assert end(server, signal.SIGTERM) == 0
        shutil.rmtree(home)


def all_ready(session: Session, server: subprocess.Popen[str]) -> bool:
    assert server.poll() is None
    states = [process["state"] for process in session.json("status")["processes"]]
    return states == ["ready"] * 3


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    job = {
        "name": "session",
        "model": "sparse_mlp",
        "client": {"batch_size": 20, "optimizer": {"learning_rate": 0.3}},
        "strategy": {"name": "fedbuff", "buffer_size": 4, "concurrency": 8},
        "evaluation": {"dataset": "clicks", "every": 2},
        "stop": {"max_aggregations": 4, "max_hours": 0.05},
    }
    path = tmp_path / "session.yaml"
    path.write_text(yaml.safe_dump(job))
    return path


def test_a_job_is_submitted_followed_and_leaves_versions(session, job_file, tmp_path):
    submitted = session.json("submit", job_file)
    assert submitted["job_id"] in session.text("jobs")
    lines = session.text("job", submitted["job_id"], "--follow", "--json").splitlines()
    states = [json.loads(line) for line in lines]
    assert states[-1]["status"] == "finished"
    assert states[-1]["version"] == 4
    assert states[-1]["outcomes"]["succeeded"] >= 16
    assert states[-1]["flower_run_id"] == submitted["flower_run_id"]
    sessions = states[-1]["sessions"]
    assert sum(count for shape, count in sessions.items() if shape.endswith("^")) >= 16
    versions = [state["version"] for state in states if "version" in state]
    assert versions == sorted(versions)

    panel = session.text("job", submitted["job_id"])
    assert "finished" in panel
    assert "succeeded" in panel
    assert "-v[]+^" in panel

    told = [(e["action"], e["subject"]) for e in session.json("audit", "--since", "1h")]
    assert ("job.submitted", submitted["job_id"]) in told
    assert ("job.ended", submitted["job_id"]) in told

    stored = [v for v in session.json("models", "list", "session") if v["job_id"] is not None]
    measured = [v["metrics"]["metric"] for v in stored if "metric" in v["metrics"]]
    best = session.json("models", "show", "session@best")
    assert best["metrics"]["metric"] == max(measured)

    promoted = session.json("models", "promote", "session@best")
    assert session.json("models", "show", "session@production")["version"] == promoted["version"]


@pytest.fixture(scope="module")
def clicks(session) -> Clicks:
    """Two Parquet files become a feature service, online values and a data set, by command."""
    folder = session.home / "feature-files"
    files = write_click_features(folder, training_clients=FEATURE_DEVICES, seed=5)
    session.json("catalog", "apply", files.definitions)
    session.json("catalog", "asset", "add", files.vocabulary)
    (online,) = session.json("catalog", "materialize", SERVICE, "--data", folder)
    dataset = session.json(
        *("dataset", "add", files.rows, "--name", "joined", "--data", folder),
        *("--feature-service", SERVICE, "--event-ts", "ts"),
        *("--client-field", "user_id", "--label-field", "clicked"),
    )
    contract = session.json("catalog", "show", SERVICE)["contract_sha256"]
    assert dataset["feature_contract_sha256"] == contract
    assert online["keys"] > 50
    return Clicks(files.definitions, contract)


def test_what_a_device_joins_equals_the_data_set_to_the_bit(session, clicks, tmp_path):
    deployment = Deployment.attach(session.home)
    dataset = deployment.datasets.open("joined")
    events = deployment.datasets.user_events(dataset)
    settings = deployment.settings
    token = session.json("device", "enrol-token", "--max-devices", 1)["token"]
    channel = open_channel(settings.gateway_address, settings.ca_certificate)
    store = DeviceStore(tmp_path / "identity")
    signer = RequestSigner(store, DeviceDescription("flint.fleet", "phone", "2025-01", token))
    signer.enrolled(GatewayClient(channel).enrol(signer.enrol_request()))
    asked = pb.TaskFeatures(
        service=SERVICE,
        contract_sha256=bytes.fromhex(clicks.contract),
        reads="bag",
        places=64,
        ids=1024,
        hash_seed=dataset.row.hash_seed,
    )
    for number, client in enumerate(dataset.clients()):
        folder = tmp_path / client
        count = int(dataset.train_record_counts[number])
        events.activity(int(dataset.train_first_rows[number]), count).write(folder / ACTIVITY_FILE)
        features = FeatureTasks(
            folder, FeatureClient(channel, signer, folder), "flint.fleet", lambda: True
        )
        joined = features.examples(asked, (1,)).load(10_000)
        features.close()
        for device, central in zip(joined, dataset.records(client), strict=True):
            assert device.dtype == central.dtype
            assert device.tobytes() == central.tobytes()
    store.close()
    channel.close()


def test_devices_train_under_the_contract_a_job_was_submitted_with(
    session, clicks, job_file, tmp_path
):
    job = yaml.safe_load(job_file.read_text()) | {"name": "with_features"}
    job["feature_service"] = "click_feature"

    def submit() -> subprocess.CompletedProcess[str]:
        job_file.write_text(yaml.safe_dump(job))
        return session.run("submit", job_file, "--json")

    said = "feature_service: there is no feature service 'click_feature' (did you mean"
    assert said in submit().stderr
    job["feature_service"] = SERVICE
    assert "clicks@1 was made without a feature service" in submit().stderr
    job["evaluation"] = {"dataset": "joined", "every": 2}
    submitted = submit()
    assert submitted.returncode == 0, submitted.stderr
    assert f"devices join the features of {SERVICE}" in submitted.stderr
    # What the name means later changes nothing for the job.
    changed = tmp_path / "features.yaml"
    changed.write_text(clicks.definitions.read_text().replace("max_age: 7d", "max_age: 6d"))
    session.json("catalog", "apply", changed)
    newest = session.json("catalog", "show", SERVICE)["contract_sha256"]
    assert newest != clicks.contract

    fleet = session.start("device", "fleet", "--dataset", "joined", "--processes", 1)
    try:
        job_id = json.loads(submitted.stdout)["job_id"]
        lines = session.text("job", job_id, "--follow", "--json").splitlines()
    finally:
        assert end(fleet, signal.SIGINT) == 130
    assert json.loads(lines[-1])["status"] == "finished"
    versions = session.json("models", "list", "with_features")
    assert len(versions) == 5
    assert {version["feature_contract_sha256"] for version in versions} == {clicks.contract}
    assert f"was made under the feature contract {SERVICE}@{clicks.contract[:16]}" in (
        submit().stderr
    )
    lineage = session.json("catalog", "lineage", "ads")
    assert lineage["models"] == [
        {"version": f"with_features@{n}", "service": SERVICE, "contract_sha256": clicks.contract}
        for n in range(1, 6)
    ]
    assert lineage["contracts"] == {SERVICE: newest}


def test_a_central_model_goes_in_and_comes_out_unchanged(session, tmp_path):
    arrays = SPARSE_MLP.initial_parameters(11)
    names = [parameter.name for parameter in SPARSE_MLP.parameters]
    np.savez(tmp_path / "central.npz", **dict(zip(names, arrays, strict=True)))
    imported = session.json(
        *("models", "import", tmp_path / "central.npz", "--name", "central"),
        *("--model", "sparse_mlp"),
    )
    session.text("models", "export", imported["version"], tmp_path / "back.npz")
    with np.load(tmp_path / "back.npz") as back:
        assert all(np.array_equal(back[n], a) for n, a in zip(names, arrays, strict=True))


def test_a_waiting_job_and_a_running_job_are_stopped(session, job_file):
    job = yaml.safe_load(job_file.read_text())
    job["stop"] = {"max_updates": 1_000_000, "max_hours": 1.0}
    job_file.write_text(yaml.safe_dump(job))
    first = session.json("submit", job_file)["job_id"]
    second = session.json("submit", job_file)["job_id"]
    eventually(lambda: (session.json("job", first).get("updates") or 0) > 0)
    assert session.json("job", second)["status"] == "queued"

    assert session.json("stop", second) == {"job_id": second, "status": "stopped"}
    assert session.json("stop", first)["status"] == "running"
    eventually(lambda: session.json("job", first)["status"] == "stopped")
    assert session.json("job", first)["detail"] == "stopped with `flint stop`"
    assert "is stopped" in session.text("stop", first)


def test_the_session_lists_its_data_sets_and_says_what_is_wrong_with_others(
    session, clicks, job_file
):
    dataset, joined = session.json("dataset", "list")
    assert (dataset["name"], dataset["version"], dataset["feature_service"]) == ("clicks", 1, None)
    assert (joined["name"], joined["feature_service"]) == ("joined", SERVICE)
    assert session.json("dataset", "show", "clicks") == dataset
    assert "clicks@1" in session.text("dataset", "list")

    job_file.write_text(job_file.read_text().replace("clicks", "klicks"))
    refused = session.run("submit", job_file)
    assert refused.returncode == 2
    assert "[FLN-1112]" in refused.stderr
    too_many = session.run("device", "fleet", "--dataset", "clicks", "--count", 500)
    assert too_many.returncode == 2
    assert "[FLN-1253]" in too_many.stderr


def test_an_enrolment_token_is_made_for_other_devices(session, tmp_path):
    token_file = tmp_path / "token"
    said = session.text("device", "enrol-token", "--output", token_file)
    assert str(session.home / "tls" / "ca.crt") in said
    assert token_file.stat().st_mode & 0o077 == 0
    assert len(token_file.read_text().strip()) > 30


def test_unknown_jobs_and_versions_are_one_sentence(session):
    for command, code in (
        (["job", "j-none"], "FLN-1204"),
        (["stop", "j-none"], "FLN-1204"),
        (["models", "show", "nobody@best"], "FLN-1301"),
        (["dataset", "show", "nothing"], "FLN-1112"),
    ):
        result = session.run(*command)
        assert result.returncode == 2
        assert f"[{code}]" in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_a_second_server_in_the_same_directory_is_refused(session):
    result = session.run("up", *PORTS)
    assert result.returncode == 2
    assert "[FLN-1210]" in result.stderr
