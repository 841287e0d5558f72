"""A session log and criteria become an availability trace, in two passes and bounded memory.

First pass: every batch of the log is read, checked and judged, and its sessions are written to
parts on disk by device. Second pass: each part, some million sessions, is put in order, its
undecided sessions get their coins, and what passes becomes spans.
"""

import json
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from simulation.availability.calendar_layout import CalendarLayout
from simulation.availability.criteria_file import AvailabilityCriteria, category_of
from simulation.availability.device_models import DeviceModels
from simulation.availability.estimation import HourlySample, NoSample
from simulation.availability.hours_of_week import seconds_by_hour
from simulation.availability.instants import TimeForm
from simulation.availability.log_context import LogContext
from simulation.availability.measurements import read_measurements
from simulation.availability.part_spans import PartBuilder
from simulation.availability.problems import Problems, in_words
from simulation.availability.session_criteria import SAMPLED
from simulation.availability.session_log import LogFile, log_batches, open_session_log
from simulation.availability.session_rows import RowReader, SessionRows
from simulation.availability.spill import SpilledSessions, parts_for
from simulation.availability.statistics import AvailabilityStatistics
from simulation.availability.tally import Tally
from simulation.availability.trace_output import (
    METADATA_KEY,
    DraftFile,
    facts_columns,
    facts_schema,
    trace_columns,
    trace_schema,
)

# A line of a CSV log is seldom shorter; for the number of parts only.
_BYTES_PER_CSV_ROW = 60
_WHOLE_NUMBER = r"^(0|-?[1-9]\d{0,17})$"
_GRID_S = 2.0**-20

Progress = Callable[[str, int, int | None], None]


class NoValidSession(FlintError):
    """Not one row of the log is a session."""

    code = "FLN-2607"


class BadInputRefused(FlintError):
    """The log has bad input, and ``--strict`` was asked for."""

    code = "FLN-2608"


class NobodyAvailable(FlintError):
    """No session meets all criteria, so there is no trace to write."""

    code = "FLN-2613"


def _no_progress(stage: str, done: int, total: int | None) -> None:
    """Show nothing."""


def build_availability(
    files: Sequence[Path],
    criteria: AvailabilityCriteria,
    output: Path | None,
    *,
    facts: Path | None = None,
    seed: int = 0,
    strict: bool = False,
    now_s: float | None = None,
    source: str = "the criteria",
    progress: Progress = _no_progress,
) -> AvailabilityStatistics:
    """Build a trace of when devices meet the criteria.

    Args:
        files: Of the log; see `find_session_files`.
        output: Where to write the trace (``.parquet``); None writes none.
        facts: Where to write what is known of each client (``.parquet``).
        seed: Of the coins that decide sessions whose WiFi or battery is not known.
        strict: Refuse a log with any bad input.
        now_s: Sessions that end later, seconds since 1970, are in the future; None: the clock.
        source: What messages call the criteria file.
        progress: Called with stage, rows done and, where it is known, rows in all.

    Raises:
        UnreadableDataFile: If a file cannot be read.
        MissingLogColumn: If the log lacks a column.
        UnusableLogColumn: If a column holds what it cannot be mapped to.
        NoTimeZone: If nothing tells the time zone.
        NoValidSession: If everything in the log is bad.
        NoSample: If a criterion asks for what no session says.
        NobodyAvailable: If no session passes, and ``output`` is given.
        BadInputRefused: If ``strict`` and something in the log is bad.
        UnwritableOutput: If a file cannot be written.
    """
    log, opened = _open(files, criteria, source, time.time() if now_s is None else now_s)
    with tempfile.TemporaryDirectory(prefix="flint-availability-") as folder:
        first = _FirstPass(log, opened, Path(folder), progress)
        first.run()
        return _second_pass(first, output, facts, seed=seed, strict=strict, progress=progress)


