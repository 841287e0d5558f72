"""Criteria of participation that can be judged on a trace: the hours of the day a job allows.

A trace is of devices that met criteria of state (network, battery, foreground) when it was built;
hours it leaves open. Traces count seconds from local midnight.
"""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from device_runtime.participation import parse_hours

DAY_S = 86_400.0


def last_opening_s(t: float, start_s: float) -> float:
    """When the daily window last opened, in whole seconds: a remainder of ``t`` is rounded."""
    return math.floor((t - start_s) / DAY_S) * DAY_S + start_s


def next_allowed_s(t: float, start_s: float, length_s: float) -> float:
    """First moment from ``t`` on inside the daily window; see `DailyHours`."""
    opened_s = last_opening_s(t, start_s)
    return t if t - opened_s < length_s else opened_s + DAY_S


@dataclass(frozen=True, slots=True)
class DailyHours:
    """A window of every day.

    Attributes:
        start_s: Since midnight.
        length_s: Of the window; it may cross midnight. A day long: always.
    """

    start_s: float
    length_s: float

    @classmethod
    def parse(cls, hours: str | None) -> Self:
        """Read ``"HH:MM-HH:MM"``; None, and a window that ends when it starts, are all day.

        Raises:
            InvalidParticipation: If the text has another form.
        """
        if hours is None:
            return cls(0.0, DAY_S)
        start, end = (each.hour * 3600.0 + each.minute * 60.0 for each in parse_hours(hours))
        return cls(start, (end - start) % DAY_S or DAY_S)

    @property
    def is_always(self) -> bool:
        """Whether every hour is allowed."""
        return self.length_s >= DAY_S

    def next_allowed(self, t: float) -> float:
        """First moment from ``t`` on inside the window."""
        return next_allowed_s(t, self.start_s, self.length_s)

    def allowed_end(self, t: float) -> float:
        """Until when the window open at ``t`` lasts; infinite if every hour is allowed."""
        if self.is_always:
            return math.inf
        return last_opening_s(t, self.start_s) + self.length_s

    def next_allowed_many(self, t: ArrayLike) -> NDArray[np.float64]:
        """`next_allowed` of many times, shape of ``t``."""
        time_s = np.asarray(t, dtype=np.float64)
        opened_s = np.floor((time_s - self.start_s) / DAY_S) * DAY_S + self.start_s
        return np.where(time_s - opened_s < self.length_s, time_s, opened_s + DAY_S)
