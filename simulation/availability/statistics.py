"""What a build found: how much of a log each criterion keeps, alone and together, and when."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

HOURS_OF_WEEK = 168


@dataclass(frozen=True, slots=True)
class ProblemCount:
    """One kind of bad input.

    Attributes:
        count: Rows, or files, that have it.
        dropped: Whether they were left out; else they were repaired or taken as not passing.
        example: The first of them in words: file, row and value.
    """

    count: int
    dropped: bool
    example: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """A criterion that is known for a sample of the sessions only.

    Attributes:
        known: Sessions that say.
        unknown: Sessions that do not; each was decided by a coin.
        known_passing_share: Share of those that say which pass.
        coin_passing_share: Share of the others whose coin says that they pass; None without any.
        hours_without_sample: Hours of the week in which none says: their coins take the same hour
            of the other days, or, where no day has it, the whole week's share.
    """

    known: int
    unknown: int
    known_passing_share: float
    coin_passing_share: float | None
    hours_without_sample: int


@dataclass(frozen=True, slots=True)
class LengthHistogram:
    """How long sessions and spans last.

    Attributes:
        edges_s: Bin ``i`` holds lengths from ``edges_s[i]`` up to, not including, ``edges_s[i+1]``;
            the last bin is open.
        sessions: Valid sessions of the log, in each bin.
        spans: Spans of the trace (before folding), in each bin.
    """

    edges_s: tuple[float, ...]
    sessions: tuple[int, ...]
    spans: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CriteriaFacts:
    """Joint counts of criteria; any relaxed combination can be read off.

    Attributes:
        criteria: Names; bit ``i`` of a mask is the ``i``-th.
        sessions_by_mask: Valid sessions by the criteria each passes.
        seconds_by_mask: Their lengths, by the same.
        clients_by_combination: Clients with one session that passes at least the bits of the
            index; shape ``(2 ** criteria,)``. Entry 0 is all clients.
        lengths: Of sessions and spans.
    """

    criteria: tuple[str, ...]
    sessions_by_mask: Mapping[int, int]
    seconds_by_mask: Mapping[int, float]
    clients_by_combination: tuple[int, ...]
    lengths: LengthHistogram

    def session_share(self, combination: int) -> float:
        """Share of sessions that pass at least these bits."""
        return _share(self.sessions_by_mask, combination)

    def time_share(self, combination: int) -> float:
        """Share of all sessions' time in sessions that pass at least these bits."""
        return _share(self.seconds_by_mask, combination)

    def client_share(self, combination: int) -> float:
        """Share of clients with one session that passes at least these bits."""
        return self.clients_by_combination[combination] / self.clients_by_combination[0]


