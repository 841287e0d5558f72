"""Rows of a log as checked sessions: instants, zone, and the criteria each passes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from simulation.availability.foreground import ForegroundSpans
from simulation.availability.instants import LOCAL, NOT_A_TIME, UnusableLogColumn, read_instants
from simulation.availability.log_context import LogContext
from simulation.availability.log_values import codes_of, read_ids, read_numbers
from simulation.availability.session_criteria import JudgedSessions
from simulation.availability.session_log import REPEAT, LogFile
from simulation.traces.spans import MAX_TIME_S

Mask = NDArray[np.bool_]


class NoTimeZone(FlintError):
    """Nothing says on which clock a log's sessions are local."""

    code = "FLN-2609"


@dataclass(frozen=True, slots=True)
class SessionRows:
    """Sessions of one batch that are as they should be; shapes ``(sessions,)``.

    Attributes:
        ids: ``int64`` or ``large_string``.
        start_s: Instants since 1970 (since the trace began, for traces).
        end_s: The same.
        zone: Code of `TimeZones`.
        passes: Bit ``i``: the ``i``-th criterion asked for.
        unknown: The same bits where a coin is to decide.
        model: Code of the device model, -1 if none is named.
        os_month: As `read_months`.
        row: Number in the log over all files, from 0.
        foreground: None if it plays no part.
    """

    ids: pa.Array
    start_s: NDArray[np.float64]
    end_s: NDArray[np.float64]
    zone: NDArray[np.int16]
    passes: NDArray[np.uint16]
    unknown: NDArray[np.uint16]
    model: NDArray[np.int32]
    os_month: NDArray[np.int32]
    row: NDArray[np.int64]
    foreground: ForegroundSpans | None

    def __len__(self) -> int:
        return len(self.start_s)


_BY_CRITERION = {
    "wifi": "wifi",
    "min_battery": "battery",
    "min_account_age_days": "account_age_days",
    "min_reputation": "reputation",
    "min_hours_between_participations": "last_participation",
}


