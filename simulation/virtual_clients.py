"""The clients of a virtual fleet: when each checks in, and how each of its tasks will go.

Everything here is a pure function of the world, the seed and its arguments: nothing depends on the
order in which clients are asked.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from simulation.durations import (
    TaskCourse,
    TaskDuration,
    TaskWork,
    dropout_after_s,
    task_course,
    task_duration,
)
from simulation.environment import CheckIn
from simulation.population import Counts
from simulation.random_streams import RandomStream, RandomStreams
from simulation.traces.bandwidth import LinkSpeeds
from simulation.traces.criteria import DAY_S, DailyHours
from simulation.traces.spans import TICKS_PER_S
from simulation.world import ClientDevices, World

PERIODS_AHEAD = 8
"""A device whose windows miss the allowed hours in so many repeats is taken to miss them always."""


def last_tick(seconds: float) -> float:
    """The last moment not after a time on the grid of virtual times, multiples of 2**-20 s."""
    return math.floor(seconds * TICKS_PER_S) / TICKS_PER_S


def next_tick(seconds: float) -> float:
    """The first moment not before a time on the grid of virtual times."""
    return math.ceil(seconds * TICKS_PER_S) / TICKS_PER_S


@dataclass(frozen=True)
class VirtualClients:
    """Clients, numbered from 0, each on its traced device, with its model, links and records.

    Attributes:
        records: Records each client holds, shape ``(clients,)``.
        hours: Of the day in which the job lets devices take part.
        dropout_per_hour: Hazard of leaving a task for reasons no trace tells.
        streams: Of the trial.
        admitted: Clients whose devices the job admits, shape ``(clients,)``; None for all.
    """

    world: World
    devices: ClientDevices
    records: Counts
    hours: DailyHours
    check_in: CheckIn
    dropout_per_hour: float
    streams: RandomStreams
    admitted: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.records)

    # -- when a client checks in ---------------------------------------------------------------

    def first_check_ins(self) -> NDArray[np.float64]:
        """First check-in of each client, infinite where there is none; shape ``(clients,)``.

        A window that is open when the run begins counts from then. A client without records never
        asks, nor one whose device the job does not admit.
        """
        first_s = np.full(len(self), math.inf)
        ask = self.records > 0
        if self.admitted is not None:
            ask = ask & self.admitted
        for client in np.flatnonzero(ask).tolist():
            first_s[client] = self.next_check_in(client, 0.0, 0)
        return first_s

    def next_check_in(self, client: int, earliest_s: float, ordinal: int) -> float:
        """When a client next asks for work, not before ``earliest_s``; infinite for never.

        Inside a window that is ``earliest_s`` itself. Otherwise it is the opening of the next
        window, spread over ``jitter * period_s`` so that devices which wake together do not come
        together.

        Args:
            earliest_s: Virtual time, not negative.
            ordinal: Check-ins of this client so far.
        """
        open_s, end_s = self.open_window(client, earliest_s)
        if (earliest_s > 0.0 and open_s == earliest_s) or open_s == math.inf:
            return open_s
        spread_s = self.check_in.jitter * min(self.check_in.period_s, end_s - open_s)
        if spread_s == 0.0:
            return open_s
        return last_tick(open_s + spread_s * self._opening.uniform(client, ordinal))

    def interval_s(self, client: int, ordinal: int) -> float:
        """How long a client that stays available waits before its next check-in."""
        spread = 2.0 * self._interval.uniform(client, ordinal) - 1.0 if self.check_in.jitter else 0
        return self.check_in.period_s * (1.0 + self.check_in.jitter * spread)

    def open_window(self, client: int, t: float) -> tuple[float, float]:
        """From when, at ``t`` or later, and until when a client may take part; infinities if never.

        The device's window and the hours the job allows, both.
        """
        trace, device = self.world.trace, int(self.devices.device[client])
        period_s = float(trace.period_s[device])
        last_s = t + PERIODS_AHEAD * period_s + DAY_S
        while t <= last_s:
            start_s, end_s = trace.window(device, t)
            if start_s == math.inf:
                break
            open_s = self.hours.next_allowed(max(start_s, t))
            if open_s < end_s:
                return open_s, min(end_s, self.hours.allowed_end(open_s))
            t = end_s
        return math.inf, math.inf

    # -- how a task goes -----------------------------------------------------------------------

    def task(
        self, client: int, ordinal: int, start_s: float, work: TaskWork, deadline_s: float
    ) -> tuple[TaskDuration[float], TaskCourse]:
        """Planned phases and course of a client's task, decided before it starts.

        Args:
            ordinal: Tasks of this client so far; its draws are keyed by it.
            deadline_s: When the server takes the task for interrupted.
        """
        devices, world = self.devices, self.world
        duration = task_duration(
            work,
            records=int(self.records[client]),
            per_example_s=world.profiles.per_example_s(
                int(devices.device_model[client]), self._speed.uniform(client, ordinal)
            ),
            down_bits_per_s=self._bits_per_s(
                world.bandwidth.down, int(devices.down_link[client]), client, ordinal, 0
            ),
            up_bits_per_s=self._bits_per_s(
                world.bandwidth.up, int(devices.up_link[client]), client, ordinal, 1
            ),
        )
        dropout_s = math.inf
        if self.dropout_per_hour > 0:
            draw = self._dropout.exponential(client, ordinal)
            dropout_s = dropout_after_s(draw, self.dropout_per_hour)
        course = task_course(
            start_s,
            duration,
            work,
            window_end_s=self.open_window(client, start_s)[1],
            dropout_s=dropout_s,
            deadline_s=deadline_s,
        )
        return duration, course

    def _bits_per_s(
        self, speeds: LinkSpeeds, link: int, client: int, ordinal: int, draw: int
    ) -> float:
        uniform = self._link.uniform(client, ordinal, draw) if speeds.varies(link) else 0.5
        return speeds.bits_per_s(link, uniform)

    @cached_property
    def _opening(self) -> RandomStream:
        return self.streams["check_in/opening"]

    @cached_property
    def _interval(self) -> RandomStream:
        return self.streams["check_in/interval"]

    @cached_property
    def _speed(self) -> RandomStream:
        return self.streams["per_example_s"]

    @cached_property
    def _link(self) -> RandomStream:
        return self.streams["bandwidth"]

    @cached_property
    def _dropout(self) -> RandomStream:
        return self.streams["dropout"]
