"""When each device is available: windows of time, found by binary search, optionally repeated."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from simulation.traces.spans import SpanRepairs, Spans

Floats = NDArray[np.float64]
NEVER_S = math.inf


@dataclass(frozen=True)
class AvailabilityTrace:
    """Windows ``[start_s, end_s)`` of every traced device, compressed by rows.

    Devices are numbered in order of their ids. Within a device, windows are sorted, disjoint and do
    not touch. Every question is answered by a search in the windows alone, so the answer depends
    on device and time, never on what was asked before. Times on the grid of `spans.to_grid` are
    exact however often the trace has repeated.

    Attributes:
        client_ids: Ids of the file, ascending, ``int64`` or ``large_string``.
        offsets: Windows of device ``i`` are ``offsets[i]`` to ``offsets[i + 1]``; ``(devices+1,)``.
        start_s: Shape ``(windows,)``.
        end_s: Shape ``(windows,)``; beyond ``period_s`` where a window goes on in the next repeat,
            infinite where a device is always available.
        period_s: Seconds after which a device's windows repeat, infinite if never; ``(devices,)``.
            One value in memory if they are all the same.
        device_model: Index into ``device_models`` by device, or None if the file does not say.
        device_models: Names, ascending.
        repairs: What was done to the file's rows.
    """

    client_ids: pa.Array
    offsets: NDArray[np.int32]
    start_s: Floats
    end_s: Floats
    period_s: Floats
    device_model: NDArray[np.int32] | None
    device_models: tuple[str, ...]
    repairs: SpanRepairs

    def __len__(self) -> int:
        """Number of devices, also of those without any window."""
        return len(self.offsets) - 1

    def client_id(self, device: int) -> str:
        """Id of a device as the file has it."""
        return str(self.client_ids[device].as_py())

    # ------------------------------------------------------------------ one device
    # Plain floats and a view on the arrays' memory: an event loop asks one at a time, where an
    # array operation would cost more than the search.

    @cached_property
    def _views(self) -> tuple[Sequence[int], Sequence[float], Sequence[float], Sequence[float]]:
        return (
            self.offsets.data,
            self.start_s.data,
            self.end_s.data,
            self.period_s.data,
        )

    def __getstate__(self) -> dict[str, Any]:
        """Leave the views out of pickles; they are made anew where they are needed."""
        return {name: value for name, value in vars(self).items() if name != "_views"}

    def window(self, device: int, t: float) -> tuple[float, float]:
        """Start and end of the window open at ``t``, else of the next one, else infinities.

        Args:
            t: Seconds since the beginning of the trace, not negative.
        """
        offsets, starts_s, ends_s, periods_s = self._views
        first, beyond = offsets[device], offsets[device + 1]
        if first == beyond:
            return NEVER_S, NEVER_S
        period_s = periods_s[device]
        if period_s == NEVER_S:
            at = bisect_right(ends_s, t, first, beyond)
            return (starts_s[at], ends_s[at]) if at < beyond else (NEVER_S, NEVER_S)
        phase_s = math.fmod(t, period_s)
        base_s = t - phase_s
        last_end_s = ends_s[beyond - 1]
        if last_end_s != NEVER_S and phase_s < last_end_s - period_s:
            base_s -= period_s
            at = beyond - 1
        else:
            at = bisect_right(ends_s, phase_s, first, beyond)
            if at == beyond:
                base_s += period_s
                at = first
        return starts_s[at] + base_s, ends_s[at] + base_s

    def next_available(self, device: int, t: float) -> float:
        """First moment from ``t`` on at which the device is available; ``t`` itself if it is.

        Infinite if there is none.
        """
        start_s, _ = self.window(device, t)
        return max(start_s, t)

    def window_end(self, device: int, t: float) -> float:
        """Until when the device stays available from ``t`` on; ``t`` itself if it is not."""
        start_s, end_s = self.window(device, t)
        return end_s if start_s <= t else t

    def is_available(self, device: int, t: float) -> bool:
        """Whether ``t`` is in a window."""
        return self.window(device, t)[0] <= t

    # ------------------------------------------------------------------ many devices

    def windows(self, devices: ArrayLike, t: ArrayLike) -> tuple[Floats, Floats]:
        """`window` of many devices or times; shapes are broadcast."""
        device, time_s = np.broadcast_arrays(
            np.asarray(devices, dtype=np.int64), np.asarray(t, dtype=np.float64)
        )
        shape = device.shape
        device, time_s = device.ravel(), time_s.ravel()
        first, beyond = self.offsets[device], self.offsets[device + 1]
        some = first < beyond
        first, beyond, time_s = first[some], beyond[some], time_s[some]
        period_s = self.period_s[device[some]]
        repeats = np.isfinite(period_s)
        phase_s = np.where(repeats, np.fmod(time_s, np.where(repeats, period_s, 1.0)), time_s)
        base_s = np.where(repeats, time_s - phase_s, 0.0)
        step_s = np.where(repeats, period_s, 0.0)
        at = _first_above(self.end_s, phase_s, first, beyond)
        last_end_s = self.end_s[beyond - 1]
        carried = repeats & np.isfinite(last_end_s) & (phase_s < last_end_s - period_s)
        past = ~carried & (at == beyond)
        at = np.where(carried, beyond - 1, np.where(past, first, at))
        base_s += np.where(past, step_s, 0.0) - np.where(carried, step_s, 0.0)
        over = past & ~repeats
        starts_s = np.full(some.shape, NEVER_S)
        ends_s = np.full(some.shape, NEVER_S)
        starts_s[some] = np.where(over, NEVER_S, self.start_s[at] + base_s)
        ends_s[some] = np.where(over, NEVER_S, self.end_s[at] + base_s)
        return starts_s.reshape(shape), ends_s.reshape(shape)

    def next_available_many(self, devices: ArrayLike, t: ArrayLike) -> Floats:
        """`next_available` of many devices or times; shapes are broadcast."""
        return np.maximum(self.windows(devices, t)[0], np.asarray(t, dtype=np.float64))

    def window_end_many(self, devices: ArrayLike, t: ArrayLike) -> Floats:
        """`window_end` of many devices or times; shapes are broadcast."""
        start_s, end_s = self.windows(devices, t)
        return np.where(start_s <= np.asarray(t), end_s, np.asarray(t, dtype=np.float64))

    # ------------------------------------------------------------------ the whole trace

    @property
    def horizon_s(self) -> float:
        """End of the last window of any device, of its first repeat; 0 without windows."""
        within = np.minimum(self.end_s, np.repeat(self.period_s, np.diff(self.offsets)))
        return float(within.max(initial=0.0))

    def available_share(self) -> Floats:
        """Share of its time each device is available, over one repeat or up to the horizon."""
        observed_s = np.where(np.isfinite(self.period_s), self.period_s, self.horizon_s)
        open_s = np.minimum(self.end_s - self.start_s, np.repeat(observed_s, self.window_counts()))
        total_s = np.bincount(self._owner(), weights=open_s, minlength=len(self))
        return total_s / np.maximum(observed_s, 1.0 / 2**20)

    def window_counts(self) -> NDArray[np.int64]:
        """Windows of each device, shape ``(devices,)``."""
        return np.diff(self.offsets)

    def count_available(
        self, times_s: ArrayLike, clients_of_device: NDArray[np.int64] | None = None
    ) -> NDArray[np.int64]:
        """Number of devices available at each time, shape of ``times_s``.

        Args:
            clients_of_device: How often each device counts, shape ``(devices,)``; None: once.
        """
        times = np.asarray(times_s, dtype=np.float64)
        owner = self._owner()
        counts = np.ones(len(owner), np.int64)
        if clients_of_device is not None:
            counts = clients_of_device[owner]
        total = np.zeros(times.shape, dtype=np.int64)
        period_of_window_s = self.period_s[owner]
        for period_s in np.unique(period_of_window_s):
            chosen = period_of_window_s == period_s
            start_s, end_s, count = self.start_s[chosen], self.end_s[chosen], counts[chosen]
            phase_s = times
            if np.isfinite(period_s):
                phase_s = np.fmod(times, period_s)
                carried = np.isfinite(end_s) & (end_s > period_s)
                total += count[carried].sum()
                total -= _count_up_to(end_s[carried] - period_s, count[carried], phase_s)
            total += _count_up_to(start_s, count, phase_s)
            total -= _count_up_to(end_s, count, phase_s)
        return total

    def _owner(self) -> NDArray[np.int64]:
        return np.repeat(np.arange(len(self)), self.window_counts())


def trace_of_spans(
    client_ids: pa.Array,
    spans: Spans,
    period_s: Floats,
    repairs: SpanRepairs,
    *,
    device_model: NDArray[np.int32] | None = None,
    device_models: tuple[str, ...] = (),
) -> AvailabilityTrace:
    """Build a trace; windows at the end of a period are joined to ones at its beginning.

    Args:
        client_ids: Ids by device index, ascending.
        spans: In order, none beyond the device's period.
        period_s: On the grid and whole seconds, or infinite; shape ``(devices,)``.
    """
    count = len(client_ids)
    offsets = np.concatenate(([0], np.cumsum(np.bincount(spans.client, minlength=count))))
    start_s, end_s = spans.start_s.copy(), spans.end_s.copy()
    kept = np.ones(len(start_s), dtype=np.bool_)
    some = np.flatnonzero(offsets[1:] > offsets[:-1])
    first, last = offsets[some], offsets[some + 1] - 1
    seam = (start_s[first] == 0.0) & (end_s[last] == period_s[some])
    always = seam & (first == last)
    end_s[last[always]] = NEVER_S
    joined = seam & ~always
    end_s[last[joined]] += end_s[first[joined]]
    kept[first[joined]] = False
    windows = np.bincount(spans.client[kept], minlength=count)
    return AvailabilityTrace(
        client_ids=client_ids,
        offsets=np.concatenate(([0], np.cumsum(windows))).astype(np.int32),
        start_s=start_s[kept],
        end_s=end_s[kept],
        period_s=period_s,
        device_model=device_model,
        device_models=device_models,
        repairs=repairs,
    )


def _count_up_to(
    moments_s: Floats, counts: NDArray[np.int64], times_s: Floats
) -> NDArray[np.int64]:
    """Sum of the counts of the moments that are not after each time, shape of ``times_s``."""
    order = np.argsort(moments_s, kind="stable")
    sums = np.concatenate(([0], np.cumsum(counts[order])))
    found: NDArray[np.int64] = sums[np.searchsorted(moments_s[order], times_s, side="right")]
    return found


def _first_above(
    sorted_values: Floats,
    x: Floats,
    first: NDArray[np.int64],
    beyond: NDArray[np.int64],
) -> NDArray[np.int64]:
    """First index in each ``[first, beyond)`` whose value is above ``x``; ``beyond`` if none is."""
    low, high = first.copy(), beyond.copy()
    while (open_ := low < high).any():
        middle = (low + high) >> 1
        # Searches that are over look at a value they ignore; it must exist.
        above = sorted_values[np.minimum(middle, len(sorted_values) - 1)] > x
        low = np.where(open_ & ~above, middle + 1, low)
        high = np.where(open_ & above, middle, high)
    return low
