"""How far a long pass over rows has come: a bar on a terminal, else a line now and then; stderr."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_LINE_EVERY_S = 10.0


class RowsScreen:
    """Shows stages of a command that goes over many rows."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._stage = ""
        self._shown_s = time.monotonic()

    def __enter__(self) -> Self:
        """Begin to show."""
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the terminal as it was."""
        self._bars.stop()

    def progress(self, stage: str, done: int, total: int | None) -> None:
        """Rows of a stage done; may be called often."""
        if stage != self._stage:
            for task in self._bars.task_ids:
                self._bars.remove_task(task)
            self._bars.add_task(stage, total=total)
            self._stage = stage
        self._bars.update(self._bars.task_ids[-1], completed=done)
        now_s = time.monotonic()
        if not self._console.is_terminal and now_s - self._shown_s >= _LINE_EVERY_S:
            self._shown_s = now_s
            of = "" if total is None else f" of {total}"
            self._console.print(f"{stage}: {done}{of}", markup=False)
