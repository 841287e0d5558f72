"""When devices are done with their tasks: a calendar of a second a slot (Brown, CACM 1988).

Ends of slots to come hang in lists, in no order; a slot's are sorted when the one before is over.
Those that fall into the slot that is open, and those beyond the ring, are in a heap beside it; it
is small, so most ends cost a few steps whatever their number. The first of all is always at hand.

An end is a time and a number: kind of the event, then of the task; their order is that of events.
"""

import math

from simulation.timeline.compilation import compiled
from simulation.timeline.layout import Memory, Record
from simulation.timeline.queues import TICKS_PER_S, heap_drop_first, heap_push, sort

NUMBER_BITS = 40
"""Of a task's number; the event's kind is above."""
END_SLOTS = 1 << 12
"""Of the ring, a bit more than an hour."""

_SLOT_BITS, _SEQUENCE_BITS = 20, NUMBER_BITS + 2
_SLOT_MASK, _RING_MASK = (1 << _SLOT_BITS) - 1, END_SLOTS - 1
_SEQUENCE_MASK = (1 << _SEQUENCE_BITS) - 1


def _put_end(s: Record, memory: Memory, at_s: float, sequence: int) -> None:
    """Note when a task ends, at a time on the grid and not in the past; there is room."""
    s.ends_to_come += 1
    tick = int(at_s * TICKS_PER_S)
    slot = tick >> _SLOT_BITS
    if s.end_slot < slot < s.end_slot + END_SLOTS and at_s > s.next_end_s:
        node = s.free_node
        if node > 0:
            s.free_node = memory.end_links[node]
        else:
            s.end_nodes += 1
            node = s.end_nodes
        place = slot & _RING_MASK
        memory.ends[node] = ((tick & _SLOT_MASK) << _SEQUENCE_BITS) | sequence
        memory.end_links[node] = memory.end_slots[place]
        memory.end_slots[place] = node
        s.ends_in_ring += 1
        return
    heap_push(memory.ends_apart, s.ends_apart, at_s, sequence)
    s.ends_apart += 1
    if at_s < s.next_end_s or (at_s == s.next_end_s and sequence < s.next_end):
        s.next_end_s, s.next_end, s.next_end_is_apart = at_s, sequence, 1


def _open_end_slot(s: Record, memory: Memory) -> None:
    """Go on to the next slot: its ends are ready, in order."""
    s.end_slot += 1
    place = s.end_slot & _RING_MASK
    node, count = int(memory.end_slots[place]), 0
    memory.end_slots[place] = 0
    while node > 0:
        memory.ends_spare[count] = memory.ends[node]
        count += 1
        after = memory.end_links[node]
        memory.end_links[node] = s.free_node
        s.free_node = node
        node = after
    if count > 0:
        sort(memory.ends_spare, memory.ends_ready, memory.tally, count, _SLOT_BITS + _SEQUENCE_BITS)
    s.ends_in_ring -= count
    s.ends_ready, s.ends_taken = count, 0


def _drop_first_end(s: Record, memory: Memory) -> None:
    """Remove it, and find the next."""
    if s.next_end_is_apart:
        heap_drop_first(memory.ends_apart, s.ends_apart)
        s.ends_apart -= 1
    else:
        s.ends_taken += 1
    s.ends_to_come -= 1
    s.next_end_s, s.next_end, s.next_end_is_apart = math.inf, 0, 1
    if s.ends_apart > 0:
        first = memory.ends_apart[0]
        s.next_end_s, s.next_end = first.at_s, first.sequence
    if s.ends_taken == s.ends_ready and s.ends_in_ring == 0:
        s.end_slot = max(s.end_slot, int(s.now_s))
    while s.ends_taken == s.ends_ready and s.ends_in_ring > 0 and s.end_slot + 1 <= s.next_end_s:
        open_end_slot(s, memory)
    if s.ends_taken < s.ends_ready:
        end = memory.ends_ready[s.ends_taken]
        at_s = float(s.end_slot) + float(end >> _SEQUENCE_BITS) / TICKS_PER_S
        sequence = end & _SEQUENCE_MASK
        if at_s < s.next_end_s or (at_s == s.next_end_s and sequence < s.next_end):
            s.next_end_s, s.next_end, s.next_end_is_apart = at_s, sequence, 0


open_end_slot = compiled(_open_end_slot)
put_end = compiled(_put_end)
drop_first_end = compiled(_drop_first_end)
