"""The virtual clock's agenda: events in the order of time, kind and sequence."""

import heapq
from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray


class EventKind(IntEnum):
    """What happens; at equal times lower kinds come first, as the fleet's contract orders them."""

    COMPLETED = 0
    FAILED = 1
    EXPIRED = 2
    LEFT = 3
    ARRIVED = 4
    TIMER = 5


class Scheduled(NamedTuple):
    """One event; tuples of it sort in the order in which they happen.

    Attributes:
        sequence: Breaks ties: the client for arrivals, else the task, both unique at one time.
    """

    at_s: float
    kind: EventKind
    sequence: int


class Agenda:
    """What will happen, earliest first.

    No two events share time, kind and sequence, so the order in which they are taken does not
    depend on the order in which they were added: a restored agenda goes on exactly as the first.
    """

    def __init__(self, events: Iterable[Scheduled] = ()) -> None:
        self._heap = list(events)
        heapq.heapify(self._heap)

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, at_s: float, kind: EventKind, sequence: int) -> None:
        """Schedule an event."""
        heapq.heappush(self._heap, Scheduled(at_s, kind, sequence))

    def next_s(self) -> float:
        """When the next event happens; infinite when there is none."""
        return self._heap[0].at_s if self._heap else float("inf")

    def take(self) -> Scheduled:
        """Remove and return the next event.

        Raises:
            IndexError: If there is none.
        """
        return heapq.heappop(self._heap)

    def clear(self) -> None:
        """Forget everything."""
        self._heap.clear()

    def state(self) -> dict[str, NDArray[np.float64] | NDArray[np.int64]]:
        """Columns of all events, for a checkpoint."""
        events = sorted(self._heap)
        return {
            "at_s": np.array([event.at_s for event in events], np.float64),
            "kind": np.array([event.kind for event in events], np.int64),
            "sequence": np.array([event.sequence for event in events], np.int64),
        }

    @classmethod
    def restored(cls, state: dict[str, NDArray[np.float64] | NDArray[np.int64]]) -> Self:
        """An agenda from what `state` returned."""
        columns = (state[name].tolist() for name in ("at_s", "kind", "sequence"))
        return cls(
            Scheduled(at_s, EventKind(kind), sequence)
            for at_s, kind, sequence in zip(*columns, strict=True)
        )
