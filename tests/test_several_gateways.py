"""A job on two real gateway processes behind one port, one of which is killed in the middle."""

import os
import shutil
import signal
import tempfile
import time
import urllib.request
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from flint.demo.data import generate_demo_data
from flint.deployment import Deployment
from flint.fleet import LocalFleet, dataset_folder, fill_stores
from flint.submission import submit
from modeling.zoo import get_model
from server.operations.up import start_up
from tests.test_end_to_end import (
    FEDAVG,
    FEDBUFF,
    PORTS,
    has_ended,
    job,
    succeeded_tasks,
    versions_of,
    wait_for,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

DEVICES = 24


@pytest.fixture(scope="module")
def server():
    home = Path(tempfile.mkdtemp(prefix="flint-two-"))
    home.chmod(0o755)
    supervisor = start_up(home, replace(PORTS, gateways=2))
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
    with LocalFleet(deployment, folder, DEVICES, processes=2) as running:
        yield running


def gateway(server, name):
    (found,) = [p for p in server.status().processes if p.name == name]
    return found


def measured(server, metric):
    """A counter of each gateway, all labels together; None of one that does not answer."""
    values = []
    for port in server.settings.gateway_metrics_ports:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            values.append(None)
            continue
        found = [line for line in lines if line.startswith((f"{metric}{{", f"{metric} "))]
        values.append(sum(float(line.rsplit(" ", 1)[1]) for line in found))
    return values


def assert_each_counted_once(deployment, row, aggregations):
    assert row.status == "finished", row.detail
    assert [v.job_version for v in versions_of(deployment, row.job_id)] == list(
        range(aggregations + 1)
    )
    counted, tasks = succeeded_tasks(deployment, row.job_id)
    assert set(tasks.values()) == {1}
    # A task has one row; one that was in two sums would make the versions count more than rows.
    assert len(counted) == row.progress["updates"]
    assert sum(Counter(r.version_number for r in counted).values()) == len(counted)


@pytest.mark.parametrize("strategy", [FEDBUFF, FEDAVG], ids=["fedbuff", "fedavg"])
def test_two_gateways_train_a_job_and_both_take_part(server, deployment, fleet, strategy):
    before = measured(server, "flint_gateway_updates_total")
    job_id = submit(deployment, job(strategy, 8), lambda _: None).job_id
    row = wait_for(deployment, fleet, job_id, has_ended)
    assert_each_counted_once(deployment, row, 8)
    after = measured(server, "flint_gateway_updates_total")
    assert all(b > a for a, b in zip(before, after, strict=True)), (before, after)


@pytest.mark.parametrize("killed", ["gateway", "gateway-2"])
def test_killing_one_of_two_gateways_outright_counts_nobody_twice_and_the_job_finishes(
    server, deployment, fleet, killed
):
    until = time.monotonic() + 60
    while not server.status().ready:
        assert time.monotonic() < until
        time.sleep(0.1)
    job_id = submit(deployment, job(FEDBUFF, 16), lambda _: None).job_id
    wait_for(deployment, fleet, job_id, lambda row: row.progress.get("version", 0) >= 3)
    process = gateway(server, killed)
    os.kill(process.pid, signal.SIGKILL)
    row = wait_for(deployment, fleet, job_id, has_ended)
    assert_each_counted_once(deployment, row, 16)
    until = time.monotonic() + 60
    while gateway(server, killed).restarts == process.restarts or not server.status().ready:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert None not in measured(server, "flint_gateway_check_ins_total")