@dataclass(slots=True)
class RowReader:
    """Reads batches of a log's columns, one after the other.

    Attributes:
        repeats_s: When a trace repeats, if it says so: one value.
    """

    log: LogContext
    repeats_s: set[float] = field(default_factory=set)
    _default_zone: int = field(init=False)

    def __post_init__(self) -> None:
        zone = self.log.criteria.time_zone
        # A trace's seconds are local already.
        zone = "UTC" if self.log.form == "trace" else zone
        self._default_zone = -1 if zone is None else self.log.zones.code(zone)

    def roles(self, file: LogFile) -> list[str]:
        """Columns of a file that are to be read, by role."""
        needed = {"device_id", "start", "end", "device_model", "os_release", "time_zone"}
        needed |= {role for name, role in _BY_CRITERION.items() if name in self.log.thresholds}
        if self.log.uses_foreground:
            needed.add("foreground")
        if self.log.form == "trace":
            needed.discard("time_zone")
            needed.add(REPEAT)
        return [role for role in file.columns if role in needed]

    def read(
        self, batch: pa.RecordBatch, kept: pa.Array | None, file: LogFile, first_row: int
    ) -> SessionRows | None:
        """Check a batch; None if it holds no session.

        Args:
            kept: Rows to read; None: all.
            first_row: Number of the batch's first row over all files.

        Raises:
            UnusableLogColumn: If a column's type cannot be what it is mapped to.
            NoTimeZone: If the file has no time zones and there is no default.
        """
        row = np.arange(first_row, first_row + batch.num_rows)
        if kept is not None:
            batch, row = batch.filter(kept), row[kept.to_numpy(zero_copy_only=False)]
        columns = dict(zip(batch.schema.names, batch.columns, strict=True))
        self._note_repeat(columns, file)
        ids = read_ids(columns["device_id"], column=file.columns["device_id"], path=file.path)
        good = self._refuse_no_id(ids, row)
        zone = self._zones(columns, file, row, good)
        start_s, end_s = self._times(columns, file, row, zone, good)
        good &= self._sensible(ids, row, start_s, end_s, good)
        if not good.any():
            return None
        if not good.all():
            keep = pa.array(good)
            columns = {name: values.filter(keep) for name, values in columns.items()}
            ids = ids.filter(keep)
            row, start_s, end_s, zone = row[good], start_s[good], end_s[good], zone[good]
        judged = JudgedSessions(self.log, columns, file, row, start_s, end_s, zone)
        return SessionRows(
            ids,
            start_s,
            end_s,
            zone,
            judged.passes,
            judged.unknown,
            judged.model,
            judged.os_month,
            row,
            judged.foreground,
        )

    def _note_repeat(self, columns: Mapping[str, pa.Array], file: LogFile) -> None:
        if REPEAT not in columns:
            return
        values, _ = read_numbers(columns[REPEAT], column=REPEAT, path=file.path)
        self.repeats_s.update(np.unique(values).tolist())
        first = min(self.repeats_s)
        if len(self.repeats_s) > 1 or not 0 < first <= MAX_TIME_S or first % 1:
            raise UnusableLogColumn(
                f"{file.path}: {REPEAT} must be one whole number of seconds in all rows; it is "
                f"{' and '.join(f'{each:g}' for each in sorted(self.repeats_s)[:2])}"
            )

    # ------------------------------------------------------------------ who and when

    def _refuse_no_id(self, ids: pa.Array, row: NDArray[np.int64]) -> Mask:
        if ids.null_count == 0:
            return np.ones(len(ids), dtype=np.bool_)
        missing: Mask = ids.is_null().to_numpy(zero_copy_only=False)
        self.log.problems.add_rows(
            "no_device_id", missing, row, lambda at: self.log.places(int(row[at]))
        )
        return ~missing

    def _zones(
        self, columns: Mapping[str, pa.Array], file: LogFile, row: NDArray[np.int64], good: Mask
    ) -> NDArray[np.int16]:
        values = columns.get("time_zone")
        if values is None or pa.types.is_null(values.type):
            if self._default_zone < 0:
                raise NoTimeZone(
                    f"{file.path}: nothing says in which time zone its sessions are; name a column "
                    f"of IANA zones (columns: {{time_zone: NAME}}) or one zone for all in "
                    f"{self.log.source} (e.g. time_zone: Europe/Berlin, or UTC if all are on it)"
                )
            return np.full(len(row), self._default_zone, dtype=np.int16)
        codes, index, names = codes_of(
            values,
            self.log.zones.code,
            missing=self._default_zone,
            column=file.columns["time_zone"],
            path=file.path,
        )
        zone = codes.astype(np.int16)
        if (zone < 0).any():
            blank = np.array([not name for name in names])[index]
            bad = good & (zone < 0)
            self.log.problems.add_rows(
                "no_time_zone", bad & blank, row, lambda at: self.log.places(int(row[at]))
            )
            self.log.problems.add_rows(
                "unknown_time_zone",
                bad & ~blank,
                row,
                lambda at: f"{names[index[at]]!r} in {self.log.places(int(row[at]))}",
            )
            good &= zone >= 0
        return zone

    def _times(
        self,
        columns: Mapping[str, pa.Array],
        file: LogFile,
        row: NDArray[np.int64],
        zone: NDArray[np.int16],
        good: Mask,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Instants of start and end; ``good`` loses rows in which one is no time."""
        start, end = (
            read_instants(columns[role], self.log.form, column=file.columns[role], path=file.path)
            for role in ("start", "end")
        )
        bad = good & ((start.kind == NOT_A_TIME) | (end.kind == NOT_A_TIME))
        self.log.problems.add_rows("not_a_time", bad, row, lambda at: self._shown(columns, at, row))
        good &= ~bad
        start_s, end_s = start.seconds, end.seconds
        local = good & (start.kind == LOCAL)
        if local.any():
            start_s[local] = self.log.zones.utc_s(zone[local], start_s[local])
        local = good & (end.kind == LOCAL)
        if local.any():
            first_s = self.log.zones.utc_s(zone[local], end_s[local])
            second_s = self.log.zones.utc_s(zone[local], end_s[local], second_pass=True)
            # In an hour that the clock repeats: the pass in which the session has not ended before.
            end_s[local] = np.where(first_s < start_s[local], second_s, first_s)
        return start_s, end_s

    def _shown(self, columns: Mapping[str, pa.Array], at: int, row: NDArray[np.int64]) -> str:
        start, end = (columns[role][at].as_py() for role in ("start", "end"))
        return f"{str(start)[:40]!r} to {str(end)[:40]!r} in {self.log.places(int(row[at]))}"

    def _sensible(
        self,
        ids: pa.Array,
        row: NDArray[np.int64],
        start_s: NDArray[np.float64],
        end_s: NDArray[np.float64],
        good: Mask,
    ) -> Mask:
        def describe(at: int) -> str:
            start, end = self.log.clock(start_s[at]), self.log.clock(end_s[at])
            return (
                f"{start} to {end} of device {ids[at].as_py()} in {self.log.places(int(row[at]))}"
            )

        checks = {
            "ends_before_start": end_s < start_s,
            "empty_session": end_s == start_s,
            "in_future": end_s > self.log.now_s,
        }
        if self.log.form == "trace":
            checks |= {"before_trace": start_s < 0, "beyond_trace": end_s > MAX_TIME_S}
        else:
            checks["before_1970"] = start_s < 0
        fine = good.copy()
        for kind, wrong in checks.items():
            bad = fine & wrong
            self.log.problems.add_rows(kind, bad, row, describe)
            fine &= ~bad
        return fine
