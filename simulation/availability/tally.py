"""Counts over all parts of a log, from which the statistics are made."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from simulation.availability.hours_of_week import WeeklyHours
from simulation.availability.statistics import CriteriaFacts, LengthHistogram, length_edges_s

_LONGEST_S = 2_000_000
_BITS_OF_WORD = 6
# Positions in a 64-bit word whose index has bit i set.
_WITH_BIT = tuple(
    np.uint64(sum(1 << position for position in range(64) if position >> bit & 1))
    for bit in range(_BITS_OF_WORD)
)
_CLIENTS_AT_ONCE = 8192


def _seconds() -> NDArray[np.int64]:
    return np.zeros(_LONGEST_S + 1, dtype=np.int64)


@dataclass(slots=True)
class Tally:
    """Counts so far.

    Attributes:
        criteria: Names, in the order of their bits.
    """

    criteria: tuple[str, ...]
    sessions: int = 0
    clients: int = 0
    clients_out: int = 0
    spans: int = 0
    available_s: float = 0.0
    horizon_s: float = 0.0
    hours: WeeklyHours = field(default_factory=WeeklyHours)
    joined: dict[str, int] = field(default_factory=dict)
    models_out: set[int] = field(default_factory=set)
    coins_passing: dict[str, int] = field(default_factory=dict)
    _session_lengths: NDArray[np.int64] = field(default_factory=_seconds)
    _span_lengths: NDArray[np.int64] = field(default_factory=_seconds)
    _trace_lengths: NDArray[np.int64] = field(default_factory=_seconds)
    _by_mask: NDArray[np.int64] = field(init=False)
    _seconds_by_mask: NDArray[np.float64] = field(init=False)
    _clients_by_combination: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        combinations = 2 ** len(self.criteria)
        self._by_mask = np.zeros(combinations, dtype=np.int64)
        self._seconds_by_mask = np.zeros(combinations)
        self._clients_by_combination = np.zeros(combinations, dtype=np.int64)

    def add_sessions(
        self,
        passes: NDArray[np.uint16],
        length_s: NDArray[np.float64],
        first: NDArray[np.int64],
    ) -> NDArray[np.bool_]:
        """Count valid sessions, in order of their clients.

        Args:
            passes: Criteria of each, shape ``(sessions,)``.
            length_s: Shape ``(sessions,)``.
            first: Index of each client's first session, shape ``(clients,)``.

        Returns:
            Whether one session of each client passes all criteria, shape ``(clients,)``.
        """
        self.sessions += len(passes)
        self.clients += len(first)
        self._by_mask += np.bincount(passes, minlength=len(self._by_mask))
        self._seconds_by_mask += np.bincount(passes, weights=length_s, minlength=len(self._by_mask))
        self._session_lengths += _by_second(length_s)
        words = passed_combinations(passes, first, len(self.criteria))
        for begin in range(0, len(words), _CLIENTS_AT_ONCE):
            chunk = np.ascontiguousarray(words[begin : begin + _CLIENTS_AT_ONCE])
            bits = np.unpackbits(chunk.view(np.uint8), axis=1, bitorder="little")
            self._clients_by_combination += bits.sum(axis=0, dtype=np.int64)[: len(self._by_mask)]
        last = len(self._by_mask) - 1
        every = words[:, last >> _BITS_OF_WORD] >> np.uint64(last & 63) & np.uint64(1)
        return every.astype(np.bool_)

    def add_spans(self, length_s: NDArray[np.float64]) -> None:
        """Count spans as long as they are before days are folded."""
        self._span_lengths += _by_second(length_s)

    def add_trace(
        self, clients: int, length_s: NDArray[np.float64], end_s: NDArray[np.float64]
    ) -> None:
        """Count spans of the trace."""
        self.clients_out += clients
        self.spans += len(length_s)
        self.available_s += float(length_s.sum())
        self.horizon_s = max(self.horizon_s, float(end_s.max(initial=0.0)))
        self._trace_lengths += _by_second(length_s)

    def count(self, what: str, number: int) -> None:
        """Count something that was joined, cut or dropped on the way to spans."""
        self.joined[what] = self.joined.get(what, 0) + number

    def median_span_s(self) -> float | None:
        """Median length of the trace's spans, to a second; None without any."""
        if not self.spans:
            return None
        below = np.cumsum(self._trace_lengths)
        low = np.searchsorted(below, (self.spans - 1) // 2, side="right")
        high = np.searchsorted(below, self.spans // 2, side="right")
        return float(low + high) / 2

    def facts(self) -> CriteriaFacts:
        """Joint counts of the criteria."""
        some = np.flatnonzero(self._by_mask).tolist()
        return CriteriaFacts(
            self.criteria,
            {mask: int(self._by_mask[mask]) for mask in some},
            {mask: float(self._seconds_by_mask[mask]) for mask in some},
            tuple(self._clients_by_combination.tolist()),
            self._lengths(),
        )

    def _lengths(self) -> LengthHistogram:
        edges_s = length_edges_s()
        first = np.array(edges_s, dtype=np.int64)
        return LengthHistogram(
            tuple(edges_s),
            *(
                tuple(np.add.reduceat(counts, first).tolist())
                for counts in (self._session_lengths, self._span_lengths)
            ),
        )


def passed_combinations(
    passes: NDArray[np.uint16], first: NDArray[np.int64], criteria: int
) -> NDArray[np.uint64]:
    """Combinations of criteria that one session of a client passes together.

    Args:
        passes: Of sessions in order of their clients.
        first: Index of each client's first session.

    Returns:
        Shape ``(clients, words)``: bit ``c`` of a row, counted through its words, is set if the
        client has a session that passes at least the bits of ``c``.
    """
    words = max(1, 2**criteria >> _BITS_OF_WORD)
    at = (passes & np.uint16(63)).astype(np.uint64)
    own = np.left_shift(np.uint64(1), at)
    word_of = passes >> np.uint16(_BITS_OF_WORD)
    found = np.empty((len(first), words), dtype=np.uint64)
    for word in range(words):
        bits = own if words == 1 else np.where(word_of == word, own, np.uint64(0))
        found[:, word] = np.bitwise_or.reduceat(bits, first)
    # Who passes a set of criteria passes each of its subsets.
    for bit in range(min(criteria, _BITS_OF_WORD)):
        found |= (found & _WITH_BIT[bit]) >> np.uint64(1 << bit)
    for bit in range(_BITS_OF_WORD, criteria):
        step = 1 << (bit - _BITS_OF_WORD)
        for word in range(words):
            if not word & step:
                found[:, word] |= found[:, word | step]
    return found


def _by_second(length_s: NDArray[np.float64]) -> NDArray[np.int64]:
    whole = np.minimum(length_s, _LONGEST_S).astype(np.int64)
    return np.bincount(whole, minlength=_LONGEST_S + 1)
