"""Conditions imposed on an identity of a fleet: its speed, its links, and when it is there at all.

A host has the processor and the network of a server; a phone has not, and is not always there. With
these conditions an identity takes as long as a phone would and comes and goes like one, without
using the processor for it. Nothing here is active unless a fleet is started with a file of
conditions (``--conditions``); a device of its own never is.
"""

import json
import math
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from device_runtime.errors import FlintError

MAX_FILE_BYTES = 64 * 2**20
_EPOCH_POLL_S = 0.2
_KEYS = frozenset({"per_example_s", "down_bits_per_s", "up_bits_per_s", "windows"})
_WINDOW_KEYS = frozenset({"spans_s", "repeat_every_s"})


class InvalidImposedConditions(FlintError):
    """A file of imposed conditions that cannot be read, or imposes what no device can have."""

    code = "FLN-1415"


@dataclass(frozen=True, slots=True)
class AvailabilityWindows:
    """When an identity is available, in seconds since the epoch of its fleet.

    Attributes:
        spans_s: ``[start, end)`` of each window, ascending, disjoint. The last may go beyond
            ``repeat_every_s``: it then goes on at the beginning of the next repeat.
        repeat_every_s: After so long the windows come again; None: never.
    """

    spans_s: tuple[tuple[float, float], ...]
    repeat_every_s: float | None = None

    def window(self, t_s: float) -> tuple[float, float]:
        """Start and end of the window open at ``t_s``, else of the next one, else infinities.

        Before the epoch no window is open.
        """
        if not self.spans_s:
            return math.inf, math.inf
        if t_s < 0:
            return self._first_at_epoch()
        period_s = self.repeat_every_s
        if period_s is None:
            at = bisect_right(self.spans_s, t_s, key=lambda span: span[1])
            return self.spans_s[at] if at < len(self.spans_s) else (math.inf, math.inf)
        phase_s = math.fmod(t_s, period_s)
        base_s = t_s - phase_s
        if phase_s < self.spans_s[-1][1] - period_s:
            at, base_s = len(self.spans_s) - 1, base_s - period_s
        else:
            at = bisect_right(self.spans_s, phase_s, key=lambda span: span[1])
            if at == len(self.spans_s):
                at, base_s = 0, base_s + period_s
        start_s, end_s = self.spans_s[at]
        return start_s + base_s, end_s + base_s

    def _first_at_epoch(self) -> tuple[float, float]:
        start_s, end_s = self.window(0.0)
        return max(start_s, 0.0), end_s


@dataclass(frozen=True, slots=True)
class ImposedConditions:
    """What one identity is to be like. None: as the host is.

    Attributes:
        per_example_s: Seconds of training for one example in one epoch.
        down_bits_per_s: Speed of its link from the gateway.
        up_bits_per_s: Speed of its link to the gateway.
        windows: When it is available.
    """

    per_example_s: float | None = None
    down_bits_per_s: float | None = None
    up_bits_per_s: float | None = None
    windows: AvailabilityWindows | None = None

    def window(self, t_s: float) -> tuple[float, float]:
        """`AvailabilityWindows.window`; from the epoch on without end if there are no windows."""
        return (0.0, math.inf) if self.windows is None else self.windows.window(t_s)

    def download_s(self, size_bytes: int) -> float:
        """Seconds a download takes; 0 if no speed is imposed."""
        return 0.0 if self.down_bits_per_s is None else size_bytes * 8.0 / self.down_bits_per_s

    def train_s(self, examples: int, local_epochs: int) -> float:
        """Seconds a training takes: ``t * E * |D_k|`` (FLINT, section 3.4)."""
        return 0.0 if self.per_example_s is None else self.per_example_s * local_epochs * examples

    def upload_s(self, size_bytes: int) -> float:
        """Seconds an upload takes; 0 if no speed is imposed."""
        return 0.0 if self.up_bits_per_s is None else size_bytes * 8.0 / self.up_bits_per_s


