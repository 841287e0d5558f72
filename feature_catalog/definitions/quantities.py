"""Durations and sizes with their units, as YAML writes them: ``30d``, ``2MB``."""

import datetime as dt
import re

from feature_catalog.definitions.errors import refuse

MAX_DURATION = dt.timedelta(days=36_500)
MAX_BYTES = 2**50

_SECONDS = {"d": 86_400, "h": 3_600, "min": 60, "s": 1}
_UNIT_BYTES = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}
_DURATION = re.compile(r"([0-9]{1,10}) ?(d|h|min|s)")
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?(B|kB|MB|GB|KiB|MiB|GiB)")


def parse_duration(value: object, key: str) -> dt.timedelta:
    """A duration of whole seconds.

    Raises:
        InvalidDefinition: If it is not a number with a unit, or out of bounds.

    >>> parse_duration("12h", "ttl")
    datetime.timedelta(seconds=43200)
    """
    if isinstance(value, dt.timedelta):
        return checked_duration(value, key)
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        refuse(key, value, "a whole number with a unit, such as 30d, 12h, 15min or 90s")
    seconds = int(match[1]) * _SECONDS[match[2]]
    if seconds > MAX_DURATION.total_seconds():
        refuse(key, value, f"at most {MAX_DURATION.days}d")
    return checked_duration(dt.timedelta(seconds=seconds), key)


def checked_duration(value: object, key: str) -> dt.timedelta:
    """A duration given in Python, if it is one.

    Raises:
        InvalidDefinition: If it is not positive, has fractions of a second, or is too long.
    """
    if not isinstance(value, dt.timedelta):
        refuse(key, value, "a datetime.timedelta, such as timedelta(days=30)")
    if value <= dt.timedelta(0):
        refuse(key, _spelt(value), "longer than nothing; leave the key out where there is no limit")
    if value > MAX_DURATION:
        refuse(key, _spelt(value), f"at most {MAX_DURATION.days}d")
    if value.microseconds:
        refuse(key, _spelt(value), "whole seconds")
    return value


def format_duration(value: dt.timedelta) -> str:
    """The one way a duration is written: in the largest unit that leaves no remainder.

    >>> format_duration(dt.timedelta(hours=36))
    '36h'
    """
    seconds = value.days * 86_400 + value.seconds
    unit = next(unit for unit, length in _SECONDS.items() if seconds % length == 0)
    return f"{seconds // _SECONDS[unit]}{unit}"


def parse_bytes(value: object, key: str) -> int:
    """A number of bytes.

    Raises:
        InvalidDefinition: If it is no number of bytes, or not whole.

    >>> parse_bytes("1.28MB", "max_bytes")
    1280000
    """
    if isinstance(value, str):
        match = _SIZE.fullmatch(value)
        if match is None:
            refuse(key, value, "a number with a unit, such as 2MB, 64KiB or 500B")
        whole, _, fraction = match[1].partition(".")
        scaled = int(whole + fraction) * _UNIT_BYTES[match[2]]
        size, rest = divmod(scaled, 10 ** len(fraction))
        if rest:
            refuse(key, value, "a whole number of bytes")
        value = size
    return checked_bytes(value, key)


def checked_bytes(value: object, key: str) -> int:
    """A number of bytes given in Python, if it is one.

    Raises:
        InvalidDefinition: If it is not a positive whole number, or absurdly large.
    """
    if type(value) is not int or not 1 <= value <= MAX_BYTES:
        refuse(key, value, f"a number of bytes from 1 to {MAX_BYTES}, such as 2MB")
    return value


def _spelt(value: dt.timedelta) -> str:
    return f"{value.total_seconds():g}s"
