"""A task on a virtual device."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from simulation.durations import TaskDuration


@dataclass(frozen=True, slots=True)
class VirtualTask:
    """A task whose course was decided at its start.

    Attributes:
        number: From 1, in order of start.
        examples: Records it trains on in each epoch.
        duration: Its phases, if nothing ended it before.
        end_s: When its device is done with it.
        reason: Why it does not complete; empty if it does.
        given_up_s: When the server takes a silent device's task for interrupted.
        bytes_down: That reach the device by ``end_s``.
        bytes_up: That reach the server by then.
    """

    number: int
    client: int
    grant_id: str
    base_version: int
    started_s: float
    examples: int
    duration: TaskDuration[float]
    end_s: float
    reason: str
    given_up_s: float
    bytes_down: int
    bytes_up: int

    @property
    def task_id(self) -> str:
        """As coordinator and executors know it."""
        return f"t{self.number}"

    @property
    def is_silent(self) -> bool:
        """Whether the device will drop out of it without a word."""
        return self.reason == "dropout"

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Self:
        """A task from what ``asdict`` gave."""
        return cls(**{**state, "duration": TaskDuration(**state["duration"])})
