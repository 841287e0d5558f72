"""First pass over a log: every row read, checked, judged and put on disk by device."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from simulation.availability.calendar_layout import CalendarLayout
from simulation.availability.criteria_file import category_of
from simulation.availability.estimation import HourlySample, NoSample
from simulation.availability.hours_of_week import seconds_by_hour
from simulation.availability.log_context import LogContext
from simulation.availability.problems import Problems, in_words
from simulation.availability.session_criteria import SAMPLED
from simulation.availability.session_log import LogFile, log_batches
from simulation.availability.session_rows import NoTimeZone, RowReader, SessionRows
from simulation.availability.spill import SpilledSessions, parts_for

# A line of a CSV log is seldom shorter; for the number of parts only.
_BYTES_PER_CSV_ROW = 60
# What is logged before is logged by clocks that were never set: 1970, 1980, 2000.
CLOCKS_SET_S = 1_104_537_600.0
_WHOLE_NUMBER = r"^(0|-?[1-9]\d{0,17})$"
# Ten years: no trace begins so late, and in 1980 nobody logged sessions.
_TRACE_BEFORE_S = 315_576_000.0

Progress = Callable[[str, int, int | None], None]


class NoValidSession(FlintError):
    """Not one row of the log is a session."""

    code = "FLN-2607"


def called(files: Sequence[Path]) -> str:
    """A log as messages call it."""
    return str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"


def first_example(problems: Problems) -> str:
    """What is wrong with a log, by its first kind of problem."""
    found = problems.counts()
    return in_words(*next(iter(found.items()))) if found else "nothing is wrong with any row"


@dataclass(slots=True)
class FirstPass:
    """Reads the whole log into parts by device.

    Attributes:
        rows: Rows read so far.
        valid: Those that are sessions.
        samples: By criterion that a coin may have to decide.
        last_s: Last end, an instant.
        whole_seconds: Whether all times are whole seconds.
        number_ids: Whether the log's ids are ``int64`` by its format.
    """

    log: LogContext
    files: Sequence[LogFile]
    folder: Path
    progress: Progress
    rows: int = 0
    valid: int = 0
    samples: dict[str, HourlySample] = field(default_factory=dict)
    last_s: float = -math.inf
    # First start, as an instant and on a local clock, of clocks that were not set and that were.
    _firsts_s: dict[bool, tuple[float, float]] = field(default_factory=dict)
    whole_seconds: bool = True
    ids_are_numbers: bool = True
    reader: RowReader = field(init=False)
    spilled: SpilledSessions = field(init=False)
    number_ids: bool = field(init=False)

    def __post_init__(self) -> None:
        self.reader = RowReader(self.log)
        self.number_ids = all(_has_number_ids(file) for file in self.files)
        self.samples = {name: HourlySample() for name in SAMPLED if name in self.log.thresholds}
        foreground = self.log.uses_foreground and any(
            "foreground" in file.columns for file in self.files
        )
        rows = sum(
            file.rows if file.rows is not None else file.size_bytes // _BYTES_PER_CSV_ROW + 1
            for file in self.files
        )
        self.spilled = SpilledSessions(
            self.folder, parts_for(rows), number_ids=self.number_ids, foreground=foreground
        )

    @property
    def total_rows(self) -> int | None:
        """Rows of the log, where all its files say."""
        rows = [file.rows for file in self.files if file.rows is not None]
        return sum(rows) if len(rows) == len(self.files) else None

    def run(self) -> None:
        """Read everything; see `build_availability` for the errors."""
        only = self.log.criteria.only
        read = 0
        total = self.total_rows
        names = [file.path.name for file in self.files]
        with self.spilled:
            for file in self.files:
                once = names.count(file.path.name) == 1
                self.log.places.begin(file.path.name if once else str(file.path), read)
                roles = self.reader.roles(file)
                for batch, kept in log_batches(file, roles, only, self.log.problems):
                    self.rows += batch.num_rows if kept is None else pc.sum(kept).as_py() or 0
                    rows = self.reader.read(batch, kept, file, read)
                    read += batch.num_rows
                    if rows is not None:
                        self._add(rows)
                    self.progress("rows read", read, total)
        if not self.valid:
            where = called([file.path for file in self.files])
            if not self.rows:
                said = ", ".join(f"{column}: {value}" for column, value in only.items())
                raise NoValidSession(
                    f"{where}: no row has {said}; name values that occur under only"
                )
            raise NoValidSession(
                f"{where}: none of its {self.rows} rows is a session: "
                f"{first_example(self.log.problems)}; correct the log or how {self.log.source} "
                "reads it"
            )
        if self.log.form == "trace" != self.log.criteria.times and self.first_s > _TRACE_BEFORE_S:
            raise NoTimeZone(
                f"{self.files[0].path}: start_s counts from {self.first_s:.0f} s, so from 1970 and "
                "not from the beginning of a trace, and nothing says in which time zone its "
                f"sessions are; name one in {self.log.source} (e.g. time_zone: Europe/Berlin), or "
                "say times: trace"
            )
        for name, sample in self.samples.items():
            if not sample.known.any():
                raise NoSample(
                    f"{self.log.source}: {category_of(name)}.{name} cannot be judged: not one of "
                    f"{sample.unknown} sessions says; remove the criterion or give a log that does"
                )

    def _add(self, rows: SessionRows) -> None:
        self.valid += len(rows)
        local_s = rows.start_s + self.log.zones.offset_s(rows.zone, rows.start_s)
        self.last_s = max(self.last_s, float(rows.end_s.max()))
        self._note_firsts(rows.start_s, local_s)
        if self.whole_seconds:
            times = [rows.start_s, rows.end_s]
            if rows.foreground is not None:
                times += [rows.foreground.start_s, rows.foreground.end_s]
            self.whole_seconds = all((each == np.floor(each)).all() for each in times)
        if self.ids_are_numbers and not self.number_ids:
            matches = pc.match_substring_regex(pc.unique(rows.ids.cast(pa.string())), _WHOLE_NUMBER)
            self.ids_are_numbers = bool(pc.all(matches).as_py())
        if self.samples:
            hour = self.layout().hour_of_week(local_s)
            names = list(self.log.thresholds)
            for name, sample in self.samples.items():
                bit = np.uint16(1 << names.index(name))
                sample.add(hour, rows.unknown & bit != 0, rows.passes & bit != 0)
        self.spilled.add(rows)

    def _note_firsts(self, start_s: NDArray[np.float64], local_s: NDArray[np.float64]) -> None:
        early = start_s < CLOCKS_SET_S
        for is_early in (False, True):
            some = early == is_early
            if some.any():
                first_s, first_local_s = self._firsts_s.get(is_early, (math.inf, math.inf))
                self._firsts_s[is_early] = (
                    min(first_s, float(start_s[some].min())),
                    min(first_local_s, float(local_s[some].min())),
                )

    @property
    def earliest_s(self) -> float:
        """Sessions that start before are of clocks that were not set; minus infinity if none is."""
        real = self.log.form != "trace" and False in self._firsts_s
        return CLOCKS_SET_S if real else -math.inf

    @property
    def first_s(self) -> float:
        """First start, an instant; of clocks that were set."""
        return self._first(0)

    @property
    def first_local_s(self) -> float:
        """First start on a local clock; of clocks that were set."""
        return self._first(1)

    def _first(self, which: int) -> float:
        early_too = math.isinf(self.earliest_s)
        return min(f[which] for early, f in self._firsts_s.items() if early_too or not early)

    def layout(self) -> CalendarLayout:
        """How local time is laid out, as far as the log has been read."""
        return CalendarLayout.of_log(
            self.log.criteria,
            is_trace=self.log.form == "trace",
            first_local_s=self.first_local_s,
        )

    @property
    def texts_to_numbers(self) -> bool:
        """Whether ids are texts (of CSV) that all are whole numbers, and become such."""
        texts_only_by_format = all(file.is_csv for file in self.files)
        return not self.number_ids and texts_only_by_format and self.ids_are_numbers

    def observed_s(
        self, layout: CalendarLayout, repeat_every_s: float | None
    ) -> NDArray[np.float64]:
        """Seconds for which the log covers each hour of each zone's week, shape (zones, 168)."""
        if layout.fold_s is not None or repeat_every_s is not None:
            covered_s = layout.fold_s or float(repeat_every_s or 0)
            one = np.zeros(1, dtype=np.int16)
            week_s = 0.0 if layout.fold_s is not None else layout.week_s
            return seconds_by_hour(one, np.array([week_s]), np.array([week_s + covered_s]), 1)
        zones = np.arange(len(self.log.zones.names), dtype=np.int16)
        is_trace = self.log.form == "trace"
        starts_s = np.full(len(zones), 0.0 if is_trace else self.first_s)
        ends_s = np.full(len(zones), self.last_s)
        offset_s = self.log.zones.offset_s(zones, starts_s) + layout.week_s
        return seconds_by_hour(zones, starts_s + offset_s, ends_s + offset_s, len(zones))


def _has_number_ids(file: LogFile) -> bool:
    if file.is_csv:
        return False
    kind = pq.read_schema(file.path).field(file.columns["device_id"]).type
    return bool(pa.types.is_signed_integer(kind))
