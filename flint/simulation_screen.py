"""What a dry-run shows while it works: virtual time beside wall time; all of it on stderr."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live

from server.coordination.progress import JobProgress

_REFRESH_EVERY_S = 0.25
_LINE_EVERY_S = 10.0


class SimulationScreen:
    """A live line on a terminal, else a line now and then."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)
        self._live: Live | None = None
        self._begun_s = time.monotonic()
        self._shown_s = self._begun_s

    def __enter__(self) -> Self:
        """Begin to show."""
        if self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the terminal as it was."""
        if self._live is not None:
            self._live.stop()

    def note(self, sentence: str) -> None:
        """Something the user should know."""
        self._console.print(sentence, markup=False)

    def progress(self, trial: int, progress: JobProgress, virtual_s: float) -> None:
        """What the dry-run does; shown now and then, so that it may be called often."""
        now_s = time.monotonic()
        every_s = _LINE_EVERY_S if self._live is None else _REFRESH_EVERY_S
        if now_s - self._shown_s < every_s:
            return
        self._shown_s = now_s
        line = self._line(trial, progress, virtual_s, now_s - self._begun_s)
        if self._live is None:
            self.note(line)
        else:
            self._live.update(line)

    def _line(self, trial: int, progress: JobProgress, virtual_s: float, wall_s: float) -> str:
        outcomes = progress.totals.outcomes
        tasks = sum(outcomes.values()) + progress.in_flight + progress.held
        metric = "" if progress.metric is None else f", metric {progress.metric:.4f}"
        return (
            f"trial {trial}: {virtual_s / 3600.0:.1f} virtual hours in {wall_s:.0f} s, version "
            f"{progress.version}{metric}, {tasks} tasks, {progress.in_flight} in flight"
        )
