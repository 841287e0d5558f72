"""One part of a log: its sessions counted, decided, and made into spans of the trace."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from simulation.availability.calendar_layout import CalendarLayout
from simulation.availability.client_keys import client_keys
from simulation.availability.estimation import coins
from simulation.availability.foreground import ForegroundSpans
from simulation.availability.log_context import LogContext
from simulation.availability.spill import PartSessions
from simulation.availability.tally import Tally
from simulation.availability.windows import (
    folded,
    in_order,
    merge_overlaps,
    overlaps_one_before,
    subtract_gaps,
    within_hours,
)
from simulation.traces.criteria import DailyHours
from simulation.traces.spans import Spans

Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ClientFacts:
    """What is known of each device of a part; shapes ``(devices,)``.

    Attributes:
        ids: As in the log.
        model: Code of its first named device model, -1 if it never names one.
        os_month: First that is known.
        zone: Of its first session.
        sessions: Number of valid ones.
        session_s: How long they last together.
        passes_ever: Bits of the criteria that any of its sessions passes.
        passes_all: Whether one session passes all criteria at once.
        spans: Number in the trace, before days are folded.
        available_s: Their length.
    """

    ids: pa.Array
    model: NDArray[np.int32]
    os_month: NDArray[np.int32]
    zone: NDArray[np.int16]
    sessions: Index
    session_s: NDArray[np.float64]
    passes_ever: NDArray[np.uint16]
    passes_all: NDArray[np.bool_]
    spans: Index
    available_s: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PartBuilder:
    """Makes parts into spans.

    Attributes:
        chances: Probability by hour of the week of each criterion that is left to coins.
        earliest_s: Sessions that start before are of clocks that were not set.
    """

    log: LogContext
    layout: CalendarLayout
    tally: Tally
    chances: Mapping[str, NDArray[np.float64]]
    seed: int
    earliest_s: float

    def build(self, part: PartSessions) -> tuple[Spans, ClientFacts] | None:
        """Spans of the trace, by client and start, and facts of the clients; None if none is left.

        Args:
            part: All sessions of some devices.
        """
        part = self._without_unset_clocks(part)
        if not len(part.client):
            return None
        part = self._without_duplicates(part)
        self._count_overlaps(part)
        passes = self._decided(part)
        first = np.flatnonzero(np.diff(part.client, prepend=-1))
        length_s = part.end_s - part.start_s
        passes_all = self.tally.add_sessions(passes, length_s, first)
        every = np.uint16(2 ** len(self.log.thresholds) - 1)
        spans, zone = self._local_spans(part, passes == every)
        self.tally.add_spans(spans.end_s - spans.start_s)
        facts = self._facts(part, first, passes, passes_all, spans)
        week = self.layout.week_s
        if self.layout.fold_s is None:
            self.tally.hours.add(zone, spans.start_s + week, spans.end_s + week)
            begins_s = self.layout.begins_s
            trace = Spans(spans.client, spans.start_s - begins_s, spans.end_s - begins_s)
        else:
            aligned = Spans(spans.client, spans.start_s + week, spans.end_s + week)
            trace = folded(aligned, self.layout.fold_s)
            zones = np.zeros(len(trace.client), dtype=np.int16)
            self.tally.hours.add(zones, trace.start_s, trace.end_s)
        clients = len(np.unique(trace.client))
        self.tally.add_trace(clients, trace.end_s - trace.start_s, trace.end_s)
        return trace, facts

    # ------------------------------------------------------------------ sessions

    def _without_duplicates(self, part: PartSessions) -> PartSessions:
        same = np.zeros(len(part.client), dtype=np.bool_)
        same[1:] = (
            (part.client[1:] == part.client[:-1])
            & (part.start_s[1:] == part.start_s[:-1])
            & (part.end_s[1:] == part.end_s[:-1])
        )
        if not same.any():
            return part
        self.log.problems.add_rows("duplicate", same, part.row, lambda at: self._pair(part, at))
        return _sessions_kept(part, ~same)

    def _without_unset_clocks(self, part: PartSessions) -> PartSessions:
        early = part.start_s < self.earliest_s
        if not early.any():
            return part
        self.log.problems.add_rows(
            "clock_not_set",
            early,
            part.row,
            lambda at: (
                f"{self.log.clock(part.start_s[at])} of device "
                f"{part.client_ids[int(part.client[at])].as_py()} in "
                f"{self.log.places(int(part.row[at]))}"
            ),
        )
        return _sessions_kept(part, ~early)

    def _count_overlaps(self, part: PartSessions) -> None:
        overlaps = overlaps_one_before(Spans(part.client, part.start_s, part.end_s))
        self.log.problems.add_rows(
            "overlapping",
            overlaps,
            part.row,
            lambda at: self._pair(part, at),
        )

    def _pair(self, part: PartSessions, at: int) -> str:
        start, end = self.log.clock(part.start_s[at]), self.log.clock(part.end_s[at])
        device = part.client_ids[int(part.client[at])].as_py()
        place = self.log.places(int(part.row[at]))
        before = self.log.places(int(part.row[at - 1]))
        return f"{start} to {end} of device {device} in {place} (after {before})"

    def _decided(self, part: PartSessions) -> NDArray[np.uint16]:
        """Criteria of each session, coins included."""
        passes = part.passes
        if not part.unknown.any():
            return passes
        keys = client_keys(part.client_ids)
        names = tuple(self.log.thresholds)
        for criterion, chance in self.chances.items():
            bit = np.uint16(1 << names.index(criterion))
            asked = np.flatnonzero(part.unknown & bit)
            start_s = part.start_s[asked]
            local_s = start_s + self.log.zones.offset_s(part.zone[asked], start_s)
            heads = coins(
                self.seed,
                criterion,
                chance[self.layout.hour_of_week(local_s)],
                keys[part.client[asked]],
                start_s,
            )
            passes = passes.copy()
            passes[asked[heads]] |= bit
            before = self.tally.coins_passing.get(criterion, 0)
            self.tally.coins_passing[criterion] = before + int(np.count_nonzero(heads))
        return passes

    # ------------------------------------------------------------------ spans

    def _local_spans(
        self, part: PartSessions, passing: NDArray[np.bool_]
    ) -> tuple[Spans, NDArray[np.int16]]:
        """Spans on the local clock, and the zone of each."""
        rules = self.log.criteria.sessions
        pieces, session = self._pieces(part, passing)
        merged, first = merge_overlaps(pieces)
        self.tally.count("overlapping", len(pieces.client) - len(merged.client))
        zone = part.zone[session[first]]
        if rules.max_background_gap_s is not None:
            joined, first = subtract_gaps(merged, rules.max_background_gap_s)
            self.tally.count("across_short_gaps", len(merged.client) - len(joined.client))
            merged, zone = joined, zone[first]
        if rules.max_length_s is not None:
            merged, zone = self._believable(merged, zone, rules.max_length_s)
        offset_s = self.log.zones.offset_s(zone, merged.start_s)
        local = Spans(merged.client, merged.start_s + offset_s, merged.end_s + offset_s)
        local, zone = self._united(local, zone)
        hours = DailyHours.parse(self.log.criteria.state.allowed_hours)
        if not hours.is_always:
            local, span = within_hours(local, hours)
            zone = zone[span]
        long_enough = local.end_s - local.start_s >= rules.min_length_s
        self.tally.count("too_short", int(np.count_nonzero(~long_enough)))
        return _kept(local, long_enough), zone[long_enough]

    def _pieces(self, part: PartSessions, passing: NDArray[np.bool_]) -> tuple[Spans, Index]:
        """What of the passing sessions counts, in order, and the session of each piece."""
        foreground = part.foreground if self.log.uses_foreground else None
        sessions = np.flatnonzero(passing)
        if foreground is None:
            spans = Spans(part.client[sessions], part.start_s[sessions], part.end_s[sessions])
            return spans, sessions
        within = passing[foreground.session]
        session = foreground.session[within]
        start_s, end_s = foreground.start_s[within], foreground.end_s[within]
        if self.log.criteria.state.foreground is False:
            whole = passing & foreground.known
            session, start_s, end_s = _background(part, whole, session, start_s, end_s)
        elif self.log.criteria.state.foreground is None:
            # Nothing is known of their gaps, so they have none.
            whole = passing & ~foreground.known
            session = np.concatenate((session, np.flatnonzero(whole)))
            start_s = np.concatenate((start_s, part.start_s[whole]))
            end_s = np.concatenate((end_s, part.end_s[whole]))
        client = part.client[session]
        order = np.lexsort((end_s, start_s, client))
        return Spans(client[order], start_s[order], end_s[order]), session[order]

    def _believable(
        self, spans: Spans, zone: NDArray[np.int16], most_s: float
    ) -> tuple[Spans, NDArray[np.int16]]:
        too_long = spans.end_s - spans.start_s > most_s
        if self.log.criteria.sessions.longer == "drop":
            self.tally.count("too_long_dropped", int(np.count_nonzero(too_long)))
            return _kept(spans, ~too_long), zone[~too_long]
        self.tally.count("too_long_cut", int(np.count_nonzero(too_long)))
        end_s = np.where(too_long, spans.start_s + most_s, spans.end_s)
        return Spans(spans.client, spans.start_s, end_s), zone

    def _united(self, local: Spans, zone: NDArray[np.int16]) -> tuple[Spans, NDArray[np.int16]]:
        """Spans that a clock set back, or a journey west, has laid over one another, united."""
        later = np.diff(local.start_s) < 0
        if (later & (np.diff(local.client) == 0)).any():
            order = np.lexsort((local.end_s, local.start_s, local.client))
            local, zone = in_order(local), zone[order]
        united, first = merge_overlaps(local)
        self.tally.count("over_a_clock_change", len(local.client) - len(united.client))
        return united, zone[first]

    # ------------------------------------------------------------------ clients

    def _facts(
        self,
        part: PartSessions,
        first: Index,
        passes: NDArray[np.uint16],
        passes_all: NDArray[np.bool_],
        spans: Spans,
    ) -> ClientFacts:
        clients = len(first)
        length_s = part.end_s - part.start_s
        named = part.model >= 0
        model = part.model[_first_with(named, first)]
        differs = named & (part.model != model[part.client])
        if differs.any():
            at = np.flatnonzero(differs)
            many = np.zeros(len(named), dtype=np.bool_)
            many[at[np.unique(part.client[at], return_index=True)[1]]] = True
            self.log.problems.add_rows(
                "several_device_models",
                many,
                part.row,
                lambda at: (
                    f"device {part.client_ids[int(part.client[at])].as_py()} in "
                    f"{self.log.places(int(part.row[at]))}"
                ),
            )
        return ClientFacts(
            part.client_ids,
            model,
            part.os_month[_first_with(part.os_month >= 0, first)],
            part.zone[first],
            np.diff(first, append=len(part.client)),
            np.add.reduceat(length_s, first),
            np.bitwise_or.reduceat(passes, first),
            passes_all,
            np.bincount(spans.client, minlength=clients),
            np.bincount(
                spans.client, weights=spans.end_s - spans.start_s, minlength=clients
            ).astype(np.float64),
        )


def _sessions_kept(part: PartSessions, kept: NDArray[np.bool_]) -> PartSessions:
    """A part without some sessions, and without devices that have none left."""
    foreground = part.foreground
    if foreground is not None:
        number = np.cumsum(kept) - 1
        stays = kept[foreground.session]
        foreground = ForegroundSpans(
            number[foreground.session[stays]],
            foreground.start_s[stays],
            foreground.end_s[stays],
            foreground.known[kept],
            foreground.not_understood[kept],
            foreground.outside[kept],
        )
    left, client = np.unique(part.client[kept], return_inverse=True)
    columns = ("start_s", "end_s", "zone", "passes", "unknown", "model", "os_month", "row")
    return replace(
        part,
        client_ids=part.client_ids.take(pa.array(left)),
        client=client,
        foreground=foreground,
        **{name: getattr(part, name)[kept] for name in columns},
    )


def _first_with(there: NDArray[np.bool_], first: Index) -> Index:
    """Index of each client's first session that has something; its first one if none has."""
    beyond = len(there)
    at = np.minimum.reduceat(np.where(there, np.arange(beyond), beyond), first)
    found: Index = np.where(at < beyond, at, first)
    return found


def _background(
    part: PartSessions,
    whole: NDArray[np.bool_],
    session: Index,
    start_s: NDArray[np.float64],
    end_s: NDArray[np.float64],
) -> tuple[Index, NDArray[np.float64], NDArray[np.float64]]:
    """What the foreground spans leave of their sessions."""
    fore, _ = merge_overlaps(in_order(Spans(session, start_s, end_s)))
    sessions = np.flatnonzero(whole)
    # Between two ends: the session's start, or a foreground span's end, to what comes next.
    owner = np.concatenate((sessions, fore.client))
    begins_s = np.concatenate((part.start_s[sessions], fore.end_s))
    stops_s = np.concatenate((part.end_s[sessions], fore.start_s))
    by_begin, by_stop = np.lexsort((begins_s, owner)), np.lexsort((stops_s, owner))
    begins_s, stops_s, owner = begins_s[by_begin], stops_s[by_stop], owner[by_begin]
    some = stops_s > begins_s
    return owner[some], begins_s[some], stops_s[some]


def _kept(spans: Spans, kept: NDArray[np.bool_]) -> Spans:
    return Spans(spans.client[kept], spans.start_s[kept], spans.end_s[kept])
