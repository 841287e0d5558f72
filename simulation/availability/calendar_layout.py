"""Where local time is laid out: which second a trace, a week and a folded day begin with."""

import datetime as dt
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulation.availability.criteria_file import AvailabilityCriteria
from simulation.availability.hours_of_week import HOUR_S, WEEK_S
from simulation.availability.statistics import HOURS_OF_WEEK
from simulation.traces.criteria import DAY_S

Floats = NDArray[np.float64]

# 1 January 1970 was a Thursday.
_EPOCH_WEEKDAY = 3


@dataclass(frozen=True, slots=True)
class CalendarLayout:
    """Local seconds as read (since 1970, or since a trace began) to those of trace and week.

    A session is laid out at the wall-clock time at which it starts, for as long as it truly lasts:
    across a change of the clock its end may differ from the wall clock's by the change, and its
    length never does. Of an hour that the clock repeats, both passes lie on the same hour; what
    overlaps there is united.

    Attributes:
        begins_s: Local second that is the trace's 0: a midnight.
        week_s: Added to local seconds it gives seconds since a Monday 00:00 (since the beginning,
            for a trace without date).
        fold_s: Length of what is folded; None if nothing is.
        begins: Local date of the trace's 0; None if it has none.
        has_weekdays: Whether weeks begin with a Monday: the log's dates are known.
    """

    begins_s: float
    week_s: float
    fold_s: float | None
    begins: str | None
    has_weekdays: bool

    @classmethod
    def of_log(
        cls, criteria: AvailabilityCriteria, *, is_trace: bool, first_local_s: float
    ) -> "CalendarLayout":
        """The layout of a log whose first session starts then."""
        fold_s = {None: None, "day": DAY_S, "week": WEEK_S}[criteria.fold]
        if is_trace:
            weekday = 0
            if criteria.begins is not None:
                weekday = dt.date.fromisoformat(criteria.begins).weekday()
            begins = criteria.begins if fold_s is None else None
            return cls(
                0.0, weekday * DAY_S, fold_s, begins, has_weekdays=criteria.begins is not None
            )
        begins_s = float(np.floor(first_local_s / DAY_S) * DAY_S)
        date = dt.date(1970, 1, 1) + dt.timedelta(days=begins_s / DAY_S)
        begins = date.isoformat() if fold_s is None else None
        return cls(begins_s, _EPOCH_WEEKDAY * DAY_S, fold_s, begins, has_weekdays=True)

    def hour_of_week(self, local_s: Floats) -> NDArray[np.int64]:
        """From 0, Monday 00:00, to 167; shape of ``local_s``."""
        return week_hour(local_s, self.week_s)


def week_hour(local_s: Floats, week_s: float) -> NDArray[np.int64]:
    """Hour of the week of local times; see `CalendarLayout.week_s`."""
    hour: NDArray[np.int64] = np.floor((local_s + week_s) / HOUR_S).astype(np.int64) % HOURS_OF_WEEK
    return hour
