"""Compiled queues: heaps of what is due, and buckets of check-ins further ahead.

A client has at most one check-in to come, so buckets are lists through the clients themselves. The
check-ins of the bucket that has been reached are in a heap, with those that fall into it later. A
bucket also holds check-ins of later rounds of the ring; they stay until theirs comes.
"""

import numpy as np
from numpy.typing import NDArray

from simulation.timeline.compilation import compiled
from simulation.timeline.layout import Record


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
    """Remove the first of ``size`` entries."""
    last = size - 1
    at_s, sequence = heap[last].at_s, heap[last].sequence
    place = 0
    while True:
        below = 2 * place + 1
        if below >= last:
            break
        other = below + 1
        if other < last and (
            heap[other].at_s < heap[below].at_s
            or (
                heap[other].at_s == heap[below].at_s and heap[other].sequence < heap[below].sequence
            )
        ):
            below = other
        entry = heap[below]
        if entry.at_s > at_s or (entry.at_s == at_s and entry.sequence > sequence):
            break
        heap[place].at_s, heap[place].sequence = entry.at_s, entry.sequence
        place = below
    heap[place].at_s, heap[place].sequence = at_s, sequence


def _schedule(
    s: Record,
    clients: NDArray[np.void],
    first_of_bucket: NDArray[np.int32],
    due: NDArray[np.void],
    client: int,
    at_s: float,
) -> None:
    """Note a client's next check-in."""
    bucket = int(at_s * s.buckets_per_s)
    if bucket <= s.bucket:
        heap_push(due, s.due, at_s, client)
        s.due += 1
        return
    place = bucket & (len(first_of_bucket) - 1)
    clients[client].at_s = at_s
    clients[client].following = first_of_bucket[place]
    first_of_bucket[place] = client
    s.waiting += 1


def _open_bucket(
    s: Record, clients: NDArray[np.void], first_of_bucket: NDArray[np.int32], due: NDArray[np.void]
) -> bool:
    """Move the next bucket's check-ins to the heap; False if that has no room, to be repeated."""
    bucket = s.bucket + 1
    place = bucket & (len(first_of_bucket) - 1)
    client = first_of_bucket[place]
    first_of_bucket[place] = -1
    kept = -1
    while client >= 0:
        entry = clients[client]
        following = entry.following
        if int(entry.at_s * s.buckets_per_s) == bucket:
            if s.due + 1 >= len(due):
                first_of_bucket[place] = client
                while kept >= 0:
                    after = clients[kept].following
                    clients[kept].following = first_of_bucket[place]
                    first_of_bucket[place] = kept
                    kept = after
                return False
            heap_push(due, s.due, entry.at_s, client)
            s.due += 1
            s.waiting -= 1
        else:
            entry.following = kept
            kept = client
        client = following
    first_of_bucket[place] = kept
    s.bucket = bucket
    return True


def _forget_before(
    counts: NDArray[np.int64],
    sightings: NDArray[np.void],
    clients: NDArray[np.void],
    then_s: float,
) -> None:
    """See `server.gateway.recent_devices.RecentDevices.forget_before`."""
    first, beyond = counts[1], counts[2]
    while first < beyond and sightings[first].seen_s < then_s:
        client = clients[sightings[first].client]
        if client.seen_times > 0 and client.seen_s == sightings[first].seen_s:
            client.seen_times = 0
            counts[0] -= 1
        first += 1
    counts[1] = first


def _forget_eligible_before(
    counts: NDArray[np.int64],
    sightings: NDArray[np.void],
    eligible_s: NDArray[np.float64],
    then_s: float,
) -> None:
    """The same of devices that were eligible."""
    first, beyond = counts[1], counts[2]
    while first < beyond and sightings[first].seen_s < then_s:
        client = sightings[first].client
        if eligible_s[client] == sightings[first].seen_s:
            eligible_s[client] = -1.0
            counts[0] -= 1
        first += 1
    counts[1] = first


def _note_sighting(
    counts: NDArray[np.int64], sightings: NDArray[np.void], client: int, now_s: float
) -> None:
    """Add a sighting; there is room."""
    sightings[counts[2]].seen_s, sightings[counts[2]].client = now_s, client
    counts[2] += 1


heap_push = compiled(_heap_push)
heap_drop_first = compiled(_heap_drop_first)
schedule = compiled(_schedule, heap_push=heap_push)
open_bucket = compiled(_open_bucket, heap_push=heap_push)
forget_before = compiled(_forget_before)
forget_eligible_before = compiled(_forget_eligible_before)
note_sighting = compiled(_note_sighting)
