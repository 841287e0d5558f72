r"""Truth: the same job, 32 devices, for real and on the virtual clock.

Compared, for a FedBuff and a FedAvg job: mean time per aggregation, updates a second, the share of
each outcome among tasks ended, bytes down and bytes up; all from the job's start to its last
version, so that what the end cuts off is in neither. The error of each is relative to the real
figure; the median of them all is what a dry-run's system figures can be trusted to. Real are server
(Postgres, SuperLink, coordinator, gateway, TLS) and devices (keys, LiteRT, uploads) in processes of
their own, under imposed speeds, links and windows (`flint device fleet --environment`); virtual is
`flint simulate` with the same job and environment files on the same data set.

A real device comes when pace steering tells it, and so does a simulated one whose system is always
awake: `check_in: {period_s: 0.001, jitter: 0}`. Real windows count from the moment the coordinator
took up the job, as virtual ones do.

The limit: the machine. Processor time of all processes, server and devices, is measured; where they
need a core or more (``cores``), or devices were slower than imposed (``slower_than_imposed``), the
machine and not the imposed world set the pace, and the comparison means nothing.

    python benchmarks/truth.py --minutes 4
    python benchmarks/truth.py --minutes 4 --strategy fedbuff
"""

import argparse
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from device_runtime.imposed_conditions import ImposedConditions
from feature_catalog.datasets import Dataset
from feature_catalog.environment_inputs import EnvironmentInputs
from feature_catalog.featurize import FieldRoles
from feature_catalog.postmaster import postmaster_pid
from feature_catalog.simulation_runs import SimulationRuns
from feature_catalog.splits import is_heldout
from flint.demo.click_data import (
    CLIENT_FIELD,
    LABEL_FIELD,
    ClickDataShape,
    generate_clicks,
    write_click_data,
)
from flint.deployment import Deployment
from flint.fleet import LocalFleet, dataset_folder, fill_stores
from flint.imposed_conditions import ConditionOptions
from flint.job_view import ENDED
from flint.submission import submit
from modeling.zoo import get_model
from server.coordination.tasks import Outcome
from server.job_file import load_job
from server.operations.up import ServerOptions, start_up
from simulation.catalog_inputs import CatalogInputs

MODEL = "sparse_mlp"
DEVICES = 32
STRATEGIES: dict[str, dict[str, Any]] = {
    "fedbuff": {"name": "fedbuff", "buffer_size": 8, "concurrency": 20, "max_staleness": 4},
    "fedavg": {
        "name": "fedavg",
        "cohort_size": 10,
        "over_commitment": 1.3,
        "round_deadline_s": 60,
        "min_updates": 5,
    },
}
BATCH_SIZE = 20
CHECK_INS_PER_S = 200.0
SERVER = ServerOptions(
    gateway_port=0,
    coordinator_port=0,
    superlink_port=0,
    gateway_metrics_port=0,
    coordinator_metrics_port=0,
    check_ins_per_s=CHECK_INS_PER_S,
)
LEAST_SHARE = 0.01
"""Outcomes rarer than this on both sides are left out: their shares are noise."""

_START_TIMEOUT_S = 120.0
_POLL_S = 0.25


@dataclass(frozen=True, slots=True)
class Figures:
    """One side of the comparison.

    Attributes:
        outcomes: Tasks by how they ended.
        bytes_down: Of tasks devices are done with, as is ``bytes_up``.
        device_hours: That devices worked on them.
    """

    aggregations: int
    seconds_per_aggregation: float
    updates_per_s: float
    outcomes: Mapping[str, int]
    bytes_down: int
    bytes_up: int
    device_hours: float
    metric: float | None

    def compared(self) -> dict[str, float]:
        """What is held against the other side."""
        total = sum(self.outcomes.values())
        shares = {f"share_{name}": count / total for name, count in self.outcomes.items()}
        return {
            "seconds_per_aggregation": self.seconds_per_aggregation,
            "updates_per_s": self.updates_per_s,
            **shares,
            "bytes_down": float(self.bytes_down),
            "bytes_up": float(self.bytes_up),
        }

    def as_json(self) -> dict[str, object]:
        """Rounded for a record."""
        return {
            "aggregations": self.aggregations,
            "seconds_per_aggregation": round(self.seconds_per_aggregation, 4),
            "updates_per_s": round(self.updates_per_s, 4),
            "outcomes": {name: count for name, count in self.outcomes.items() if count},
            "bytes_down": self.bytes_down,
            "bytes_up": self.bytes_up,
            "device_hours": round(self.device_hours, 4),
            "metric": None if self.metric is None else round(self.metric, 4),
        }


