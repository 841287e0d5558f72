"""Executors on the nodes of a Ray cluster: results as in one process, and none lost with a node."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modeling.spec import ModelSpec
from simulation.cluster_settings import ClusterSettings
from simulation.executors.actor_progress import WATCH, ActorProgress
from simulation.executors.client_residuals import merged
from simulation.executors.executor import Reduced, TrainingTask, UpdateStatistics
from simulation.executors.lost_actors import (
    ActorStalled,
    ClusterExecutorLost,
    ExecutorsNotReady,
    ForeignNode,
    Place,
    actor_lost,
    cause_of,
    failure_of,
    is_given_up,
    lost_errors,
    not_ready,
)
from simulation.executors.paths import choose_path
from simulation.executors.ray_actor import Assignment, PartitionActor, Software
from simulation.executors.ray_cluster import ClusterConnection
from simulation.executors.ray_records import SentRecords, SharedRecords
from simulation.executors.records import ClientRecords
from simulation.executors.shared_sums import reduced
from simulation.executors.task_columns import StatisticsColumns, TaskColumns
from simulation.executors.training import LocalPlan

_SENT_AT_A_TIME = 4
"""Partitions in the object store of the run's own node at a time."""


@dataclass(frozen=True, slots=True)
class _Share:
    """An executor's part of what was asked; ``positions`` among all tasks, shape ``(share,)``."""

    place: Place
    positions: NDArray[np.int64]
    tasks: TaskColumns


_Answer = tuple[dict[int, NDArray[np.float64]], StatisticsColumns]


