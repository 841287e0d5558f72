"""A session log without real users, from one seed: to try the tools, and to measure them.

Nothing of it is measured; it has the shape of an app's log. Devices lie in several time zones,
sessions come more often in the evening, WiFi and a full battery are likelier at night, and both are
known for a sample of the sessions only.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from simulation.availability.time_zones import TimeZones
from simulation.availability.trace_output import UnwritableOutput
from simulation.traces.criteria import DAY_S

Floats = NDArray[np.float64]

# Monday, 24 March 2025: on the Sunday after, Europe's clocks are set forward.
BEGINS_S = 1_742_774_400
_DAY_S = int(DAY_S)
_ZONES = (
    ("Europe/Berlin", 0.3),
    ("America/New_York", 0.3),
    ("Asia/Kolkata", 0.25),
    ("America/Sao_Paulo", 0.15),
)
_MODELS = 20
_CLIENTS_AT_ONCE = 20_000
_SHORTEST_GAP_S = 10
_FOREGROUND = pa.list_(pa.struct([("start", pa.int64()), ("end", pa.int64())]))

EXAMPLE_CRITERIA = """\
# Which sessions of the log make a device available; docs/availability.md explains each key.
measurements: measurements.csv      # device_model, train_s_per_5000, memory_mb
device: {min_os_release: 2019-09, max_train_s: 120, max_memory_mb: 50}
state: {wifi: true, min_battery: 0.5, foreground: true}
user: {min_account_age_days: 30, min_reputation: 0.5, min_hours_between_participations: 12}
sessions:
  max_background_gap_s: 60          # shorter gaps are subtracted, longer ones split a session
  min_length_s: 60
  max_length_s: 14400
  longer: cut
fold: week                          # the log is of a week; so the trace repeats
"""


class InvalidGeneratedLog(FlintError):
    """Parameters of a generated log that are out of range."""

    code = "FLN-2614"


@dataclass(frozen=True, slots=True)
class GeneratedLog:
    """What the log is like.

    Attributes:
        clients: Devices; one without any session is not in the log.
        days: From Monday, 24 March 2025, 00:00 UTC.
        sessions_a_day: Mean of a device.
        sampled_share: Share of the sessions whose WiFi, and battery, is known.
        foreground: Whether sessions say when they were in the foreground.
    """

    clients: int
    days: int = 7
    sessions_a_day: float = 6.0
    sampled_share: float = 0.2
    foreground: bool = True


def log_schema(settings: GeneratedLog) -> pa.Schema:
    """Columns of the log, under the names that `flint availability build` looks for."""
    fields = [
        ("device_id", pa.string()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("device_model", pa.dictionary(pa.int32(), pa.string())),
        ("os_release_date", pa.dictionary(pa.int32(), pa.string())),
        ("time_zone", pa.dictionary(pa.int32(), pa.string())),
        ("wifi", pa.bool_()),
        ("battery", pa.float32()),
        ("account_age_days", pa.int32()),
        ("reputation", pa.float32()),
        ("last_participation", pa.timestamp("ms", "UTC")),
    ]
    if settings.foreground:
        fields.append(("foreground", _FOREGROUND))
    return pa.schema(fields)


def write_session_log(
    path: Path,
    settings: GeneratedLog,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write a log as Parquet, some thousand clients at a time; the same arguments, the same log.

    Args:
        progress: Called with clients done and clients in all.

    Returns:
        Rows written.

    Raises:
        InvalidGeneratedLog: If a parameter is out of range.
    """
    _check(settings)
    rows = 0
    draft = path.with_name(f".{path.name}.part")
    try:
        with pq.ParquetWriter(draft, log_schema(settings), compression="zstd") as writer:
            for table, done in _blocks(settings, seed):
                writer.write_table(table, row_group_size=1_000_000)
                rows += table.num_rows
                if progress is not None:
                    progress(done, settings.clients)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return rows


