"""Local time of many instants at once: IANA zones as tables of transitions, searched in one go."""

import datetime as dt
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from simulation.availability.criteria_file import is_time_zone
from simulation.availability.instants import UnusableLogColumn

Seconds = NDArray[np.float64]
Codes = NDArray[np.int16]

_DAY_S = 86_400
# Transitions are found between samples a week apart: no zone has had two within a week since 1970.
_FIRST_S = int(dt.datetime(1970, 1, 1, tzinfo=dt.UTC).timestamp())
_LAST_S = int(dt.datetime(2040, 1, 1, tzinfo=dt.UTC).timestamp())
_STEP_S = 7 * _DAY_S
# Misspelt zones are counted row by row; a column of something else is refused.
_MOST_UNKNOWN = 2000
# Zones share one sorted table: a zone's keys lie in a range of their own.
_KEYS_PER_ZONE = 2**36
_KEY_OFFSET = 2**35


@dataclass(slots=True)
class TimeZones:
    """Zones met so far, by code.

    Attributes:
        names: By code.
    """

    names: list[str] = field(default_factory=list)
    _codes: dict[str, int] = field(default_factory=dict)
    _key: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    _offset_s: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def code(self, name: str) -> int:
        """Code of a zone; -1 if the IANA database has none of this name.

        Raises:
            UnusableLogColumn: If thousands of names are none.
        """
        known = self._codes.get(name)
        if known is not None:
            return known
        if not is_time_zone(name):
            if len(self._codes) - len(self.names) >= _MOST_UNKNOWN:
                raise UnusableLogColumn(
                    f"the column of time zones holds more than {_MOST_UNKNOWN} names that are "
                    f"none, such as {name[:40]!r}; map the column of IANA names (columns: "
                    "{time_zone: NAME}), or give one time_zone for all rows"
                )
            self._codes[name] = -1
            return -1
        code = len(self.names)
        self.names.append(name)
        self._codes[name] = code
        instants_s, offsets_s = _transitions(ZoneInfo(name))
        instants_s[0] = -_KEY_OFFSET  # whatever is earlier has the first offset known
        self._key = np.concatenate((self._key, code * _KEYS_PER_ZONE + _KEY_OFFSET + instants_s))
        self._offset_s = np.concatenate((self._offset_s, offsets_s))
        return code

    def offset_s(self, zone: Codes, utc_s: Seconds) -> Seconds:
        """Local time minus UTC at each instant, shapes ``(instants,)``."""
        if len(self.names) == 1 and len(self._key) == 1:
            return np.full(len(utc_s), float(self._offset_s[0]))
        # Beyond the range of a zone's keys there is no transition to find.
        second = np.clip(np.floor(utc_s), -_KEY_OFFSET, _KEY_OFFSET - 1).astype(np.int64)
        key = zone.astype(np.int64) * _KEYS_PER_ZONE + _KEY_OFFSET + second
        at = np.searchsorted(self._key, key, side="right") - 1
        offset: Seconds = self._offset_s[at].astype(np.float64)
        return offset

    def utc_s(self, zone: Codes, local_s: Seconds, *, second_pass: bool = False) -> Seconds:
        """Instants of wall-clock times, shapes ``(instants,)``.

        Args:
            local_s: Seconds since 1970 on the local clock.
            second_pass: Take the later of the two instants at which a clock set back shows a time;
                else the earlier. A time that a clock set forward skips is read by the clock before
                (PEP 495 has both the same).
        """
        before_s = self.offset_s(zone, local_s - _DAY_S)
        after_s = self.offset_s(zone, local_s + _DAY_S)
        if np.array_equal(before_s, after_s):
            return local_s - before_s
        first, other = (after_s, before_s) if second_pass else (before_s, after_s)
        holds = self.offset_s(zone, local_s - first) == first
        other_holds = self.offset_s(zone, local_s - other) == other
        return local_s - np.where(holds, first, np.where(other_holds, other, before_s))


def _transitions(zone: ZoneInfo) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Instants from which an offset holds, and the offsets."""
    instants, offsets = [_FIRST_S], [_offset_at(zone, _FIRST_S)]
    for week_s in range(_FIRST_S, _LAST_S, _STEP_S):
        low, high = week_s, week_s + _STEP_S
        offset = _offset_at(zone, high)
        if offset == offsets[-1]:
            continue
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if _offset_at(zone, middle) == offsets[-1] else (low, middle)
        instants.append(high)
        offsets.append(offset)
    return np.array(instants, dtype=np.int64), np.array(offsets, dtype=np.int64)


def _offset_at(zone: ZoneInfo, utc_s: int) -> int:
    offset = dt.datetime.fromtimestamp(utc_s, tz=zone).utcoffset()
    return 0 if offset is None else round(offset.total_seconds())
