"""When the virtual fleet's updates are trained, and what the gate says of them.

Lazily, with the release that needs them, unless the job's gate must see an update to decide
(lock-step). Both give the same updates to the bit.
"""

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from server.coordination.selection import shuffle_seed
from server.coordination.tasks import Outcome, UpdateReference
from server.job import FedAvgSettings, Job
from server.update_gate.content import ContentGate
from server.update_gate.rejections import RejectionReason
from simulation.executors.executor import (
    ClientOutputs,
    Executor,
    Reduced,
    TrainingTask,
    UpdateStatistics,
)
from simulation.update_log import UpdateLog
from simulation.virtual_task import VirtualTask

Refusal = tuple[Outcome, str, int]
"""How a task ends whose update does not count: outcome, reason, number of the rejection."""


def decides_on_results(job: Job) -> bool:
    """Whether the job's gate can decide on an update only when it is trained."""
    return job.privacy.robustness.max_update_norm is not None


def outputs_needed(job: Job) -> ClientOutputs:
    """What the job's gate and strategy must know of each update to decide."""
    return ClientOutputs(norms=decides_on_results(job))


class UpdateTraining:
    """Updates of the tasks that have completed, trained or to be trained.

    Args:
        data_client: Index of each client's records in the data set, shape ``(clients,)``.
        seed: Of the order of records.
        at_completion: Train each update when it arrives instead of when it is needed.
        on_reduced: Told how the updates of a release were trained.
        log: Told of each update that is trained to count.
    """

    def __init__(
        self,
        executor: Executor,
        data_client: Sequence[int],
        seed: int,
        *,
        at_completion: bool = False,
        on_reduced: Callable[[Sequence[UpdateStatistics]], None] = lambda _: None,
        log: UpdateLog | None = None,
    ) -> None:
        self.at_completion = at_completion
        self._executor = executor
        self._data_client = data_client
        self._seed = seed
        self._on_reduced = on_reduced
        self._log = log or UpdateLog()
        self._trained: dict[int, UpdateStatistics] = {}

    def use(self, job: Job, gate: ContentGate) -> None:
        """Train for this job."""
        self._job, self._gate = job, gate
        self._limits_norms = decides_on_results(job)
        strategy = job.strategy
        self._in_one = (
            strategy.cohort_size if isinstance(strategy, FedAvgSettings) else strategy.buffer_size
        )

    def refusal(
        self, task: VirtualTask, in_flight: Iterable[VirtualTask], held: int
    ) -> Refusal | None:
        """What device or gate has against a completed task's update; trains it to find out.

        Args:
            in_flight: Tasks whose updates will count. Those that the next aggregate can need are
                trained with it, so that several executors have work.
            held: Updates waiting for the next aggregate.
        """
        if task.number not in self._trained:
            coming = sorted(in_flight, key=lambda other: (other.end_s, other.number))
            coming = coming[: max(0, self._in_one - held - 1)]
            batch = [task, *(other for other in coming if other.number not in self._trained)]
            statistics = self._executor.train([self._training_task(each) for each in batch])
            self._trained.update(
                (each.number, trained) for each, trained in zip(batch, statistics, strict=True)
            )
        trained = self._trained[task.number]
        self._log.note(np.array([task.number]), [trained])
        if not trained.is_finite:
            return Outcome.FAILED, "not_finite", 0
        if self._limits_norms and _known(trained.update_norm) > self._gate.max_norm:
            self._executor.forget_residuals([task.client])  # as its device does
            reason = RejectionReason.NORM_EXCEEDED
            return Outcome.REJECTED, reason.name.lower(), int(reason)
        return None

    def reduce(self, tasks: Sequence[VirtualTask]) -> tuple[Reduced, list[VirtualTask]]:
        """Sum the tasks' updates; returns also the tasks whose training left the numbers."""
        reduced = self._executor.reduce([self._training_task(task) for task in tasks])
        for task in tasks:
            self._trained.pop(task.number, None)
        self._on_reduced(reduced.statistics)
        self._log.note(np.array([task.number for task in tasks], np.int64), reduced.statistics)
        pairs = zip(tasks, reduced.statistics, strict=True)
        diverged = [task for task, trained in pairs if not trained.is_finite]
        task_ids = [task.task_id for task in tasks]
        if diverged:
            self._executor.forget(task_ids)
        else:
            self._executor.carry_over(task_ids)
        return reduced, diverged

    def let_go(self, task: VirtualTask) -> None:
        """A task's update is not wanted."""
        if self._trained.pop(task.number, None) is not None:
            self._executor.forget([task.task_id])

    def close(self) -> None:
        """No update is wanted any more."""
        self._executor.forget([f"t{number}" for number in self._trained])
        self._trained.clear()

    def forget_weights(self, before: int) -> None:
        """Versions before this one are no longer trained on."""
        self._executor.forget_weights(before)

    def reference(self, task: VirtualTask) -> UpdateReference:
        """A completed task's update, as strategies see it; NaN where it is not trained yet."""
        trained = self._trained.get(task.number)
        return UpdateReference(
            task_id=task.task_id,
            client_id=str(task.client),
            base_version=task.base_version,
            num_examples=task.examples,
            weight=self._job.strategy.weight(task.examples),
            update_norm=_or_nan(trained and trained.update_norm),
            loss_before=_or_nan(trained and trained.loss_before),
            loss_after=_or_nan(trained and trained.loss_after),
            train_s=task.end_s - task.started_s,
            bytes_down=task.bytes_down,
            bytes_up=task.bytes_up,
        )

    def _training_task(self, task: VirtualTask) -> TrainingTask:
        return TrainingTask(
            task_id=task.task_id,
            data_client=int(self._data_client[task.client]),
            base_version=task.base_version,
            weight=self._job.strategy.weight(task.examples),
            learning_rate=self._job.client.optimizer.learning_rate_at(task.base_version),
            shuffle_seed=shuffle_seed(self._seed, task.task_id),
            client=task.client,
        )


def _known(number: float | None) -> float:
    """A number of an update that decides on it.

    Raises:
        ValueError: If the executor was not asked for it; see `outputs_needed`.
    """
    if number is None:
        raise ValueError("the job decides on norms of updates, which its executor does not compute")
    return number


def _or_nan(number: float | None) -> float:
    return math.nan if number is None else number
