"""Errors a user can mend: one class a mistake, each with a stable code and a page of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar


class FlintError(Exception):
    """A user's mistake, or a fault outside the program, said in one sentence with the mend.

    Subclasses set ``code``; ``docs/errors/<code>.md`` explains it at length. Command-line tools
    print ``str(error)`` and exit with ``exit_code``; only ``--debug`` shows a traceback.
    """

    code: ClassVar[str] = "FLN-1000"
    exit_code: ClassVar[int] = 2

    def __str__(self) -> str:
        return f"{super().__str__()} [{self.code}]"

    @property
    def sentence(self) -> str:
        """What is wrong and the mend, without the code."""
        return super().__str__()


@contextmanager
def named_in(where: str) -> Iterator[None]:
    """Say of a mistake where the thing it is about was named, e.g. ``evaluation.dataset``.

    Raises:
        FlintError: Of the same class, its sentence led in by ``where``.
    """
    try:
        yield
    except FlintError as error:
        raise type(error)(f"{where}: {error.sentence}") from error