def _open(
    files: Sequence[Path], criteria: AvailabilityCriteria, source: str, now_s: float
) -> tuple[LogContext, list[LogFile]]:
    problems = Problems()
    opened = open_session_log(files, criteria, problems, source=source)
    if not opened:
        raise NoValidSession(
            f"{_called(files)}: no file has rows ({_first_example(problems)}); give a log with "
            "sessions"
        )
    form: TimeForm = criteria.times
    if form == "auto" and all(
        file.columns["start"] == "start_s" and "time_zone" not in file.columns for file in opened
    ):
        form = "trace" if criteria.time_zone is None else form
    device = criteria.device
    measured = None
    if device.max_train_s is not None or device.max_memory_mb is not None:
        measured = read_measurements(
            Path(str(criteria.measurements)), memory=device.max_memory_mb is not None
        )
    models = DeviceModels(device, measured)
    limit_s = math.inf if form == "trace" else now_s
    return LogContext(criteria, source, form, limit_s, models, problems=problems), opened


def _called(files: Sequence[Path]) -> str:
    return str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"


def _first_example(problems: Problems) -> str:
    found = problems.counts()
    return in_words(*next(iter(found.items()))) if found else "nothing is wrong with any row"


@dataclass(slots=True)
class _FirstPass:
    """Reads the whole log into parts by device."""

    log: LogContext
    files: Sequence[LogFile]
    folder: Path
    progress: Progress
    rows: int = 0
    valid: int = 0
    samples: dict[str, HourlySample] = field(default_factory=dict)
    first_s: float = math.inf
    last_s: float = -math.inf
    first_local_s: float = math.inf
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
        with self.spilled:
            for file in self.files:
                self.log.places.begin(file.path.name, read)
                roles = self.reader.roles(file)
                for batch, kept in log_batches(file, roles, only, self.log.problems):
                    self.rows += batch.num_rows if kept is None else pc.sum(kept).as_py() or 0
                    rows = self.reader.read(batch, kept, file, read)
                    read += batch.num_rows
                    if rows is not None:
                        self._add(rows)
                    self.progress("reading", read, total)
        if not self.valid:
            where = _called([file.path for file in self.files])
            if not self.rows:
                said = ", ".join(f"{column}: {value}" for column, value in only.items())
                raise NoValidSession(
                    f"{where}: no row has {said}; name values that occur under only"
                )
            raise NoValidSession(
                f"{where}: none of its {self.rows} rows is a session: "
                f"{_first_example(self.log.problems)}; correct the log or how {self.log.source} "
                "reads it"
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
        self.first_s = min(self.first_s, float(rows.start_s.min()))
        self.last_s = max(self.last_s, float(rows.end_s.max()))
        self.first_local_s = min(self.first_local_s, float(local_s.min()))
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


def _second_pass(
    first: _FirstPass,
    output: Path | None,
    facts: Path | None,
    *,
    seed: int,
    strict: bool,
    progress: Progress,
) -> AvailabilityStatistics:
    log, layout = first.log, first.layout()
    repeat_every_s = layout.fold_s
    if repeat_every_s is None and first.reader.repeats_s:
        repeat_every_s = min(first.reader.repeats_s)
    tally = Tally(tuple(log.thresholds))
    chances = {name: sample.probabilities() for name, sample in first.samples.items()}
    builder = PartBuilder(log, layout, tally, chances, seed)
    as_numbers = first.texts_to_numbers
    id_type = pa.int64() if as_numbers or first.number_ids else pa.large_string()
    has_models = any("device_model" in file.columns for file in first.files)
    whole = first.whole_seconds and _is_whole(log.criteria)
    kind = trace_schema(
        id_type, whole_seconds=whole, models=has_models, repeats=repeat_every_s is not None
    )
    models = pa.array(list(log.models.codes), pa.string())
    zones = pa.array(log.zones.names, pa.string())
    with ExitStack() as drafts:
        trace_file = output and drafts.enter_context(DraftFile(output, kind))
        facts_file = facts and drafts.enter_context(DraftFile(facts, facts_schema(id_type)))
        for part in first.spilled.parts(as_numbers=as_numbers):
            spans, clients = builder.build(part)
            if trace_file and len(spans.client):
                columns = trace_columns(spans, clients, models, repeat_every_s, kind)
                trace_file.write(columns)
            if has_models:
                tally.models_out.update(np.unique(clients.model[clients.spans > 0]).tolist())
            if facts_file:
                facts_file.write(facts_columns(clients, models, zones))
            progress("building", tally.sessions, first.valid)
        statistics = _statistics(
            first, tally, layout, repeat_every_s, seed, device_models=has_models
        )
        if strict and statistics.problems:
            raise BadInputRefused(_refusal(statistics))
        if trace_file and not tally.spans:
            raise NobodyAvailable(_nobody(statistics, log))
        said = {METADATA_KEY: json.dumps(statistics.to_json(), allow_nan=False)}
        for draft in (trace_file, facts_file):
            if draft:
                draft.finish(said)
    return statistics


def _is_whole(criteria: AvailabilityCriteria) -> bool:
    """Whether cutting at the rules' lengths leaves whole seconds."""
    return (criteria.sessions.max_length_s or 0.0) % 1 == 0


def _statistics(
    first: _FirstPass,
    tally: Tally,
    layout: CalendarLayout,
    repeat_every_s: float | None,
    seed: int,
    *,
    device_models: bool,
) -> AvailabilityStatistics:
    observed_s = repeat_every_s or tally.horizon_s
    available_s = tally.clients_out * max(observed_s, _GRID_S)
    means = tally.hours.means(first.observed_s(layout, repeat_every_s))
    if layout.fold_s is not None and len(means) > round(layout.fold_s / 3600):
        day = means[: round(layout.fold_s / 3600)]  # a folded day is every day's
        means = [day[hour % len(day)] for hour in range(len(means))]
    return AvailabilityStatistics(
        sessions_in=first.rows,
        sessions_valid=tally.sessions,
        sessions_out=tally.spans,
        clients=tally.clients,
        clients_out=tally.clients_out,
        hourly=tuple(means),
        begins=layout.begins,
        horizon_s=tally.horizon_s,
        available_share=tally.available_s / available_s if tally.clients_out else 0.0,
        median_span_s=tally.median_span_s(),
        device_models=len(tally.models_out) if device_models else None,
        repeat_every_s=repeat_every_s,
        problems=first.log.problems.counts(),
        estimated={
            name: sample.estimate(tally.coins_passing.get(name, 0))
            for name, sample in first.samples.items()
            if sample.unknown
        },
        joined={what: count for what, count in tally.joined.items() if count},
        seed=seed,
        thresholds=first.log.thresholds,
        criteria=first.log.criteria.model_dump(mode="json", exclude_defaults=True),
        facts=tally.facts(),
    )


def _refusal(statistics: AvailabilityStatistics) -> str:
    found = statistics.problems
    first, *others = (in_words(kind, problem) for kind, problem in found.items())
    also = f"; and {len(others)} more kinds of problems" if others else ""
    return f"bad input, refused as --strict asks: {first}{also}; correct the log"


def _nobody(statistics: AvailabilityStatistics, log: LogContext) -> str:
    shares = statistics.shares()["share_by_criterion"]
    if not shares or statistics.facts.session_share(2 ** len(shares) - 1) > 0:
        rules = log.criteria.sessions
        return (
            f"{log.source}: no session is left by the rules for sessions (min_length_s "
            f"{rules.min_length_s:g}, max_length_s {rules.max_length_s}); relax them"
        )
    said = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
    return (
        f"{log.source}: no session meets all criteria, so nobody would ever be available; each "
        f"alone keeps {said} of {statistics.sessions_valid} sessions; relax one"
    )
