"""What a command shows that does one thing after another."""

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

from flint.progress_bar import ProgressBar


class StepsScreen(ProgressBar):
    """Shows which step is done and how many have been.

    Args:
        what: Steps done, e.g. ``"criteria evaluated"``.
    """

    def __init__(self, what: str) -> None:
        super().__init__(
            TextColumn(what),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
        )
        self._what = what
        self._task = self.tasks.add_task("", total=None)

    def step(self, description: str, done: int, total: int) -> None:
        """What is done next, and how much has been done."""
        self.tasks.update(self._task, description=description, completed=done, total=total)
        self.line_now_and_then(f"{done}/{total} {self._what}: {description}")
