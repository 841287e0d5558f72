"""The executor that an environment's ``executors`` block asks for."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np

from modeling.spec import ModelSpec
from server.job import ClientTraining
from simulation.cluster_settings import ClusterSettings
from simulation.executors.executor import ClientOutputs, Executor
from simulation.executors.no_training import NoTraining
from simulation.executors.records import ClientRecords

if TYPE_CHECKING:  # an environment names what executors are made of
    from simulation.environment import TrainingSettings

_NOTHING_MORE = ClientOutputs()


def make_executor(
    kind: Literal["local", "ray", "none"],
    count: int,
    model: ModelSpec,
    client: ClientTraining,
    records: ClientRecords,
    outputs: ClientOutputs = _NOTHING_MORE,
    training: "TrainingSettings | None" = None,
    cluster: ClusterSettings | None = None,
    on_replaced: Callable[[str], None] = lambda _: None,
    stall_timeout_s: float = 600.0,
) -> Executor:
    """Start what trains a job's updates.

    Args:
        kind: ``local``: processes of this machine; ``ray``: actors of a Ray cluster; ``none``: no
            training at all.
        count: One local trains in this process; for more, one process less than that is started.
        client: What a task does, from the job file.
        outputs: What is computed of each update besides.
        training: On which path; None for the fastest.
        cluster: Where the actors of ``ray`` run.
        on_replaced: Told a sentence when a process or actor has ended and another took its place.
        stall_timeout_s: One that finishes none of its tasks for so long is replaced.

    Raises:
        ExecutorLost: If a process does not start.
        NotEnoughMemory: If so many executors on this machine could not train for want of memory.
        FlintError: Or whatever `RayExecutors` raises.
    """
    if kind == "none":
        examples = np.minimum(records.records, client.max_records)
        return NoTraining(model.parameter_count, examples)
    from simulation.executors.local import LocalExecutor
    from simulation.executors.memory_needed import MemoryNeed, require_memory
    from simulation.executors.paths import choose_path
    from simulation.executors.processes import ProcessExecutors
    from simulation.executors.training import LocalPlan

    plan = LocalPlan.of(
        client,
        outputs,
        by_module=training is not None and training.path == "module",
        device="cpu" if training is None else training.device,
    )
    if kind == "ray":
        from simulation.executors.ray_executors import RayExecutors

        return RayExecutors(
            count,
            model,
            plan,
            records,
            cluster,
            on_replaced=on_replaced,
            stall_timeout_s=stall_timeout_s,
        )
    path = choose_path(model, plan, records)
    require_memory(MemoryNeed.of(model, plan, records, path), count, model.name)
    if count == 1:
        return LocalExecutor(model, plan, records, path)
    return ProcessExecutors(
        *(count, model, plan, records), on_replaced=on_replaced, stall_timeout_s=stall_timeout_s
    )


def training_path(executor: Executor) -> str | None:
    """How an executor trains, and why, as a run says it; None if it trains nothing."""
    if isinstance(executor, NoTraining):
        return None
    from simulation.executors.local import LocalExecutor
    from simulation.executors.processes import ProcessExecutors
    from simulation.executors.ray_executors import RayExecutors

    known = LocalExecutor | ProcessExecutors | RayExecutors
    return executor.path.sentence if isinstance(executor, known) else None


def executor_notes(executor: Executor, count: int) -> tuple[str, ...]:
    """What a run says of its ``count`` executors and where they are, beside how they train."""
    if isinstance(executor, NoTraining):
        return ()
    from simulation.executors.processes import ProcessExecutors
    from simulation.executors.ray_executors import RayExecutors

    if isinstance(executor, ProcessExecutors):
        idle = executor.path.idle_sentence(count)
        return () if idle is None else (idle,)
    return executor.notes if isinstance(executor, RayExecutors) else ()
