"""A bar on a terminal, else a line now and then; on stderr: what screens of long work share."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import Progress, ProgressColumn

_LINE_EVERY_S = 10.0


class ProgressBar:
    """Shows tasks of a bar while the block lasts, and nothing of it where there is no terminal.

    Args:
        columns: Of the bar.
    """

    def __init__(self, *columns: ProgressColumn) -> None:
        self.console = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)
        self.tasks = Progress(
            *columns,
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self._shown_s = time.monotonic()

    def __enter__(self) -> Self:
        """Begin to show."""
        self.tasks.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the terminal as it was."""
        self.tasks.stop()

    def line(self, sentence: str) -> None:
        """Print a line, above the bar if there is one."""
        self.console.print(sentence, markup=False)

    def line_now_and_then(self, sentence: str) -> None:
        """Print a line in place of the bar, at most every ten seconds; may be called often."""
        now_s = time.monotonic()
        if not self.console.is_terminal and now_s - self._shown_s >= _LINE_EVERY_S:
            self._shown_s = now_s
            self.line(sentence)
