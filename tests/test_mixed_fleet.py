"""One job on a mixed fleet: devices behind the gateway, and stock SuperNodes behind SuperLink."""

import itertools
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest

from flint.demo.data import generate_demo_data
from flint.deployment import Deployment
from flint.fleet import LocalFleet, dataset_folder, device_folder, fill_stores
from flint.submission import stop, submit
from modeling.zoo import get_model
from server.operations.up import start_up
from tests.supernodes import SuperNodes
from tests.test_end_to_end import (
    PORTS,
    has_ended,
    job,
    succeeded_tasks,
    versions_of,
    wait_for,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

DEVICES, NODES = 12, 2
FEDBUFF = {"name": "fedbuff", "buffer_size": 20, "concurrency": 10, "max_staleness": 1000}
# Nobody is left behind: a round takes as long as its slowest, and nodes take seconds.
FEDAVG = {"name": "fedavg", "cohort_size": 10, "over_commitment": 1.0, "round_deadline_s": 120}


@pytest.fixture(scope="module")
def server():
    home = Path(tempfile.mkdtemp(prefix="flint-mixed-"))
    home.chmod(0o755)
    supervisor = start_up(home, PORTS)
    yield supervisor
    supervisor.stop()
    shutil.rmtree(home)


@pytest.fixture(scope="module")
def deployment(server):
    return Deployment.attach(server.settings.home)


@pytest.fixture(scope="module")
def stores(deployment, tmp_path_factory):
    """Folder of all clients' stores: those of the devices, then those of the nodes."""
    count = DEVICES + NODES
    data = generate_demo_data(tmp_path_factory.mktemp("data"), training_clients=count, seed=3)
    row = deployment.datasets.add(data.path, data.roles, get_model("sparse_mlp"))
    dataset = deployment.datasets.open(f"{row.name}@{row.version}")
    folder = dataset_folder(deployment.settings, dataset)
    fill_stores(dataset, folder, count, lambda _: None)
    return folder


@pytest.fixture(scope="module")
def devices(deployment, stores):
    with LocalFleet(deployment, stores, DEVICES, processes=1) as running:
        running.wait_until_enrolled()
        yield running


@pytest.fixture(scope="module")
def nodes(deployment, stores, tmp_path_factory):
    paths = [device_folder(stores, DEVICES + n) / "examples.sqlite" for n in range(NODES)]
    with SuperNodes(deployment.settings, paths, tmp_path_factory.mktemp("nodes")) as running:
        yield running


def counted_by_kind(deployment, job_id):
    """Updates in versions: by device, and by node."""
    counted, tasks = succeeded_tasks(deployment, job_id)
    assert set(tasks.values()) <= {1}
    by_node = Counter(r.client_id for r in counted if r.client_id.startswith("node-"))
    by_device = Counter(r.client_id for r in counted if not r.client_id.startswith("node-"))
    return by_device, by_node, counted


@pytest.mark.parametrize("strategy", [FEDBUFF, FEDAVG], ids=["fedbuff", "fedavg"])
def test_devices_and_stock_supernodes_train_one_job_and_both_are_in_its_versions(
    deployment, devices, nodes, strategy
):
    endless = job(strategy, 1, stop={"max_hours": 1})
    job_id = submit(deployment, endless, lambda _: None).job_id
    until = time.monotonic() + 180
    while True:
        row = wait_for(deployment, devices, job_id, lambda _: True)
        by_device, by_node, _ = counted_by_kind(deployment, job_id)
        if len(by_node) == NODES and sum(by_node.values()) >= 2 * NODES and len(by_device) >= 6:
            break
        assert row.status in {"queued", "running"}, row.detail
        assert time.monotonic() < until, (by_device, by_node, row.progress, nodes.log()[-3000:])
        time.sleep(0.5)
    stop(deployment, job_id)
    row = wait_for(deployment, devices, job_id, has_ended)
    assert row.status == "stopped", row.detail

    by_device, by_node, counted = counted_by_kind(deployment, job_id)
    assert len(counted) == row.progress["updates"]
    versions = versions_of(deployment, job_id)
    assert [v.job_version for v in versions] == list(range(row.progress["version"] + 1))
    assert all(b.parent_id == a.id for a, b in itertools.pairwise(versions))
    # In the same version, too: one step of the model that both moved.
    kinds = {(r.version_number, r.client_id.startswith("node-")) for r in counted}
    assert any((v, True) in kinds and (v, False) in kinds for v, _ in kinds)
