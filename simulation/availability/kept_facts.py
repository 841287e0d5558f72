"""What a build of availability kept: its statistics, and facts of every client."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from feature_catalog.table_files import UnreadableDataFile, open_table
from simulation.availability.statistics import HOURS_OF_WEEK, CriteriaFacts, LengthHistogram
from simulation.availability.trace_output import METADATA_KEY
from simulation.portable_math import Floats
from simulation.traces.trace_tables import read_trace_table

# Of a trace's statistics in the catalog: what the build printed, and the SHA-256 of its facts file.
STATISTICS_KEY = "build"
FACTS_KEY = "facts_sha256"
_COLUMNS = ("client_id", "sessions", "session_s", "passes_ever", "passes_all", "spans",
            "available_s")  # fmt: skip
_OPTIONAL = ("device_model", "os_release")


class NotBuilt(FlintError):
    """A file or trace that carries no facts of a build."""

    code = "FLN-2721"


@dataclass(frozen=True)
class ClientFacts:
    """Every client of a log, in no order; shapes ``(clients,)``.

    Attributes:
        device_models: None where the log does not say.
        os_years: Year in which its operating system was released; 0 where the log does not say.
        sessions: Valid ones.
        session_s: Their length in all.
        passes_ever: Bit ``i``: one of its sessions passes the ``i``-th criterion.
        passes_all: One of its sessions passes all.
        spans: In the trace.
    """

    device_models: NDArray[np.object_]
    os_years: NDArray[np.int64]
    sessions: NDArray[np.int64]
    session_s: Floats
    passes_ever: NDArray[np.int64]
    passes_all: NDArray[np.bool_]
    spans: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.sessions)


@dataclass(frozen=True)
class KeptFacts:
    """A build, as it was kept.

    Attributes:
        build: What ``flint availability build --json`` printed.
        criteria: Joint counts of criteria.
        hourly: Mean number of available devices by hour of the week; NaN where not observed.
        clients: None unless the build was asked for facts.
    """

    build: Mapping[str, Any]
    criteria: CriteriaFacts
    hourly: Floats
    clients: ClientFacts | None = None


def kept_facts(
    build: Mapping[str, Any] | None, *, source: str, clients: ClientFacts | None = None
) -> KeptFacts:
    """Read the statistics of a build.

    Args:
        build: Plain values, as `AvailabilityStatistics.to_json` makes them.
        source: What messages call it.

    Raises:
        NotBuilt: If they are not of a build.
    """
    try:
        kept = _parsed(build or {}, clients)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NotBuilt(
            f"{source} holds no facts of a build; make it with `flint availability build SESSIONS "
            "--criteria FILE` (an empty criteria file asks for nothing); to tune on a session log, "
            "give its --criteria"
        ) from error
    return kept


def _parsed(build: Mapping[str, Any], clients: ClientFacts | None) -> KeptFacts:
    facts, lengths = build["facts"], build["facts"]["lengths"]
    criteria = CriteriaFacts(
        criteria=tuple(facts["criteria"]),
        sessions_by_mask={int(k): int(v) for k, v in facts["sessions_by_mask"].items()},
        seconds_by_mask={int(k): float(v) for k, v in facts["seconds_by_mask"].items()},
        clients_by_combination=tuple(facts["clients_by_combination"]),
        lengths=LengthHistogram(
            tuple(lengths["edges_s"]), tuple(lengths["sessions"]), tuple(lengths["spans"])
        ),
    )
    hourly = np.array([np.nan if v is None else v for v in build["hourly"]], dtype=np.float64)
    if len(criteria.clients_by_combination) != 2 ** len(criteria.criteria):
        raise ValueError("clients_by_combination")
    if hourly.shape != (HOURS_OF_WEEK,):
        raise ValueError("hourly")
    return KeptFacts(build, criteria, hourly, clients)


def read_kept_facts(path: Path) -> KeptFacts:
    """Read a file of ``flint availability build --facts FILE``.

    Raises:
        NotBuilt: If it is none.
        UnreadableDataFile: Or another error of `feature_catalog.table_files`.
    """
    open_table(path)  # says what is wrong with a file that is none
    if path.suffix.lower() == ".csv":
        raise NotBuilt(f"{path} is no facts file; name the Parquet file of --facts")
    try:
        metadata = pq.read_metadata(path).metadata or {}
    except (pa.ArrowException, OSError) as error:
        raise UnreadableDataFile(f"{path}: the file cannot be read; make it anew") from error
    try:
        build = json.loads(metadata.get(METADATA_KEY.encode(), b"null"))
    except ValueError:
        build = None
    return kept_facts(build, source=str(path), clients=_read_clients(path) if build else None)


def _read_clients(path: Path) -> ClientFacts:
    table = read_trace_table(path, _COLUMNS, optional=_OPTIONAL)
    count = table.table.num_rows

    def whole(column: str) -> NDArray[np.int64]:
        return table.numbers(column, NotBuilt).astype(np.int64)

    return ClientFacts(
        device_models=_texts(table.table, "device_model", count),
        os_years=np.array(
            [int(str(t)[:4]) if t else 0 for t in _texts(table.table, "os_release", count)],
            dtype=np.int64,
        ),
        sessions=whole("sessions"),
        session_s=table.numbers("session_s", NotBuilt),
        passes_ever=whole("passes_ever"),
        passes_all=table.table["passes_all"].combine_chunks().to_numpy(zero_copy_only=False),
        spans=whole("spans"),
    )


def _texts(table: pa.Table, column: str, count: int) -> NDArray[np.object_]:
    if column not in table.schema.names:
        return np.full(count, None, dtype=object)
    values = table[column].combine_chunks()
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    texts: NDArray[np.object_] = values.to_numpy(zero_copy_only=False).astype(object)
    return texts
