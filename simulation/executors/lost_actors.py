"""What a user is told of executors of a cluster that end or do not start."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from device_runtime.errors import FlintError
from simulation.executors.ray_actor import Instruction
from simulation.executors.ray_cluster import ClusterConnection
from simulation.executors.ray_records import RecordsMissingOnNode
from simulation.executors.whole_files import UnusableRecords

MOST_DEATHS = 3
"""So often an executor may end without an answer between; then the run stops."""
MOST_STALLS = 2
"""So often it may hang, which takes longer."""


class ExecutorsNotReady(FlintError):
    """Not all executors of a cluster started in time."""

    code = "FLN-3062"


class ClusterExecutorLost(FlintError):
    """An executor of a cluster ended, and the run cannot or should not go on without it."""

    code = "FLN-3064"


class ClusterExecutorStalled(ClusterExecutorLost):
    """An executor of a cluster lives but does not get on, and neither did the one before."""

    code = "FLN-3066"


class ActorStalled(Exception):
    """An actor has finished no task for longer than it may."""


class ForeignNode(FlintError):
    """A node has other software than the run, so its updates would be others."""

    code = "FLN-3065"


@dataclass(eq=False)
class Place:
    """One of the executors: who does its work now, and what it has still to be told.

    Attributes:
        number: From 0.
        of: How many there are.
        actor: Handle of the Ray actor.
        node: Where that runs, for messages.
        queue: Instructions that go with the next question.
        deaths: Since the last answer.
        stalls: Of these, by hanging.
    """

    number: int
    of: int
    actor: Any = None
    node: str = ""
    queue: list[Instruction] = field(default_factory=list)
    deaths: int = 0
    stalls: int = 0

    @property
    def name(self) -> str:
        """Which executor, for messages."""
        node = f" on node {self.node}" if self.node else ""
        return f"executor {self.number + 1} of {self.of}{node}"


def not_ready(
    late: Sequence[Place], needs: str, within_s: float, connection: ClusterConnection
) -> ExecutorsNotReady:
    """The error of a run whose executors do not all start in time.

    Args:
        late: Those that do not.
        needs: What an executor reserves, in words.
    """
    count = f"{len(late)} of {late[0].of} executors"
    within = f"within {within_s:g} s (executors.ready_timeout_s)"
    nodes = sorted({place.node for place in late if place.node})
    if nodes:
        return ExecutorsNotReady(
            f"{count} do not answer {within}, on node {', '.join(nodes)}; look at that node, or "
            "take it out of the cluster"
        )
    total, free = connection.free_cores()
    return ExecutorsNotReady(
        f"{count} have no {needs} to run on {within}: the cluster at {connection.address} has "
        f"{total:g} cores, {free:g} of them free; add nodes, or lower executors.count"
    )


def lost_errors(of_ray: Any) -> tuple[type[Exception], ...]:  # noqa: ANN401 - Ray's module
    """What is raised where an actor's answer is wanted and the actor is no more, or hangs.

    Args:
        of_ray: ``ray.exceptions``.
    """
    return (
        of_ray.RayActorError,
        of_ray.ObjectLostError,
        of_ray.OutOfMemoryError,
        of_ray.NodeDiedError,
        ActorStalled,
    )


def is_given_up(place: Place) -> bool:
    """Whether it has ended so often on the same tasks that another would not help."""
    return place.deaths >= MOST_DEATHS or place.stalls >= MOST_STALLS


def actor_lost(place: Place, error: Exception, *, feeds_back: bool) -> ClusterExecutorLost:
    """The error of a run that cannot go on without an executor.

    Args:
        feeds_back: Whether clients' error feedback was in it.
    """
    if feeds_back:
        why = "what its clients' compressed updates had left out is lost with it"
    else:
        times = "time" + "s" * (place.deaths > 1)
        why = f"{place.deaths} {times} on the same clients without an answer"
    if isinstance(error, ActorStalled):
        return ClusterExecutorStalled(
            f"{place.name} hung, {why}: {error} (executors.stall_timeout_s); look at that node's "
            "disk, memory and network, or give tasks longer, and resume the run"
        )
    return ClusterExecutorLost(
        f"{place.name} ended, {why}: {cause_of(error)}; resume the run, with fewer executors a "
        "node if memory ran out"
    )


def failure_of(place: Place, error: Any) -> FlintError:  # noqa: ANN401 - Ray's RayTaskError
    """The error of a run whose actor has raised one."""
    if isinstance(error.cause, UnusableRecords):
        return RecordsMissingOnNode(f"{place.name}: {error.cause.sentence}")
    if isinstance(error.cause, FlintError):
        return error.cause
    said = str(error).strip().splitlines()
    return ClusterExecutorLost(
        f"{place.name} failed: {said[-1] if said else error!r}; its log on that node says more, "
        "and the run can be resumed"
    )


def cause_of(error: Exception) -> str:
    """Ray's account of an end, in a line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = lines[-1] if lines else repr(error)
    return said.split(". ")[0].rstrip(".")
