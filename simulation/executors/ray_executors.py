"""Executors on the nodes of a Ray cluster: results as in one process, and none lost with a node."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from modeling.spec import ModelSpec
from simulation.cluster_settings import ClusterSettings
from simulation.executors.client_residuals import merged
from simulation.executors.compiled.training import LANES
from simulation.executors.executor import Reduced, TrainingTask, UpdateStatistics
from simulation.executors.paths import choose_path
from simulation.executors.ray_actor import Assignment, Instruction, PartitionActor, Software
from simulation.executors.ray_cluster import ClusterConnection
from simulation.executors.ray_records import SentRecords, SharedRecords
from simulation.executors.records import ClientRecords
from simulation.executors.shared_sums import reduced
from simulation.executors.task_columns import StatisticsColumns, TaskColumns
from simulation.executors.training import LocalPlan

MOST_DEATHS = 3
"""So often an executor may end without an answer between; then the run stops."""

_SENT_AT_A_TIME = 4
"""Partitions in the object store of the run's own node at a time."""


class ExecutorsNotReady(FlintError):
    """Not all executors of a cluster started in time."""

    code = "FLN-3062"


class ClusterExecutorLost(FlintError):
    """An executor of a cluster ended, and the run cannot or should not go on without it."""

    code = "FLN-3064"


class ForeignNode(FlintError):
    """A node has other software than the run, so its updates would be others."""

    code = "FLN-3065"


@dataclass(eq=False)
class _Place:
    """One of the executors: who does its work now, and what it has still to be told.

    Attributes:
        number: From 0.
        actor: Handle of the Ray actor.
        node: Where that runs, for messages.
        queue: Instructions that go with the next question.
        deaths: Since the last answer.
    """

    number: int
    actor: Any = None
    node: str = ""
    queue: list[Instruction] = field(default_factory=list)
    deaths: int = 0


