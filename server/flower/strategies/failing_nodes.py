"""Nodes that fail again and again: each rests ever longer; if nothing ever worked, it is said."""

from collections import Counter
from collections.abc import Iterable

_FIRST_REST_S = 1.0
_LONGEST_REST_S = 30.0
_HOPELESS_EACH = 3
_HOPELESS_IN_ALL = 10


class FailingNodes:
    """Who failed how often in a row. No clock, no I/O."""

    def __init__(self) -> None:
        self._in_a_row: Counter[int] = Counter()
        self._ever_worked = False
        self._last = ""

    def note_update(self, node_id: int) -> None:
        """A node's update was accepted, so the app works."""
        self._in_a_row.pop(node_id, None)
        self._ever_worked = True

    def note_failure(self, node_id: int, what: str) -> float:
        """A node's task failed or its update was refused; returns for how many seconds it rests.

        One second the first time, twice as long each further time in a row, half a minute at most.
        """
        self._in_a_row[node_id] += 1
        self._last = f"node {node_id}: {what}"
        doublings = min(self._in_a_row[node_id] - 1, 16)
        return min(_LONGEST_REST_S, _FIRST_REST_S * float(2**doublings))

    def hopeless(self, online: Iterable[int]) -> str | None:
        """What the last of them failed of, if the app never worked anywhere; else None.

        That is: not one update was ever accepted, and every node online failed three times, ten
        times in all. Once an update was accepted, no number of bad nodes ends a run.
        """
        failed = self._in_a_row
        if self._ever_worked or failed.total() < _HOPELESS_IN_ALL:
            return None
        if any(failed[node_id] < _HOPELESS_EACH for node_id in online):
            return None
        return self._last
