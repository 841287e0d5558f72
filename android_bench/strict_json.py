"""JSON from outside, read strictly: bounded, no unknown or repeated keys, finite numbers.

A device's answer may be anything: cut off, a crash log, made by an old app. Every reader here says
in one sentence which key is wrong.
"""

import json
import math
import re
from collections.abc import Callable, Sequence
from typing import NoReturn, TypeVar

from device_runtime.errors import FlintError

Read = TypeVar("Read")
MAX_DIGITS = 20
"""Of a whole number; Python's own limit is far beyond what any field takes."""


class Fields:
    """The keys of one JSON object, each to be taken once.

    Args:
        raw: A parsed JSON value, which should be an object.
        where: Its place for messages, e.g. ``"runs[2]"``; empty for the outermost.
        error: Raised for every fault.
        source: What is read, e.g. ``"the result of pixel-6"``.
    """

    def __init__(self, raw: object, where: str, error: type[FlintError], source: str) -> None:
        self._where, self._error, self._source = where, error, source
        if not isinstance(raw, dict):
            self.refuse(None, f"is {shown(raw)}; give a JSON object")
        self._raw: dict[str, object] = raw
        self._taken: set[str] = set()

    def refuse(self, key: str | None, complaint: str) -> NoReturn:
        """Raise the error about a key, or about the object itself."""
        place = ".".join(part for part in (self._where, key) if part)
        raise self._error(f"{self._source}: {place or 'it'} {complaint}")

    def text(self, key: str, *, max_length: int = 200, pattern: str | None = None) -> str:
        """A string of printable characters."""
        value = self._take(key)
        if not isinstance(value, str) or len(value) > max_length or not value.isprintable():
            self.refuse(key, f"is {shown(value)}; give text of at most {max_length} characters")
        if pattern is not None and re.fullmatch(pattern, value) is None:
            self.refuse(key, f"is {shown(value)}; it must match {pattern}")
        return value

    def choice(self, key: str, choices: Sequence[str]) -> str:
        """One of a few strings."""
        value = self._take(key)
        if not isinstance(value, str) or value not in choices:
            self.refuse(key, f"is {shown(value)}; give {' or '.join(choices)}")
        return value

    def integer(self, key: str, *, low: int = 0, high: int) -> int:
        """A whole number within bounds, both included."""
        value = self._take(key)
        if type(value) is not int or not low <= value <= high:
            self.refuse(key, f"is {shown(value)}; give a whole number from {low} to {high}")
        return value

    def number(self, key: str, *, low: float = 0.0, high: float) -> float:
        """A finite number within bounds, both included."""
        value = self._take(key)
        if type(value) not in {int, float} or not low <= value <= high:  # type: ignore[operator]
            self.refuse(key, f"is {shown(value)}; give a number from {low:g} to {high:g}")
        return float(value)  # type: ignore[arg-type]

    def boolean(self, key: str) -> bool:
        """True or false."""
        value = self._take(key)
        if not isinstance(value, bool):
            self.refuse(key, f"is {shown(value)}; give true or false")
        return value

    def optional(self, key: str, read: Callable[[], Read]) -> Read | None:
        """What ``read`` takes, or None where the value is null.

        >>> fields = Fields({"soc": None}, "", FlintError, "a device")
        >>> fields.optional("soc", lambda: fields.text("soc")) is None
        True
        """
        if self._raw.get(key, ...) is None:
            self._taken.add(key)
            return None
        return read()

    def nested(self, key: str) -> "Fields":
        """The keys of an object within."""
        return Fields(self._take(key), self._place(key), self._error, self._source)

    def nested_list(self, key: str, *, most: int) -> "list[Fields]":
        """The objects of a list."""
        return [
            Fields(raw, f"{self._place(key)}[{index}]", self._error, self._source)
            for index, raw in enumerate(self._list(key, most))
        ]

    def texts(self, key: str, *, most: int, max_length: int = 500) -> tuple[str, ...]:
        """The strings of a list."""
        values = self._list(key, most)
        for value in values:
            if not isinstance(value, str) or len(value) > max_length or not value.isprintable():
                self.refuse(
                    key, f"holds {shown(value)}; give texts of at most {max_length} characters"
                )
        return tuple(str(value) for value in values)

    def integers(self, key: str, *, most: int, high: int) -> tuple[int, ...]:
        """The whole numbers of a list, none negative."""
        values = self._list(key, most)
        for value in values:
            if type(value) is not int or not 0 <= value <= high:
                self.refuse(key, f"holds {shown(value)}; give whole numbers from 0 to {high}")
        return tuple(values)  # type: ignore[arg-type]

    def finish(self) -> None:
        """Refuse keys that nobody has taken."""
        unknown = sorted(set(self._raw) - self._taken)
        if unknown:
            known = ", ".join(sorted(self._taken))
            self.refuse(None, f"has an unknown key {shown(unknown[0])}; its keys are {known}")

    def _take(self, key: str) -> object:
        if key not in self._raw:
            self.refuse(key, "is missing; give it a value")
        self._taken.add(key)
        return self._raw[key]

    def _list(self, key: str, most: int) -> list[object]:
        value = self._take(key)
        if not isinstance(value, list):
            self.refuse(key, f"is {shown(value)}; give a list")
        if len(value) > most:
            self.refuse(key, f"has {len(value)} entries; give at most {most}")
        return value

    def _place(self, key: str) -> str:
        return f"{self._where}.{key}" if self._where else key


def read_object(data: bytes, *, max_bytes: int, error: type[FlintError], source: str) -> Fields:
    """The outermost object of a JSON text.

    Raises:
        error: If it is too long, no JSON, not an object, repeats a key, or has a number that is
            not finite.
    """

    def refuse(complaint: str) -> NoReturn:
        raise error(f"{source} {complaint}")

    def constant(name: str) -> NoReturn:
        refuse(f"holds {name}, which is no measured number; leave the value out as null")

    def whole(digits: str) -> int:
        if len(digits) > MAX_DIGITS:
            refuse(f"holds a number of {len(digits)} digits; nothing measured is so large")
        return int(digits)

    def decimal(digits: str) -> float:
        value = float(digits)
        if not math.isfinite(value):
            refuse(f"holds {shown(digits)}, which is not finite; leave the value out as null")
        return value

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found: dict[str, object] = {}
        for key, value in pairs:
            if key in found:
                refuse(f"gives {shown(key)} twice; keep one")
            found[key] = value
        return found

    if len(data) > max_bytes:
        refuse(f"has {len(data)} bytes; at most {max_bytes} are read")
    try:
        raw = json.loads(
            data,
            parse_constant=constant,
            parse_int=whole,
            parse_float=decimal,
            object_pairs_hook=unique,
        )
    except (ValueError, RecursionError):
        start = data[:60].decode("utf-8", "replace")
        refuse(f"is no JSON (it begins {shown(start)}); see whether the worker wrote it whole")
    return Fields(raw, "", error, source)


def shown(value: object) -> str:
    """A value in a message, cut to a readable length."""
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."
