"""What the demo says while it works; all of it on stderr, so that stdout is the result's."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live

from feature_catalog.jobs import JobRow
from flint.job_view import VersionLines, render


class Screen:
    """Steps with the time they began, and a live panel while a job runs."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, emoji=False)
        self._started_s = time.monotonic()

    def step(self, text: str) -> None:
        """Something begins."""
        self._console.print(f"[dim]{self._elapsed()}[/] {text}", soft_wrap=True)

    def done(self, text: str) -> None:
        """What came of it."""
        self._console.print(f"        [dim]{text}[/]", soft_wrap=True)

    @contextmanager
    def watch(self) -> Iterator[Callable[[JobRow], None]]:
        """Show a job: a live panel on a terminal, else a line a version."""
        if not self._console.is_terminal:
            yield VersionLines(self._console.file)
            return
        with Live(console=self._console, refresh_per_second=4) as live:
            yield lambda row: live.update(render(row))

    def _elapsed(self) -> str:
        return f"{time.monotonic() - self._started_s:5.0f} s"
