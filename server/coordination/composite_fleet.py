"""Several fleets as one: gateways and plain SuperNodes train the same job."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from server.coordination.events import Event, TaskStarted
from server.coordination.fleet import Fleet, OpenJob, Released
from server.coordination.tasks import Grant, Outcome, Release


class BoundedFleet(Fleet, Protocol):
    """A fleet that knows how many tasks it could start at once, e.g. online SuperNodes."""

    def capacity(self) -> int:
        """Clients that are online and idle, less the slots that wait for one."""
        ...

    def give_back_slots(self) -> Mapping[str, int]:
        """Take back the slots that no idle client is there for, by grant id."""
        ...


_TURN_S = 0.2
"""Longest wait on the main fleet while others may have news."""

_BALANCE_S = 1.0
"""Between two looks for slots that wait in one fleet while another has idle clients."""


@dataclass(slots=True)
class _Part:
    """Slots of one grant at one fleet, under a grant id of their own."""

    fleet: Fleet
    grant: Grant
    left: int


class CompositeFleet:
    """One main fleet, whose clients come when they like, and others of known capacity.

    Slots go to the others as far as their idle clients reach, the rest to the main fleet, which
    keeps slots until a client checks in. Slots that still wait move when clients appear or leave
    elsewhere; a task that starts in that very moment is one more than was granted. Strategies do
    not notice any of it.
    """

    def __init__(self, main: Fleet, others: Sequence[BoundedFleet]) -> None:
        self._main = main
        self._others = others
        self._fleets: tuple[Fleet, ...] = (main, *others)
        self._parts: dict[str, _Part] = {}
        self._made = 0
        self._balanced_s = 0.0

    def now_s(self) -> float:
        """The main fleet's clock."""
        return self._main.now_s()

    def open(self, job: OpenJob) -> None:
        """Open the job everywhere."""
        self._parts.clear()
        for fleet in self._fleets:
            fleet.open(job)

    def set_model(self, version: int, parameters_sha256: bytes, oldest_live_version: int) -> None:
        """Announce the newest version everywhere."""
        for fleet in self._fleets:
            fleet.set_model(version, parameters_sha256, oldest_live_version)

    def grant(self, grant: Grant) -> None:
        """Split a grant by idle capacity."""
        self._place(grant, grant.count)

    def cancel(self, grant_id: str, *, running_too: bool) -> None:
        """Take back a grant everywhere."""
        for part_id in [p for p, part in self._parts.items() if part.grant.grant_id == grant_id]:
            self._parts.pop(part_id).fleet.cancel(part_id, running_too=running_too)

    def next_event(self, timeout_s: float | None) -> Event | None:
        """Whatever comes first from any fleet."""
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            self._balance()
            for fleet in self._others:
                event = fleet.next_event(0.0)
                if event is not None:
                    return self._as_granted(event)
            left_s = _TURN_S
            if deadline_s is not None:
                left_s = min(_TURN_S, max(0.0, deadline_s - time.monotonic()))
            event = self._main.next_event(left_s)
            if event is not None:
                return self._as_granted(event)
            if deadline_s is not None and time.monotonic() >= deadline_s:
                return None

    def release(self, release: Release) -> Released:
        """Partials of all fleets."""
        parts = [fleet.release(release) for fleet in self._fleets]
        return Released(
            tuple(release_id for part in parts for release_id in part.release_ids),
            tuple(partial for part in parts for partial in part.sums),
            tuple(reason for part in parts for reason in part.kept),
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

    # -- slots -----------------------------------------------------------------------------------

    def _place(self, grant: Grant, count: int) -> None:
        for fleet in self._others:
            share = min(count, fleet.capacity())
            self._give(fleet, grant, share)
            count -= share
        self._give(self._main, grant, count)

    def _give(self, fleet: Fleet, grant: Grant, count: int) -> None:
        if count > 0:
            self._made += 1
            part_id = f"{grant.grant_id}.{self._made}"
            self._parts[part_id] = _Part(fleet, grant, count)
            fleet.grant(replace(grant, grant_id=part_id, count=count))

    def _balance(self) -> None:
        """Move slots that wait from where no client is to where one is idle."""
        if time.monotonic() - self._balanced_s < _BALANCE_S:
            return
        self._balanced_s = time.monotonic()
        for fleet in self._others:
            for part_id, count in fleet.give_back_slots().items():
                part = self._parts.get(part_id)
                if part is not None:
                    part.left -= count
                    self._give(self._main, part.grant, count)
        for part_id, part in list(self._parts.items()):
            if not any(fleet.capacity() > 0 for fleet in self._others):
                return
            if part.fleet is self._main and part.left > 0:
                self._main.cancel(part_id, running_too=False)
                count, part.left = part.left, 0
                self._forget_if_over(part_id)
                self._place(part.grant, count)

    def _as_granted(self, event: Event) -> Event:
        """Name the grant the strategy knows instead of the part."""
        if not isinstance(event, TaskStarted):
            return event
        part = self._parts.get(event.grant_id)
        if part is not None:
            part.left = max(0, part.left - 1)
            self._forget_if_over(event.grant_id)
        return replace(event, grant_id=event.grant_id.rpartition(".")[0] or event.grant_id)

    def _forget_if_over(self, part_id: str) -> None:
        """A pinned grant's parts are needed until its round closes, to cancel running tasks."""
        part = self._parts[part_id]
        if part.left == 0 and part.grant.base_version is None:
            del self._parts[part_id]
