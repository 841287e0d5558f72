"""What trains the updates of the virtual clock: in this process, in several, or not at all."""

from simulation.executors.executor import (
    ClientOutputs,
    Executor,
    Reduced,
    TrainingTask,
    UpdateStatistics,
)
from simulation.executors.make import executor_notes, make_executor, training_path
from simulation.executors.no_training import NoTraining

__all__ = [
    "ClientOutputs",
    "Executor",
    "NoTraining",
    "Reduced",
    "TrainingTask",
    "UpdateStatistics",
    "executor_notes",
    "make_executor",
    "training_path",
]
