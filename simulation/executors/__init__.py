"""What trains the updates of the virtual clock: in this process, in several, or not at all."""

from simulation.executors.executor import Executor, Reduced, TrainingTask, UpdateStatistics

__all__ = ["Executor", "Reduced", "TrainingTask", "UpdateStatistics"]
