"""A strategy whose decisions are not compiled: the engine stops, and it is asked as it stands.

Devices, check-ins, tasks and the ledger are the engine's; only what the strategy decides is Python,
twice a turn of the coordinator: what becomes of the updates held, and how many tasks to start. It
sees what `server.coordination.job_runner.JobRunner` shows it, in the same order.
"""

import math
import struct

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


_WORDS = struct.Struct("=qqq")
"""Where a turn is: ``phase, is_over, unheard``."""
_TOLD = struct.Struct("=qddqqqqq")
"""A `RoundState`."""
_STEP = struct.Struct("=qqq")
"""What becomes of the updates held: ``step, next_oldest_live, is_answered``."""
_START = struct.Struct("=qqd")
"""What a turn begins with: ``is_answered, tasks, deadline_s``."""
_AT_PHASE, _AT_TOLD, _AT_STEP = (_offset(name) for name in ("phase", "version", "step"))
_AT_START, _AT_IDLE = _offset("is_answered"), _offset("idle_turns")
_IDLE = struct.Struct("=q")


class AskedStrategy:
    """Answers the engine.

    Args:
        state: The engine's, an array of one record of `STATE`.
    """

    def __init__(self, strategy: Strategy, state: NDArray[np.void]) -> None:
        self._strategy = strategy
        self._memory = memoryview(state.view(np.uint8)).cast("B")

    def decide(self) -> None:
        """Write down what the strategy decides where the engine is now.

        Raises:
            InvalidDecision: If an answer is none; says which.
            StrategyStuck: If it has named deadlines that are over, and waited, for a thousand turns.
        """
        memory, strategy = self._memory, self._strategy
        phase, is_over, _ = _WORDS.unpack_from(memory, _AT_PHASE)
        told = RoundState._make(_TOLD.unpack_from(memory, _AT_TOLD))
        if phase == AFTER_NEWS:
            step = strategy.next_step(told)
            if step == Step.WAIT:
                _STEP.pack_into(memory, _AT_STEP, 0, 0, 0)
                if is_over:
                    return
            elif step == Step.AGGREGATE:
                oldest = strategy.oldest_live_version(told.version + 1)
                self._pack(_STEP, _AT_STEP, "oldest_live_version", oldest, 1, oldest, 0)
                return
            elif step == Step.ABANDON:
                _STEP.pack_into(memory, _AT_STEP, 2, 0, 0)
                return
            else:
                raise self._invalid("next_step", step)
            if _IDLE.unpack_from(memory, _AT_IDLE)[0] > _MOST_IDLE_TURNS:
                raise self._stuck(told)
        tasks = strategy.tasks_to_start(told)
        if tasks:
            if tasks < 0:
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
        elif math.isnan(deadline_s):
            raise self._invalid("deadline_s", deadline_s)
        self._pack(_START, _AT_START, "tasks_to_start", tasks, 1, tasks, deadline_s)

    def _pack(
        self, words: struct.Struct, at: int, method: str, answer: object, *values: float
    ) -> None:
        try:
            words.pack_into(self._memory, at, *values)
        except struct.error:
            raise self._invalid(method, answer) from None

    def _invalid(self, method: str, answer: object) -> InvalidDecision:
        wanted = {
            "next_step": "Step.WAIT, Step.AGGREGATE or Step.ABANDON",
            "tasks_to_start": "a whole number of tasks, 0 or more",
            "deadline_s": "seconds of the fleet's clock, or None",
            "oldest_live_version": "the number of a version",
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
