"""`flint device fleet` under imposed conditions, on a real server."""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from device_runtime.conditioned_task import parameters_bytes
from flint.demo.data import generate_demo_data
from flint.deployment import Deployment
from flint.submission import submit
from modeling.zoo import get_model
from server.job import Job
from server.operations.up import ServerOptions, start_up

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

DEVICES = 8
OFTEN_AWAY = 4


@pytest.fixture(scope="module")
def deployment():
    # Not under pytest's own directory: as root Postgres has a user of its own, who may not enter.
    home = Path(tempfile.mkdtemp(prefix="flint-home-"))
    home.chmod(0o755)
    ports = dict.fromkeys(
        ("gateway_port", "coordinator_port", "superlink_port"), 0
    ) | dict.fromkeys(("gateway_metrics_port", "coordinator_metrics_port"), 0)
    supervisor = start_up(home, ServerOptions(**ports, check_ins_per_s=60))
    yield Deployment.attach(home)
    supervisor.stop()
    shutil.rmtree(home)


@pytest.fixture(scope="module")
def data(deployment, tmp_path_factory):
    data = generate_demo_data(tmp_path_factory.mktemp("data"), training_clients=DEVICES, seed=3)
    return deployment.datasets.add(data.path, data.roles, get_model("sparse_mlp"))


@pytest.fixture
def sessions(tmp_path) -> Path:
    """Half of the devices are there for half a second in three, the others always."""
    path = tmp_path / "sessions.parquet"
    end_s = [0.5 if device < OFTEN_AWAY else 3.0 for device in range(DEVICES)]
    columns = {
        "client_id": list(range(DEVICES)),
        "start_s": [0.0] * DEVICES,
        "end_s": end_s,
        "repeat_every_s": [3] * DEVICES,
    }
    pq.write_table(pa.table(columns), path)
    return path


def wait_for_end(deployment, job_id, fleet, deadline_s=150):
    until = time.monotonic() + deadline_s
    while (row := deployment.jobs.get(job_id)).status not in {"finished", "stopped", "failed"}:
        assert fleet.poll() is None
        assert time.monotonic() < until, f"{row.status} {row.detail} {row.progress}"
        time.sleep(0.1)
    return row


def last_counts(deployment) -> dict[str, int]:
    lines = (deployment.settings.logs / "fleet-0.jsonl").read_text().splitlines()
    return json.loads(lines[-1])["counts"]


def test_devices_under_conditions_train_and_are_interrupted_when_their_windows_end(
    deployment, data, sessions
):
    command = [
        *(sys.executable, "-P", "-m", "flint", "device", "fleet", "--json", "--processes", "1"),
        *("--home", str(deployment.settings.home), "--dataset", f"{data.name}@{data.version}"),
        *("--slowdown", "0.01", "--bandwidth", "24", "--windows", str(sessions)),
    ]
    fleet = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        ready = json.loads(fleet.stdout.readline())
        assert ready["ready"]
        assert ready["devices"] == DEVICES
        assert abs(ready["epoch_s"] - time.time()) < 60
        job = Job.model_validate(
            {
                "name": "conditioned",
                "model": "sparse_mlp",
                "client": {"optimizer": {"learning_rate": 0.5}, "max_records": 100},
                "strategy": {"name": "fedbuff", "buffer_size": 4, "concurrency": DEVICES},
                "stop": {"max_aggregations": 6, "max_hours": 0.05},
            }
        )
        row = wait_for_end(deployment, submit(deployment, job, lambda _: None).job_id, fleet)
    finally:
        fleet.send_signal(signal.SIGINT)
        fleet.wait(30)
    assert (row.status, row.detail) == ("finished", "max_aggregations 6 reached")
    assert row.progress["reasons"]["window"] == row.progress["outcomes"]["interrupted"] > 0
    counts = last_counts(deployment)
    # Every update was paid for in full, down and up, whatever the processes share.
    bytes_a_task = parameters_bytes(tuple(get_model("sparse_mlp").parameters))
    assert counts["imposed_bytes_down"] >= row.progress["updates"] * bytes_a_task
    assert counts["imposed_bytes_up"] >= row.progress["updates"] * bytes_a_task
    # 0.25 s down and 0.25 s up, and two records at least.
    assert counts["device_ms"] >= row.progress["updates"] * 500
    assert counts["interrupted"] >= row.progress["outcomes"]["interrupted"]
    assert not (deployment.settings.home / "devices" / f"{data.name}@1" / ".epoch").exists()


def test_a_value_that_is_none_is_told_before_anything_starts(deployment, data):
    command = [sys.executable, "-P", "-m", "flint", "device", "fleet", "--bandwidth", "slow"]
    command += ["--home", str(deployment.settings.home), "--dataset", data.name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--bandwidth slow is neither a number of Mbit/s nor a file" in done.stderr
    assert "FLN-1258" in done.stderr
