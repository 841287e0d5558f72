"""Tasks and their statistics as columns: sequences like any other, without an object a task.

An executor is asked for some tasks and answers with their statistics; both are sequences. These two
hold columns and make the object of a task only when somebody reads it: at a hundred thousand tasks
a second, making two objects for each would take a third of the time.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self, overload

import numpy as np
from numpy.typing import NDArray

from simulation.executors.executor import ClientOutputs, TrainingTask, UpdateStatistics

_INTEGER, _BOOLEAN = np.dtype(np.int64), np.dtype(np.bool_)


class TaskIds(Sequence[str]):
    """Ids of numbered tasks, ``t1``, ``t2`` and so on; each is made when it is read.

    Args:
        numbers: Shape ``(tasks,)``.
    """

    def __init__(self, numbers: NDArray[np.int64]) -> None:
        self.numbers = numbers

    def __len__(self) -> int:
        """Number of tasks."""
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "TaskIds": ...
    def __getitem__(self, index: int | slice) -> "str | TaskIds":
        if isinstance(index, slice):
            return TaskIds(self.numbers[index])
        return f"t{self.numbers[index]}"

    def __iter__(self) -> Iterator[str]:
        return iter([f"t{number}" for number in self.numbers.tolist()])

    def take(self, indices: NDArray[np.int64]) -> "TaskIds":
        """Some of them, by position."""
        return TaskIds(self.numbers[indices])


@dataclass(frozen=True, slots=True, eq=False)
class TaskColumns(Sequence[TrainingTask]):
    """Some `TrainingTask` as columns, all of shape ``(tasks,)``.

    Attributes:
        task_ids: In the same order.
    """

    task_ids: Sequence[str]
    data_client: NDArray[np.int64]
    base_version: NDArray[np.int64]
    weight: NDArray[np.float64]
    learning_rate: NDArray[np.float64]
    shuffle_seed: NDArray[np.uint64]
    client: NDArray[np.int64]

    @classmethod
    def of(cls, tasks: Sequence[TrainingTask]) -> "TaskColumns":
        """Columns of any tasks; of columns themselves."""
        if isinstance(tasks, TaskColumns):
            return tasks
        return cls(
            tuple(task.task_id for task in tasks),
            np.array([task.data_client for task in tasks], np.int64),
            np.array([task.base_version for task in tasks], np.int64),
            np.array([task.weight for task in tasks], np.float64),
            np.array([task.learning_rate for task in tasks], np.float64),
            np.array([task.shuffle_seed for task in tasks], np.uint64),
            np.array([task.client for task in tasks], np.int64),
        )

    def __len__(self) -> int:
        """Number of tasks."""
        return len(self.data_client)

    @overload
    def __getitem__(self, index: int) -> TrainingTask: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> TrainingTask | Self:
        if isinstance(index, slice):
            columns: list[Any] = [getattr(self, name)[index] for name in _TASK]
            return type(self)(*columns)
        return TrainingTask(
            self.task_ids[index],
            int(self.data_client[index]),
            int(self.base_version[index]),
            float(self.weight[index]),
            float(self.learning_rate[index]),
            int(self.shuffle_seed[index]),
            int(self.client[index]),
        )

    def ids_of(self, indices: NDArray[np.int64]) -> Sequence[str]:
        """Ids of some of the tasks, by position."""
        ids = self.task_ids
        if isinstance(ids, TaskIds):
            return ids.take(indices)
        return tuple(ids[index] for index in indices.tolist())

    def take(self, indices: NDArray[np.int64]) -> Self:
        """Some of the tasks, in the order of their positions here, shape ``(taken,)``."""
        return type(self)(
            self.ids_of(indices),
            self.data_client[indices],
            self.base_version[indices],
            self.weight[indices],
            self.learning_rate[indices],
            self.shuffle_seed[indices],
            self.client[indices],
        )

    def __reduce__(self) -> tuple[Callable[..., "TaskColumns"], tuple[Any, ...]]:
        numbers = _numbers_of(self.task_ids)
        if numbers is None:
            return type(self), tuple(getattr(self, name) for name in _TASK)
        # As bytes of one array: to pickle seven takes as long as to train some tasks.
        words = np.empty((len(_TASK), len(self)), np.int64)
        words[0] = numbers
        for row, name in zip(words[1:], _TASK[1:], strict=True):
            column = getattr(self, name)
            row.view(column.dtype)[:] = column
        return _tasks_of, (bytearray(words),)  # bytes would come back read-only


@dataclass(slots=True, eq=False)  # not frozen: one is made for every sum, in a quarter of the time
class StatisticsColumns(Sequence[UpdateStatistics]):
    """Some `UpdateStatistics` as columns, all of shape ``(tasks,)``.

    Attributes:
        task_ids: In the same order.
        update_norm: None where nobody asked for it, as what follows.
    """

    task_ids: Sequence[str]
    num_examples: NDArray[np.int64]
    train_loss: NDArray[np.float64]
    is_finite: NDArray[np.bool_]
    diverged_step: NDArray[np.int64]
    update_norm: NDArray[np.float64] | None = None
    loss_before: NDArray[np.float64] | None = None
    loss_after: NDArray[np.float64] | None = None

    @classmethod
    def of(cls, statistics: Sequence[UpdateStatistics]) -> "StatisticsColumns":
        """Columns of any statistics; of columns themselves."""
        if isinstance(statistics, StatisticsColumns):
            return statistics
        return cls(
            tuple(each.task_id for each in statistics),
            np.array([each.num_examples for each in statistics], np.int64),
            np.array([each.train_loss for each in statistics], np.float64),
            np.array([each.is_finite for each in statistics], np.bool_),
            np.array([each.diverged_step for each in statistics], np.int64),
            *(
                _where_known([getattr(each, name) for each in statistics])
                for name in ("update_norm", "loss_before", "loss_after")
            ),
        )

    @classmethod
    def room(cls, task_ids: Sequence[str], outputs: ClientOutputs) -> "StatisticsColumns":
        """Columns to write to: whatever is asked for, of no meaning yet."""
        tasks = len(task_ids)
        return cls(
            task_ids,
            np.empty(tasks, _INTEGER),
            np.empty(tasks),
            np.empty(tasks, _BOOLEAN),
            np.empty(tasks, _INTEGER),
            np.empty(tasks) if outputs.norms else None,
            np.empty(tasks) if outputs.losses else None,
            np.empty(tasks) if outputs.losses else None,
        )

    @classmethod
    def placed(
        cls,
        task_ids: Sequence[str],
        parts: Iterable[tuple[NDArray[np.int64], "StatisticsColumns"]],
    ) -> "StatisticsColumns":
        """Put parts together.

        Args:
            task_ids: Of all.
            parts: Positions among all, and what is at these; every position once.
        """
        given = list(parts)
        order = np.concatenate([np.zeros(0, np.int64), *(positions for positions, _ in given)])
        place = np.empty(len(task_ids), np.int64)
        place[order] = np.arange(len(order))
        columns: list[Any] = []
        for at, name in enumerate(_STATISTICS[1:]):
            found = [getattr(part, name) for _, part in given]
            if not found or any(column is None for column in found):
                columns.append(np.zeros(0, _TYPES[at]) if at < len(_TYPES) else None)
            else:
                columns.append(np.concatenate(found)[place])
        return cls(task_ids, *columns)

    def first(self, task_ids: Sequence[str]) -> Self:
        """A copy of as many as there are ids, for these."""
        count = len(task_ids)
        columns = (getattr(self, name) for name in _STATISTICS[1:])
        copies: list[Any] = [None if c is None else c[:count].copy() for c in columns]
        return type(self)(task_ids, *copies)

    def __reduce__(self) -> tuple[Callable[..., "StatisticsColumns"], tuple[Any, ...]]:
        numbers = _numbers_of(self.task_ids)
        if numbers is None:
            return type(self), tuple(getattr(self, name) for name in _STATISTICS)
        known = tuple(name for name in _STATISTICS[1:] if getattr(self, name) is not None)
        words = np.empty((1 + len(known), len(self)), np.int64)
        words[0] = numbers
        for row, name in zip(words[1:], known, strict=True):
            column = getattr(self, name)
            row.view(np.float64 if column.dtype == np.float64 else np.int64)[:] = column
        return _statistics_of, (known, bytearray(words))

    def __len__(self) -> int:
        """Number of tasks."""
        return len(self.num_examples)

    @overload
    def __getitem__(self, index: int) -> UpdateStatistics: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> UpdateStatistics | Self:
        if isinstance(index, slice):
            found = (getattr(self, name) for name in _STATISTICS)
            columns: list[Any] = [None if each is None else each[index] for each in found]
            return type(self)(*columns)
        optional = (self.update_norm, self.loss_before, self.loss_after)
        return UpdateStatistics(
            self.task_ids[index],
            int(self.num_examples[index]),
            float(self.train_loss[index]),
            bool(self.is_finite[index]),
            int(self.diverged_step[index]),
            *(None if column is None else float(column[index]) for column in optional),
        )


def _numbers_of(task_ids: Sequence[str]) -> NDArray[np.int64] | None:
    """Of tasks that have numbers."""
    return task_ids.numbers if isinstance(task_ids, TaskIds) else None


def _tasks_of(words: bytearray) -> TaskColumns:
    """What `TaskColumns.__reduce__` made bytes of."""
    numbers, client_of_data, base, weight, rate, seed, client = np.frombuffer(
        words, np.int64
    ).reshape(len(_TASK), -1)
    return TaskColumns(
        TaskIds(numbers),
        client_of_data,
        base,
        weight.view(np.float64),
        rate.view(np.float64),
        seed.view(np.uint64),
        client,
    )


def _statistics_of(known: tuple[str, ...], words: bytearray) -> StatisticsColumns:
    """What `StatisticsColumns.__reduce__` made bytes of."""
    numbers, *rows = np.frombuffer(words, np.int64).reshape(1 + len(known), -1)
    columns: dict[str, Any] = dict(zip(known, rows, strict=True))
    columns["is_finite"] = columns["is_finite"].astype(np.bool_)
    for name in ("train_loss", "update_norm", "loss_before", "loss_after"):
        if name in columns:
            columns[name] = columns[name].view(np.float64)
    return StatisticsColumns(TaskIds(numbers), **columns)


_TASK = tuple(field.name for field in fields(TaskColumns))
_STATISTICS = tuple(field.name for field in fields(StatisticsColumns))
_TYPES = (np.int64, np.float64, np.bool_, np.int64)


def _where_known(values: Sequence[float | None]) -> NDArray[np.float64] | None:
    """A column, or None if nobody asked for it: then no task has a value."""
    return None if not values or values[0] is None else np.array(values, np.float64)
