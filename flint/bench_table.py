"""FLINT's Table 5 from measurements: what each model costs on which devices, beside the paper's."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from android_bench.derived import FleetFigures, across_device_models
from feature_catalog.measurements import (
    MeasuredTask,
    Measurement,
    MeasurementRow,
    Measurements,
)
from modeling.model_sizes import FLINT_TABLE_5, PublishedModel
from server.device_criteria import BENCHMARK_RECORDS

FLEETS: Mapping[str, str] = {
    "adb": "devices",
    "device-farm": "devices",
    "host": "this machine",
    "emulated": "emulated fleet",
}
"""What a back end's devices are called together; only the first are phones."""


@dataclass(frozen=True, slots=True)
class TableRow:
    """One model on one kind of devices.

    Attributes:
        fleet: A value of `FLEETS`.
        train_s: Seconds for `BENCHMARK_RECORDS` records of each device model, ascending by name.
        storage_mb: Model file and manifest; None where nothing was measured.
        published: The paper's row, if the model stands for one.
    """

    model: str
    fleet: str
    train_s: Mapping[str, float]
    train: FleetFigures | None
    storage_mb: float | None
    network_mb: float | None
    memory_mb: FleetFigures | None
    cpu_percent: FleetFigures | None
    latency_p50_ms: FleetFigures | None
    latency_p95_ms: FleetFigures | None
    published: PublishedModel | None


@dataclass(frozen=True, slots=True)
class MeasuredTable:
    """The table.

    Attributes:
        rows: By model, in the paper's order, others after it by name.
        left_out: Device models whose newest measurement is of another model file, by model.
    """

    rows: tuple[TableRow, ...]
    left_out: Mapping[str, tuple[str, ...]]


def measured_table(measurements: Measurements, models: Sequence[str] = ()) -> MeasuredTable:
    """Newest valid measurement of each device model and task, of each model's newest file.

    Args:
        models: Only of these, all of them if none is given.
    """
    stored = measurements.list()
    names = {row.measurement.model for row in stored}
    wanted = sorted(names & set(models) if models else names, key=_place)
    rows: list[TableRow] = []
    left_out: dict[str, tuple[str, ...]] = {}
    for model in wanted:
        train, not_trained = newest_file(measurements, model)
        infer, not_inferred = newest_file(measurements, model, "infer")
        if others := sorted({*not_trained, *not_inferred}):
            left_out[model] = tuple(others)
        rows += rows_of(
            model,
            [row.measurement for row in train.values()],
            [row.measurement for row in infer.values()],
        )
    return MeasuredTable(tuple(rows), left_out)


def newest_file(
    measurements: Measurements, model: str, task: MeasuredTask = "train"
) -> tuple[Mapping[str, MeasurementRow], tuple[str, ...]]:
    """Valid measurements of a model's newest file, and device models with others only.

    A user's model may have changed under its name; times of two files do not belong together. Each
    task has its newest file: another batch size, as inference often has, is another file.
    """
    every = measurements.latest_by_device_model(model, task)
    if not every:
        return {}, ()
    newest = max(every.values(), key=lambda row: row.id).measurement.model_sha256
    same = measurements.latest_by_device_model(model, task, model_sha256=newest)
    return same, tuple(sorted(set(every) - set(same)))


def rows_of(
    model: str, trained: Iterable[Measurement], inferred: Iterable[Measurement] = ()
) -> list[TableRow]:
    """A row for each kind of devices that a model was measured on."""
    found: defaultdict[str, tuple[list[Measurement], list[Measurement]]]
    found = defaultdict(lambda: ([], []))
    for place, measured in enumerate((trained, inferred)):
        for measurement in measured:
            found[FLEETS[measurement.backend]][place].append(measurement)
    fleets = list(dict.fromkeys(FLEETS.values()))
    return [_row(model, fleet, *found[fleet]) for fleet in sorted(found, key=fleets.index)]


