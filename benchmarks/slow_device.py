"""One slow device among ten, or slow links: how much longer training takes, real and virtual.

As Flower's paper of 2020 did (3.5 times as long with the slow device, 2.15 times from 1 Gbit/s to
4G): synchronous rounds of all ten devices, over-commitment 1, so each waits for the slowest. A
device takes 5 s to train (100 records at 0.05 s) and moves the model's 0.75 MB down and up at 1
Gbit/s; then one device is 2 to 8 times slower, or every link is slower. Real are server and devices
in processes of their own under imposed conditions, as in `truth.py`, whose functions do it;
virtual is the same job and environment on the virtual clock, without training. Figures are seconds
a round, and how many times those of ten equal devices at 1 Gbit/s.

What limits the figure. Devices pull: one that has sent its update comes back when pace steering
lets it, about a second later (``wait_s``: what a round takes beyond its slowest task). That is part
of both sides, and why a device eight times slower makes training somewhat less than eight times as
long. What a link costs depends on what is moved against what is computed: here 12 Mbit in all
against 5 s, so it takes 2 Mbit/s to double a round; a model ten times larger is there at 20.

    python benchmarks/slow_device.py
    python benchmarks/slow_device.py --virtual-only
"""

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import truth
import yaml
from plots import save, two_axes

from feature_catalog.environment_inputs import EnvironmentInputs
from feature_catalog.featurize import FieldRoles
from feature_catalog.opened_dataset import Dataset
from feature_catalog.splits import is_heldout
from flint.catalog_session import CatalogSession, open_catalog
from flint.demo.click_data import (
    CLIENT_FIELD,
    LABEL_FIELD,
    ClickDataShape,
    generate_clicks,
    write_click_data,
)
from flint.deployment import Deployment
from flint.imposed_conditions import conditions_of_environment
from modeling.zoo import get_model
from server.job_file import load_job
from server.operations.up import start_up
from simulation.catalog_inputs import CatalogInputs
from simulation.environment import load_environment
from simulation.executors.make import make_executor
from simulation.preparation import prepare
from simulation.trial import Trial

DEVICES = 10
RECORDS = 100
PER_EXAMPLE_S = 0.05
FAST_KBPS = 1_000_000
ROUNDS = 4
TRIALS = 20
DATASET = "ten_clients"


@dataclass(frozen=True, slots=True)
class Point:
    """One condition.

    Attributes:
        slow: How many times slower one of the ten devices is.
        kbps: Of every link, down and up.
        is_real: Whether it is run for real too.
    """

    slow: float = 1.0
    kbps: int = FAST_KBPS
    is_real: bool = False


BASE = Point(is_real=True)
SLOW = [BASE, *(Point(slow=factor, is_real=factor in {2, 4, 8}) for factor in range(2, 9))]
LINKS = [
    BASE,
    *(
        Point(kbps=mbps * 1000, is_real=mbps in {100, 20, 10, 4, 1})
        for mbps in (100, 50, 20, 10, 6, 4, 3, 2, 1)
    ),
]


def write_world(folder: Path, point: Point, dataset: str) -> Path:
    """Write the environment of a point; device 0 of the trace is the slow one."""
    folder.mkdir(parents=True, exist_ok=True)
    models = ["slow", *["usual"] * (DEVICES - 1)]
    tables = {
        "sessions": {
            "client_id": list(range(DEVICES)),
            "start_s": [0] * DEVICES,
            "end_s": [86_400] * DEVICES,
            "repeat_every_s": [86_400] * DEVICES,
            "device_model": models,
        },
        "device_profiles": {
            "device_model": ["slow", "usual"],
            "per_example_s": [PER_EXAMPLE_S * point.slow, PER_EXAMPLE_S],
        },
        "bandwidth": {"kbps": [float(point.kbps)]},
    }
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    environment = {
        "dataset": dataset,
        # A device whose system is always awake comes when pace steering tells it, as real ones do.
        "check_in": {
            "period_s": 0.001,
            "jitter": 0.0,
            "check_ins_per_s": truth.CHECK_INS_PER_S,
        },
        "availability": "./sessions.parquet",
        "device_profiles": "./device_profiles.parquet",
        "bandwidth": "./bandwidth.parquet",
    }
    path = folder / "environment.yaml"
    path.write_text(yaml.safe_dump(environment, sort_keys=False))
    return path


def write_job(folder: Path) -> Path:
    job = {
        "name": "slow-device",
        "model": truth.MODEL,
        "client": {
            "local_epochs": 1,
            "batch_size": truth.BATCH_SIZE,
            "max_records": RECORDS,
            "optimizer": {"name": "sgd", "learning_rate": 0.5},
        },
        "strategy": {
            "name": "fedavg",
            "cohort_size": DEVICES,
            "over_commitment": 1.0,
            "min_updates": DEVICES,
        },
        "stop": {"max_aggregations": ROUNDS},
        "seed": 7,
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job, sort_keys=False))
    return path


def add_clients(catalog: CatalogSession | Deployment, folder: Path) -> Dataset:
    """Generated clicks of ten training clients with equally many records."""
    clicks = generate_clicks(
        DEVICES,
        seed=3,
        is_held_out=lambda client: is_heldout(DATASET, client),
        shape=ClickDataShape(median_records=RECORDS, records_sigma=0.0),
    )
    path = folder / f"{DATASET}.parquet"
    write_click_data(clicks, path)
    roles = FieldRoles(CLIENT_FIELD, LABEL_FIELD)
    row = catalog.datasets.add(path, roles, get_model(truth.MODEL))
    return catalog.datasets.open(f"{row.name}@{row.version}")