class RayExecutors:
    """An `Executor` whose `LocalExecutor`s are actors of a Ray cluster, one core each.

    All tasks of a data client go to one actor, which holds its records. A question carries columns
    of tasks and whatever the actor was to be told since the last one; its answer one sum per base
    version and columns of statistics. Weights are put into the object store once a version. Sums
    and statistics are the same to the bit for any number of actors: terms are on a grid, so that
    additions are exact (`simulation.executors.grid_sum`).

    An actor that ends or hangs is replaced, on whatever node has room, and its unanswered share
    asked for again. Only answers are summed, each once, so nothing is counted twice. Nothing is
    asked of anybody until all are ready. With error feedback what clients left out is lost with an
    actor: the run stops then, and resumes from its checkpoint.

    The actors end with this process.

    Attributes:
        path: How clients are trained.
        notes: What the user should know of the cluster.
    """

    def __init__(
        self,
        count: int,
        model: ModelSpec,
        plan: LocalPlan,
        records: ClientRecords,
        settings: ClusterSettings | None = None,
        *,
        on_replaced: Callable[[str], None] = lambda _: None,
        stall_timeout_s: float = 600.0,
    ) -> None:
        """Connect, start the actors, and wait until all are ready.

        Args:
            count: Number of actors, at least 1.
            settings: None: the defaults.
            on_replaced: Told a sentence when an actor has ended and another took its place.
            stall_timeout_s: An actor that finishes none of its tasks for so long is replaced.

        Raises:
            RayMissing: If Ray is not installed.
            ClusterUnreachable: If the cluster cannot be reached.
            ExecutorsNotReady: If an actor is not ready in time; names its node, where it has one.
            RecordsMissingOnNode: If records are to be on every node, and are not.
            ForeignNode: If a node has other software.
        """
        settings = settings or ClusterSettings()
        self._feeds_back = plan.codec is not None and plan.codec.error_feedback
        self._parameters = model.parameter_count
        self._count = count
        self._actor_needs = "core and GPU" if plan.device == "cuda" else "core"
        self._timeout_s = settings.ready_timeout_s
        self._is_shared = settings.records == "shared" and records.path is not None
        self._records = records
        self.path = choose_path(model, plan, records)
        self._executor_of = self.path.executor_of(count)
        self._on_replaced = on_replaced
        self._weights: dict[int, Any] = {}
        self._places = [Place(number, count) for number in range(count)]
        self._software = Software.here()
        self._connection = ClusterConnection(settings.address, count)
        import ray
        from ray import exceptions

        self._ray = ray
        self._cluster_errors = (exceptions.RayError, ConnectionError)  # the latter by ray://
        with self._or_none():
            self._task_error = exceptions.RayTaskError
            self._lost_errors = lost_errors(exceptions)
            self._progress = ActorProgress(ray, self._cluster_errors, stall_timeout_s)
            self._actor_class = ray.remote(
                num_cpus=1,
                num_gpus=1 if plan.device == "cuda" else 0,
                max_restarts=0,
                max_task_retries=0,
                concurrency_groups={WATCH: 1},
                scheduling_strategy="SPREAD",
            )(PartitionActor)
            self._assignment = ray.put(Assignment(model, plan, self.path))
            self._whole = ray.put(self._cut(None)) if self._is_shared else None
            processors = self._start(self._places)
        self.notes = self._told(processors)

    def set_weights(self, version: int, weights: NDArray[np.float32]) -> None:
        """Make a version known to train from; see `Executor.set_weights`."""
        if weights.shape != (self._parameters,):
            raise ValueError(f"weights of shape {weights.shape}, not ({self._parameters},)")
        with self._or_none():
            self._weights[version] = self._ray.put(weights.copy())
        self._tell_all("set_weights", version)

    def forget_weights(self, before: int) -> None:
        """Forget versions and what was trained from them; see `Executor.forget_weights`."""
        self._weights = {v: each for v, each in self._weights.items() if v >= before}
        for place in self._places:
            place.queue = [
                (name, arguments)
                for name, arguments in place.queue
                if not (name == "set_weights" and arguments[0] < before)
            ]
        self._tell_all("forget_weights", before)

    def expect(self, data_clients: NDArray[np.int64]) -> None:
        """Actors read ahead of what they are asked for, no further."""

    def train(self, tasks: Sequence[TrainingTask]) -> Sequence[UpdateStatistics]:
        """Train now, each actor its clients; see `Executor.train`."""
        columns = TaskColumns.of(tasks)
        answers = self._ask(columns, "train")
        return _statistics(columns, answers)

    def reduce(self, tasks: Sequence[TrainingTask]) -> Reduced:
        """Sum the tasks' updates, each actor its clients'; see `Executor.reduce`."""
        columns = TaskColumns.of(tasks)
        answers = self._ask(columns, "reduce")
        totals: dict[int, list[NDArray[np.float64]]] = {}
        for _, (found, _) in answers:
            for version, total in found.items():
                totals.setdefault(version, []).append(total)
        return reduced(columns, totals, _statistics(columns, answers))

    def forget(self, task_ids: Sequence[str]) -> None:
        """Let go of updates, wherever they are."""
        if task_ids:
            self._tell_all("forget", tuple(task_ids))

    def carry_over(self, task_ids: Sequence[str]) -> None:
        """These updates count; see `Executor.carry_over`."""
        if self._feeds_back:
            self._tell_all("carry_over", tuple(task_ids))

    def forget_residuals(self, clients: Sequence[int]) -> None:
        """Nothing that these clients' updates left out is to be sent."""
        if self._feeds_back:
            self._tell_all("forget_residuals", tuple(clients))

    def residuals(self) -> Mapping[str, Any]:
        """What clients' updates have left out, for a checkpoint."""
        if not self._feeds_back:
            return merged([])
        with self._or_none():
            asked = {self._send(place, "residuals"): place for place in self._places}
            found = {}
            while asked:
                answer, stalled = self._progress.first(asked)
                place = asked.pop(answer)
                try:
                    found[place.number] = self._received(place, answer, stalled)
                except self._lost_errors as error:
                    raise actor_lost(place, error, feeds_back=self._feeds_back) from error
            return merged([found[number] for number in sorted(found)])

    def restore_residuals(self, state: Mapping[str, Any]) -> None:
        """Go on after `residuals`, each actor with its clients'."""
        if self._feeds_back:
            for place in self._places:
                arguments = (state, place.number, len(self._places))
                place.queue.append(("restore_residuals", arguments))

    def close(self) -> None:
        """End the actors at once; what they have not answered is lost."""
        while self._places:
            self._end(self._places.pop())
        self._connection.close()

    def _ask(self, tasks: TaskColumns, question: str) -> list[tuple[_Share, _Answer]]:
        """Have each actor do its share, all at a time; answers in the order of executors."""
        for version in np.unique(tasks.base_version).tolist():
            if version not in self._weights:
                raise KeyError(version)
        owner = self._executor_of[tasks.data_client % len(self._executor_of)]
        answers: list[tuple[_Share, _Answer]] = []
        with self._or_none():
            asked: dict[Any, _Share] = {}
            for number in np.unique(owner).tolist():
                positions = np.flatnonzero(owner == number)
                share = _Share(self._places[number], positions, tasks.take(positions))
                asked[self._send(share.place, question, share.tasks)] = share
            while asked:
                of = {answer: share.place for answer, share in asked.items()}
                answer, stalled = self._progress.first(of)
                share = asked.pop(answer)
                try:
                    answers.append((share, self._received(share.place, answer, stalled)))
                except self._lost_errors as error:
                    self._replace(share.place, error)
                    asked[self._send(share.place, question, share.tasks)] = share
                else:
                    share.place.deaths = share.place.stalls = 0
        return sorted(answers, key=lambda answer: answer[0].place.number)

    def _tell_all(self, name: str, *arguments: object) -> None:
        for place in self._places:
            place.queue.append((name, arguments))

    def _send(self, place: Place, question: str, *arguments: object) -> Any:  # noqa: ANN401
        """Ask an actor, with what it was to be told; returns the reference of its answer."""
        queue, place.queue = tuple(place.queue), []
        weights = [self._weights[told[0]] for name, told in queue if name == "set_weights"]
        return getattr(place.actor, question).remote(queue, *arguments, *weights)

    def _received(
        self,
        place: Place,
        answer: Any,  # noqa: ANN401 - Ray's own
        stalled: ActorStalled | None = None,
    ) -> Any:  # noqa: ANN401 - Ray's own
        """An answer, once it is there.

        Raises:
            FlintError: That the actor raised.
            ActorStalled: If the actor hangs.
            ClusterExecutorLost: If it failed otherwise.
        """
        if stalled is not None:
            raise stalled
        try:
            return self._ray.get(answer)
        except self._task_error as error:
            raise failure_of(place, error) from error

    def _start(self, places: Sequence[Place]) -> list[str]:
        """Start actors and wait until each is ready to train; returns their nodes' processors."""
        deadline_s = time.monotonic() + self._timeout_s
        for place in places:
            place.actor, place.node = self._actor_class.remote(), ""
            place.queue = [("set_weights", (version,)) for version in sorted(self._weights)]
        for place, node in self._each(places, lambda p: p.actor.place.remote(), deadline_s):
            place.node = node
        processors = []
        for place, found in self._each(places, lambda p: p.actor.software.remote(), deadline_s):
            difference = found.difference(self._software)
            if difference is not None:
                raise ForeignNode(
                    f"node {place.node} has {difference}: updates trained there would be others; "
                    "install the same on all nodes"
                )
            processors.append(found.processor)
        at_a_time = len(places) if self._is_shared else _SENT_AT_A_TIME
        for first in range(0, len(places), at_a_time):
            some = places[first : first + at_a_time]
            for _ in self._each(some, self._begun, deadline_s):
                pass
        return processors

    def _begun(self, place: Place) -> Any:  # noqa: ANN401 - Ray's own
        records = self._whole or self._ray.put(self._cut(place))
        return place.actor.begin.remote(self._assignment, records)

    def _cut(self, place: Place | None) -> SharedRecords | SentRecords:
        """The records as an actor is given them."""
        if place is None and self._records.path is not None:
            return SharedRecords.of(self._records, self._records.path)
        number = 0 if place is None else place.number
        return SentRecords.of(self._records, self._executor_of == number)

    def _each(
        self, places: Sequence[Place], ask: Callable[[Place], Any], deadline_s: float
    ) -> Iterator[tuple[Place, Any]]:
        """Ask all at a time; yields their answers, or raises what keeps one from being ready."""
        asked = [(place, ask(place)) for place in places]
        references = [reference for _, reference in asked]
        timeout_s = max(0.0, deadline_s - time.monotonic())
        _, missing = self._ray.wait(references, num_returns=len(references), timeout=timeout_s)
        for place, reference in asked:
            if reference in missing:
                late = [p for p, each in asked if each in missing]
                needs, within_s = self._actor_needs, self._timeout_s
                raise not_ready(late, needs, within_s, self._connection)
            try:
                yield place, self._received(place, reference)
            except self._lost_errors as error:
                raise ExecutorsNotReady(
                    f"{place.name} cannot start: {cause_of(error)}; FLINT with its extra "
                    "cluster must be installed on every node, and memory be enough"
                ) from error

    def _replace(self, place: Place, error: Exception) -> None:
        """Have another actor take a place over."""
        place.deaths += 1
        place.stalls += isinstance(error, ActorStalled)
        if self._feeds_back or is_given_up(place):
            raise actor_lost(place, error, feeds_back=self._feeds_back) from error
        how = "hung" if isinstance(error, ActorStalled) else "ended"
        ended = f"{place.name} {how} ({cause_of(error)})"
        self._end(place)
        self._start([place])
        self._on_replaced(f"{ended}; another on node {place.node} does its tasks again")

    def _end(self, place: Place) -> None:
        if place.actor is not None:
            with contextlib.suppress(*self._cluster_errors):  # it has ended by itself
                self._ray.kill(place.actor)
        place.actor = None

    def _told(self, processors: Sequence[str]) -> tuple[str, ...]:
        nodes = len({place.node for place in self._places})
        placed = f"executors: {self._count} on {nodes} node" + "s" * (nodes > 1)
        notes = [f"{placed} of the Ray cluster at {self._connection.address}"]
        notes += filter(None, [self.path.idle_sentence(self._count)])
        kinds = sorted({*processors, self._software.processor})
        if len(kinds) > 1:
            notes.append(
                f"the cluster's processors differ ({', '.join(kinds)}), so last bits depend on "
                "which node trains whom"
            )
        return tuple(notes)

    @contextlib.contextmanager
    def _or_none(self) -> Iterator[None]:
        """End all actors when an exchange is broken off.

        Raises:
            ClusterExecutorLost: If Ray itself fails.
        """
        try:
            yield
        except self._cluster_errors as error:
            self.close()
            raise ClusterExecutorLost(
                f"the Ray cluster at {self._connection.address} failed: {cause_of(error)}; "
                "resume the run when it works again"
            ) from error
        except BaseException:
            self.close()
            raise


def _statistics(tasks: TaskColumns, answers: Sequence[tuple[_Share, _Answer]]) -> StatisticsColumns:
    """In the order of the tasks."""
    parts = [(share.positions, statistics) for share, (_, statistics) in answers]
    return StatisticsColumns.placed(tasks.task_ids, parts)
