"""Fetching ahead: what the engine will look up for check-ins that come next is on its way already.

A client's record, its device, that device's windows: each is somewhere else in gigabytes, and each
look takes a hundred nanoseconds or more, one after the other, if nothing is known before. The
check-ins of an open slot are in order, so what those some events later need is fetched now, and
many fetches are under way at a time. Nothing depends on it but time.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from simulation.timeline.compilation import compiled
from simulation.timeline.layout import LANES, Memory, Record, Traces
from simulation.timeline.queues import client_of

BLOCK = 2
"""Check-ins fetched for in a row. With 16 an event took a third longer: few fetches fit at once."""
FIRST_AHEAD = LANES
"""A client's record is wanted first, when waits are drawn for so many check-ins."""
_SECOND_AHEAD, _THIRD_AHEAD = 32, 16
"""Events between a stage and the next: some 50 ns each, against a few hundred for a look."""

_FEW_TASKS = 1 << 12
"""Of `STATE`'s ``task_share``: fewer than one check-in in 16 gets a task, and needs more of it."""

_Of = Any
"""Something of Numba's or LLVM's, which are not typed."""


def _prefetching(_context: _Of, array: _Of, _index: _Of) -> tuple[_Of, Callable[..., _Of]]:
    """Ask for the cache line of an array's element, and do not wait for it."""

    def generate(context: _Of, builder: _Of, signature: _Of, arguments: _Of) -> _Of:
        made = context.make_array(signature.args[0])(context, builder, arguments[0])
        offset = builder.mul(arguments[1], made.itemsize)
        address = builder.add(builder.ptrtoint(made.data, offset.type), offset)
        byte, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        read, keep, data = flag(0), flag(3), flag(1)
        builder.call(function, [builder.inttoptr(address, byte), read, keep, data])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


prefetch: _Of = intrinsic(_prefetching)


def _look_ahead(s: Record, traces: Traces, memory: Memory, at: int) -> None:
    """Fetch for a block of check-ins in each stage, as far ahead of the one at ``at`` as it is."""
    fetch_clients(s, traces, memory, at + FIRST_AHEAD, at + FIRST_AHEAD + BLOCK)
    fetch_devices(s, traces, memory, at + _SECOND_AHEAD, at + _SECOND_AHEAD + BLOCK)
    fetch_windows(s, traces, memory, at + _THIRD_AHEAD, at + _THIRD_AHEAD + BLOCK)


def _look_at_first(s: Record, traces: Traces, memory: Memory) -> None:
    """Fetch for the first check-ins of a slot that has been opened."""
    fetch_clients(s, traces, memory, 0, FIRST_AHEAD)
    fetch_devices(s, traces, memory, 0, _SECOND_AHEAD)
    fetch_windows(s, traces, memory, 0, _THIRD_AHEAD)


def _fetch_clients(s: Record, traces: Traces, memory: Memory, first: int, beyond: int) -> None:
    for at in range(first, min(beyond, s.ready)):
        number = client_of(memory.ready[at])
        prefetch(memory.clients, number)
        prefetch(traces.device, number)
        if len(memory.eligible_s) > 0:
            prefetch(memory.eligible_s, number)
        if len(memory.participated_s) > 0:
            prefetch(memory.participated_s, number)


def _fetch_devices(s: Record, traces: Traces, memory: Memory, first: int, beyond: int) -> None:
    for at in range(first, min(beyond, s.ready)):
        number = client_of(memory.ready[at])
        device = traces.device[number]
        prefetch(traces.offsets, device)
        if len(traces.repeat_s) > 1:
            prefetch(traces.repeat_s, device)
        if s.task_share > _FEW_TASKS:
            prefetch(traces.records, number)
            prefetch(traces.device_model, number)
            prefetch(traces.down_link, number)
            prefetch(traces.up_link, number)
        sighting = memory.clients[number].sighting
        prefetch(memory.superseded, (sighting & (len(memory.seen) - 1)) >> 3)


def _fetch_windows(s: Record, traces: Traces, memory: Memory, first: int, beyond: int) -> None:
    for at in range(first, min(beyond, s.ready)):
        device = traces.device[client_of(memory.ready[at])]
        window = min(traces.offsets[device], len(traces.end_s) - 1)
        prefetch(traces.start_s, window)
        prefetch(traces.end_s, window)


def _look_ahead_in_turn(traces: Traces, number: int) -> None:
    """Fetch for the clients after this one, which are asked in the order of their numbers."""
    if number + _SECOND_AHEAD < len(traces.device):
        prefetch(traces.offsets, traces.device[number + _SECOND_AHEAD])
    if number + _THIRD_AHEAD < len(traces.device):
        first = min(traces.offsets[traces.device[number + _THIRD_AHEAD]], len(traces.end_s) - 1)
        prefetch(traces.start_s, first)
        prefetch(traces.end_s, first)


fetch_clients = compiled(_fetch_clients)
fetch_devices = compiled(_fetch_devices)
fetch_windows = compiled(_fetch_windows)
look_ahead = compiled(_look_ahead)
look_at_first = compiled(_look_at_first)
look_ahead_in_turn = compiled(_look_ahead_in_turn)
