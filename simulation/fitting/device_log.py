"""Which device models people have, from logs: every device counts once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from device_runtime.errors import FlintError
from feature_catalog.table_files import open_table

_FOLD_ROWS = 1_000_000
_NOTHING = pa.table(
    {
        "device": pa.array([], pa.large_string()),
        "model": pa.array([], pa.large_string()),
        "count": pa.array([], pa.int64()),
    }
)


class InvalidDeviceLog(FlintError):
    """A log that does not tell which device has which model."""

    code = "FLN-2711"


@dataclass(frozen=True, slots=True)
class DeviceCounts:
    """Devices of a log by model.

    Attributes:
        devices_by_model: Models ascending; their devices.
        without_model: Devices whose rows never name a model.
        with_several_models: Devices whose rows name more than one; counted under the most frequent,
            at a tie the first by name.
        rows: Rows read.
        without_device: Rows that name no device; left out.
    """

    devices_by_model: dict[str, int]
    without_model: int
    with_several_models: int
    rows: int
    without_device: int

    @property
    def devices(self) -> int:
        """All devices, with a model or without."""
        return sum(self.devices_by_model.values()) + self.without_model


def count_devices(
    logs: Sequence[Path],
    *,
    device_column: str,
    model_column: str = "device_model",
    progress: Callable[[str, int, int | None], None] = lambda *_: None,
) -> DeviceCounts:
    """Count the devices of each model in logs of any number of rows a device.

    Rows are read in batches and folded to one per device and model: memory grows with devices, not
    with rows.

    Args:
        logs: Parquet or CSV files; a device may be in several.
        progress: Called with what is read, rows read and, for a single log, rows in all.

    Raises:
        InvalidDeviceLog: If no row names a device and its model, or a column holds no names.
        MissingColumn: Or another error of `feature_catalog.table_files`.
    """
    rows = without_device = 0
    folded: pa.Table = _NOTHING
    waiting: list[pa.Table] = []
    for path in logs:
        file = open_table(path)
        file.require([device_column, model_column])
        for batch in file.batches([device_column, model_column]):
            table = pa.table(
                {
                    "device": _texts(batch.column(0), path, device_column),
                    "model": _texts(batch.column(1), path, model_column),
                    "count": pa.array(np.ones(batch.num_rows, dtype=np.int64)),
                }
            )
            known = table.filter(pc.is_valid(table["device"]))
            rows += table.num_rows
            without_device += table.num_rows - known.num_rows
            waiting.append(known)
            progress("reading", rows, file.num_rows if len(logs) == 1 else None)
            # Folded as often as what waits is as large as what is folded: in linear time.
            if sum(part.num_rows for part in waiting) > max(_FOLD_ROWS, folded.num_rows):
                folded, waiting = _fold(pa.concat_tables([folded, *waiting])), []
    folded = _fold(pa.concat_tables([folded, *waiting]))
    if folded.num_rows == 0:
        raise InvalidDeviceLog(
            f"no row of {_named(logs)} names a device in column {device_column}; give the column "
            "that does (--device-column)"
        )
    return _counts(folded, logs, model_column, rows, without_device)


def _texts(values: pa.Array, path: Path, column: str) -> pa.Array:
    """Names without surrounding blanks; null where there is none."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    kind = values.type
    if pa.types.is_null(kind) or pa.types.is_integer(kind):
        values = values.cast(pa.large_string())
    elif not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise InvalidDeviceLog(
            f"{path}: column {column} holds {kind}, not names; name another column"
        )
    trimmed = pc.utf8_trim_whitespace(values.cast(pa.large_string()))
    return pc.if_else(pc.equal(pc.utf8_length(trimmed), 0), None, trimmed)


def _fold(table: pa.Table) -> pa.Table:
    sums = table.group_by(["device", "model"]).aggregate([("count", "sum")])
    return sums.select(["device", "model", "count_sum"]).rename_columns(
        ["device", "model", "count"]
    )


def _counts(
    folded: pa.Table, logs: Sequence[Path], model_column: str, rows: int, without_device: int
) -> DeviceCounts:
    named = folded.filter(pc.is_valid(folded["model"]))
    ordered = named.sort_by(
        [("device", "ascending"), ("count", "descending"), ("model", "ascending")]
    )
    by_model: dict[str, int] = {}
    several = 0
    last_device, is_counted_twice = None, False
    for device, model in zip(
        ordered["device"].to_pylist(), ordered["model"].to_pylist(), strict=True
    ):
        if device != last_device:
            by_model[model] = by_model.get(model, 0) + 1
            last_device, is_counted_twice = device, False
        elif not is_counted_twice:
            several += 1
            is_counted_twice = True
    if not by_model:
        raise InvalidDeviceLog(
            f"no device of {_named(logs)} names its model in column {model_column}; give the "
            "column that does (--model-column)"
        )
    devices = len(pc.unique(folded["device"]))
    without_model = devices - sum(by_model.values())
    return DeviceCounts(
        dict(sorted(by_model.items())), without_model, several, rows, without_device
    )


def _named(logs: Sequence[Path]) -> str:
    return str(logs[0]) if len(logs) == 1 else f"{logs[0]} and {len(logs) - 1} more logs"
