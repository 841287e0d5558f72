"""The newest version of somebody's arrays, and what the updates in it reported."""

from collections.abc import Mapping, Sequence

from flwr.app import ArrayRecord, RecordDict

from server.coordination.tasks import Outcome, TaskResult
from server.coordination.versions import StoredVersion
from server.flower.node_tasks import Parameters
from server.flower.strategies.array_layout import ArrayLayout, record_of


class ArrayVersions:
    """The `VersionStore` of a ServerApp: in memory, for as long as its process lives."""

    def __init__(self, layout: ArrayLayout, initial: StoredVersion) -> None:
        self._layout = layout
        self._reported: dict[str, RecordDict] = {}
        self.arrays: Parameters = {}
        self._use(initial)
        self.metrics: tuple[RecordDict, ...] = ()

    def note_metrics(self, task_id: str, metrics: RecordDict) -> None:
        """What came with an update; kept until it is known what became of the task."""
        self._reported[task_id] = metrics

    @property
    def record(self) -> ArrayRecord:
        """The newest arrays as Flower sends them; a record of one's own of shared arrays."""
        return ArrayRecord(dict(self._record))

    def newest(self) -> StoredVersion:
        """See `VersionStore.newest`."""
        return self._newest

    def releases_after(self, number: int) -> tuple[str, ...]:  # noqa: ARG002
        """None: nothing outlives the process."""
        return ()

    def store(self, version: StoredVersion, results: Sequence[TaskResult]) -> bytes:
        """See `VersionStore.store`; there is no digest, for nothing is looked up by one.

        ``arrays`` and ``metrics`` are then those of this version.
        """
        self._use(version)
        self.metrics = self._taken(results)
        return b""

    def ended_tasks(self) -> tuple[str, ...]:
        """None: nothing is taken up again, so nothing is told twice."""
        return ()

    def record_metrics(self, number: int, metrics: Mapping[str, float]) -> None:
        """Nothing: evaluations go into Flower's result."""

    def store_results(self, results: Sequence[TaskResult]) -> None:
        """See `VersionStore.store_results`."""
        self._taken(results)

    def _use(self, version: StoredVersion) -> None:
        self._newest = version
        self.arrays = self._layout.arrays(version.weights)
        self._record = record_of(self.arrays)

    def _taken(self, results: Sequence[TaskResult]) -> tuple[RecordDict, ...]:
        """Metrics of the tasks that count; those of the others are forgotten with them."""
        taken = [(result, self._reported.pop(result.task_id, None)) for result in results]
        return tuple(
            metrics
            for result, metrics in taken
            if metrics is not None and result.outcome is Outcome.SUCCEEDED
        )
