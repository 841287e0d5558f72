"""Bounds of names, texts and numbers in definitions: all of them come from outside."""

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import TypeVar

from feature_catalog.definitions.errors import DuplicateDefinition, did_you_mean, refuse, spelt

MAX_DESCRIPTION_CHARACTERS = 2_000
MAX_SHORT_CHARACTERS = 200
MAX_TAGS = 32

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_COLUMN = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_TAG_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./-]{0,62}")
_NAME_FORM = "small letters, digits and _, a letter first, at most 63"
_COLUMN_FORM = "letters, digits and _, no digit first, at most 63"

Choice = TypeVar("Choice", bound=StrEnum)
Item = TypeVar("Item")


def checked_name(value: object, key: str = "name") -> str:
    """A name of a definition."""
    if not isinstance(value, str) or _NAME.fullmatch(value) is None:
        refuse(key, value, _NAME_FORM)
    return value


def checked_column(value: object, key: str = "name") -> str:
    """A name of a field: a column of a table, a key of an event."""
    if not isinstance(value, str) or _COLUMN.fullmatch(value) is None:
        refuse(key, value, _COLUMN_FORM)
    return value


def checked_text(value: object, key: str, most: int = MAX_SHORT_CHARACTERS) -> str:
    """Text of printable characters; new lines are allowed where it may be long."""
    lines = isinstance(value, str) and value.replace("\n", "" if most > 200 else "\n")
    if not isinstance(value, str) or len(value) > most or (lines and not lines.isprintable()):
        refuse(key, value, f"text of at most {most} printable characters")
    return value


def checked_choice(value: object, key: str, choices: type[Choice]) -> Choice:
    """One of a few words."""
    try:
        return choices(str(value) if isinstance(value, str) else "")
    except ValueError:
        words = [str(choice) for choice in choices]
        near = did_you_mean(value, words) if isinstance(value, str) else ""
        refuse(key, value, f"one of {', '.join(words)}{near}")


def checked_whole(value: object, key: str, low: int, high: int) -> int:
    """A whole number within bounds, both included."""
    if type(value) is not int or not low <= value <= high:
        refuse(key, value, f"a whole number from {low} to {high}")
    return value


def checked_list(value: object, key: str, most: int, *, least: int = 0) -> tuple[object, ...]:
    """The items of a list of bounded length; a text is no list."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        refuse(key, value, "a list")
    items = tuple(value)
    if not least <= len(items) <= most:
        between = f"from {least} to {most}" if least else f"at most {most}"
        refuse(key, f"{len(items)} items", f"a list of {between} items")
    return items


def checked_tags(value: object, key: str = "tags") -> Mapping[str, str]:
    """Words to find a definition by; their order means nothing."""
    if not isinstance(value, Mapping) or len(value) > MAX_TAGS:
        refuse(key, value, f"at most {MAX_TAGS} pairs of a name and a text")
    for name, text in value.items():
        if not isinstance(name, str) or _TAG_KEY.fullmatch(name) is None:
            refuse(f"{key}.{spelt(name)}", text, f"named with {_COLUMN_FORM}")
        checked_text(text, f"{key}.{name}")
    return MappingProxyType(dict(sorted(value.items())))


def distinct(names: Iterable[str], key: str, what: str) -> None:
    """Refuse a name that comes twice.

    Raises:
        DuplicateDefinition: It does.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DuplicateDefinition(f"has {what} {name} twice; keep one, or rename it", key=key)
        seen.add(name)
