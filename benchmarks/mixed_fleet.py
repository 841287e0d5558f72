"""Updates a second of a mixed fleet: devices behind the gateway and 8 stock SuperNodes, one job.

Devices are real ones of one process (LiteRT, TLS, signed); SuperNodes are stock `flower-supernode`
processes that run our ClientApp on stores of their own. All train `sparse_mlp` with FedBuff (buffer
50) on one server, and share its cores. Updates that are in stored versions are counted, by kind,
over a stretch that begins once every node has given one. CPU seconds are told apart. With
``--nodes 0`` real devices share the cores with the server alone: `updates_per_s_of_two_cores` is
computed, two over the CPU seconds of devices and server an update, for a machine that has nothing
else to do.

The limit of a SuperNode is Flower's: it starts a Python process a task, which loads LiteRT.

    python benchmarks/mixed_fleet.py [--nodes 8] [--devices 50] [--seconds 60]
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from server_processes import ServerProcesses
from sqlalchemy import func, select

from feature_catalog.schema import TaskOutcomeRecord
from flint.demo.data import generate_demo_data
from flint.deployment import Deployment
from flint.fleet import LocalFleet, dataset_folder, device_folder, fill_stores
from flint.submission import stop, submit
from modeling.zoo import get_model
from server.job import Job
from server.operations.up import ServerOptions, start_up

sys.path.append(str(Path(__file__).resolve().parent.parent))
from tests.supernodes import SuperNodes

MOST_WAIT_S = 240.0
WARM_UP_S = 5.0


def job(concurrency: int) -> Job:
    return Job.model_validate(
        {
            "name": "mixed-fleet",
            "model": "sparse_mlp",
            "client": {"optimizer": {"learning_rate": 0.1}},
            # A node's base version is a few hundred versions old when it answers.
            "strategy": {
                "name": "fedbuff",
                "buffer_size": 50,
                "concurrency": concurrency,
                "max_staleness": 1000,
            },
            "stop": {"max_hours": 1},
        }
    )


def counted(deployment: Deployment, job_id: str) -> Counter[str]:
    """Updates in stored versions, by client."""
    record = TaskOutcomeRecord
    statement = (
        select(record.client_id, func.count())
        .where(record.job_id == job_id, record.outcome == "succeeded")
        .group_by(record.client_id)
    )
    with deployment.engine.connect() as connection:
        return Counter({row[0]: row[1] for row in connection.execute(statement)})


def by_kind(updates: Counter[str]) -> Counter[str]:
    kinds: Counter[str] = Counter()
    for client, count in updates.items():
        kinds["nodes" if client.startswith("node-") else "devices"] += count
    return kinds


def cpu_s(pids: Sequence[int]) -> float:
    """CPU seconds of processes and their children, those that have ended too."""
    total = 0.0
    for root in map(psutil.Process, pids):
        for process in [root, *root.children(recursive=True)]:
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system + times.children_user + times.children_system
    return total


def measure(deployment: Deployment, options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    count = options.devices + options.nodes
    data = generate_demo_data(scratch, training_clients=count, seed=3)
    row = deployment.datasets.add(data.path, data.roles, get_model("sparse_mlp"))
    dataset = deployment.datasets.open(f"{row.name}@{row.version}")
    folder = dataset_folder(deployment.settings, dataset)
    fill_stores(dataset, folder, count, lambda _: None)
    stores = [
        device_folder(folder, options.devices + n) / "examples.sqlite" for n in range(options.nodes)
    ]
    with (
        LocalFleet(deployment, folder, options.devices, processes=options.processes) as devices,
        SuperNodes(deployment.settings, stores, scratch / "nodes") as nodes,
    ):
        devices.wait_until_enrolled()
        job_id = submit(deployment, job(count), lambda _: None).job_id
        until_s = time.monotonic() + MOST_WAIT_S
        while not (updates := counted(deployment, job_id)) or (
            sum(client.startswith("node-") for client in updates) < options.nodes
        ):
            if time.monotonic() > until_s:
                raise SystemExit("not every SuperNode gave an update: " + nodes.log()[-2000:])
            time.sleep(0.5)
        time.sleep(WARM_UP_S)
        server = ServerProcesses(deployment.settings.home)
        nodes_before_s, devices_before_s = cpu_s(nodes.pids), cpu_s(devices.pids)
        before, begun_s = by_kind(counted(deployment, job_id)), time.monotonic()
        time.sleep(options.seconds)
        after, took_s = by_kind(counted(deployment, job_id)), time.monotonic() - begun_s
        used_s = {name: round(s, 1) for name, s in sorted(server.cpu_s().items())}
        used_s["nodes"] = round(cpu_s(nodes.pids) - nodes_before_s, 1)
        used_s["devices"] = round(cpu_s(devices.pids) - devices_before_s, 1)
        stop(deployment, job_id)
    gained = {kind: after[kind] - before[kind] for kind in ("devices", "nodes")}
    figures = {
        "devices_updates_per_s": round(gained["devices"] / took_s, 1),
        "nodes_updates_per_s": round(gained["nodes"] / took_s, 2),
        "updates": gained,
        "seconds": round(took_s, 1),
        "cpu_s": used_s,
        "nodes_cpu_s_per_update": round(used_s["nodes"] / max(1, gained["nodes"]), 2),
        "devices_cpu_ms_per_update": round(1e3 * used_s["devices"] / max(1, gained["devices"]), 1),
    }
    if not options.nodes:
        figures["updates_per_s_of_two_cores"] = round(
            2 * gained["devices"] / sum(used_s.values()), 1
        )
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--devices", type=int, default=50)
    parser.add_argument("--processes", type=int, default=1, help="of devices")
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="flint-mixed-") as folder,
        tempfile.TemporaryDirectory() as scratch,
    ):
        home = Path(folder)
        home.chmod(0o755)
        supervisor = start_up(
            home,
            ServerOptions(
                gateway_port=0,
                coordinator_port=0,
                superlink_port=0,
                gateway_metrics_port=0,
                coordinator_metrics_port=0,
                check_ins_per_s=1000.0,
            ),
        )
        try:
            figures = measure(Deployment.attach(home), options, Path(scratch))
        finally:
            supervisor.stop()
    known = {
        "figure": "mixed_fleet",
        "model": "sparse_mlp",
        "buffer_size": 50,
        "devices": options.devices,
        "supernodes": options.nodes,
    }
    print(json.dumps(known | figures))


if __name__ == "__main__":
    main()