class Epoch:
    """The moment windows count from, told by a file that may appear later than the devices start.

    Until it is there, no device of the fleet asks for work: all of them begin together.

    Args:
        path: A file with the epoch as unix seconds in text.
        monotonic: Clock between two looks at the file.
    """

    def __init__(self, path: Path, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._monotonic = monotonic
        self._unix_s: float | None = None
        self._look_again_s = -math.inf

    @property
    def poll_s(self) -> float:
        """How often it is worth asking."""
        return _EPOCH_POLL_S

    def unix_s(self) -> float | None:
        """The epoch, or None as long as nobody has set it.

        Raises:
            InvalidImposedConditions: If the file holds something else.
        """
        if self._unix_s is None and self._monotonic() >= self._look_again_s:
            self._look_again_s = self._monotonic() + _EPOCH_POLL_S / 2
            self._unix_s = _read_epoch(self._path)
        return self._unix_s


def write_epoch(path: Path, unix_s: float) -> None:
    """Set the epoch of a fleet; its processes see either none or the whole of it."""
    draft = path.with_suffix(".new")
    draft.write_text(repr(float(unix_s)))
    draft.replace(path)


def write_conditions(path: Path, devices: Mapping[str, ImposedConditions]) -> None:
    """Write the conditions of a fleet's identities, by the name of their folder.

    Raises:
        InvalidImposedConditions: If the file would be larger than a fleet process reads.
    """
    text = json.dumps({"devices": {name: _as_json(found) for name, found in devices.items()}})
    if len(text) > MAX_FILE_BYTES:
        raise InvalidImposedConditions(
            f"conditions of {len(devices)} devices take {len(text) >> 20} MiB, more than the "
            f"{MAX_FILE_BYTES >> 20} a fleet reads; run fewer devices, or give shorter traces"
        )
    path.write_text(text)


def read_conditions(path: Path) -> dict[str, ImposedConditions]:
    """Read what `write_conditions` wrote.

    Raises:
        InvalidImposedConditions: If the file cannot be read, or a value is none a device can have;
            names the device.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidImposedConditions(
            f"cannot read the conditions in {path} ({error.strerror}); give the file that "
            "`flint device fleet` wrote"
        ) from error
    if len(data) > MAX_FILE_BYTES:
        raise InvalidImposedConditions(
            f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB; run fewer devices, or shorten "
            "their windows"
        )
    try:
        devices = json.loads(data)["devices"].items()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidImposedConditions(
            f"{path} does not hold conditions of devices; write it as "
            '{"devices": {FOLDER: {"per_example_s": 0.01}}}'
        ) from error
    return {name: _from_json(found, f"{path}: device {name}") for name, found in devices}


def _as_json(conditions: ImposedConditions) -> dict[str, Any]:
    found: dict[str, Any] = {
        "per_example_s": conditions.per_example_s,
        "down_bits_per_s": conditions.down_bits_per_s,
        "up_bits_per_s": conditions.up_bits_per_s,
    }
    if conditions.windows is not None:
        found["windows"] = {
            "spans_s": [list(span) for span in conditions.windows.spans_s],
            "repeat_every_s": conditions.windows.repeat_every_s,
        }
    return found


def _from_json(found: object, where: str) -> ImposedConditions:
    if not isinstance(found, dict) or not found.keys() <= _KEYS:
        raise InvalidImposedConditions(
            f"{where} has no conditions a device can be given; the keys are "
            f"{', '.join(sorted(_KEYS))}"
        )
    windows = found.get("windows")
    return ImposedConditions(
        per_example_s=_positive(found, "per_example_s", where),
        down_bits_per_s=_positive(found, "down_bits_per_s", where),
        up_bits_per_s=_positive(found, "up_bits_per_s", where),
        windows=None if windows is None else _windows(windows, f"{where}: windows"),
    )


def _windows(found: object, where: str) -> AvailabilityWindows:
    if not isinstance(found, dict) or not found.keys() <= _WINDOW_KEYS or "spans_s" not in found:
        raise InvalidImposedConditions(
            f"{where} is no set of windows; give spans_s, and repeat_every_s if they come again"
        )
    repeat_every_s = _positive(found, "repeat_every_s", where)
    spans = found["spans_s"]
    if not isinstance(spans, list) or not all(
        isinstance(span, list) and len(span) == 2 and all(map(_is_number, span)) for span in spans
    ):
        raise InvalidImposedConditions(f"{where}: spans_s is no list of [start, end] in seconds")
    _check_order(spans, repeat_every_s, where)
    return AvailabilityWindows(
        tuple((float(start_s), float(end_s)) for start_s, end_s in spans), repeat_every_s
    )


def _check_order(
    spans: Sequence[Sequence[float]], repeat_every_s: float | None, where: str
) -> None:
    before_s = 0.0
    for start_s, end_s in spans:
        if not before_s <= start_s < end_s:
            raise InvalidImposedConditions(
                f"{where}: the window from {start_s} to {end_s} s does not follow the one before "
                "it; give windows in order, none overlapping another, from 0 on"
            )
        before_s = end_s
    if repeat_every_s is None or not spans:
        return
    if spans[-1][0] >= repeat_every_s or spans[-1][1] > repeat_every_s + spans[0][0]:
        raise InvalidImposedConditions(
            f"{where}: the window from {spans[-1][0]} to {spans[-1][1]} s does not fit into "
            f"repeat_every_s = {repeat_every_s}; give a longer period"
        )


def _positive(found: Mapping[str, object], key: str, where: str) -> float | None:
    value = found.get(key)
    if value is None:
        return None
    if not _is_number(value) or value <= 0:
        raise InvalidImposedConditions(f"{where}: {key} is {value!r}; give a number above 0")
    return float(value)


def _is_number(value: object) -> TypeGuard[int | float]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value)


def _read_epoch(path: Path) -> float | None:
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    try:
        unix_s = float(text)
    except ValueError:
        unix_s = math.nan
    if not math.isfinite(unix_s):
        raise InvalidImposedConditions(
            f"{path} holds {text[:40]!r} and no moment; write the epoch as unix seconds"
        )
    return unix_s