def relative_errors(real: Figures, virtual: Figures) -> dict[str, float]:
    """Error of each virtual figure, relative to the real one (1 where only one side has any)."""
    errors = {}
    reality, dry_run = real.compared(), virtual.compared()
    for name in sorted(reality.keys() | dry_run.keys()):
        a, b = reality.get(name, 0.0), dry_run.get(name, 0.0)
        if name.startswith("share_") and max(a, b) < LEAST_SHARE:
            continue
        errors[name] = abs(b - a) / a if a else 1.0
    return errors


# The world.


def write_world(folder: Path, dataset: str, seed: int) -> Path:
    """Write an environment of tasks of some 2 to 15 s and windows of a minute or two."""
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    models = {"old": 0.12, "usual": 0.07, "good": 0.045, "new": 0.03}
    links_kbps = np.exp(generator.normal(np.log(6_000), 0.5, 200))
    tables = {
        "device_profiles": {
            "device_model": list(models),
            "per_example_s": list(models.values()),
        },
        "device_population": {"device_model": list(models), "share": [0.15, 0.4, 0.3, 0.15]},
        "bandwidth": {"down_kbps": links_kbps, "up_kbps": 0.6 * links_kbps},
        "sessions": _sessions(generator),
    }
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    environment = {
        "dataset": dataset,
        "population": {"seed": seed},
        "check_in": {"period_s": 0.001, "jitter": 0.0, "check_ins_per_s": CHECK_INS_PER_S},
        "availability": "./sessions.parquet",
        "device_profiles": "./device_profiles.parquet",
        "device_population": "./device_population.parquet",
        "bandwidth": "./bandwidth.parquet",
    }
    path = folder / "environment.yaml"
    path.write_text(yaml.safe_dump(environment, sort_keys=False))
    return path


def _sessions(generator: np.random.Generator) -> dict[str, list[float]]:
    """Each device is there for 50 to 150 s, away for 15 to 45 s, and so on, each from elsewhere."""
    rows: dict[str, list[float]] = {
        name: [] for name in ("client_id", "start_s", "end_s", "repeat_every_s")
    }
    for client in range(DEVICES):
        open_s, closed_s = int(generator.integers(50, 151)), int(generator.integers(15, 46))
        period_s = open_s + closed_s
        start_s = int(generator.integers(0, period_s))
        end_s = start_s + open_s
        spans = [(start_s, end_s)]
        if end_s > period_s:
            spans = [(0, end_s - period_s), (start_s, period_s)]
        for span in spans:
            for name, value in zip(rows, (client, *span, period_s), strict=True):
                rows[name].append(value)
    return rows


def write_job(folder: Path, strategy: str, dataset: str, minutes: float) -> Path:
    job = {
        "name": f"truth-{strategy}",
        "model": MODEL,
        "client": {
            "local_epochs": 1,
            "batch_size": BATCH_SIZE,
            "max_records": 150,
            "optimizer": {"name": "sgd", "learning_rate": 1.0},
            "task_timeout_s": 60,
        },
        "strategy": STRATEGIES[strategy]
        | {"server_optimizer": {"name": "adam", "learning_rate": 0.003, "epsilon": 1e-4}},
        "evaluation": {"dataset": dataset, "metric": "auprc", "every": 5},
        "stop": {"max_hours": minutes / 60.0},
        "seed": 7,
    }
    path = folder / f"{job['name']}.yaml"
    path.write_text(yaml.safe_dump(job, sort_keys=False))
    return path


def add_clicks(deployment: Deployment, folder: Path, seed: int) -> Dataset:
    """Generated clicks of exactly `DEVICES` training clients, each of a few dozen records."""
    clicks = generate_clicks(
        DEVICES,
        seed=seed,
        is_held_out=lambda client: is_heldout("truth", client),
        shape=ClickDataShape(median_records=60, records_sigma=0.5, max_records=200),
    )
    path = folder / "truth.parquet"
    write_click_data(clicks, path)
    roles = FieldRoles(CLIENT_FIELD, LABEL_FIELD)
    row = deployment.datasets.add(path, roles, get_model(MODEL))
    if row.train_clients != DEVICES:
        raise SystemExit(f"{row.train_clients} training clients, not {DEVICES}; another --seed")
    return deployment.datasets.open(f"{row.name}@{row.version}")


