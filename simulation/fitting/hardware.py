"""How alike device models are: distances between facts about their hardware."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from feature_catalog.table_files import open_table
from simulation.portable_math import Floats
from simulation.traces.trace_tables import TraceTable, read_trace_table

ALIASES_COLUMN = "trace_model_codes"
# Scores and memory differ by factors; years and counts of cores by steps.
_LOGARITHM_FROM_RATIO = 3.0
_WITH_UNIT = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")
_GB = {"": 1.0, "gb": 1.0, "gib": 1.0, "mb": 1e-3, "mib": 1 / 1024, "tb": 1e3}


class InvalidHardwareTable(FlintError):
    """A table of hardware facts by which models cannot be compared."""

    code = "FLN-2712"


@dataclass(frozen=True)
class Hardware:
    """Facts about device models, made comparable.

    Attributes:
        device_models: Names and aliases, ascending.
        features: Columns compared.
        standardised: Each feature (its logarithm, where values differ by factors) less its mean,
            over its standard deviation; NaN where it is not known; shape ``(models, features)``.
        same_device: By name, the other names of rows it stands in.
    """

    device_models: tuple[str, ...]
    features: tuple[str, ...]
    standardised: Floats
    same_device: Mapping[str, frozenset[str]]

    @cached_property
    def _index(self) -> dict[str, int]:
        """Where models are of which all facts are known."""
        whole: NDArray[np.bool_] = np.asarray(np.isfinite(self.standardised).all(axis=1))
        return {name: at for at, name in enumerate(self.device_models) if whole[at]}

    def nearest(self, device_model: str, among: Sequence[str]) -> tuple[str, float] | None:
        """The most alike of several models, and its distance.

        The distance is the root mean square of the differences of standardised features: 1 is a
        standard deviation of device models in each.

        Returns:
            None if facts of the model, or of all others, are not known. Of equally near ones the
            first by name.
        """
        others = sorted(name for name in among if name in self._index)
        if device_model not in self._index or not others:
            return None
        facts = self.standardised[self._index[device_model]]
        compared = self.standardised[[self._index[name] for name in others]]
        distances = np.sqrt(np.mean((compared - facts) ** 2, axis=1))
        first = int(np.argmin(distances))
        return others[first], float(distances[first])


def read_hardware(path: Path, features: Sequence[str] | None = None) -> Hardware:
    """Read facts about device models from Parquet or CSV.

    Args:
        path: Column ``device_model``; columns of numbers (or of text such as ``8GB``, read as GB);
            optional ``trace_model_codes``: other names of a model, separated by commas. A model
            listed twice gets the mean of its facts.
        features: Columns to compare. Default: all that hold numbers.

    Raises:
        InvalidHardwareTable: If there is no feature, or one holds something else, or the same value
            for all models.
        MissingColumn: Or another error of `feature_catalog.table_files`.
    """
    schema = open_table(path).schema
    others = {"device_model", ALIASES_COLUMN}
    chosen = list(features) if features else [
        field.name for field in schema if field.name not in others and _is_numeric(field.type)
    ]  # fmt: skip
    if not chosen:
        raise InvalidHardwareTable(
            f"{path}: no column holds numbers to compare models by; name columns with --features"
        )
    table = read_trace_table(path, ["device_model", *chosen], optional=[ALIASES_COLUMN])
    columns = [_standardised(table, name) for name in chosen]
    names, rows = _by_name(table)
    facts = np.stack(columns, axis=1)
    means = np.array([[_mean(facts[at, f]) for f in range(len(chosen))] for at in rows])
    same = {
        name: frozenset(names[o] for o in others) - {name}
        for name, others in zip(names, _sharing(rows), strict=True)
    }
    return Hardware(tuple(names), tuple(chosen), means, same)


def _is_numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _standardised(table: TraceTable, column: str) -> Floats:
    values = table.table.column(column).combine_chunks()
    if _is_numeric(values.type):
        numbers: Floats = pc.fill_null(values.cast(pa.float64()), np.nan).to_numpy(
            zero_copy_only=False
        )
    else:
        numbers = np.array([_number(table, column, v, row) for row, v in enumerate(values)])
    known = numbers[np.isfinite(numbers)]
    if len(known) == 0:
        raise InvalidHardwareTable(
            f"{table.source}: column {column} has no value; leave it out of --features"
        )
    if known.min() > 0 and known.max() / known.min() >= _LOGARITHM_FROM_RATIO:
        numbers = np.log(numbers)
        known = np.log(known)
    spread = float(np.std(known))
    if spread == 0.0:
        raise InvalidHardwareTable(
            f"{table.source}: column {column} has the same value for all models, so it tells none "
            "apart; leave it out of --features"
        )
    return (numbers - float(np.mean(known))) / spread


def _number(table: TraceTable, column: str, value: pa.Scalar, row: int) -> float:
    said = value.as_py()
    if said is None or said == "":
        return float("nan")
    match = _WITH_UNIT.fullmatch(str(said))
    if match is None or match[2].lower() not in _GB:
        raise InvalidHardwareTable(
            f"{table.source}: row {table.rows[row]}: {column} is {str(said)[:60]!r}, which is no "
            "number (8, or 8GB); leave the column out of --features, or write numbers"
        )
    return float(match[1]) * _GB[match[2].lower()]


def _by_name(table: TraceTable) -> tuple[list[str], list[list[int]]]:
    rows: dict[str, list[int]] = {}
    models = table.texts("device_model", InvalidHardwareTable).to_pylist()
    listed = (
        table.table[ALIASES_COLUMN].to_pylist()
        if table.has(ALIASES_COLUMN)
        else [None] * len(models)
    )
    for row, (model, aliases) in enumerate(zip(models, listed, strict=True)):
        for name in {model.strip(), *(a.strip() for a in str(aliases or "").split(","))} - {""}:
            rows.setdefault(name, []).append(row)
    names = sorted(rows)
    return names, [rows[name] for name in names]


def _sharing(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """Of each name, the names that stand in a row with it."""
    names_of_row: dict[int, list[int]] = {}
    for name, at in enumerate(rows):
        for row in at:
            names_of_row.setdefault(row, []).append(name)
    return [[name for row in at for name in names_of_row[row]] for at in rows]


def _mean(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(np.mean(known)) if len(known) else float("nan")
