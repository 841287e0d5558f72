"""A dry-run's model versions: in memory, as long as tasks may still train from them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.coordination.tasks import TaskResult
from server.coordination.versions import JobTotals, StoredVersion
from simulation.executors.executor import Executor
from simulation.task_log import TaskLog


class LiveVersions:
    """The newest version of one trial, and the weights of all that tasks may still train from.

    Args:
        initial: The newest version; version 0 of a new trial.
        live_from: Oldest version whose updates may count, given the newest.
        executor: Trains from the versions held here.
    """

    def __init__(
        self, initial: StoredVersion, live_from: Callable[[int], int], executor: Executor
    ) -> None:
        self._newest = initial
        self._live_from = live_from
        self._executor = executor
        self._weights: dict[int, NDArray[np.float32]] = {}
        self._know(initial.number, initial.weights)

    def newest(self) -> StoredVersion:
        """The newest version."""
        return self._newest

    def add(self, version: StoredVersion) -> None:
        """A version is the newest from now on."""
        self._newest = version
        self._know(version.number, version.weights)

    def note_metrics(self, metrics: Mapping[str, float]) -> None:
        """The newest version has been measured."""
        self._newest = replace(self._newest, metrics=metrics)

    # -- checkpoints ---------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """The newest version, and the weights of all live ones."""
        newest = self._newest
        return {
            "number": newest.number,
            "optimizer_state": dict(newest.optimizer_state),
            "totals": asdict(newest.totals),
            "metrics": dict(newest.metrics),
            "weights": {str(number): weights for number, weights in self._weights.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on after `state`."""
        self._weights.clear()
        number = state["number"]
        weights = {int(each): array for each, array in state["weights"].items()}
        self._newest = StoredVersion(
            number,
            weights[number],
            state["optimizer_state"],
            totals=JobTotals(**state["totals"]),
            metrics=state["metrics"],
        )
        for each, array in sorted(weights.items()):
            self._know(each, array)

    def _know(self, number: int, weights: NDArray[np.float32]) -> None:
        self._weights[number] = weights
        self._executor.set_weights(number, weights)
        live_from = self._live_from(number)
        for old in [known for known in self._weights if known < live_from]:
            del self._weights[old]


class RunVersions(LiveVersions):
    """The `VersionStore` of one trial.

    Args:
        initial: See `LiveVersions`; so too ``live_from`` and ``executor``.
        log: Told what became of tasks.
        on_measured: Told a version's metrics.
    """

    def __init__(
        self,
        initial: StoredVersion,
        live_from: Callable[[int], int],
        executor: Executor,
        log: TaskLog,
        on_measured: Callable[[int, Mapping[str, float]], None],
    ) -> None:
        super().__init__(initial, live_from, executor)
        self._log = log
        self._on_measured = on_measured

    def releases_after(self, number: int) -> tuple[str, ...]:  # noqa: ARG002
        """None: a virtual fleet holds no release that is not committed at once."""
        return ()

    def ended_tasks(self) -> tuple[str, ...]:
        """None: a virtual fleet says nothing twice."""
        return ()

    def store(self, version: StoredVersion, results: Sequence[TaskResult]) -> bytes:
        """See `VersionStore.store`; no digest, for weights reach the executors directly."""
        self.add(version)
        self.store_results(results)
        return b""

    def record_metrics(self, number: int, metrics: Mapping[str, float]) -> None:
        """See `VersionStore.record_metrics`."""
        self.note_metrics(metrics)
        self._on_measured(number, metrics)

    def store_results(self, results: Sequence[TaskResult]) -> None:
        """See `VersionStore.store_results`."""
        for result in results:
            number = int(result.task_id.removeprefix("t"))
            self._log.decide(number, result.outcome, result.reason, result.version)