def write_example(
    folder: Path,
    settings: GeneratedLog,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write ``sessions.parquet``, ``measurements.csv`` and ``criteria.yaml`` that go together.

    Returns:
        Rows of the log.

    Raises:
        InvalidGeneratedLog: If a parameter is out of range.
        UnwritableOutput: If the folder cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        rows = write_session_log(
            folder / "sessions.parquet", settings, seed=seed, progress=progress
        )
        pyarrow.csv.write_csv(example_measurements(), folder / "measurements.csv")
        (folder / "criteria.yaml").write_text(EXAMPLE_CRITERIA)
    except OSError as error:
        raise UnwritableOutput(
            f"{folder} cannot be written ({error.strerror}); give a folder of yours"
        ) from error
    return rows


def example_measurements() -> pa.Table:
    """Benchmark results of the log's device models, made up: each slower than the one before.

    The last model has none.
    """
    rank = np.arange(_MODELS - 1)
    return pa.table(
        {
            "device_model": _model_names()[:-1],
            "train_s_per_5000": np.round(20.0 * 1.18**rank, 2),
            "memory_mb": np.round(38.0 + 1.5 * (rank % 12), 1),
        }
    )


def _blocks(settings: GeneratedLog, seed: int) -> Iterator[tuple[pa.Table, int]]:
    zones = TimeZones()
    for name, _ in _ZONES:
        zones.code(name)
    for first in range(0, settings.clients, _CLIENTS_AT_ONCE):
        beyond = min(first + _CLIENTS_AT_ONCE, settings.clients)
        generator = np.random.default_rng([seed, first])
        yield _block(settings, generator, zones, np.arange(first, beyond)), beyond


def _block(
    settings: GeneratedLog,
    generator: np.random.Generator,
    zones: TimeZones,
    clients: NDArray[np.int64],
) -> pa.Table:
    count = len(clients)
    zone = generator.choice(len(_ZONES), count, p=[share for _, share in _ZONES]).astype(np.int16)
    popularity = 1.0 / np.arange(1, _MODELS + 1) ** 0.7
    model = generator.choice(_MODELS, count, p=popularity / popularity.sum())
    month = 2016 * 12 + generator.integers(0, 9 * 12, count)
    activity = settings.sessions_a_day * np.exp(generator.normal(-0.32, 0.8, count))
    age_days = (generator.exponential(500.0, count)).astype(np.int32)
    reputation = generator.beta(8.0, 2.0, count).astype(np.float32)
    sessions = generator.poisson(np.minimum(activity * settings.days, 40.0 * settings.days))
    owner = np.repeat(np.arange(count), sessions)
    total = len(owner)
    day = generator.integers(0, settings.days, total)
    hour = (20.0 + 5.0 * generator.standard_normal(total)) % 24.0
    local_s = (BEGINS_S + day * _DAY_S + np.floor(hour * 3600.0)).astype(np.float64)
    start_s = np.sort(_as_keys(owner, zones.utc_s(zone[owner], local_s)))
    start_s = _from_keys(owner, start_s)
    length_s = np.maximum(np.floor(np.exp(generator.normal(5.9, 1.2, total))), 5.0)
    room_s = np.full(total, 6 * 3600.0)
    room_s[:-1] = np.where(owner[1:] == owner[:-1], np.diff(start_s) - _SHORTEST_GAP_S, room_s[:-1])
    kept = room_s >= 5.0
    owner, start_s = owner[kept], start_s[kept]
    end_s = start_s + np.minimum(length_s, room_s)[kept]
    total = len(owner)
    local_hour = (start_s + zones.offset_s(zone[owner], start_s)) % _DAY_S / 3600.0
    night = 0.5 + 0.5 * np.cos((local_hour - 3.0) / 24.0 * 2 * np.pi)
    columns = {
        "device_id": pa.array([f"device-{number:08d}" for number in clients]).take(pa.array(owner)),
        "start": start_s.astype(np.int64),
        "end": end_s.astype(np.int64),
        "device_model": _coded(model[owner], _model_names()),
        "os_release_date": _coded((month - 2016 * 12)[owner], _months()),
        "time_zone": _coded(zone[owner], [name for name, _ in _ZONES]),
        "wifi": pa.array(
            generator.random(total) < 0.5 + 0.4 * night,
            mask=generator.random(total) >= settings.sampled_share,
        ),
        "battery": pa.array(
            np.clip(generator.normal(0.45 + 0.35 * night, 0.25), 0.01, 1.0).astype(np.float32),
            mask=generator.random(total) >= settings.sampled_share,
        ),
        "account_age_days": (age_days[owner] + (start_s - BEGINS_S) // _DAY_S).astype(np.int32),
        "reputation": reputation[owner],
        "last_participation": pa.array(
            ((start_s - generator.exponential(2.0 * _DAY_S, total)) * 1000).astype(np.int64),
            mask=generator.random(total) < 0.7,
        ).cast(pa.timestamp("ms", "UTC")),
    }
    if settings.foreground:
        columns["foreground"] = _foreground(generator, start_s, end_s)
    return pa.table(columns, schema=log_schema(settings))


def _as_keys(owner: NDArray[np.int64], seconds: Floats) -> Floats:
    return owner * 2.0**33 + seconds


def _from_keys(owner: NDArray[np.int64], keys: Floats) -> Floats:
    return keys - owner * 2.0**33


def _foreground(generator: np.random.Generator, start_s: Floats, end_s: Floats) -> pa.Array:
    """One span, or two with a gap between them, in each session."""
    total = len(start_s)
    length_s = end_s - start_s
    gap_at_s = start_s + np.floor(length_s * generator.uniform(0.2, 0.5, total))
    gap_s = np.floor(np.exp(generator.normal(3.0, 1.2, total)))
    has_gap = (generator.random(total) < 0.4) & (gap_at_s + gap_s < end_s) & (gap_at_s > start_s)
    counts = 1 + has_gap
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
    starts, ends = np.empty(offsets[-1], np.int64), np.empty(offsets[-1], np.int64)
    first, last = offsets[:-1], offsets[1:] - 1
    starts[first], ends[last] = start_s, end_s
    ends[first[has_gap]] = gap_at_s[has_gap]
    starts[last[has_gap]] = (gap_at_s + gap_s)[has_gap]
    pairs = pa.StructArray.from_arrays([pa.array(starts), pa.array(ends)], names=["start", "end"])
    return pa.ListArray.from_arrays(pa.array(offsets), pairs, type=_FOREGROUND)


def _coded(codes: NDArray[np.generic], names: list[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(names))


def _model_names() -> list[str]:
    return [f"model-{rank:02d}" for rank in range(1, _MODELS + 1)]


def _months() -> list[str]:
    return [f"{2016 + month // 12}-{month % 12 + 1:02d}" for month in range(9 * 12)]


def _check(settings: GeneratedLog) -> None:
    ranges = {
        "clients": 1 <= settings.clients <= 100_000_000,
        "days": 1 <= settings.days <= 366,
        "sessions_a_day": 0 < settings.sessions_a_day <= 40,
        "sampled_share": 0 < settings.sampled_share <= 1,
    }
    for name, possible in ranges.items():
        if not possible:
            raise InvalidGeneratedLog(
                f"{name} = {getattr(settings, name)} cannot make a log; give 1 to 100000000 "
                "clients, 1 to 366 days, up to 40 sessions a day and a share above 0, at most 1"
            )
