"""The main job on real parts: Postgres, SuperLink, coordinator, TLS gateway, device processes."""

import itertools
import os
import shutil
import signal
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from feature_catalog.schema import TaskOutcomeRecord
from flint.demo.data import generate_demo_data
from flint.deployment import Deployment
from flint.fleet import LocalFleet, dataset_folder, fill_stores
from flint.submission import submit
from modeling.zoo import get_model
from server.job import Job
from server.operations.up import ServerOptions, start_up

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

DEVICES = 24
PORTS = ServerOptions(
    gateway_port=0,
    coordinator_port=0,
    superlink_port=0,
    gateway_metrics_port=0,
    coordinator_metrics_port=0,
    check_ins_per_s=60,
)
FEDBUFF = {"name": "fedbuff", "buffer_size": 8, "concurrency": 12}
FEDAVG = {"name": "fedavg", "cohort_size": 8, "over_commitment": 1.25, "round_deadline_s": 30}


@pytest.fixture(scope="module")
def server():
    # Not under pytest's own directory: as root Postgres has a user of its own, who may not enter.
    home = Path(tempfile.mkdtemp(prefix="flint-home-"))
    home.chmod(0o755)
    supervisor = start_up(home, PORTS)
    yield supervisor
    supervisor.stop()
    shutil.rmtree(home)


@pytest.fixture(scope="module")
def deployment(server):
    return Deployment.attach(server.settings.home)


@pytest.fixture(scope="module")
def fleet(deployment, tmp_path_factory):
    data = generate_demo_data(tmp_path_factory.mktemp("data"), training_clients=DEVICES, seed=3)
    row = deployment.datasets.add(data.path, data.roles, get_model("sparse_mlp"))
    dataset = deployment.datasets.open(f"{row.name}@{row.version}")
    folder = dataset_folder(deployment.settings, dataset)
    fill_stores(dataset, folder, DEVICES, lambda _: None)
    with LocalFleet(deployment, folder, DEVICES, processes=1) as running:
        yield running


def job(strategy, aggregations, **more):
    return Job.model_validate(
        {
            "name": f"test-{strategy['name']}",
            "model": "sparse_mlp",
            "client": {"optimizer": {"learning_rate": 0.5}},
            "strategy": strategy,
            "evaluation": {"dataset": "clicks", "every": 4},
            "stop": {"max_aggregations": aggregations, "max_hours": 0.05},
        }
        | more
    )


def wait_for(deployment, fleet, job_id, condition, deadline_s=150):
    until = time.monotonic() + deadline_s
    while not condition(row := deployment.jobs.get(job_id)):
        fleet.check()
        assert time.monotonic() < until, f"{row.status} {row.detail} {row.progress}"
        time.sleep(0.05)
    return row


def has_ended(row):
    return row.status in {"finished", "stopped", "failed"}


def succeeded_tasks(deployment, job_id):
    with Session(deployment.engine) as session:
        rows = session.scalars(
            select(TaskOutcomeRecord).where(TaskOutcomeRecord.job_id == job_id)
        ).all()
    return [row for row in rows if row.outcome == "succeeded"], Counter(r.task_id for r in rows)


def bytes_up(deployment) -> float:
    """Bytes of updates the gateway has received."""
    url = f"http://127.0.0.1:{deployment.settings.gateway_metrics_port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as response:
        lines = response.read().decode().splitlines()
    (line,) = [
        each for each in lines if each.startswith('flint_gateway_bytes_total{direction="up"')
    ]
    return float(line.split()[-1])


def versions_of(deployment, job_id):
    found = [v for v in deployment.models.list_versions() if v.job_id == job_id]
    return sorted(found, key=lambda version: version.job_version)


@pytest.mark.parametrize("strategy", [FEDBUFF, FEDAVG], ids=["fedbuff", "fedavg"])
def test_devices_train_a_job_and_every_counted_update_is_in_a_version(deployment, fleet, strategy):
    job_id = submit(deployment, job(strategy, 8), lambda _: None).job_id
    row = wait_for(deployment, fleet, job_id, has_ended)
    assert (row.status, row.detail) == ("finished", "max_aggregations 8 reached")
    versions = versions_of(deployment, job_id)
    assert [v.job_version for v in versions] == list(range(9))
    assert all(b.parent_id == a.id for a, b in itertools.pairwise(versions))
    counted, tasks = succeeded_tasks(deployment, job_id)
    assert set(tasks.values()) == {1}
    assert len(counted) == row.progress["updates"] >= 64
    assert versions[-1].metrics["loss"] < versions[0].metrics["loss"]


def test_devices_compress_as_the_job_asks_and_keep_what_they_leave_out(deployment, fleet):
    client = {
        "optimizer": {"learning_rate": 0.5},
        "compression": {"name": "top_k", "fraction": 0.02},
    }
    before = bytes_up(deployment)
    job_id = submit(deployment, job(FEDBUFF, 8, client=client), lambda _: None).job_id
    row = wait_for(deployment, fleet, job_id, has_ended)
    assert (row.status, row.detail) == ("finished", "max_aggregations 8 reached")
    counted, _ = succeeded_tasks(deployment, job_id)
    sent = bytes_up(deployment) - before
    assert 0.02 * 2 * 188_141 * len(counted) < sent < 0.1 * 4 * 188_141 * len(counted)
    versions = versions_of(deployment, job_id)
    assert versions[-1].metrics["loss"] < versions[0].metrics["loss"]


def test_a_coordinator_killed_in_the_middle_goes_on_and_counts_nothing_twice(
    server, deployment, fleet
):
    job_id = submit(deployment, job(FEDBUFF, 14), lambda _: None).job_id
    wait_for(deployment, fleet, job_id, lambda row: row.progress.get("version", 0) >= 3)
    [coordinator] = [p for p in server.status().processes if p.name == "coordinator"]
    os.kill(coordinator.pid, signal.SIGKILL)
    row = wait_for(deployment, fleet, job_id, has_ended)
    assert row.status == "finished", row.detail
    assert row.epoch == 2
    versions = versions_of(deployment, job_id)
    assert [v.job_version for v in versions] == list(range(15))
    counted, tasks = succeeded_tasks(deployment, job_id)
    assert set(tasks.values()) == {1}
    assert Counter(r.version_number for r in counted).keys() == set(range(1, 15))


def test_a_gateway_killed_in_the_middle_is_replaced_and_devices_upload_again(
    server, deployment, fleet
):
    job_id = submit(deployment, job(FEDBUFF, 12), lambda _: None).job_id
    wait_for(deployment, fleet, job_id, lambda row: row.progress.get("version", 0) >= 3)
    [gateway] = [p for p in server.status().processes if p.name == "gateway"]
    os.kill(gateway.pid, signal.SIGKILL)
    row = wait_for(deployment, fleet, job_id, has_ended)
    assert row.status == "finished", row.detail
    _, tasks = succeeded_tasks(deployment, job_id)
    assert set(tasks.values()) == {1}
