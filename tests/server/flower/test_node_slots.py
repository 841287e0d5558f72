import pytest

from server.coordination.tasks import Grant
from server.flower.node_slots import NodeSlots
from server.job import Selection


def grant(grant_id: str, count: int) -> Grant:
    return Grant(grant_id, count, None, 60.0)


def nodes_of(pairs: list[tuple[Grant, int]]) -> list[int]:
    return [node_id for _, node_id in pairs]


@pytest.fixture
def slots() -> NodeSlots:
    slots = NodeSlots(Selection(name="arrival"), seed=7)
    slots.note_members([1, 2, 3])
    return slots


def test_without_nodes_there_is_no_capacity():
    assert NodeSlots(Selection(), 0).capacity() == 0


def test_capacity_is_idle_nodes_less_open_slots(slots):
    slots.add(grant("g", 2))
    assert slots.capacity() == 1
    slots.take()
    assert slots.capacity() == 1
    slots.free_node(1)
    assert slots.capacity() == 2


def test_slots_go_to_those_idle_longest(slots):
    slots.add(grant("g", 2))
    assert nodes_of(slots.take()) == [1, 2]
    slots.free_node(2)
    slots.free_node(1)
    slots.add(grant("h", 3))
    assert nodes_of(slots.take()) == [3, 2, 1]


def test_uniform_selection_draws_without_looking_at_the_line():
    first = []
    for seed in range(300):
        slots = NodeSlots(Selection(name="uniform"), seed)
        slots.note_members([1, 2, 3])
        slots.add(grant("g", 1))
        first += nodes_of(slots.take())
    assert all(70 < first.count(node_id) < 130 for node_id in (1, 2, 3))


def test_looking_when_nothing_can_be_taken_changes_no_draw():
    def drawn(looks: int) -> list[int]:
        slots = NodeSlots(Selection(name="uniform"), seed=7)
        slots.note_members(range(50))
        for _ in range(looks):
            assert slots.take() == []
        slots.add(grant("g", 5))
        return nodes_of(slots.take())

    assert drawn(0) == drawn(3)


def test_a_node_never_has_two_tasks(slots):
    slots.add(grant("g", 10))
    assert nodes_of(slots.take()) == [1, 2, 3]
    assert slots.take() == []
    slots.free_node(2)
    assert nodes_of(slots.take()) == [2]


def test_a_node_that_went_away_and_came_back_busy_stays_busy(slots):
    slots.add(grant("g", 1))
    slots.take()
    slots.note_members([2, 3])
    slots.note_members([1, 2, 3])
    assert slots.capacity() == 2


def test_slots_without_a_node_are_given_back_newest_first(slots):
    slots.add(grant("old", 2))
    slots.add(grant("new", 3))
    slots.note_members([1])
    assert slots.give_back() == {"new": 3, "old": 1}
    assert nodes_of(slots.take()) == [1]


def test_slots_with_nodes_are_kept(slots):
    slots.add(grant("g", 3))
    assert slots.give_back() == {}


def test_a_cancelled_grant_stays_closed_even_if_a_slot_comes_back(slots):
    slots.add(grant("g", 1))
    ((taken, node_id),) = slots.take()
    slots.cancel("g")
    slots.free_node(node_id)
    slots.return_slot(taken)
    assert slots.take() == []


def test_a_slot_that_could_not_be_used_is_open_again(slots):
    slots.add(grant("g", 1))
    ((taken, node_id),) = slots.take()
    slots.lose_node(node_id)
    slots.return_slot(taken)
    assert nodes_of(slots.take()) == [2]


def test_cancelled_grants_are_remembered_up_to_a_number(slots, monkeypatch):
    monkeypatch.setattr("server.flower.node_slots._REMEMBERED_CANCELS", 5)
    for number in range(50):
        slots.add(grant(f"g{number}", 1))
        slots.cancel(f"g{number}")
    assert list(slots._cancelled) == [f"g{number}" for number in range(45, 50)]
    assert slots.take() == []
