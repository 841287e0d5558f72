"""Executors of the tiny model, and the processes that they started."""

import numpy as np
import psutil

from modeling.zoo import get_model
from simulation.executors.processes import ProcessExecutors
from simulation.executors.records import ClientRecords
from tests.simulation.executors.conftest import PLAN

MODEL = get_model("tiny_mlp")
ZEROS = np.zeros(MODEL.parameter_count, np.float32)


def start(
    records: ClientRecords, count: int = 2, plan=PLAN, **options
) -> tuple[ProcessExecutors, list[psutil.Process]]:
    """An executor that knows version 1, of zeros; and its processes in the order of their start."""
    others = set(psutil.Process().children())
    executor = ProcessExecutors(count, MODEL, plan, records, **options)
    executor.set_weights(1, ZEROS)
    return executor, newest(others)


def newest(others: set[psutil.Process]) -> list[psutil.Process]:
    """Children of this process that are none of the others, in the order of their start."""
    children = [child for child in psutil.Process().children() if child not in others]
    return sorted(children, key=lambda child: (child.create_time(), child.pid))
