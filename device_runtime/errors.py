"""Errors a user can mend: one class a mistake, each with a stable code and a page of its own."""

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
