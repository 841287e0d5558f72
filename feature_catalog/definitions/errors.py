"""Mistakes in feature definitions: what is wrong, in which file and key, and the mend."""

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn, Self

from device_runtime.errors import FlintError

_MAX_SHOWN_CHARACTERS = 60


class DefinitionError(FlintError):
    """A mistake in a definition.

    Args:
        problem: What is wrong and the mend, to be read after the key.
        key: Path of the key, e.g. ``feature_views[0].ttl``; empty for a whole file.
        source: File, and of a Python file the line.
    """

    def __init__(self, problem: str, *, key: str = "", source: str = "") -> None:
        self.problem, self.key, self.source = problem, key, source
        place = f"{source}: " if source else ""
        super().__init__(f"{place}{key} {problem}" if key else f"{place}{problem}")

    def within(self, key: str, source: str = "") -> Self:
        """The same mistake, its key seen from further out."""
        gap = "." if key and self.key and not self.key.startswith("[") else ""
        return type(self)(self.problem, key=f"{key}{gap}{self.key}", source=self.source or source)


class UnreadableDefinitions(DefinitionError):
    """A file or folder that cannot be read as feature definitions at all."""

    code = "FLN-2801"


class InvalidDefinition(DefinitionError):
    """A key has an impossible value, or a required key is missing."""

    code = "FLN-2802"


class UnknownDefinitionKey(DefinitionError):
    """A key that no such definition has, most often a slip of the pen."""

    code = "FLN-2803"


class DuplicateDefinition(DefinitionError):
    """Two definitions, fields or features have one name."""

    code = "FLN-2804"


class MissingDefinition(DefinitionError):
    """A definition names another one that there is not."""

    code = "FLN-2805"


class DefinitionCycle(DefinitionError):
    """Definitions that lead back to themselves."""

    code = "FLN-2806"


class InvalidTransform(DefinitionError):
    """A transform that cannot be: unknown, in the wrong place, or on values it does not take."""

    code = "FLN-2807"


class PolicyConflict(DefinitionError):
    """ttl, retention and cache say things that cannot all be."""

    code = "FLN-2808"


class DefinitionFileFailed(DefinitionError):
    """A Python file of definitions raised an error of its own."""

    code = "FLN-2809"


@contextmanager
def within(key: str, source: str = "") -> Iterator[None]:
    """Lead in the key of any mistake made inside by ``key``."""
    try:
        yield
    except DefinitionError as error:
        raise error.within(key, source) from error


def refuse(key: str, value: object, wanted: str) -> NoReturn:
    """Raise `InvalidDefinition` about a value.

    Args:
        wanted: What it must be, to be read after "it must be".
    """
    raise refusal(key, value, wanted)


def refusal(key: str, value: object, wanted: str) -> InvalidDefinition:
    """What `refuse` raises."""
    return InvalidDefinition(f"= {shown(value)} is not possible; it must be {wanted}", key=key)


def shown(value: object) -> str:
    """A value as it can stand in a sentence: short, printable, spelt as in YAML."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = value if isinstance(value, int | float) else repr(value)
    cut = str(text)
    if len(cut) > _MAX_SHOWN_CHARACTERS:
        cut = cut[: _MAX_SHOWN_CHARACTERS - 3] + "..."
    return cut


def spelt(key: object) -> str:
    """A key of a file as it can stand in a path of keys."""
    text = str(key)
    if text.isprintable() and text.strip() == text != "" and len(text) <= _MAX_SHOWN_CHARACTERS:
        return text
    return shown(text)


def did_you_mean(word: object, known: Sequence[str]) -> str:
    """The nearest known word, in brackets with a space before; empty if none is near."""
    near = difflib.get_close_matches(str(word)[:100], known, n=1, cutoff=0.6)
    return f" (did you mean {near[0]}?)" if near else ""


def listed(names: Sequence[str], most: int = 8) -> str:
    """Names as a list in a sentence.

    >>> listed(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
