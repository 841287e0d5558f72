"""What a dry-run shows while it works: virtual time beside wall time; all of it on stderr."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live

from flint.simulation_progress import Expected, RunPace, in_words, resident_mb, tasks_in
from server.coordination.progress import JobProgress

_REFRESH_EVERY_S = 0.25
_LINE_EVERY_S = 10.0


class SimulationScreen:
    """A live line on a terminal, else a line now and then."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)
        self._live: Live | None = None
        self._begun_s = time.monotonic()
        self._shown_s = self._seen_s = self._begun_s
        self._pace = RunPace()

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

    def expect(self, expected: Expected) -> None:
        """What the run will be; from then on it shows when that may end."""
        self._pace.expected = expected

    def progress(self, trial: int, progress: JobProgress, virtual_s: float) -> None:
        """What the dry-run does; shown now and then, so that it may be called often."""
        now_s = time.monotonic()
        if now_s - self._seen_s >= _REFRESH_EVERY_S:
            self._seen_s = now_s
            self._pace.see(now_s, trial, progress, virtual_s)
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
        pace, expected = self._pace, self._pace.expected
        parts = [
            f"trial {trial}: {virtual_s / 3600.0:.1f} virtual hours in {wall_s:.0f} s",
            f"version {progress.version}",
            f"{tasks_in(progress)} tasks",
            f"{progress.in_flight} in flight",
        ]
        if progress.metric is not None:
            parts.insert(2, f"metric {progress.metric:.4f}")
        rate, left_s, memory_mb = pace.tasks_per_s(), pace.left_s(), resident_mb()
        if rate is not None:
            parts.append(f"{rate:,.0f} tasks/s")
        if expected is not None and expected.path is not None:
            parts.append(expected.path)
        if memory_mb is not None:
            parts.append(f"{memory_mb:,.0f} MB")
        if left_s is not None:
            parts.append(f"{in_words(left_s)} to go")
        return ", ".join(parts)
