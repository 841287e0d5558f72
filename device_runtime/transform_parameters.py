"""Checks of transform parameters where they enter; each refusal names the parameter."""

import math

from device_runtime.errors import FlintError

MAX_BUCKETS = 2**31 - 1
MAX_SEED = 2**32 - 1
MAX_BOUNDARIES = 4096
MAX_TEXT_CHARACTERS = 200
_MIN_ID = -(2**31)


class InvalidTransform(FlintError):
    """A transform that is not in the closed list, or whose parameters make no sense."""

    code = "FLN-2850"


def wrong(where: str, found: object, needed: str) -> InvalidTransform:
    """The refusal of one parameter, e.g. ``where`` = ``hash.buckets``."""
    shown = repr(found)
    if len(shown) > 60:
        shown = f"{shown[:57]}..."
    return InvalidTransform(f"{where} is {shown}; give {needed}")


def check_integer(where: str, value: object, least: int, most: int) -> None:
    """Refuse what is not an integer from ``least`` to ``most``; true is no integer."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise wrong(where, value, f"an integer from {least} to {most}")


def check_id(where: str, value: object) -> None:
    """Refuse what is neither None nor an id a model's int32 input can hold."""
    if value is not None:
        check_integer(where, value, _MIN_ID, MAX_BUCKETS)


def number(where: str, value: object) -> float:
    """A finite float; 1 and 1.0, and 0.0 and -0.0, are one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(where, value, "a finite number")
    try:
        result = float(value) + 0.0
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        raise wrong(where, value, "a finite number")
    return result


def optional_number(where: str, value: object) -> float | None:
    """A finite float, or None."""
    return None if value is None else number(where, value)


def check_text(where: str, value: object, *, may_be_empty: bool = False) -> None:
    """Refuse what is no text of at most 200 characters that UTF-8 can hold."""
    least = 0 if may_be_empty else 1
    is_text = isinstance(value, str) and least <= len(value) <= MAX_TEXT_CHARACTERS
    if not is_text or any("\ud800" <= character <= "\udfff" for character in str(value)):
        raise wrong(where, value, f"a text of {least} to {MAX_TEXT_CHARACTERS} characters")
