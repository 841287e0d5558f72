"""Whether actors that are asked for something get on with it: one that lives can still hang."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simulation.executors.lost_actors import ActorStalled, Place

WATCH = "watch"
"""Concurrency group of `PartitionActor.finished`: answered while the actor trains."""
_LOOKS = 4
"""In the time that an actor may take for a task."""


@dataclass
class _Seen:
    """What an actor was last seen at.

    Attributes:
        finished: Tasks that it had trained.
        since_s: When that was seen first.
        look: Reference of the answer to the question how many there are now.
    """

    finished: int
    since_s: float
    look: Any = None


class ActorProgress:
    """Waits for answers of actors, and finds out who comes no nearer to giving one.

    Args:
        ray: The module.
        errors: What Ray raises of an actor that has ended.
        stall_timeout_s: So long an actor may go without finishing a task.
    """

    def __init__(
        self,
        ray: Any,  # noqa: ANN401 - a module
        errors: tuple[type[Exception], ...],
        stall_timeout_s: float,
    ) -> None:
        self._ray = ray
        self._errors = errors
        self._stall_timeout_s = stall_timeout_s
        self._seen: dict[Any, _Seen] = {}

    def first(self, asked: Mapping[Any, Place]) -> tuple[Any, ActorStalled | None]:
        """Wait until one has answered, or hangs.

        Args:
            asked: Whose answer each reference will be; at least one.

        Returns:
            The reference; and how its actor hangs, where that is so.
        """
        now_s = time.monotonic()
        self._seen = {each: self._seen.get(each, _Seen(-1, now_s)) for each in asked}
        while True:
            ready, _ = self._ray.wait(
                list(asked), num_returns=1, timeout=self._stall_timeout_s / _LOOKS
            )
            if ready:
                return ready[0], None
            for reference, place in asked.items():
                if self._is_stalled(self._seen[reference], place):
                    return reference, ActorStalled(
                        f"it has not finished a task for {self._stall_timeout_s:g} s"
                    )

    def _is_stalled(self, seen: _Seen, place: Place) -> bool:
        now_s = time.monotonic()
        if seen.look is not None and self._ray.wait([seen.look], timeout=0)[0]:
            finished, seen.look = self._answer(seen.look), None
            if finished != seen.finished:
                seen.finished, seen.since_s = finished, now_s
        if seen.look is None:
            seen.look = place.actor.finished.options(concurrency_group=WATCH).remote()
        return now_s - seen.since_s >= self._stall_timeout_s

    def _answer(self, look: Any) -> int:  # noqa: ANN401 - Ray's own
        try:
            return int(self._ray.get(look))
        except self._errors:  # it has ended, which its answer will say
            return -1
