"""How far a benchmark of many devices has come."""

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

from android_bench.derived import derive
from android_bench.harness import DeviceOutcome
from flint.progress_bar import ProgressBar


class BenchScreen(ProgressBar):
    """Shows each device as it finishes.

    Args:
        groups: How many were selected; a group may answer for several devices.
    """

    def __init__(self, groups: int) -> None:
        super().__init__(
            TextColumn("measuring"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        )
        self._task = self.tasks.add_task("", total=groups)

    def finished(self, outcome: DeviceOutcome) -> None:
        """One device has answered, or will not."""
        self.tasks.advance(self._task)
        self.line(f"{outcome.name}: {_said(outcome)}")


def _said(outcome: DeviceOutcome) -> str:
    figures = derive(outcome.result) if outcome.result is not None else None
    if figures is None or outcome.result is None:
        reasons = outcome.result.validity.reasons if outcome.result is not None else ()
        return f"no figures: {outcome.failure or '; '.join(reasons)}"
    told = f"{figures.pass_s_mean:.3g} s for {outcome.result.spec.records} records"
    failed = len(outcome.result.failed)
    told += f", {failed} of its repeats failed" if failed else ""
    return f"{told} (from before)" if outcome.is_kept else told
