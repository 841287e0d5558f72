"""Files a build writes: the trace and the facts of its clients; whole or not at all."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from simulation.availability.log_values import month_text
from simulation.availability.part_spans import ClientFacts
from simulation.traces.spans import Spans

# Key of the statistics in a Parquet file's metadata.
METADATA_KEY = "flint_availability"
UNKNOWN_MODEL = "unknown"


class UnwritableOutput(FlintError):
    """A file cannot be written where it was asked for."""

    code = "FLN-2612"


def require_writable(path: Path) -> None:
    """Refuse a file that could not be written, before hours of work rather than after.

    Raises:
        UnwritableOutput: If it is not to be Parquet, or its folder does not let it be made.
    """
    if path.suffix.lower() not in {".parquet", ".pq"}:
        raise UnwritableOutput(f"{path}: only .parquet is written; give it that ending")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK) or path.is_dir():
        raise UnwritableOutput(f"{path} cannot be written; give a path in a folder of yours")


class DraftFile:
    """A Parquet file that is given its name when it is whole."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path = path
        self._draft = path.with_name(f".{path.name}.{os.getpid()}.part")
        self._schema = schema
        try:
            self._writer = pq.ParquetWriter(self._draft, schema, compression="zstd")
        except OSError as error:
            raise UnwritableOutput(
                f"{path} cannot be written ({error.strerror}); give a path in a folder of yours"
            ) from error
        self._finished = False

    def __enter__(self) -> Self:
        """The file is open already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove what is not finished."""
        if not self._finished:
            self._writer.close()
            self._draft.unlink(missing_ok=True)

    def write(self, columns: Mapping[str, pa.Array]) -> None:
        """Add rows."""
        table = pa.table({name: columns[name] for name in self._schema.names}, self._schema)
        self._writer.write_table(table)

    def finish(self, metadata: Mapping[str, str]) -> None:
        """Give the file its name."""
        self._writer.add_key_value_metadata(dict(metadata))
        self._writer.close()
        self._draft.replace(self._path)
        self._finished = True


def trace_schema(
    id_type: pa.DataType, *, whole_seconds: bool, models: bool, repeats: bool
) -> pa.Schema:
    """Columns of the trace; see docs/environment-file.md."""
    seconds = pa.int64() if whole_seconds else pa.float64()
    fields = [("client_id", id_type), ("start_s", seconds), ("end_s", seconds)]
    if models:
        fields.append(("device_model", pa.string()))
    if repeats:
        fields.append(("repeat_every_s", pa.int64()))
    return pa.schema(fields)


def trace_columns(
    spans: Spans,
    facts: ClientFacts,
    models: pa.Array,
    repeat_every_s: float | None,
    kind: pa.Schema,
) -> dict[str, pa.Array]:
    """Rows of the trace for one part."""
    seconds = kind.field("start_s").type
    columns = {
        "client_id": facts.ids.take(pa.array(spans.client)),
        "start_s": pa.array(spans.start_s).cast(seconds),
        "end_s": pa.array(spans.end_s).cast(seconds),
    }
    if "device_model" in kind.names:
        named = _names(models, facts.model).fill_null(UNKNOWN_MODEL)
        columns["device_model"] = named.take(pa.array(spans.client))
    if repeat_every_s is not None:
        columns["repeat_every_s"] = pa.array(
            np.full(len(spans.client), int(repeat_every_s), dtype=np.int64)
        )
    return columns


def facts_schema(id_type: pa.DataType) -> pa.Schema:
    """Columns of the facts: one row a client."""
    return pa.schema(
        [
            ("client_id", id_type),
            ("device_model", pa.string()),
            ("os_release", pa.string()),
            ("time_zone", pa.string()),
            ("sessions", pa.int64()),
            ("session_s", pa.float64()),
            ("passes_ever", pa.uint16()),
            ("passes_all", pa.bool_()),
            ("spans", pa.int64()),
            ("available_s", pa.float64()),
        ]
    )


def facts_columns(facts: ClientFacts, models: pa.Array, zones: pa.Array) -> dict[str, pa.Array]:
    """Rows of the facts for one part."""
    months, month = np.unique(facts.os_month, return_inverse=True)
    texts = pa.array([month_text(int(each)) for each in months], pa.string())
    return {
        "client_id": facts.ids,
        "device_model": _names(models, facts.model),
        "os_release": texts.take(pa.array(month)),
        "time_zone": _names(zones, facts.zone),
        "sessions": pa.array(facts.sessions),
        "session_s": pa.array(facts.session_s),
        "passes_ever": pa.array(facts.passes_ever),
        "passes_all": pa.array(facts.passes_all),
        "spans": pa.array(facts.spans),
        "available_s": pa.array(facts.available_s),
    }


def _names(names: pa.Array, codes: NDArray[np.int32] | NDArray[np.int16]) -> pa.Array:
    """Names of codes; null for -1."""
    return names.take(pa.array(codes, mask=codes < 0))
