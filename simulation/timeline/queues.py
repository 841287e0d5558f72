"""Compiled queues: a heap of tasks, and check-ins to come, in slots of a ring.

Slots are of 64 s. One that is still to come holds its check-ins in no order, in chunks of memory
that fill one after the other, so that noting one touches what the last ones touched. When a slot is
reached, its check-ins are sorted: so it is known well ahead who comes next, and what the engine
will look up can be fetched from memory meanwhile (`simulation.timeline.look_ahead`). What falls
into the slot that is open goes to a small heap beside it.

A check-in is one number: its tick within the slot, then its client; their order is that of events.
"""

import numpy as np
from numpy.typing import NDArray

from simulation.timeline.compilation import compiled
from simulation.timeline.layout import Memory, Record

TICKS_PER_S = 2.0**20
SLOT_BITS = 26
"""Ticks of a slot: 64 s."""
SLOTS = 1 << 12
"""Of the ring, three days; later check-ins wait apart and are looked through twice a turn."""
CLIENT_BITS = 31
CHUNK = 64
"""Words of a chunk: a link to the end of the chunk before, or to the next free one; check-ins."""
MOST_TALLY_BITS = 16
NOTHING = 1 << 60
"""Above every check-in."""

_SHORT = 24
_U, _ONE = np.uint64, np.uint64(1)
"""Of an index without sign, compiled code need not ask whether it counts from the end."""
_SLOT_MASK, _RING_MASK, _CHUNK_MASK = (1 << SLOT_BITS) - 1, SLOTS - 1, CHUNK - 1
_CLIENT_MASK = (1 << CLIENT_BITS) - 1


def _heap_push(heap: NDArray[np.void], size: int, at_s: float, sequence: int) -> None:
    """Add to a heap of ``size`` entries, ordered by time, then sequence."""
    place = size
    while place > 0:
        above = (place - 1) >> 1
        entry = heap[above]
        if entry.at_s < at_s or (entry.at_s == at_s and entry.sequence < sequence):
            break
        heap[place].at_s, heap[place].sequence = entry.at_s, entry.sequence
        place = above
    heap[place].at_s, heap[place].sequence = at_s, sequence


def _heap_drop_first(heap: NDArray[np.void], size: int) -> None:
    """Remove the first of ``size`` entries.

    The gap goes down to the end, to the earlier of two each time, and the last entry goes up from
    there: it belongs near the end, so few branches go another way than the processor expects.
    """
    last = _U(size) - _ONE
    at_s, sequence = heap[last].at_s, heap[last].sequence
    place, below = _U(0), _ONE
    while below < last:
        left, right = heap[below], heap[below + _ONE]  # the last entry is still there
        if right.at_s == left.at_s:  # seldom
            below += _U(right.sequence < left.sequence)
        else:
            below += _U(right.at_s < left.at_s)
        heap[place].at_s, heap[place].sequence = heap[below].at_s, heap[below].sequence
        place, below = below, (below << _ONE) + _ONE
    heap_push(heap, np.int64(place), at_s, sequence)  # type: ignore[arg-type]


def _key_push(heap: NDArray[np.int64], size: int, key: int) -> None:
    """Add to a heap of ``size`` numbers."""
    place = size
    while place > 0:
        above = (place - 1) >> 1
        if heap[above] < key:
            break
        heap[place] = heap[above]
        place = above
    heap[place] = key


def _key_drop_first(heap: NDArray[np.int64], size: int) -> None:
    """Remove the first of ``size`` numbers."""
    last = size - 1
    key, place = heap[last], 0
    while True:
        below = 2 * place + 1
        if below >= last:
            break
        if below + 1 < last and heap[below + 1] < heap[below]:
            below += 1
        if heap[below] > key:
            break
        heap[place] = heap[below]
        place = below
    heap[place] = key


def _schedule(s: Record, memory: Memory, client: int, at_s: float) -> None:
    """Note a client's next check-in, at a time on the grid."""
    tick = int(at_s * TICKS_PER_S)
    slot = tick >> SLOT_BITS
    key = ((tick & _SLOT_MASK) << CLIENT_BITS) | client
    if slot <= s.slot:
        key_push(memory.due, s.due, key)
        s.due += 1
        return
    s.waiting += 1
    if slot >= s.slot + SLOTS:
        memory.far[s.far].at_s, memory.far[s.far].sequence = at_s, client
        s.far += 1
        return
    put_into_slot(s, memory, slot & _RING_MASK, key)


def _put_into_slot(s: Record, memory: Memory, place: int, key: int) -> None:
    end = int(memory.slot_end[place])
    if end == 0 or (end & _CHUNK_MASK) == _CHUNK_MASK:
        chunk = s.free_chunk
        if chunk > 0:
            s.free_chunk = memory.chunks[chunk]
        else:
            chunk = s.chunks * CHUNK
            s.chunks += 1
        memory.chunks[chunk] = end
        end = chunk
    memory.chunks[end + 1] = key
    memory.slot_end[place] = end + 1


def _take_out_of_slot(s: Record, memory: Memory, place: int) -> int:
    """Move a slot's check-ins to ``spare``; returns how many."""
    end, count = int(memory.slot_end[place]), 0
    memory.slot_end[place] = 0
    while end > 0:
        chunk = end & ~_CHUNK_MASK
        while end > chunk:
            memory.spare[count] = memory.chunks[end]
            count += 1
            end -= 1
        end = memory.chunks[chunk]
        memory.chunks[chunk] = s.free_chunk
        s.free_chunk = chunk
    return count


