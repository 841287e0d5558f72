"""Secure jobs on real parts: devices verify a real enclave process, seal, and it lets out sums."""

import shutil
import tempfile
import time
from pathlib import Path

import pytest
from sqlalchemy import select

from feature_catalog.schema import ReleaseBudgetRecord, TaskOutcomeRecord
from flint.demo.data import generate_demo_data
from flint.deployment import Deployment
from flint.fleet import LocalFleet, dataset_folder, fill_stores
from flint.submission import submit
from modeling.zoo import get_model
from server.job import Job
from server.operations.up import ServerOptions, start_up
from server.secure_aggregation.configuration import enclave_configuration
from server.secure_aggregation.measurement import measure

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

DEVICES = 16
THRESHOLD = 4
PORTS = ServerOptions(
    gateway_port=0,
    coordinator_port=0,
    superlink_port=0,
    gateway_metrics_port=0,
    coordinator_metrics_port=0,
    check_ins_per_s=60,
    aggregator="enclave",
)
FEDBUFF = {"name": "fedbuff", "buffer_size": 6, "concurrency": 10}
FEDAVG = {
    "name": "fedavg",
    "cohort_size": 6,
    "over_commitment": 1.3,
    "round_deadline_s": 30,
    "min_updates": THRESHOLD,
    "weighting": "uniform",
}


@pytest.fixture(scope="module")
def server():
    # Not under pytest's own directory: as root Postgres has a user of its own, who may not enter.
    home = Path(tempfile.mkdtemp(prefix="flint-enclave-"))
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


@pytest.fixture(scope="module")
def measurement():
    return measure(enclave_configuration("software_root", {})).value.hex()


def secure_job(measurement, strategy, mode, aggregations):
    secure = {
        "mode": mode,
        "release_threshold": THRESHOLD,
        "allowed_measurements": [measurement],
    }
    return Job.model_validate(
        {
            "name": f"secure-{strategy['name']}-{mode}",
            "model": "sparse_mlp",
            "client": {"optimizer": {"learning_rate": 0.5}, "task_timeout_s": 30},
            "strategy": strategy,
            "privacy": {"secure_aggregation": secure},
            "stop": {"max_aggregations": aggregations, "max_hours": 0.05},
        }
    )


def wait_until_ended(deployment, fleet, job_id):
    until = time.monotonic() + 150
    while (row := deployment.jobs.get(job_id)).status not in {"finished", "stopped", "failed"}:
        fleet.check()
        assert time.monotonic() < until, (row, fleet.progress().counts)
        time.sleep(0.05)
    assert row.status == "finished", row
    return row


def outcomes_of(deployment, job_id):
    statement = select(TaskOutcomeRecord).where(TaskOutcomeRecord.job_id == job_id)
    with deployment.engine.connect() as connection:
        return connection.execute(statement).all()


def budget_of(deployment, job_id):
    statement = select(ReleaseBudgetRecord).where(ReleaseBudgetRecord.job_id == job_id)
    with deployment.engine.connect() as connection:
        return connection.execute(statement).one()


@pytest.mark.parametrize("mode", ["enclave", "masked"])
@pytest.mark.parametrize("strategy", [FEDBUFF, FEDAVG], ids=["fedbuff", "fedavg"])
def test_devices_train_a_secure_job(deployment, fleet, measurement, strategy, mode):
    job = secure_job(measurement, strategy, mode, 4)
    job_id = submit(deployment, job, lambda _: None).job_id
    wait_until_ended(deployment, fleet, job_id)
    rows = outcomes_of(deployment, job_id)
    counted = [r for r in rows if r.outcome == "succeeded"]
    for version in range(1, 5):
        in_version = {r.client_id for r in counted if r.version_number == version}
        assert len(in_version) >= THRESHOLD
    assert {r.outcome for r in rows} <= {"succeeded", "over_committed", "stale", "interrupted"}
    assert budget_of(deployment, job_id).version == 3, "released for versions 0 to 3"
