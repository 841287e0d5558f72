"""FLB-1: cross-device FedAvg as a modeller tunes it, the workload of `flb1.py` and its peers.

10,000 clients, records of each log-normal (sigma 1.2), 20 on average before rounding, 1 to 400:
half have ten or fewer, 73 % take a single step. Features are normal with a shift of the client's
own, labels a noisy linear rule. A round is a cohort drawn without replacement, one local epoch of
SGD in batches of 20 at 0.05, averaged by records.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from device_runtime.manifest import InputSpec
from modeling.spec import Dense, ModelSpec
from simulation.executors.executor import ClientOutputs
from simulation.executors.records import ClientRecords
from simulation.executors.task_columns import TaskColumns, TaskIds
from simulation.executors.training import LocalPlan

CLIENTS = 10_000
ZOO_CLIENTS = 1_000
LEARNING_RATE = 0.05
MOST_RECORDS = 400
ROUNDS = 40
"""Cohorts that are drawn; whoever does more rounds begins anew."""
WIDTHS = {"A": (32, 40, 4, 1), "B": (256, 512, 112, 1), "C": (512, 1024, 512, 1)}
"""1,489, 189,153 and 1,050,625 parameters."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What both sides of a comparison are given.

    Attributes:
        cohorts: Data clients of each round.
    """

    spec: ModelSpec
    records: ClientRecords
    start: list[NDArray[np.float32]]
    cohorts: Sequence[NDArray[np.int64]]


def spec_of(model: str) -> ModelSpec:
    """The network of a letter of `WIDTHS`."""
    widths = WIDTHS[model]
    layers = tuple(
        Dense(f"layer_{i}", widths[i], widths[i + 1], "relu" if i < 2 else "none") for i in range(3)
    )
    return ModelSpec(
        f"flb_{model.lower()}",
        layers,
        InputSpec("features", (widths[0],), "float32"),
        (1,),
        "binary_cross_entropy",
        "auprc",
    )


def make_workload(model: str, *, cohort: int, rounds: int, seed: int) -> Workload:
    """Draw the workload of a model, the same for the same seed."""
    spec, width = spec_of(model), WIDTHS[model][0]
    draws = np.random.default_rng(seed)
    counts = _draw_counts(draws, CLIENTS)
    shift = draws.normal(0.0, 0.3, (CLIENTS, width)).astype(np.float32)
    x = draws.standard_normal((int(counts.sum()), width), np.float32)
    x += np.repeat(shift, counts, axis=0)
    rule = (draws.standard_normal(width) / np.sqrt(width)).astype(np.float32)
    y = (x @ rule + draws.normal(0.0, 0.5, len(x)) > 0).astype(np.float32)[:, None]
    records = ClientRecords(x, y, np.cumsum(counts) - counts, counts)
    cohorts = [draws.choice(CLIENTS, cohort, replace=False) for _ in range(rounds)]
    return Workload(spec, records, spec.initial_parameters(seed), cohorts)


def make_zoo_workload(spec: ModelSpec, cohort: int, rounds: int, seed: int) -> Workload:
    """The same clients with records of a registered model's shape; fewer, as these are larger."""
    draws = np.random.default_rng(seed)
    counts = _draw_counts(draws, ZOO_CLIENTS)
    shape = (int(counts.sum()), *spec.input.shape)
    if spec.ids is None:
        x = draws.standard_normal(shape, np.float32)
    else:
        x = ((draws.zipf(1.1, shape) - 1) % spec.ids).astype(np.int32)
        x[draws.random(shape) < 0.5] = -1
        x[:, 0] = 0
    y = (draws.random((shape[0], *spec.label_shape)) < 0.3).astype(np.float32)
    records = ClientRecords(x, y, np.cumsum(counts) - counts, counts)
    cohorts = [draws.choice(ZOO_CLIENTS, cohort, replace=False) for _ in range(rounds)]
    return Workload(spec, records, spec.initial_parameters(seed), cohorts)


