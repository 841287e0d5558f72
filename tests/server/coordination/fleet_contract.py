"""What every `Fleet` must do, whatever its clients are and whatever clock they live on.

A variant subclasses `FleetContract` and gives it a rig: the fleet with a job open, version 1
announced, and two honest clients.
"""

import time
from typing import Protocol

import numpy as np

from server.coordination.events import Event, TaskCompleted, TaskStarted
from server.coordination.fleet import Fleet
from server.coordination.tasks import Grant, Outcome, Release

CLIENTS = 2
_DEADLINE_S = 30.0


class FleetRig(Protocol):
    """A fleet and its clients, as a variant provides them.

    Attributes:
        quiet_s: Time on the fleet's clock within which an idle client would have taken a task.
    """

    fleet: Fleet
    quiet_s: float

    def train(self) -> None:
        """Have every client take a granted task and hand in an update, if it is not by itself."""
        ...


class FleetContract:
    """Subclass it, and override the fixture ``rig``."""

    def test_a_task_starts_before_its_update_is_reported(self, rig):
        events = train_all(rig)
        started = {e.task_id: (i, e) for i, e in enumerate(events) if isinstance(e, TaskStarted)}
        for i, completed in enumerate(events):
            if isinstance(completed, TaskCompleted):
                at, start = started[completed.reference.task_id]
                assert at < i
                assert start.grant_id == "g1"
                assert start.client_id == completed.reference.client_id
                assert start.base_version == completed.reference.base_version == 1

    def test_a_release_sums_all_that_was_reported_and_gives_the_same_sums_again(self, rig):
        references = completed_in(train_all(rig))
        first, again = rig.fleet.release(Release("r1")), rig.fleet.release(Release("r1"))
        (partial,) = first.sums
        assert sorted(partial.task_ids) == sorted(r.task_id for r in references)
        assert partial.weight == sum(r.weight for r in references)
        assert partial.base_version == 1
        assert first.release_ids == again.release_ids
        np.testing.assert_array_equal(partial.total, again.sums[0].total)

    def test_a_committed_release_is_in_no_later_sum(self, rig):
        train_all(rig)
        rig.fleet.release(Release("r1"))
        rig.fleet.commit("r1")
        assert weight_of(rig.fleet.release(Release("r2"))) == 0

    def test_a_dropped_bucket_is_in_no_sum(self, rig):
        train_all(rig)
        rig.fleet.drop(1, Outcome.FAILED, "round_abandoned")
        assert weight_of(rig.fleet.release(Release("r1"))) == 0

    def test_slots_that_are_taken_back_start_nothing(self, rig):
        rig.fleet.grant(Grant("g1", CLIENTS, None, 60.0))
        rig.fleet.cancel("g1", running_too=False)
        until_s = rig.fleet.now_s() + rig.quiet_s
        while rig.fleet.now_s() < until_s:
            event = rig.fleet.next_event(max(0.0, until_s - rig.fleet.now_s()))
            assert not isinstance(event, TaskStarted)


def train_all(rig: FleetRig) -> list[Event]:
    """Grant a task to every client; returns the events up to the last update."""
    rig.fleet.grant(Grant("g1", CLIENTS, None, 60.0))
    rig.train()
    events: list[Event] = []
    deadline_s = time.monotonic() + _DEADLINE_S
    while len(completed_in(events)) < CLIENTS:
        assert time.monotonic() < deadline_s, events
        event = rig.fleet.next_event(0.5)
        events += [] if event is None else [event]
    return events


def completed_in(events):
    return [event.reference for event in events if isinstance(event, TaskCompleted)]


def weight_of(released) -> float:
    return sum(partial.weight for partial in released.sums)
