"""Bad input of a log, counted by kind with the first example of each; nothing is passed over."""

import bisect
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from simulation.availability.statistics import ProblemCount

# Kind of problem: what has it, and whether that is left out.
KINDS: dict[str, tuple[str, bool]] = {
    "empty_file": ("files without rows", True),
    "malformed_row": ("lines with another number of fields than the header", True),
    "no_device_id": ("rows that name no device", True),
    "not_a_time": ("rows whose start or end is no time", True),
    "no_time_zone": ("rows without time zone", True),
    "unknown_time_zone": ("rows with a time zone that the IANA database does not have", True),
    "ends_before_start": ("sessions that end before they start", True),
    "before_trace": ("sessions that start before the trace begins", True),
    "beyond_trace": ("sessions that end 136 years after the trace begins, or later", True),
    "before_1970": ("sessions that start before 1970", True),
    "empty_session": ("sessions that end when they start", True),
    "in_future": ("sessions that end in the future", True),
    "clock_not_set": ("sessions that start before 2005, when others do not", True),
    "duplicate": ("sessions that are in the log twice", True),
    "overlapping": ("sessions that overlap one before of the same device, united", False),
    "model_not_measured": ("sessions of a device model without benchmark result", False),
    "no_device_model": ("sessions that name no device model", False),
    "several_device_models": ("devices with several models, of which the first is taken", False),
    "os_release_unknown": ("sessions without usable date of OS release", False),
    "battery_out_of_range": ("sessions with a battery charge outside 0 to 1", False),
    "battery_not_understood": ("sessions with a battery charge that is no number", False),
    "wifi_not_understood": ("sessions with a WiFi value that is neither true nor false", False),
    "foreground_unknown": ("sessions that do not say when they were in the foreground", False),
    "foreground_not_understood": ("sessions with foreground spans that cannot be read", False),
    "foreground_outside": ("sessions with foreground spans outside them, cut", False),
    "account_age_unknown": ("sessions without usable account age", False),
    "reputation_unknown": ("sessions without usable reputation", False),
    "last_participation_not_a_time": ("sessions whose last participation is no time", False),
}


@dataclass(slots=True)
class RowPlaces:
    """Where in which file a row of the log is, by its number over all files."""

    _first: list[int] = field(default_factory=list)
    _file: list[str] = field(default_factory=list)

    def begin(self, file: str, row: int) -> None:
        """Rows from this number on, counted over all files from 0, are of this file."""
        self._first.append(row)
        self._file.append(file)

    def __call__(self, row: int) -> str:
        """``"sessions.csv, row 17"``; rows are counted from 1, the header not."""
        at = bisect.bisect_right(self._first, row) - 1
        return f"{self._file[at]}, row {row - self._first[at] + 1}"


@dataclass(slots=True)
class Problems:
    """What is wrong so far."""

    _count: dict[str, int] = field(default_factory=dict)
    _example: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add(self, kind: str, count: int, row: int, example: str) -> None:
        """Count rows of a kind.

        Args:
            row: Number of the example over all files; the earliest is kept.
        """
        if count == 0:
            return
        self._count[kind] = self._count.get(kind, 0) + count
        if kind not in self._example or row < self._example[kind][0]:
            self._example[kind] = (row, example)

    def add_rows(
        self,
        kind: str,
        wrong: NDArray[np.bool_],
        rows: NDArray[np.int64],
        describe: Callable[[int], str],
    ) -> None:
        """Count the marked rows.

        Args:
            wrong: Shape ``(rows,)``.
            rows: Numbers over all files, shape ``(rows,)``.
            describe: The example in words, by index into the arrays.
        """
        count = int(np.count_nonzero(wrong))
        if count == 0:
            return
        marked = np.flatnonzero(wrong)
        first = int(marked[np.argmin(rows[marked])])
        self.add(kind, count, int(rows[first]), describe(first))

    def counts(self) -> dict[str, ProblemCount]:
        """All kinds found, in the order of `KINDS`."""
        return {
            kind: ProblemCount(self._count[kind], dropped, self._example[kind][1])
            for kind, (_, dropped) in KINDS.items()
            if kind in self._count
        }


def in_words(kind: str, problem: ProblemCount) -> str:
    """One line for the user: how many, what, and the first of them."""
    what, _ = KINDS[kind]
    left_out = " (left out)" if problem.dropped else ""
    return f"{what}: {problem.count}{left_out}, e.g. {problem.example}"
