"""Which executor process keeps which update that was trained before it is summed."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from simulation.executors.task_columns import TaskColumns


class KeptUpdates:
    """Updates by task, as far as they are kept at all."""

    def __init__(self) -> None:
        self._at: dict[str, tuple[int, int]] = {}

    def __len__(self) -> int:
        """How many."""
        return len(self._at)

    def add(self, tasks: TaskColumns, process: NDArray[np.int64]) -> None:
        """These tasks' updates are kept now.

        Args:
            process: That trained each, shape ``(tasks,)``.
        """
        places = zip(process.tolist(), tasks.base_version.tolist(), strict=True)
        self._at.update(zip(tasks.task_ids, places, strict=True))

    def keepers(self, tasks: TaskColumns) -> NDArray[np.int64]:
        """The process that keeps each task's update, or -1, shape ``(tasks,)``."""
        if not self._at:
            return np.full(len(tasks), -1, np.int64)
        nowhere = (-1, 0)
        return np.array([self._at.get(i, nowhere)[0] for i in tasks.task_ids], np.int64)

    def forget(self, task_ids: Iterable[str]) -> dict[int, list[str]]:
        """These are kept no longer; returns those that were, by process."""
        found: dict[int, list[str]] = {}
        if self._at:
            for task_id in task_ids:
                if task_id in self._at:
                    found.setdefault(self._at.pop(task_id)[0], []).append(task_id)
        return found

    def forget_versions(self, before: int) -> None:
        """What was trained from smaller versions is kept no longer."""
        self._at = {i: place for i, place in self._at.items() if place[1] >= before}

    def forget_process(self, number: int) -> None:
        """A process has ended, and all it kept with it."""
        self._at = {i: place for i, place in self._at.items() if place[0] != number}
