"""Compiled `server.gateway.recent_devices.RecentDevices`: who was seen lately, and how often.

Sightings are numbered; a ring holds the time of each that may still count. A client knows its last.
One that is superseded by a later one of its client has a bit set, so that forgetting reads times
and bits in order, and looks up no client; a client that is forgotten is found to be so when it is
next asked for.

Times are the lower 32 bits of their ticks, which tell them from the one before: sightings are in
order, and between two that are further apart stand some that are of nobody.
"""

import numpy as np
from numpy.typing import NDArray

from simulation.timeline.compilation import compiled
from simulation.timeline.layout import Memory, Record
from simulation.timeline.queues import TICKS_PER_S

SWEEP_EVERY = 1 << 31
"""Sightings after which forgotten clients are marked as such: numbers of 32 bits repeat."""

MOST_BETWEEN = 16
"""Sightings of nobody in a row; beyond, more time between two makes no difference."""
LONGEST_MEMORY_S = (MOST_BETWEEN - 1) * 4095.0

_WORD = (1 << 32) - 1
_BYTE_BITS = np.array([1 << bit for bit in range(8)], np.uint8)


def _times_seen(s: Record, client: Record) -> int:
    """How often a client was seen; 0 when it is not recent."""
    age = (s.seen[2] - np.int64(client.sighting)) & _WORD
    return int(client.seen_times) if age <= s.seen[2] - s.seen[1] else 0


def _see(s: Record, memory: Memory, client: Record) -> None:
    """Note a check-in; there is room."""
    times = times_seen(s, client)
    if times == 0:
        s.seen[0] += 1
    else:
        at = np.int64(client.sighting) & (len(memory.seen) - 1)
        memory.superseded[at >> 3] |= _BYTE_BITS[at & 7]
    client.seen_times = times + 1
    tick = int(s.now_s * TICKS_PER_S)
    if s.seen[1] == s.seen[2]:
        s.seen_first_tick = s.seen_last_tick = tick
    too_long = tick - s.seen_last_tick - (MOST_BETWEEN - 1) * _WORD
    if too_long > 0:
        # Nobody seen before is remembered so long; the lower bits stay as they are noted.
        s.seen_first_tick += too_long & ~_WORD
        s.seen_last_tick += too_long & ~_WORD
    while tick - s.seen_last_tick > _WORD:
        append(s, memory, s.seen_last_tick + _WORD)
        at = (s.seen[2] - 1) & (len(memory.seen) - 1)
        memory.superseded[at >> 3] |= _BYTE_BITS[at & 7]
    client.sighting = np.uint32(s.seen[2] & _WORD)
    append(s, memory, tick)


def _append(s: Record, memory: Memory, tick: int) -> None:
    at = s.seen[2] & (len(memory.seen) - 1)
    memory.seen[at] = np.uint32(tick & _WORD)
    memory.superseded[at >> 3] &= ~_BYTE_BITS[at & 7]
    s.seen[2] += 1
    s.seen_last_tick = tick


def _forget_before(s: Record, memory: Memory, then_s: float) -> None:
    """Forget clients last seen before then, at most `LONGEST_MEMORY_S` ago."""
    mask = len(memory.seen) - 1
    first, beyond, tick = s.seen[1], s.seen[2], s.seen_first_tick
    while first < beyond and float(tick) / TICKS_PER_S < then_s:
        at = first & mask
        if (memory.superseded[at >> 3] & _BYTE_BITS[at & 7]) == 0:
            s.seen[0] -= 1
        first += 1
        if first < beyond:
            tick += (np.int64(memory.seen[first & mask]) - np.int64(memory.seen[at])) & _WORD
    s.seen[1], s.seen_first_tick = first, tick


def _forget_eligible_before(
    counts: NDArray[np.int64],
    sightings: NDArray[np.void],
    eligible_s: NDArray[np.float64],
    then_s: float,
) -> None:
    """See `server.gateway.recent_devices.RecentDevices.forget_before`."""
    first, beyond = counts[1], counts[2]
    while first < beyond and sightings[first].seen_s < then_s:
        client = sightings[first].client
        if eligible_s[client] == sightings[first].seen_s:
            eligible_s[client] = -1.0
            counts[0] -= 1
        first += 1
    counts[1] = first


def _note_eligible(
    counts: NDArray[np.int64], sightings: NDArray[np.void], client: int, now_s: float
) -> None:
    """Add a sighting; there is room."""
    sightings[counts[2]].seen_s, sightings[counts[2]].client = now_s, client
    counts[2] += 1


def _sweep(state: NDArray[np.void], memory: Memory) -> None:
    """Mark all clients that are forgotten."""
    s = state[0]
    for number in range(len(memory.clients)):
        client = memory.clients[number]
        client.seen_times = times_seen(s, client)
    s.sweep_at = s.seen[2] + SWEEP_EVERY


times_seen = compiled(_times_seen)
append = compiled(_append)
see = compiled(_see)
forget_before = compiled(_forget_before)
forget_eligible_before = compiled(_forget_eligible_before)
note_eligible = compiled(_note_eligible)
