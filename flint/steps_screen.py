"""What a command shows that does one thing after another: a bar on stderr."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

_LINE_EVERY_S = 10.0


class StepsScreen:
    """A bar on a terminal, else a line now and then.

    Args:
        what: Steps done, e.g. ``"criteria evaluated"``.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._console = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)
        self._bar: Progress | None = None
        self._shown_s = time.monotonic()

    def __enter__(self) -> Self:
        """Begin to show."""
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn(self._what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                TextColumn("{task.description}", markup=False),
                console=self._console, transient=True,
            )  # fmt: skip
            self._bar.add_task("", total=None)
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()

    def step(self, description: str, done: int, total: int) -> None:
        """What is done next, and how much has been done."""
        if self._bar is not None:
            task = self._bar.task_ids[0]
            self._bar.update(task, description=description, completed=done, total=total)
        elif time.monotonic() - self._shown_s >= _LINE_EVERY_S:
            self._shown_s = time.monotonic()
            self._console.print(f"{done}/{total} {self._what}: {description}", markup=False)