def _draw_counts(draws: np.random.Generator, clients: int) -> NDArray[np.int64]:
    sizes = np.exp(draws.normal(0.0, 1.2, clients)) * 20.0 / np.exp(0.72)
    return np.clip(np.round(sizes), 1, MOST_RECORDS).astype(np.int64)


def add_plan_options(parser: argparse.ArgumentParser) -> None:
    """Of all that FLB-1 measures."""
    parser.add_argument("--batch-size", type=int, default=20)
    parser.add_argument("--local-epochs", type=int, default=1)
    parser.add_argument("--cohort", type=int, default=100)
    parser.add_argument("--seed", type=int, default=20_240_601)
    parser.add_argument(
        "--outputs", nargs="*", choices=("losses", "norms"), default=[], help="of each client"
    )


def plan_of(options: argparse.Namespace) -> LocalPlan:
    """What `add_plan_options` has read; a dry-run computes no outputs unless it is asked to."""
    outputs = ClientOutputs(**dict.fromkeys(options.outputs, True))
    return LocalPlan(options.local_epochs, options.batch_size, MOST_RECORDS, outputs=outputs)


def outputs_of(plan: LocalPlan) -> str:
    """What is computed of each client besides its update."""
    asked = [name for name in ("losses", "norms") if getattr(plan.outputs, name)]
    return ", ".join(["training loss", "whether finite", *asked])


def tasks_of(work: Workload, at: int) -> TaskColumns:
    """Those of a round, as a dry-run would ask for them, from version ``at``."""
    clients = work.cohorts[at]
    tasks = len(clients)
    return TaskColumns(
        task_ids=TaskIds(at * 1_000_003 + np.arange(tasks)),
        data_client=clients.astype(np.int64),
        base_version=np.full(tasks, at, np.int64),
        weight=work.records.records[clients].astype(np.float64),
        learning_rate=np.full(tasks, LEARNING_RATE),
        shuffle_seed=np.uint64(at * 1_000_003) + np.arange(tasks, dtype=np.uint64),
        client=clients.astype(np.int64),
    )


def flops_a_task(work: Workload, plan: LocalPlan) -> float:
    """Of training alone: forward, and backward to kernels and to all inputs but the first."""
    kernels = [a.size for a in work.start if a.ndim == 2]
    count = np.concatenate([work.records.records[cohort] for cohort in work.cohorts])
    return 2.0 * (3 * sum(kernels) - kernels[0]) * float(count.mean()) * plan.local_epochs


def write_workload(work: Workload, plan: LocalPlan, folder: Path) -> None:
    """For a peer, which has none of our packages: arrays as ``.npy``, the rest in ``about.json``.

    Read by `Workload.load` in ``benchmarks/peers/flb1_rounds.py``, and by `read_workload`.
    """
    records = work.records
    arrays = {
        "x": records.x,
        "y": records.y,
        "first_row": records.first_row,
        "records": records.records,
        "cohorts": np.stack(work.cohorts),
    }
    layers = list(zip(work.start[::2], work.start[1::2], strict=True))
    for n, (kernel, bias) in enumerate(layers):
        arrays |= {f"kernel_{n}": kernel, f"bias_{n}": bias}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    about = {
        "model": work.spec.name[-1].upper(),
        "layers": len(layers),
        "batch_size": plan.batch_size,
        "local_epochs": plan.local_epochs,
        "learning_rate": LEARNING_RATE,
    }
    (folder / "about.json").write_text(json.dumps(about))


def read_workload(folder: Path) -> tuple[Workload, LocalPlan]:
    """What `write_workload` has written."""
    about = json.loads((folder / "about.json").read_text())
    found = {path.stem: np.load(path) for path in folder.glob("*.npy")}
    records = ClientRecords(found["x"], found["y"], found["first_row"], found["records"])
    start = [found[f"{name}_{n}"] for n in range(about["layers"]) for name in ("kernel", "bias")]
    work = Workload(spec_of(about["model"]), records, start, list(found["cohorts"]))
    return work, LocalPlan(about["local_epochs"], about["batch_size"], MOST_RECORDS)
