"""References as people write them: ``name``, ``name@3``, ``name@alias``."""

import difflib
from collections.abc import Sequence

_LISTED_NAMES = 20
_MAX_DIGITS = 9


def split_reference(reference: str) -> tuple[str, str | None]:
    """Name, and what follows the ``@`` if anything does.

    >>> split_reference("ads@3"), split_reference("ads")
    (('ads', '3'), ('ads', None))
    """
    name, at, which = reference.partition("@")
    return name, which if at else None


def version_number(which: str | None) -> int:
    """A version's number as a reference says it; 0, which none has, where that is no number.

    >>> version_number("3"), version_number("latest"), version_number("99999999999")
    (3, 0, 0)
    """
    is_number = which is not None and which.isdecimal() and len(which) <= _MAX_DIGITS
    return int(which) if which is not None and is_number else 0


def near_matches(name: str, names: Sequence[str], *, first: str) -> str:
    """The end of a sentence about a name there is none of: near matches, then what there is.

    Args:
        name: What was asked for.
        names: What there is.
        first: How to make the first, told where there is none.

    >>> near_matches("asd", ["ads", "irc"], first="add one")
    ' (did you mean ads?); there are ads, irc'
    """
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    if not names:
        return f"{hint}; there are none yet: {first}"
    more = len(names) - _LISTED_NAMES
    listed = ", ".join(names[:_LISTED_NAMES]) + (f" and {more} more" if more > 0 else "")
    return f"{hint}; there are {listed}"
