"""Slots of one job over gateways and SuperNodes: none lost, none where nobody can take it."""

from collections import Counter, deque

import pytest

from server.coordination import composite_fleet
from server.coordination.composite_fleet import CompositeFleet
from server.coordination.events import TaskStarted
from server.coordination.fleet import Released
from server.coordination.tasks import Grant, Release


class SlotKeeper:
    """Keeps slots until the test has a client start one, like gateways do; or ``idle`` clients."""

    def __init__(self, name, idle=None):
        self.name, self.idle = name, idle
        self.slots, self.cancelled, self.events = Counter(), {}, deque()

    def grant(self, grant):
        self.slots[grant.grant_id] += grant.count

    def cancel(self, grant_id, *, running_too):
        self.slots.pop(grant_id, None)
        self.cancelled[grant_id] = running_too

    def capacity(self):
        return max(0, self.idle - self.slots.total())

    def give_back_slots(self):
        surplus = max(0, self.slots.total() - self.idle)
        given = {}
        for part_id in list(self.slots):
            given[part_id] = min(surplus, self.slots[part_id])
            self.slots[part_id] -= given[part_id]
            surplus -= given[part_id]
        return {part_id: count for part_id, count in given.items() if count}

    def start(self, task_id):
        part_id = next(p for p, count in self.slots.items() if count)
        self.slots[part_id] -= 1
        self.events.append(TaskStarted(0.0, task_id, part_id, "c", 0))

    def next_event(self, timeout_s):
        return self.events.popleft() if self.events else None

    def release(self, release):
        return Released((f"{release.release_id}/{self.name}",), ())


@pytest.fixture(autouse=True)
def balance_at_every_turn(monkeypatch):
    monkeypatch.setattr(composite_fleet, "_BALANCE_S", 0.0)


@pytest.fixture
def gateways():
    return SlotKeeper("gateways")


@pytest.fixture
def nodes():
    return SlotKeeper("nodes", idle=2)


@pytest.fixture
def fleet(gateways, nodes):
    return CompositeFleet(gateways, [nodes])


def test_idle_nodes_get_what_they_can_do_and_gateways_the_rest(fleet, gateways, nodes):
    fleet.grant(Grant("g1", 10, None, 60))
    assert (nodes.slots.total(), gateways.slots.total()) == (2, 8)


def test_a_node_that_joins_late_gets_slots_that_wait_at_the_gateways(fleet, gateways, nodes):
    nodes.idle = 0
    fleet.grant(Grant("g1", 5, None, 60))
    nodes.idle = 3
    fleet.next_event(0.0)
    assert (nodes.slots.total(), gateways.slots.total()) == (3, 2)


def test_slots_of_a_node_that_left_wait_at_the_gateways(fleet, gateways, nodes):
    fleet.grant(Grant("g1", 5, None, 60))
    nodes.idle = 0
    fleet.next_event(0.0)
    assert (nodes.slots.total(), gateways.slots.total()) == (0, 5)


def test_tasks_are_reported_under_the_grant_the_strategy_made(fleet, gateways, nodes):
    fleet.grant(Grant("g3-7", 4, None, 60))
    gateways.start("t1")
    nodes.start("t2")
    assert {fleet.next_event(0.0).grant_id for _ in range(2)} == {"g3-7"}


def test_cancelling_a_round_reaches_started_tasks_of_every_fleet(fleet, gateways, nodes):
    fleet.grant(Grant("g1", 4, 0, 60))
    gateways.start("t1")
    nodes.start("t2")
    fleet.next_event(0.0), fleet.next_event(0.0)
    fleet.cancel("g1", running_too=True)
    assert gateways.slots.total() + nodes.slots.total() == 0
    assert set(gateways.cancelled.values()) | set(nodes.cancelled.values()) == {True}
    assert gateways.cancelled
    assert nodes.cancelled


def test_a_release_names_every_part_of_the_fleet_that_answered(fleet):
    assert fleet.release(Release("r1")).release_ids == ("r1/gateways", "r1/nodes")
