"""A session log and criteria become an availability trace, in two passes and bounded memory.

First pass: every batch of the log is read, checked and judged, and its sessions are written to
parts on disk by device. Second pass: each part, some million sessions, is put in order, its
undecided sessions get their coins, and what passes becomes spans.
"""

import errno
import json
import math
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa

from device_runtime.errors import FlintError
from simulation.availability.calendar_layout import CalendarLayout
from simulation.availability.criteria_file import AvailabilityCriteria
from simulation.availability.device_models import DeviceModels
from simulation.availability.first_pass import (
    FirstPass,
    NoValidSession,
    Progress,
    called,
    first_example,
)
from simulation.availability.instants import TimeForm
from simulation.availability.log_context import LogContext
from simulation.availability.measurements import read_measurements
from simulation.availability.part_spans import PartBuilder
from simulation.availability.problems import Problems, in_words
from simulation.availability.session_log import LogFile, open_session_log
from simulation.availability.statistics import AvailabilityStatistics
from simulation.availability.tally import Tally
from simulation.availability.trace_output import (
    METADATA_KEY,
    DraftFile,
    facts_columns,
    facts_schema,
    require_writable,
    trace_columns,
    trace_schema,
)

_GRID_S = 2.0**-20
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_BYTES_PER_ROW = 60


class BadInputRefused(FlintError):
    """The log has bad input, and ``--strict`` was asked for."""

    code = "FLN-2608"


class NoRoomForSessions(FlintError):
    """The disk is full."""

    code = "FLN-2615"


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
        NoRoomForSessions: If the disk is full.
    """
    for path in (output, facts):
        if path is not None:
            require_writable(path)
    log, opened = _open(files, criteria, source, time.time() if now_s is None else now_s)
    try:
        with tempfile.TemporaryDirectory(prefix="flint-availability-") as folder:
            first = FirstPass(log, opened, Path(folder), progress)
            first.run()
            return _second_pass(first, output, facts, seed=seed, strict=strict, progress=progress)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise NoRoomForSessions(
            f"there is no room left for some {_BYTES_PER_ROW} bytes a row of the log in "
            f"{tempfile.gettempdir()}, or for the trace; free some, or set TMPDIR to a folder on "
            "another disk"
        ) from error


def _open(
    files: Sequence[Path], criteria: AvailabilityCriteria, source: str, now_s: float
) -> tuple[LogContext, list[LogFile]]:
    problems = Problems()
    opened = open_session_log(files, criteria, problems, source=source)
    if not opened:
        raise NoValidSession(
            f"{called(files)}: no file has rows ({first_example(problems)}); give a log with "
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


def _second_pass(
    first: FirstPass,
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
    builder = PartBuilder(log, layout, tally, chances, seed, first.earliest_s)
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
            built = builder.build(part)
            if built is None:
                continue
            spans, clients = built
            if trace_file and len(spans.client):
                columns = trace_columns(spans, clients, models, repeat_every_s, kind)
                trace_file.write(columns)
            if has_models:
                tally.models_out.update(np.unique(clients.model[clients.spans > 0]).tolist())
            if facts_file:
                facts_file.write(facts_columns(clients, models, zones))
            progress("sessions laid out", tally.sessions, first.valid)
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
    first: FirstPass,
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
        has_weekdays=layout.has_weekdays,
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