@dataclass(frozen=True, slots=True)
class AvailabilityStatistics:
    """What `build_availability` reports.

    Attributes:
        sessions_in: Rows read, bad ones included.
        sessions_valid: Rows that are sessions; what shares are of.
        sessions_out: Spans of the trace.
        clients: Devices with a valid session.
        clients_out: Devices with a span.
        hourly: Mean number of available devices in each hour of the local week, from Monday 00:00
            (from the trace's beginning where its date is not known); None: not observed in every
            time zone. Shape ``(168,)``.
        begins: Local date of second 0; None if it is not known, or days lie over one another.
        has_weekdays: Whether hour 0 of ``hourly`` is a Monday's.
        horizon_s: End of the last span.
        available_share: Mean share of the horizon (or of a repeat) that devices of the trace are
            available.
        median_span_s: None without spans.
        device_models: Distinct ones in the trace; None if the log does not say.
        repeat_every_s: Of the trace; None if it does not repeat.
        problems: By kind.
        estimated: By criterion.
        joined: What was put together on the way to spans, in words: count.
        seed: Of the coins.
        thresholds: Criteria asked for, in the order of their bits.
        criteria: The criteria file, defaults left out.
    """

    sessions_in: int
    sessions_valid: int
    sessions_out: int
    clients: int
    clients_out: int
    hourly: tuple[float | None, ...]
    begins: str | None
    has_weekdays: bool
    horizon_s: float
    available_share: float
    median_span_s: float | None
    device_models: int | None
    repeat_every_s: float | None
    problems: Mapping[str, ProblemCount]
    estimated: Mapping[str, Estimate]
    joined: Mapping[str, int]
    seed: int
    thresholds: Mapping[str, Any]
    criteria: Mapping[str, Any]
    facts: CriteriaFacts

    @property
    def eligible_peak_share(self) -> float | None:
        """Largest hourly mean over all clients; None where no hour was observed."""
        observed = [mean for mean in self.hourly if mean is not None]
        return max(observed) / self.clients if observed else None

    @property
    def eligible_mean_share(self) -> float | None:
        """Mean of the hourly means over all clients."""
        observed = [mean for mean in self.hourly if mean is not None]
        return sum(observed) / len(observed) / self.clients if observed else None

    @property
    def trough_peak_ratio(self) -> float | None:
        """Smallest over largest hourly mean; None if nobody is ever available."""
        observed = [mean for mean in self.hourly if mean is not None]
        return min(observed) / max(observed) if observed and max(observed) > 0 else None

    def shares(self) -> dict[str, Any]:
        """Share of sessions, of clients and of time that pass each criterion, and all of them."""
        facts = self.facts
        every = 2 ** len(facts.criteria) - 1
        bits = {name: 1 << bit for bit, name in enumerate(facts.criteria)}
        return {
            "share_by_criterion": {name: facts.session_share(bit) for name, bit in bits.items()},
            "share_all": facts.session_share(every),
            "client_share_by_criterion": {n: facts.client_share(bit) for n, bit in bits.items()},
            "client_share_all": facts.client_share(every),
            "time_share_by_criterion": {n: facts.time_share(bit) for n, bit in bits.items()},
            "time_share_all": facts.time_share(every),
        }

    def to_json(self) -> dict[str, Any]:
        """Plain values: what ``--json`` prints, and what is kept with the trace."""
        facts = asdict(self.facts)
        facts["sessions_by_mask"] = {str(k): v for k, v in self.facts.sessions_by_mask.items()}
        facts["seconds_by_mask"] = {str(k): v for k, v in self.facts.seconds_by_mask.items()}
        return {
            "sessions_in": self.sessions_in,
            "sessions_valid": self.sessions_valid,
            "sessions_out": self.sessions_out,
            "clients": self.clients,
            "clients_out": self.clients_out,
            **self.shares(),
            "eligible_peak_share": self.eligible_peak_share,
            "eligible_mean_share": self.eligible_mean_share,
            "trough_peak_ratio": self.trough_peak_ratio,
            "hourly": list(self.hourly),
            "begins": self.begins,
            "has_weekdays": self.has_weekdays,
            "horizon_s": self.horizon_s,
            "available_share": self.available_share,
            "median_span_s": self.median_span_s,
            "device_models": self.device_models,
            "repeat_every_s": self.repeat_every_s,
            "problems": {name: asdict(found) for name, found in self.problems.items()},
            "estimated": {name: asdict(found) for name, found in self.estimated.items()},
            "joined": dict(self.joined),
            "seed": self.seed,
            "thresholds": dict(self.thresholds),
            "criteria": dict(self.criteria),
            "facts": facts,
        }

    def of_trace(self) -> dict[str, Any]:
        """What `flint trace show` tells of any availability trace."""
        return {
            "rows": self.sessions_out,
            "clients": self.clients_out,
            "spans": self.sessions_out,
            "horizon_s": self.horizon_s,
            "repeat_every_s": self.repeat_every_s,
            "available_share": self.available_share,
            "median_span_s": self.median_span_s,
            "device_models": self.device_models,
            "overlapping": False,
        }


def _share(by_mask: Mapping[int, float], combination: int) -> float:
    total = sum(by_mask.values())
    passing = sum(n for mask, n in by_mask.items() if mask & combination == combination)
    return passing / total if total else 0.0


def length_edges_s() -> Sequence[float]:
    """Bins of a length histogram: whole seconds, four a doubling from a second to 14 days."""
    return tuple(float(edge) for edge in sorted({0, *(round(2 ** (k / 4)) for k in range(82))}))