def _bring_near(s: Record, memory: Memory) -> None:
    """Move far check-ins into those slots of the ring that have come within reach."""
    kept = 0
    for at in range(s.far):
        entry = memory.far[at]
        tick = int(entry.at_s * TICKS_PER_S)
        slot = tick >> SLOT_BITS
        if slot < s.slot + SLOTS:
            key = ((tick & _SLOT_MASK) << CLIENT_BITS) | entry.sequence
            put_into_slot(s, memory, slot & _RING_MASK, key)
        else:
            memory.far[kept].at_s, memory.far[kept].sequence = entry.at_s, entry.sequence
            kept += 1
    s.far = kept


def _sort(
    keys: NDArray[np.int64],
    in_order: NDArray[np.int64],
    tally: NDArray[np.int32],
    count: int,
    key_bits: int,
) -> None:
    """Sort so many numbers of so many bits into another array."""
    if count <= _SHORT:
        for at in range(count):
            key, place = keys[at], at
            while place > 0 and in_order[place - 1] > key:
                in_order[place] = in_order[place - 1]
                place -= 1
            in_order[place] = key
        return
    bits = 0
    while (1 << bits) < count and bits < MOST_TALLY_BITS:
        bits += 1
    shift = key_bits - bits
    tally[: (1 << bits) + 1] = 0
    for at in range(count):
        tally[(keys[at] >> shift) + 1] += 1
    for part in range(1 << bits):
        tally[part + 1] += tally[part]
    for at in range(count):
        part = keys[at] >> shift
        in_order[tally[part]] = keys[at]
        tally[part] += 1
    first = 0
    for part in range(1 << bits):
        beyond = tally[part]
        if beyond - first > _SHORT:
            sort_by_heap(in_order[first:beyond])
        else:
            for at in range(first + 1, beyond):
                key, place = in_order[at], at
                while place > first and in_order[place - 1] > key:
                    in_order[place] = in_order[place - 1]
                    place -= 1
                in_order[place] = key
        first = beyond


def _sort_by_heap(keys: NDArray[np.int64]) -> None:
    """Sort many numbers that are close to each other, such as check-ins at one moment."""
    count = len(keys)
    for size in range(count):
        key, place = keys[size], size  # a heap with the largest first
        while place > 0 and keys[(place - 1) >> 1] < key:
            keys[place] = keys[(place - 1) >> 1]
            place = (place - 1) >> 1
        keys[place] = key
    for last in range(count - 1, 0, -1):
        key, place = keys[last], 0
        keys[last] = keys[0]
        while 2 * place + 1 < last:
            below = 2 * place + 1
            if below + 1 < last and keys[below + 1] > keys[below]:
                below += 1
            if keys[below] < key:
                break
            keys[place] = keys[below]
            place = below
        keys[place] = key


def _open_slot(s: Record, memory: Memory) -> None:
    """Go on to the next slot: its check-ins are ready, in order."""
    s.slot += 1
    if (s.slot & (_RING_MASK >> 1)) == 0:
        bring_near(s, memory)
    count = take_out_of_slot(s, memory, s.slot & _RING_MASK)
    if count > 0:
        sort(memory.spare, memory.ready, memory.tally, count, SLOT_BITS + CLIENT_BITS)
    s.waiting -= count
    s.ready, s.taken = count, 0
    s.drawn_first = s.drawn_beyond = s.waits_first = s.waits_beyond = 0


def _first_check_in(s: Record, memory: Memory) -> int:
    """The next check-in of the slot that is open, or `NOTHING`."""
    key = NOTHING
    if s.taken < s.ready:
        key = memory.ready[s.taken]
    if s.due > 0:
        key = min(key, memory.due[0])
    return key


def _drop_first_check_in(s: Record, memory: Memory, key: int) -> bool:
    """Remove it; returns whether it is of those that were sorted."""
    if s.taken < s.ready and memory.ready[s.taken] == key:
        s.taken += 1
        return True
    key_drop_first(memory.due, s.due)
    s.due -= 1
    return False


def _slot_start_s(slot: int) -> float:
    return float(slot) * (2.0**SLOT_BITS / TICKS_PER_S)


def _check_in_s_of(s: Record, key: int) -> float:
    """When a check-in of the slot that is open is."""
    return slot_start_s(s.slot) + float(key >> CLIENT_BITS) / TICKS_PER_S


def _client_of(key: int) -> int:
    return key & _CLIENT_MASK


heap_push = compiled(_heap_push)
heap_drop_first = compiled(_heap_drop_first)
key_push = compiled(_key_push)
key_drop_first = compiled(_key_drop_first)
put_into_slot = compiled(_put_into_slot)
take_out_of_slot = compiled(_take_out_of_slot)
bring_near = compiled(_bring_near)
sort_by_heap = compiled(_sort_by_heap)
sort = compiled(_sort)
schedule = compiled(_schedule)
open_slot = compiled(_open_slot)
slot_start_s = compiled(_slot_start_s)
first_check_in = compiled(_first_check_in)
drop_first_check_in = compiled(_drop_first_check_in)
check_in_s_of = compiled(_check_in_s_of)
client_of = compiled(_client_of)
