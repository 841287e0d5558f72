"""A strategy whose decisions are not compiled: the engine stops, and it is asked as it stands.

Devices, check-ins, tasks and the ledger are the engine's; only what the strategy decides is Python,
twice a turn of the coordinator: what becomes of the updates held, and how many tasks to start. It
sees what `server.coordination.job_runner.JobRunner` shows it, in the same order.
"""

import math
import struct
from numbers import Integral, Real

import numpy as np
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from server.strategies import RoundState, Step, Strategy
from simulation.timeline.layout import STATE
from simulation.timeline.layout import STEP as AFTER_NEWS

_MOST_IDLE_TURNS = 1000


class InvalidDecision(FlintError):
    """A strategy's answer is none that a coordinator could follow."""

    code = "FLN-3071"


class StrategyStuck(FlintError):
    """A strategy wants to be asked again at once, over and over, and decides nothing."""

    code = "FLN-3072"


def _offset(name: str) -> int:
    fields = STATE.fields
    if fields is None:
        raise TypeError("the engine's state has no fields")
    return int(fields[name][1])


_TURN = struct.Struct("=qqq")
"""Where a turn is: ``phase, is_over, idle_turns``."""
_TOLD = struct.Struct("=qddqqqqq")
"""A `RoundState`."""
_STEP = struct.Struct("=qqq")
"""What becomes of the updates held: ``step, next_oldest_live, is_answered``."""
_START = struct.Struct("=qqd")
"""What a turn begins with: ``is_answered, tasks, deadline_s``."""
_ANSWER_BYTES = _STEP.size - 8 + _START.size
"""``step`` up to ``deadline_s``; ``is_answered`` is in both."""
_AT_TURN, _AT_TOLD, _AT_STEP, _AT_START = map(_offset, ("phase", "version", "step", "is_answered"))
_WAIT, _AGGREGATE, _ = Step


class AskedStrategy:
    """Answers the engine.

    Args:
        state: The engine's, an array of one record of `STATE`, with the time-out of tasks.

    Raises:
        InvalidDecision: If that time-out is none.
    """

    def __init__(self, strategy: Strategy, state: NDArray[np.void]) -> None:
        self._strategy = strategy
        timeout_s = float(state["task_timeout_s"][0])
        if not 0.0 < timeout_s < math.inf:
            raise self._invalid("task_timeout_s", timeout_s)
        self._memory = state.view(np.uint8).data

    def decide(self) -> None:
        """Write down what the strategy decides where the engine is now.

        Raises:
            InvalidDecision: If an answer is none; says which.
            StrategyStuck: If it named deadlines that were over, and waited, for a thousand turns.
        """
        memory, strategy = self._memory, self._strategy
        phase, is_over, idle_turns = _TURN.unpack_from(memory, _AT_TURN)
        told = RoundState._make(_TOLD.unpack_from(memory, _AT_TOLD))
        if phase == AFTER_NEWS and (self._step(told) or is_over):
            return
        if idle_turns > _MOST_IDLE_TURNS:
            raise self._stuck(told)
        tasks = strategy.tasks_to_start(told)
        if tasks:
            if not isinstance(tasks, (int, Integral)) or tasks < 0:
                raise self._invalid("tasks_to_start", tasks)
            version, started_s, now_s, granted, offered, running, held, lost = told
            if granted == 0:
                started_s = now_s
            told = RoundState(
                version, started_s, now_s, granted + tasks, offered + tasks, running, held, lost
            )
        deadline_s = strategy.deadline_s(told)
        if deadline_s is None:
            deadline_s = math.inf
        elif not isinstance(deadline_s, (float, Real)) or math.isnan(deadline_s):
            raise self._invalid("deadline_s", deadline_s)
        try:
            _START.pack_into(memory, _AT_START, 1, tasks, deadline_s)
        except struct.error:
            raise self._invalid("tasks_to_start", tasks) from None

    def _step(self, told: RoundState) -> bool:
        """Write down what becomes of the updates held; returns whether anything does."""
        step, oldest = self._strategy.next_step(told), 0
        if step is _WAIT:
            _STEP.pack_into(self._memory, _AT_STEP, 0, 0, 0)
            return False
        if not isinstance(step, Step):
            raise self._invalid("next_step", step)
        if step is _AGGREGATE:
            oldest = self._strategy.oldest_live_version(told.version + 1)
        try:
            _STEP.pack_into(self._memory, _AT_STEP, step, oldest, 0)
        except struct.error:
            raise self._invalid("oldest_live_version", oldest) from None
        return True

    def _invalid(self, method: str, answer: object) -> InvalidDecision:
        wanted = {
            "next_step": "Step.WAIT, Step.AGGREGATE or Step.ABANDON",
            "tasks_to_start": "a whole number of tasks, 0 or more",
            "deadline_s": "seconds of the fleet's clock, or None",
            "oldest_live_version": "the number of a version",
            "task_timeout_s": "seconds, more than 0 and not infinite",
        }[method]
        name = type(self._strategy).__name__
        return InvalidDecision(f"{name}.{method} answered {answer!r}; it must return {wanted}")

    def _stuck(self, told: RoundState) -> StrategyStuck:
        name = type(self._strategy).__name__
        return StrategyStuck(
            f"{name} waits at {told.now_s:.3f} virtual seconds for a deadline that is over: "
            f"{name}.deadline_s names it, and {name}.next_step answers WAIT in {told}; at its "
            "deadline a strategy must aggregate, abandon, or name a later one"
        )


class RememberedStrategy(AskedStrategy):
    """A strategy whose decisions hang on more than it is shown, so none is asked for twice.

    An engine that goes again is given the answers that the first one was.

    Args:
        answers: Of one engine after the other, a trial's; new ones are added.
    """

    def __init__(self, strategy: Strategy, state: NDArray[np.void], answers: bytearray) -> None:
        super().__init__(strategy, state)
        self._answers, self._heard_bytes = answers, 0

    def decide(self) -> None:
        """See `AskedStrategy.decide`."""
        first, beyond = self._heard_bytes, self._heard_bytes + _ANSWER_BYTES
        self._heard_bytes = beyond
        answer = self._memory[_AT_STEP : _AT_STEP + _ANSWER_BYTES]
        if first < len(self._answers):
            answer[:] = self._answers[first:beyond]
            return
        super().decide()
        self._answers += answer