@dataclass(frozen=True, slots=True)
class _Share:
    """An executor's part of what was asked; ``positions`` among all tasks, shape ``(share,)``."""

    place: _Place
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

    An actor that ends is replaced, on whatever node has room, and its unanswered share asked for
    again. Only answers are summed, each once, so nothing is counted twice. Nothing is asked of
    anybody until all are ready. With error feedback what clients left out is lost with an actor:
    the run stops then, and resumes from its checkpoint.

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
    ) -> None:
        """Connect, start the actors, and wait until all are ready.

        Args:
            count: Number of actors, at least 1.
            settings: None: the defaults.
            on_replaced: Told a sentence when an actor has ended and another took its place.

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
        self._timeout_s = settings.ready_timeout_s
        self._is_shared = settings.records == "shared" and records.path is not None
        self._records = records
        self.path = choose_path(model, plan, records)
        self._executor_of = self.path.executor_of(count)
        self._on_replaced = on_replaced
        self._weights: dict[int, Any] = {}
        self._places = [_Place(number) for number in range(count)]
        self._software = Software.here()
        self._connection = ClusterConnection(settings.address, count)
        with self._or_none():
            import ray
            from ray import exceptions

            self._ray = ray
            self._task_error = exceptions.RayTaskError
            self._lost_errors = (
                exceptions.RayActorError,
                exceptions.ObjectLostError,
                exceptions.OutOfMemoryError,
                exceptions.NodeDiedError,
            )
            self._actor_class = ray.remote(
                num_cpus=1,
                num_gpus=1 if plan.device == "cuda" else 0,
                max_restarts=0,
                max_task_retries=0,
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
            asked = [(place, self._send(place, "residuals")) for place in self._places]
            found = []
            for place, answer in asked:
                try:
                    found.append(self._received(place, answer))
                except self._lost_errors as error:
                    raise self._lost(place, error) from error
            return merged(found)

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
                (ready,), _ = self._ray.wait(list(asked), num_returns=1)
                share = asked.pop(ready)
                try:
                    answers.append((share, self._received(share.place, ready)))
                except self._lost_errors as error:
                    self._replace(share.place, error)
                    asked[self._send(share.place, question, share.tasks)] = share
                else:
                    share.place.deaths = 0
        return sorted(answers, key=lambda answer: answer[0].place.number)

    def _tell_all(self, name: str, *arguments: object) -> None:
        for place in self._places:
            place.queue.append((name, arguments))

    def _send(self, place: _Place, question: str, *arguments: object) -> Any:  # noqa: ANN401
        """Ask an actor, with what it was to be told; returns the reference of its answer."""
        queue, place.queue = tuple(place.queue), []
        weights = [self._weights[told[0]] for name, told in queue if name == "set_weights"]
        return getattr(place.actor, question).remote(queue, *arguments, *weights)

    def _received(self, place: _Place, answer: Any) -> Any:  # noqa: ANN401 - Ray's own
        """An answer, once it is there.

        Raises:
            FlintError: That the actor raised.
            ClusterExecutorLost: If it failed otherwise.
        """
        try:
            return self._ray.get(answer)
        except self._task_error as error:
            if isinstance(error.cause, FlintError):
                raise error.cause from None
            said = str(error).strip().splitlines()
            raise ClusterExecutorLost(
                f"{self._name(place)} failed: {said[-1] if said else error!r}; its log on that "
                "node says more, and the run can be resumed"
            ) from error

    def _start(self, places: Sequence[_Place]) -> list[str]:
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

    def _begun(self, place: _Place) -> Any:  # noqa: ANN401 - Ray's own
        records = self._whole or self._ray.put(self._cut(place))
        return place.actor.begin.remote(self._assignment, records)

    def _cut(self, place: _Place | None) -> SharedRecords | SentRecords:
        """The records as an actor is given them."""
        if place is None and self._records.path is not None:
            return SharedRecords.of(self._records, self._records.path)
        number = 0 if place is None else place.number
        return SentRecords.of(self._records, self._executor_of == number)

    def _each(
        self, places: Sequence[_Place], ask: Callable[[_Place], Any], deadline_s: float
    ) -> Iterator[tuple[_Place, Any]]:
        """Ask all at a time; yields their answers, or raises what keeps one from being ready."""
        asked = [(place, ask(place)) for place in places]
        references = [reference for _, reference in asked]
        timeout_s = max(0.0, deadline_s - time.monotonic())
        _, missing = self._ray.wait(references, num_returns=len(references), timeout=timeout_s)
        for place, reference in asked:
            if reference in missing:
                raise self._late([p for p, each in asked if each in missing])
            try:
                yield place, self._received(place, reference)
            except self._lost_errors as error:
                raise ExecutorsNotReady(
                    f"{self._name(place)} cannot start: {_cause(error)}; FLINT with its extra "
                    "cluster must be installed on every node, and memory be enough"
                ) from error

    def _late(self, missing: Sequence[_Place]) -> ExecutorsNotReady:
        within = f"within {self._timeout_s:g} s (executors.ready_timeout_s)"
        nodes = sorted({place.node for place in missing if place.node})
        if nodes:
            return ExecutorsNotReady(
                f"{len(missing)} of {self._count} executors do not answer {within}, on node "
                f"{', '.join(nodes)}; look at that node, or take it out of the cluster"
            )
        total, free = self._connection.free_cores()
        return ExecutorsNotReady(
            f"{len(missing)} of {self._count} executors have no core to run on {within}: the "
            f"cluster at {self._connection.address} has {total:g}, {free:g} of them free; add "
            "nodes, or lower executors.count"
        )

    def _replace(self, place: _Place, error: Exception) -> None:
        """Have another actor take a place over."""
        place.deaths += 1
        if self._feeds_back or place.deaths >= MOST_DEATHS:
            raise self._lost(place, error) from error
        ended = f"{self._name(place)} ended ({_cause(error)})"
        self._end(place)
        self._start([place])
        self._on_replaced(f"{ended}; another on node {place.node} does its tasks again")

    def _lost(self, place: _Place, error: Exception) -> ClusterExecutorLost:
        if self._feeds_back:
            why = "what its clients' compressed updates had left out is lost with it"
        else:
            times = "time" + "s" * (place.deaths > 1)
            why = f"{place.deaths} {times} on the same clients without an answer"
        return ClusterExecutorLost(
            f"{self._name(place)} ended, {why}: {_cause(error)}; resume the run, with fewer "
            "executors a node if memory ran out"
        )

    def _name(self, place: _Place) -> str:
        node = f" on node {place.node}" if place.node else ""
        return f"executor {place.number + 1} of {self._count}{node}"

    def _end(self, place: _Place) -> None:
        if place.actor is not None:
            with contextlib.suppress(self._ray.exceptions.RayError):  # it has ended by itself
                self._ray.kill(place.actor)
        place.actor = None

    def _told(self, processors: Sequence[str]) -> tuple[str, ...]:
        nodes = sorted({place.node for place in self._places})
        placed = f"executors: {self._count} on {len(nodes)} node" + "s" * (len(nodes) > 1)
        notes = [f"{placed} of the Ray cluster at {self._connection.address}"]
        share = float(self.path.in_samples.mean()) if len(self.path.in_samples) else 0.0
        if share and self._count > LANES:
            notes.append(
                f"{share:.0%} of the clients are trained in sample space, which {LANES} executors "
                f"at most share; the other {self._count - LANES} have only the rest"
            )
        kinds = sorted({*processors, self._software.processor})
        if len(kinds) > 1:
            notes.append(
                f"the cluster's processors differ ({', '.join(kinds)}), so last bits depend on "
                "which node trains whom"
            )
        return tuple(notes)

    @contextlib.contextmanager
    def _or_none(self) -> Iterator[None]:
        """End all actors when an exchange is broken off."""
        try:
            yield
        except BaseException:
            self.close()
            raise


def _statistics(tasks: TaskColumns, answers: Sequence[tuple[_Share, _Answer]]) -> StatisticsColumns:
    """In the order of the tasks."""
    parts = [(share.positions, statistics) for share, (_, statistics) in answers]
    return StatisticsColumns.placed(tasks.task_ids, parts)


def _cause(error: Exception) -> str:
    """Ray's account of an end, in a line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = lines[-1] if lines else repr(error)
    return said.split(". ")[0].rstrip(".")