def dry_run(catalog: CatalogSession, folder: Path, point: Point) -> dict[str, float]:
    """Seconds a round on the virtual clock over the trials."""
    environment = write_world(folder, point, f"{DATASET}@1")
    job = load_job(write_job(folder))
    prepared = prepare(
        job,
        load_environment(environment),
        folder,
        CatalogInputs(folder, catalog.environment_inputs),
        catalog.datasets,
        catalog.models,
        job.seed,
    )
    model = prepared.dry_run.model
    executor = make_executor("none", 1, model, job.client, prepared.records)
    results = [Trial(prepared.dry_run, trial, executor, None).run() for trial in range(TRIALS)]
    rounds_s = [result.virtual_s / ROUNDS for result in results]
    tasks = results[0].tasks
    planned_s = sum(tasks[name].to_numpy() for name in ("download_s", "train_s", "upload_s"))
    return {
        "round_s": round(statistics.fmean(rounds_s), 3),
        "least_s": round(min(rounds_s), 3),
        "most_s": round(max(rounds_s), 3),
        "slowest_task_s": round(float(planned_s.max()), 3),
        "wait_s": round(statistics.fmean(rounds_s) - float(planned_s.max()), 3),
    }


def for_real(
    deployment: Deployment, dataset: Dataset, folder: Path, point: Point
) -> dict[str, float]:
    """Seconds a round of real devices under the point's conditions."""
    environment = write_world(folder, point, f"{DATASET}@1")
    inputs = EnvironmentInputs(deployment.engine, deployment.blobs)
    conditions = conditions_of_environment(
        environment, CatalogInputs(folder, inputs), dataset.train_record_counts
    )
    figures, busy = truth.run_for_real(deployment, dataset, conditions, write_job(folder))
    if figures.aggregations != ROUNDS:
        raise SystemExit(f"{figures.aggregations} rounds, not {ROUNDS}")
    return {
        "round_s": round(figures.seconds_per_aggregation, 3),
        "cores": busy["cores"],
        "slower_than_imposed": busy["slower_than_imposed"],
    }


@contextlib.contextmanager
def serving(home: Path) -> Iterator[Deployment]:
    supervisor = start_up(home, truth.SERVER)
    try:
        deployment = Deployment.attach(home)
        truth.flint(home, "models", "build", truth.MODEL, "--batch-size", str(truth.BATCH_SIZE))
        yield deployment
        deployment.engine.dispose()
    finally:
        supervisor.stop()


def measure(folder: Path, *, is_real: bool) -> dict[Point, dict[str, Any]]:
    points = list(dict.fromkeys([*SLOW, *LINKS]))
    figures: dict[Point, dict[str, Any]] = {}
    with open_catalog(folder / "home") as catalog:
        add_clients(catalog, folder)
        for point in points:
            figures[point] = {"virtual": dry_run(catalog, folder / "world", point)}
    if is_real:
        with serving(folder / "home") as deployment:
            dataset = deployment.datasets.open(f"{DATASET}@1")
            for point in [point for point in points if point.is_real]:
                found = for_real(deployment, dataset, folder / "world", point)
                figures[point]["real"] = found
                print(f"{point}: {figures[point]}", file=sys.stderr)
    for side in ("virtual", "real"):
        for each in figures.values():
            if side in each:
                base_s = figures[BASE][side]["round_s"]
                each[side]["times_as_long"] = round(each[side]["round_s"] / base_s, 3)
    return figures


def relative_errors(figures: Mapping[Point, Mapping[str, Any]]) -> list[float]:
    """Of virtual seconds a round, against real ones."""
    both = [each for each in figures.values() if "real" in each]
    return [abs(e["virtual"]["round_s"] / e["real"]["round_s"] - 1.0) for e in both]


def plot(figures: Mapping[Point, Mapping[str, Any]], path: Path) -> None:
    """Draw both curves: virtual as a line, real as points."""
    frame, left, right = two_axes()
    slow_at = {point: point.slow for point in SLOW}
    link_at = {point: point.kbps / 1000.0 for point in LINKS}
    for axes, points, at in ((left, SLOW, slow_at), (right, LINKS, link_at)):
        axes.plot(
            [at[point] for point in points],
            [figures[point]["virtual"]["times_as_long"] for point in points],
            color="#1f77b4",
            marker=".",
            label="virtual clock",
        )
        real = [point for point in points if "real" in figures[point]]
        axes.plot(
            [at[point] for point in real],
            [figures[point]["real"]["times_as_long"] for point in real],
            color="#d95f02",
            marker="o",
            linestyle="none",
            label="real devices",
        )
        axes.set_ylabel("a round takes times as long")
        axes.set_ylim(bottom=0)
    left.set_xlabel("one of ten devices is so many times slower")
    right.set_xscale("log")
    right.invert_xaxis()
    right.set_xlabel("every link, Mbit/s")
    save(frame, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--virtual-only", action="store_true", help="no server, no devices")
    parser.add_argument(
        "--plot", type=Path, default=Path(__file__).resolve().parent / "results" / "slow_device.svg"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flint-slow-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # Postgres has a system user of its own where root runs this
        figures = measure(folder, is_real=not options.virtual_only)
    errors = relative_errors(figures)
    result = {
        "figure": "slow_device",
        "model": truth.MODEL,
        "devices": DEVICES,
        "records": RECORDS,
        "per_example_s": PER_EXAMPLE_S,
        "rounds": ROUNDS,
        "virtual_trials": TRIALS,
        "median_relative_error": round(statistics.median(errors), 4) if errors else None,
        "largest_relative_error": round(max(errors), 4) if errors else None,
        "slow_device": [{"times_slower": point.slow} | figures[point] for point in SLOW],
        "bandwidth": [{"mbit_per_s": point.kbps / 1000.0} | figures[point] for point in LINKS],
    }
    plot(figures, options.plot)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
