r"""Truth: the same job, 32 devices, for real and on the virtual clock.

Compared, for a FedBuff and a FedAvg job: mean time per aggregation, updates a second, the share of
each outcome among tasks ended, bytes down and bytes up; all from the job's start to its last
version, so that what the end cuts off is in neither. The error of each is relative to the real
figure; the median of them all is what a dry-run's system figures can be trusted to. The dry-run's
figures are means over trials, which differ in who checks in when; reality is one run, so what a
single trial deviates from that mean by (``deviation``) is also what chance alone may put between
the two. Real are server
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
    python benchmarks/truth.py --minutes 4 --strategy fedbuff --trials 1
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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
from truth_figures import Figures, deviations, mean_of, relative_errors
from truth_world import (
    BATCH_SIZE,
    CHECK_INS_PER_S,
    DEVICES,
    MODEL,
    STRATEGIES,
    add_clicks,
    write_job,
    write_world,
)

from device_runtime.imposed_conditions import ImposedConditions
from feature_catalog.datasets import Dataset
from feature_catalog.environment_inputs import EnvironmentInputs
from feature_catalog.postmaster import postmaster_pid
from feature_catalog.simulation_runs import SimulationRuns
from flint.deployment import Deployment
from flint.fleet import LocalFleet, dataset_folder, fill_stores
from flint.imposed_conditions import ConditionOptions
from flint.job_view import ENDED
from flint.submission import submit
from server.coordination.tasks import Outcome
from server.job_file import load_job
from server.operations.up import ServerOptions, start_up
from simulation.catalog_inputs import CatalogInputs

SERVER = ServerOptions(
    gateway_port=0,
    coordinator_port=0,
    superlink_port=0,
    gateway_metrics_port=0,
    coordinator_metrics_port=0,
    check_ins_per_s=CHECK_INS_PER_S,
)
_START_TIMEOUT_S = 120.0
_POLL_S = 0.25


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
    devices = fill_stores(dataset, folder, len(conditions), lambda _: None)
    with LocalFleet(deployment, folder, devices, processes=2, conditions=conditions) as fleet:
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


def simulate(
    deployment: Deployment, job: Path, environment: Path, trials: int
) -> tuple[Figures, ...]:
    """`flint simulate` the same job, and read its trajectories from the catalog."""
    home = deployment.settings.home
    arguments = ("--environment", str(environment), "--trials", str(trials))
    result = flint(home, "simulate", str(job), *arguments)
    runs = SimulationRuns(deployment.engine, deployment.blobs)
    table = pq.read_table(io.BytesIO(runs.file(runs.get(result["run_id"]), "trajectory")))
    rows = table.to_pylist()
    return tuple(
        _virtual_figures([row for row in rows if row["trial"] == trial], result["trials"][trial])
        for trial in range(trials)
    )


def _virtual_figures(rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> Figures:
    last = rows[-1]
    return Figures(
        aggregations=last["version"],
        seconds_per_aggregation=last["virtual_s"] / last["version"],
        updates_per_s=sum(row["updates"] for row in rows) / last["virtual_s"],
        outcomes={str(outcome): last[outcome] for outcome in Outcome},
        bytes_down=last["bytes_down"],
        bytes_up=last["bytes_up"],
        device_hours=last["device_s"] / 3600.0,
        metric=summary["metric"],
    )


def compare(
    home: Path, strategies: list[str], *, minutes: float, trials: int, seed: int
) -> dict[str, Any]:
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
            simulated = simulate(deployment, job, environment, trials)
            virtual = mean_of(simulated)
            found = relative_errors(real, virtual)
            errors |= {f"{strategy}/{name}": error for name, error in found.items()}
            figures[strategy] = {
                "real": real.as_json(),
                "virtual": virtual.as_json(),
                "relative_error": {name: round(error, 4) for name, error in found.items()},
                "median_relative_error": round(statistics.median(found.values()), 4),
                "deviation": {n: round(value, 4) for n, value in deviations(simulated).items()},
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
        "trials": trials,
        "median_relative_error": round(statistics.median(errors.values()), 4),
        "largest_relative_error": max(errors.items(), key=lambda item: item[1]),
        **figures,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--minutes", type=float, default=4.0, help="of each job")
    parser.add_argument("--strategy", choices=[*STRATEGIES, "both"], default="both")
    parser.add_argument("--trials", type=int, default=10, help="of each dry-run")
    parser.add_argument("--seed", type=int, default=5, help="of data and world")
    options = parser.parse_args()
    strategies = list(STRATEGIES) if options.strategy == "both" else [options.strategy]
    # Not in a directory of root's own: Postgres has a system user then, who may not enter.
    home = Path(tempfile.mkdtemp(prefix="flint-truth-"))
    home.chmod(0o755)
    try:
        result = compare(
            home, strategies, minutes=options.minutes, trials=options.trials, seed=options.seed
        )
    finally:
        shutil.rmtree(home, ignore_errors=True)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
