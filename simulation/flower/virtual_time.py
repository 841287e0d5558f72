"""Virtual time for code that asks the system for it: Flower's strategies and the app itself.

Inside `virtual_time`, ``time.sleep`` moves a clock instead of waiting, and ``time.time``,
``monotonic`` and ``perf_counter`` read it, for callers in the thread that runs the app. Callers
in the standard library see the real time, so timeouts of locks, sockets and processes still work;
so do all other threads.
"""

import contextlib
import datetime as dt
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, Protocol

from flwr.supercore import date as flower_date

EPOCH_S = 1_767_571_200.0
"""Unix time of virtual second 0: Monday, 5 January 2026, 00:00 UTC (traces begin at midnight)."""

real_monotonic_s = time.monotonic
"""The clock on the wall, also inside `virtual_time`."""

_NS_PER_S = 1_000_000_000
_STDLIB = sysconfig.get_paths()["stdlib"]
_REAL_NOW = flower_date.now


class Clock(Protocol):
    """What the app's calls are answered from."""

    def now_s(self) -> float:
        """Virtual seconds since the run began."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let virtual time pass."""
        ...


class _Active:
    """The clock in use, and whose calls it answers."""

    clock: Clock | None = None
    thread_id: int = 0


def _clock_of_caller() -> Clock | None:
    """The clock, if the function two frames up is the app's, Flower's or a library of theirs."""
    if _Active.clock is None or threading.get_ident() != _Active.thread_id:
        return None
    source = sys._getframe(2).f_code.co_filename
    is_stdlib = source.startswith(_STDLIB) and "site-packages" not in source
    return None if is_stdlib or source.startswith("<frozen") else _Active.clock


def _sleep(seconds: float) -> None:
    clock = _clock_of_caller()
    if clock is None:
        _REAL["sleep"](seconds)
    elif seconds < 0:
        raise ValueError("sleep length must be non-negative")
    else:
        clock.sleep(float(seconds))


def _reader(name: str, origin_s: float, *, whole_ns: bool) -> Callable[[], float]:
    def read() -> float:
        clock = _clock_of_caller()
        if clock is None:
            value: float = _REAL[name]()
            return value
        seconds = origin_s + clock.now_s()
        return int(seconds * _NS_PER_S) if whole_ns else seconds

    return read


_NAMES = ("sleep", "time", "time_ns", "monotonic", "monotonic_ns", "perf_counter")
_REAL: dict[str, Callable[..., Any]] = {
    name: getattr(time, name) for name in (*_NAMES, "perf_counter_ns")
}
_VIRTUAL: dict[str, Callable[..., Any]] = {
    name: _sleep
    if name == "sleep"
    else _reader(name, EPOCH_S if name.startswith("time") else 0.0, whole_ns=name.endswith("_ns"))
    for name in _REAL
}


def _virtual_now() -> dt.datetime:
    """Flower's own ``now``: the time in messages, and what their age is measured by."""
    clock = _Active.clock
    if clock is None or threading.get_ident() != _Active.thread_id:
        return _REAL_NOW()
    return dt.datetime.fromtimestamp(EPOCH_S + clock.now_s(), tz=dt.UTC)


@contextlib.contextmanager
def virtual_time(clock: Clock) -> Iterator[None]:
    """Answer this thread's questions about time from ``clock``; all is put back afterwards.

    Modules of Flower that took ``sleep`` or ``now`` by name before are given the virtual ones.
    """
    if _Active.clock is not None:
        raise RuntimeError("one virtual clock at a time")
    replaced: list[tuple[ModuleType, str, object]] = []
    swaps = {id(_REAL[name]): _VIRTUAL[name] for name in _REAL} | {id(_REAL_NOW): _virtual_now}
    try:
        for module in (time, *_flower_modules()):
            for name, value in list(vars(module).items()):
                if id(value) in swaps:
                    replaced.append((module, name, value))
                    setattr(module, name, swaps[id(value)])
        _Active.clock, _Active.thread_id = clock, threading.get_ident()
        yield
    finally:
        _Active.clock = None
        for module, name, value in replaced:
            setattr(module, name, value)


@contextlib.contextmanager
def on_clock(clock: Clock) -> Iterator[None]:
    """Inside `virtual_time`: another clock for a while, a device's own."""
    before, _Active.clock = _Active.clock, clock
    try:
        yield
    finally:
        _Active.clock = before


def _flower_modules() -> list[ModuleType]:
    return [module for name, module in list(sys.modules.items()) if name.startswith("flwr.")]
