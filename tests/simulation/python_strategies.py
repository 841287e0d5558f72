"""Strategies whose decisions are plain Python, as somebody would write their own."""

from dataclasses import dataclass

from server.coordination.tasks import Outcome
from server.strategies import FedAvg, FedBuff, RoundState, Step


class PythonFedBuff(FedBuff):
    """What FedBuff decides, computed another way."""

    def tasks_to_start(self, state: RoundState) -> int:
        on_their_way = state.offered + state.running
        return self.concurrency - on_their_way if on_their_way < self.concurrency else 0

    def next_step(self, state: RoundState) -> Step:
        return Step.WAIT if state.held < self.buffer_size else Step.AGGREGATE

    def oldest_live_version(self, version: int) -> int:
        return version - self.max_staleness if version > self.max_staleness else 0


class PythonFedAvg(FedAvg):
    """What FedAvg decides, by its own methods, which are asked one by one."""


@dataclass(frozen=True)
class GrowingBuffer:
    """Asynchronous: the buffer grows with the model's age, and is emptied every so often.

    Attributes:
        patience_s: After so long what is held is aggregated, and if it is less than `least`,
            thrown away.
    """

    first: int = 1
    most: int = 5
    concurrency: int = 4
    patience_s: float = 200.0
    least: int = 1
    pins_base_version: bool = False
    late_outcome: Outcome = Outcome.STALE
    late_reason: str = "too_old"
    needs_training_results: bool = False

    def tasks_to_start(self, state: RoundState) -> int:
        wanted = self.concurrency + state.version % 3
        return max(0, wanted - state.offered - state.running)

    def next_step(self, state: RoundState) -> Step:
        if state.held >= min(self.most, self.first + state.version // 2):
            return Step.AGGREGATE
        if state.now_s < self.deadline_s(state):
            return Step.WAIT
        return Step.AGGREGATE if state.held > self.least else Step.ABANDON

    def deadline_s(self, state: RoundState) -> float:
        return state.started_s + self.patience_s

    def oldest_live_version(self, version: int) -> int:
        return version - version % 2

    def base_weight(self, staleness: int) -> float:
        return 1.0 / (1.0 + staleness)

    def task_timeout_s(self, task_timeout_s: float) -> float:
        return min(task_timeout_s, 1000.0)


@dataclass(frozen=True)
class TrickleRounds(GrowingBuffer):
    """Synchronous: a round's tasks are granted a few at a time, others for those that failed."""

    pins_base_version: bool = True
    late_outcome: Outcome = Outcome.FAILED
    late_reason: str = "round_is_over"

    def tasks_to_start(self, state: RoundState) -> int:
        if state.offered + state.running + state.held >= self.most:
            return 0
        return 2 if state.granted else 1
