"""The executor that an environment's ``executors`` block asks for."""

from typing import Literal

import numpy as np

from modeling.spec import ModelSpec
from server.job import ClientTraining
from simulation.executors.executor import ClientOutputs, Executor
from simulation.executors.no_training import NoTraining
from simulation.executors.records import ClientRecords

_NOTHING_MORE = ClientOutputs()


def make_executor(
    kind: Literal["local", "none"],
    count: int,
    model: ModelSpec,
    client: ClientTraining,
    records: ClientRecords,
    outputs: ClientOutputs = _NOTHING_MORE,
) -> Executor:
    """Start what trains a job's updates.

    Args:
        kind: ``local``: processes of this machine; ``none``: no training at all.
        count: One trains in this process, without starting any; more in as many processes.
        client: What a task does, from the job file.
        outputs: What is computed of each update besides.

    Raises:
        ExecutorLost: If a process does not start.
    """
    if kind == "none":
        examples = np.minimum(records.records, client.max_records)
        return NoTraining(model.parameter_count, examples)
    from simulation.executors.local import LocalExecutor
    from simulation.executors.processes import ProcessExecutors
    from simulation.executors.training import LocalPlan

    plan = LocalPlan.of(client, outputs)
    if count == 1:
        return LocalExecutor(model, plan, records)
    return ProcessExecutors(count, model, plan, records)


def training_path(executor: Executor) -> str | None:
    """How an executor trains, and why, as a run says it; None if it trains nothing."""
    if isinstance(executor, NoTraining):
        return None
    from simulation.executors.local import LocalExecutor
    from simulation.executors.processes import ProcessExecutors

    return (
        executor.path.sentence if isinstance(executor, LocalExecutor | ProcessExecutors) else None
    )
