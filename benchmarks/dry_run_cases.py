"""What dry-run benchmarks run: data sets in worlds, generated and, where there are any, recorded.

Recorded traces and data sets lie beside the repository and are not part of it. ads_movielens is
under GroupLens' terms (research, no commercial use), msg_irc under CC BY 4.0, the traces under
BSD-2-Clause and Apache-2.0.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from device_runtime.update_codec import flatten
from feature_catalog.featurize import FieldRoles
from feature_catalog.splits import is_heldout
from flint.catalog_session import CatalogSession
from flint.demo.click_data import (
    CLIENT_FIELD,
    LABEL_FIELD,
    ClickDataShape,
    generate_clicks,
    write_click_data,
)
from modeling.zoo import get_model
from server.job import Job
from simulation.catalog_inputs import CatalogInputs
from simulation.environment import Environment
from simulation.preparation import Preparation, prepare
from simulation.traces.generate import (
    GeneratedBandwidth,
    GeneratedDevices,
    generate_device_population,
    generate_device_profiles,
    write_world,
)
from simulation.traces.generated_sessions import GeneratedAvailability
from simulation.trial import DryRun
from simulation.world import populate

MODEL = "sparse_mlp"
RECORDED = Path(__file__).resolve().parents[2] / "shared" / "data"
_DATES = ("date", "minute_of_day", "orig_split")
RECORDED_SETS = {
    "ads_movielens": FieldRoles("client_id", "label", None, ("rating", "ts_s")),
    "msg_irc": FieldRoles("client_id", "label", "text", _DATES),
}


@dataclass(frozen=True, slots=True)
class Case:
    """A data set in a world, read and checked once; seeds only populate it anew.

    Attributes:
        target: AUPRC on held-out clients at which its dry-runs end.
    """

    prepared: Preparation
    dataset: str
    target: float

    def dry_run(self, job: Job) -> DryRun:
        """The case with a job: population, initial model and every draw are of the job's seed."""
        base, counts = self.prepared.dry_run, self.prepared.record_counts
        population = base.environment.population.model_copy(update={"seed": job.seed})
        environment = base.environment.model_copy(update={"population": population})
        mapping, devices = populate(base.world, environment, counts)
        return replace(
            base,
            job=job,
            environment=environment,
            mapping=mapping,
            devices=devices,
            records=counts[mapping.data_client],
            initial_weights=flatten(base.model.initial_parameters(job.seed)),
            seed=job.seed,
        )


def make_case(
    catalog: CatalogSession,
    job: Job,
    world: Mapping[str, Any],
    *,
    clients: int,
    check_in: Mapping[str, float],
    target: float,
) -> Case:
    """Read a world and the data set that a job is evaluated on; clients and devices re-sampled."""
    if job.evaluation is None:
        raise ValueError("the job names no data set")
    dataset = job.evaluation.dataset
    resample = {"availability": True, "data": True}
    environment = Environment.model_validate(
        {
            "dataset": dataset,
            "population": {"clients": clients, "resample": resample},
            "check_in": check_in,
            **world,
        },
        strict=True,
    )
    inputs = CatalogInputs(Path(), catalog.environment_inputs)
    prepared = prepare(job, environment, Path(), inputs, catalog.datasets, catalog.models, 0)
    return Case(prepared, dataset, target)


# Data sets; all return name@version.


def add_clicks(catalog: CatalogSession, folder: Path, name: str, shape: ClickDataShape) -> str:
    """Generated clicks of 800 training clients, and some 200 held out."""
    path = folder / f"{name}.parquet"
    drawn = generate_clicks(
        800, seed=7, is_held_out=lambda client: is_heldout(name, client), shape=shape
    )
    write_click_data(drawn, path)
    return _add(catalog, path, FieldRoles(CLIENT_FIELD, LABEL_FIELD))


def add_recorded(catalog: CatalogSession, data: Path, name: str) -> str:
    """A set of `RECORDED_SETS`."""
    return _add(catalog, data / "tasks" / f"{name}.parquet", RECORDED_SETS[name])


def _add(catalog: CatalogSession, path: Path, roles: FieldRoles) -> str:
    row = catalog.datasets.add(path, roles, get_model(MODEL))
    return f"{row.name}@{row.version}"


# Worlds; all return the blocks of an environment file.


def generated_world(folder: Path) -> dict[str, Any]:
    """A week of the generator's defaults, but phones that take 0.2 s an example."""
    devices = GeneratedDevices(median_per_example_s=0.2)
    write_world(folder, GeneratedAvailability(devices=5000), devices, GeneratedBandwidth(), seed=7)
    names = ("device_profiles", "device_population", "bandwidth")
    return {"availability": str(folder / "sessions.parquet")} | {
        name: str(folder / f"{name}.parquet") for name in names
    }


def recorded_world(data: Path) -> dict[str, Any]:
    """FLASH's phones replayed on a week (semi-synthetic); FedScale's speeds and links."""
    sessions = str(data / "traces" / "sessions_week_composed.parquet")
    phones = str(data / "traces" / "devices_fedscale100.parquet")
    return {
        "availability": {"source": sessions, "repeat_every_s": 7 * 86_400.0},
        **dict.fromkeys(("device_profiles", "device_population", "bandwidth"), phones),
    }


def even_world(folder: Path, *, spread: float, per_example_s: float) -> dict[str, Any]:
    """Devices always there, on equal links, that differ in nothing but their speed.

    Args:
        spread: Standard deviation of the logarithm of seconds per example, between device models
            and again within each.
        per_example_s: Of the median.
    """
    folder.mkdir(parents=True)
    devices = GeneratedDevices(
        models=200,
        median_per_example_s=per_example_s,
        log_stdev_between=spread,
        log_stdev_within=spread,
        share_exponent=0.0,
    )
    always = {"client_id": [0], "start_s": [0], "end_s": [86_400], "repeat_every_s": [86_400]}
    tables = {
        "availability": pa.table(always),
        "device_profiles": generate_device_profiles(devices, seed=7),
        "device_population": generate_device_population(devices),
        "bandwidth": pa.table({"down_kbps": [20_000.0], "up_kbps": [20_000.0]}),
    }
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet")
    return {name: str(folder / f"{name}.parquet") for name in tables}
