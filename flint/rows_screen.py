"""How far a long pass over rows has come."""

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from flint.progress_bar import ProgressBar


class RowsScreen(ProgressBar):
    """Shows stages of a command that goes over many rows."""

    def __init__(self) -> None:
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        self._stage = ""

    def progress(self, stage: str, done: int, total: int | None) -> None:
        """Rows of a stage done; may be called often."""
        if stage != self._stage:
            for task in self.tasks.task_ids:
                self.tasks.remove_task(task)
            self.tasks.add_task(stage, total=total)
            self._stage = stage
        self.tasks.update(self.tasks.task_ids[-1], completed=done)
        of = "" if total is None else f" of {total}"
        self.line_now_and_then(f"{stage}: {done}{of}")
