"""How far a benchmark of many devices has come: a bar on a terminal, else lines; on stderr."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from android_bench.derived import derive
from android_bench.harness import DeviceOutcome


class BenchScreen:
    """Shows each device as it finishes.

    Args:
        groups: How many were selected; a group may answer for several devices.
    """

    def __init__(self, groups: int) -> None:
        self._console = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)
        self._bar = Progress(
            TextColumn("measuring"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=groups)

    def __enter__(self) -> Self:
        """Begin to show."""
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the terminal as it was."""
        self._bar.stop()

    def finished(self, outcome: DeviceOutcome) -> None:
        """One device has answered, or will not."""
        self._bar.advance(self._task)
        self._console.print(f"{outcome.name}: {_said(outcome)}", markup=False)


def _said(outcome: DeviceOutcome) -> str:
    figures = derive(outcome.result) if outcome.result is not None else None
    if figures is None or outcome.result is None:
        reasons = outcome.result.validity.reasons if outcome.result is not None else ()
        return f"no figures: {outcome.failure or '; '.join(reasons)}"
    told = f"{figures.pass_s_mean:.3g} s for {outcome.result.spec.records} records"
    failed = len(outcome.result.failed)
    told += f", {failed} of its repeats failed" if failed else ""
    return f"{told} (from before)" if outcome.is_kept else told