def _row(
    model: str, fleet: str, trained: list[Measurement], inferred: list[Measurement]
) -> TableRow:
    train_s = {
        m.device_model: m.per_example_s * BENCHMARK_RECORDS
        for m in trained
        if m.per_example_s is not None
    }
    return TableRow(
        model=model,
        fleet=fleet,
        train_s=train_s,
        train=across_device_models({name: [seconds] for name, seconds in train_s.items()}),
        storage_mb=next((m.storage_mb for m in [*trained, *inferred]), None),
        network_mb=next((m.network_mb for m in trained), None),
        memory_mb=_across(trained, "memory_mb"),
        cpu_percent=_across(trained, "cpu_percent"),
        latency_p50_ms=_across(inferred, "latency_p50_ms"),
        latency_p95_ms=_across(inferred, "latency_p95_ms"),
        published=FLINT_TABLE_5.get(model),
    )


def _across(measured: list[Measurement], name: str) -> FleetFigures | None:
    values = {m.device_model: getattr(m, name) for m in measured}
    return across_device_models({k: [v] for k, v in values.items() if v is not None})


def left_out_sentence(model: str, names: Sequence[str]) -> str:
    """What of a model's measurements is not shown.

    >>> left_out_sentence("tiny_mlp", ["Pixel 6"])
    'left out, since measured with another file of tiny_mlp: Pixel 6'
    >>> left_out_sentence("tiny_mlp", ["a", "b", "c"])
    'left out, since measured with another file of tiny_mlp: a and 2 more device models'
    """
    more = f" and {len(names) - 1} more device models" if len(names) > 1 else ""
    return f"left out, since measured with another file of {model}: {names[0]}{more}"


def _place(model: str) -> tuple[int, str]:
    order = list(FLINT_TABLE_5)
    return (order.index(model) if model in order else len(order), model)


# -- for people, and for programs ------------------------------------------------------------------

COLUMNS = (
    "model",
    "measured on",
    "device models",
    "storage MB",
    "network MB",
    "memory MB",
    f"train s / {BENCHMARK_RECORDS:,} records",
    "CPU %",
    "infer p50 ms",
    "infer p95 ms",
)


def shown_row(row: TableRow) -> tuple[object, ...]:
    """A row of text in `COLUMNS`; the paper's figure in brackets where we have it."""
    published = row.published
    name = row.model if published is None else f"{published.letter} {row.model}"
    return (
        name,
        row.fleet,
        row.train.device_models if row.train is not None else None,
        _beside(row.storage_mb, published.storage_mb if published else None),
        _beside(row.network_mb, published.network_mb if published else None),
        _mean(row.memory_mb),
        _spread(row.train, published.train_s if published else None),
        _mean(row.cpu_percent),
        _mean(row.latency_p50_ms),
        _mean(row.latency_p95_ms),
    )


def row_as_json(row: TableRow) -> dict[str, Any]:
    """A row for programs."""
    published = row.published
    return {
        "model": row.model,
        "fleet": row.fleet,
        "emulated": row.fleet == FLEETS["emulated"],
        "device_models": len(row.train_s),
        "storage_mb": row.storage_mb,
        "network_mb": row.network_mb,
        "memory_mb": _value(row.memory_mb),
        "train_s_mean": _value(row.train),
        "train_s_stdev": row.train.stdev if row.train is not None else None,
        "cpu_percent": _value(row.cpu_percent),
        "latency_p50_ms": _value(row.latency_p50_ms),
        "latency_p95_ms": _value(row.latency_p95_ms),
        "train_s": dict(row.train_s),
        "paper": None
        if published is None
        else {
            "letter": published.letter,
            "parameters": published.parameters,
            "storage_mb": published.storage_mb,
            "network_mb": published.network_mb,
            "train_s_mean": published.train_s,
        },
    }


def _value(figures: FleetFigures | None) -> float | None:
    return None if figures is None else figures.mean


def _mean(figures: FleetFigures | None) -> str | None:
    return None if figures is None else f"{figures.mean:.3g}"


def _beside(ours: float | None, theirs: float | None) -> str | None:
    if ours is None:
        return None
    return f"{ours:.3g}" if theirs is None else f"{ours:.3g} ({theirs:g})"


def _spread(figures: FleetFigures | None, theirs: float | None) -> str | None:
    if figures is None:
        return None
    spread = "" if figures.stdev is None else f" ± {figures.stdev:.3g}"
    return f"{figures.mean:.3g}{spread}" + ("" if theirs is None else f" ({theirs:g})")