# The real side.


class ProcessorTime:
    """CPU seconds of this process, all it started, and the database, since it was made.

    The last seen of a process that has ended stays counted.
    """

    def __init__(self, home: Path) -> None:
        self._pgdata = home / "postgres"
        self._seen: dict[tuple[int, float], float] = {}
        self._before = self._total()

    def seconds(self) -> float:
        """Since it was made."""
        return self._total() - self._before

    def _total(self) -> float:
        roots = [os.getpid(), self._postmaster()]
        for root in [psutil.Process(pid) for pid in roots if pid is not None]:
            for process in [root, *root.children(recursive=True)]:
                try:
                    times = process.cpu_times()
                    key = (process.pid, process.create_time())
                except psutil.NoSuchProcess:
                    continue
                self._seen[key] = times.user + times.system
        return sum(self._seen.values())

    def _postmaster(self) -> int | None:
        found = [path.parent for path in self._pgdata.rglob("postmaster.pid")]
        return postmaster_pid(found[0]) if found else None


def flint(home: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-P", "-m", "flint", *arguments, "--home", str(home), "--json"]
    finished = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if finished.returncode:
        raise SystemExit(f"`flint {' '.join(arguments)}` failed")  # it has said why
    result: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return result


def run_for_real(
    deployment: Deployment,
    dataset: Dataset,
    conditions: list[ImposedConditions],
    job: Path,
) -> tuple[Figures, dict[str, float]]:
    """Run a job on devices under conditions; returns its figures, and how busy the machine was."""
    home = deployment.settings.home
    folder = dataset_folder(deployment.settings, dataset)
    fill_stores(dataset, folder, DEVICES, lambda _: None)
    with LocalFleet(deployment, folder, DEVICES, processes=2, conditions=conditions) as fleet:
        fleet.wait_until_enrolled()
        job_id = submit(deployment, load_job(job), lambda _: None).job_id
        epoch_s = _taken_up_s(deployment, job_id)
        fleet.begin(epoch_s)
        begun_s = time.time()
        processor, began_s = ProcessorTime(home), time.monotonic()
        while (row := deployment.jobs.get(job_id)).status not in ENDED:
            fleet.check()
            processor.seconds()
            time.sleep(_POLL_S)
        cpu_s, wall_s = processor.seconds(), time.monotonic() - began_s
        counts = fleet.progress().counts
        while fleet.progress().in_flight:  # else the next job would begin with their uploads
            time.sleep(_POLL_S)
    if row.status != "finished":
        raise SystemExit(f"job {row.name} {row.status}: {row.detail}")
    busy = {
        "cores": round(cpu_s / wall_s, 3),
        "cpu_s": round(cpu_s, 2),
        "wall_s": round(wall_s, 2),
        "began_after_s": round(begun_s - epoch_s, 3),
        "slower_than_imposed": counts.get("slower_than_imposed", 0),
        "tasks_trained": counts.get("trained", 0),
        "load_average": round(os.getloadavg()[1], 2),
    }
    return _real_figures(deployment, job_id, epoch_s), busy


def _taken_up_s(deployment: Deployment, job_id: str) -> float:
    """When the coordinator began to drive the job: just after it stored the initial version."""
    deadline_s = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        first = deployment.models.newest_of_job(job_id)
        if first is not None:
            return first.created_at.timestamp()
        time.sleep(0.05)
    raise SystemExit("the job does not start")


def _real_figures(deployment: Deployment, job_id: str, epoch_s: float) -> Figures:
    row = deployment.jobs.get(job_id)
    versions = [v for v in deployment.models.list_versions(row.name) if v.job_id == job_id]
    last = max(versions, key=lambda version: int(version.job_version or 0))
    totals, count = last.strategy_state["totals"], int(last.job_version or 0)
    elapsed_s = float(totals["elapsed_s"])
    spent = _counts_at(deployment.settings.logs, epoch_s + elapsed_s)
    return Figures(
        aggregations=count,
        seconds_per_aggregation=elapsed_s / count,
        updates_per_s=totals["updates"] / elapsed_s,
        outcomes=totals["outcomes"],
        bytes_down=round(spent["imposed_bytes_down"]),
        bytes_up=round(spent["imposed_bytes_up"]),
        device_hours=spent["device_ms"] / 3.6e6,
        metric=row.progress["metric"],
    )


def _counts_at(logs: Path, unix_s: float) -> dict[str, float]:
    """What all devices had counted at a moment, between two reports of their processes."""
    names = ("imposed_bytes_down", "imposed_bytes_up", "device_ms")
    counts = dict.fromkeys(names, 0.0)
    for path in sorted(logs.glob("fleet-*.jsonl")):
        reports = [json.loads(line) for line in path.read_text().splitlines()]
        at_s = [report["unix_s"] for report in reports]
        for name in names:
            values = [report["counts"].get(name, 0) for report in reports]
            counts[name] += float(np.interp(unix_s, at_s, values))
    return counts


# The virtual side.


def simulate(deployment: Deployment, job: Path, environment: Path) -> Figures:
    """`flint simulate` the same job, and read its trajectory from the catalog."""
    home = deployment.settings.home
    result = flint(home, "simulate", str(job), "--environment", str(environment))
    runs = SimulationRuns(deployment.engine, deployment.blobs)
    trajectory = pq.read_table(io.BytesIO(runs.file(runs.get(result["run_id"]), "trajectory")))
    last = trajectory.slice(len(trajectory) - 1).to_pylist()[0]
    return Figures(
        aggregations=last["version"],
        seconds_per_aggregation=last["virtual_s"] / last["version"],
        updates_per_s=sum(trajectory["updates"].to_pylist()) / last["virtual_s"],
        outcomes={str(outcome): last[outcome] for outcome in Outcome},
        bytes_down=last["bytes_down"],
        bytes_up=last["bytes_up"],
        device_hours=last["device_s"] / 3600.0,
        metric=result["metric"],
    )


def compare(home: Path, strategies: list[str], minutes: float, seed: int) -> dict[str, Any]:
    """Run everything; returns the record."""
    supervisor = start_up(home, SERVER)
    try:
        deployment = Deployment.attach(home)
        flint(home, "models", "build", MODEL, "--batch-size", str(BATCH_SIZE))
        dataset = add_clicks(deployment, home, seed)
        reference = f"{dataset.row.name}@{dataset.row.version}"
        environment = write_world(home / "world", reference, seed)
        inputs = EnvironmentInputs(deployment.engine, deployment.blobs)
        conditions = ConditionOptions(environment=environment).conditions(
            dataset.train_record_counts, lambda folder: CatalogInputs(folder, inputs)
        )
        figures: dict[str, Any] = {}
        errors: dict[str, float] = {}
        for strategy in strategies:
            job = write_job(home / "world", strategy, reference, minutes)
            real, busy = run_for_real(deployment, dataset, conditions or [], job)
            virtual = simulate(deployment, job, environment)
            found = relative_errors(real, virtual)
            errors |= {f"{strategy}/{name}": error for name, error in found.items()}
            figures[strategy] = {
                "real": real.as_json(),
                "virtual": virtual.as_json(),
                "relative_error": {name: round(error, 4) for name, error in found.items()},
                "median_relative_error": round(statistics.median(found.values()), 4),
                "machine": busy,
            }
            print(json.dumps({strategy: figures[strategy]}), file=sys.stderr)
        deployment.engine.dispose()
    finally:
        supervisor.stop()
    return {
        "figure": "truth",
        "model": MODEL,
        "devices": DEVICES,
        "fleet_processes": 2,
        "minutes": minutes,
        "median_relative_error": round(statistics.median(errors.values()), 4),
        "largest_relative_error": max(errors.items(), key=lambda item: item[1]),
        **figures,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--minutes", type=float, default=4.0, help="of each job")
    parser.add_argument("--strategy", choices=[*STRATEGIES, "both"], default="both")
    parser.add_argument("--seed", type=int, default=5, help="of data and world")
    options = parser.parse_args()
    strategies = list(STRATEGIES) if options.strategy == "both" else [options.strategy]
    # Not in a directory of root's own: Postgres has a system user then, who may not enter.
    home = Path(tempfile.mkdtemp(prefix="flint-truth-"))
    home.chmod(0o755)
    try:
        result = compare(home, strategies, options.minutes, options.seed)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
