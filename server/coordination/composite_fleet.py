"""Several fleets as one: gateways and plain SuperNodes train the same job."""

import time
from collections.abc import Sequence
from typing import Protocol

from server.coordination.events import Event
from server.coordination.fleet import Fleet, OpenJob, Released
from server.coordination.tasks import Grant, Outcome, Release


class BoundedFleet(Fleet, Protocol):
    """A fleet that knows how many tasks it could start at once, e.g. online SuperNodes."""

    def capacity(self) -> int:
        """Clients that are online and idle."""
        ...


_TURN_S = 0.2
"""Longest wait on the main fleet while others may have news."""


class CompositeFleet:
    """One main fleet, whose clients come when they like, and others of known capacity.

    Slots go to the others as far as their idle clients reach, the rest to the main fleet, which
    keeps slots until a client checks in. Strategies do not notice.
    """

    def __init__(self, main: Fleet, others: Sequence[BoundedFleet]) -> None:
        self._main = main
        self._others = others
        self._fleets: tuple[Fleet, ...] = (main, *others)

    def now_s(self) -> float:
        """The main fleet's clock."""
        return self._main.now_s()

    def open(self, job: OpenJob) -> None:
        """Open the job everywhere."""
        for fleet in self._fleets:
            fleet.open(job)

    def set_model(self, version: int, parameters_sha256: bytes, oldest_live_version: int) -> None:
        """Announce the newest version everywhere."""
        for fleet in self._fleets:
            fleet.set_model(version, parameters_sha256, oldest_live_version)

    def grant(self, grant: Grant) -> None:
        """Split a grant by idle capacity."""
        left = grant.count
        for fleet in self._others:
            share = min(left, fleet.capacity())
            if share > 0:
                fleet.grant(Grant(grant.grant_id, share, grant.base_version, grant.task_timeout_s))
                left -= share
        if left > 0:
            self._main.grant(Grant(grant.grant_id, left, grant.base_version, grant.task_timeout_s))

    def cancel(self, grant_id: str, *, running_too: bool) -> None:
        """Take back a grant everywhere."""
        for fleet in self._fleets:
            fleet.cancel(grant_id, running_too=running_too)

    def next_event(self, timeout_s: float | None) -> Event | None:
        """Whatever comes first from any fleet."""
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            for fleet in self._others:
                event = fleet.next_event(0.0)
                if event is not None:
                    return event
            left_s = _TURN_S
            if deadline_s is not None:
                left_s = min(_TURN_S, max(0.0, deadline_s - time.monotonic()))
            event = self._main.next_event(left_s)
            if event is not None or (deadline_s is not None and time.monotonic() >= deadline_s):
                return event

    def release(self, release: Release) -> Released:
        """Partials of all fleets."""
        parts = [fleet.release(release) for fleet in self._fleets]
        return Released(
            tuple(release_id for part in parts for release_id in part.release_ids),
            tuple(partial for part in parts for partial in part.sums),
        )

    def commit(self, release_id: str) -> None:
        """Commit everywhere."""
        for fleet in self._fleets:
            fleet.commit(release_id)

    def drop(self, base_version: int, outcome: Outcome, reason: str) -> None:
        """Forget a bucket everywhere."""
        for fleet in self._fleets:
            fleet.drop(base_version, outcome, reason)

    def close(self, reason: str) -> None:
        """End the job everywhere."""
        for fleet in self._fleets:
            fleet.close(reason)
