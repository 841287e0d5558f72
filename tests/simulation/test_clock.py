"""The agenda: events in the order of time, kind and sequence, whatever order they came in."""

import math
import random

from hypothesis import given
from hypothesis import strategies as st

from simulation.checkpoint import decode_checkpoint, encode_checkpoint
from simulation.clock import Agenda, EventKind, Scheduled

EVENTS = st.lists(
    st.builds(
        Scheduled,
        st.integers(0, 5).map(lambda n: n / 4),
        st.sampled_from(EventKind),
        st.integers(0, 9),
    ),
    unique=True,
)


def drained(agenda: Agenda) -> list[Scheduled]:
    return [agenda.take() for _ in range(len(agenda))]


def test_at_equal_times_completed_comes_first_and_timers_last():
    agenda = Agenda()
    for kind in reversed(EventKind):
        agenda.add(5.0, kind, 1)
    names = [event.kind.name for event in drained(agenda)]
    assert names == ["COMPLETED", "FAILED", "EXPIRED", "LEFT", "ARRIVED", "TIMER"]


@given(EVENTS, st.randoms())
def test_the_order_of_insertion_does_not_matter(events, chance: random.Random):
    shuffled = events.copy()
    chance.shuffle(shuffled)
    added = Agenda(shuffled[::2])
    for event in shuffled[1::2]:
        added.add(*event)
    assert drained(added) == drained(Agenda(events)) == sorted(events)


@given(EVENTS, st.integers(0, 20))
def test_a_restored_agenda_goes_on_as_the_first(events, taken):
    agenda = Agenda(events)
    for _ in range(min(taken, len(events))):
        agenda.take()
    kept = decode_checkpoint("r", encode_checkpoint("r", {"agenda": agenda.state()}))
    again = Agenda.restored(kept["agenda"])
    assert again.next_s() == agenda.next_s()
    assert drained(again) == drained(agenda)


def test_an_empty_agenda_has_its_next_event_never():
    agenda = Agenda([Scheduled(1.0, EventKind.LEFT, 3)])
    agenda.clear()
    assert agenda.next_s() == math.inf
    assert drained(Agenda.restored(agenda.state())) == []
