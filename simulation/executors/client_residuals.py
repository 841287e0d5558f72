"""Error feedback of simulated clients: for each what `device_runtime.residual` is on a device."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulation.executors.executor import TrainingTask


@dataclass(frozen=True, slots=True)
class _Unsent:
    """What one update left out, or several that were counted; shape of the client's own updates."""

    data_client: int
    client: int
    values: NDArray[np.float32]


class ClientResiduals:
    """What clients' compressed updates left out of what they learned.

    An update's share is pending until it counts or is forgotten, as on a device.
    """

    def __init__(self) -> None:
        self._counted: dict[int, _Unsent] = {}
        self._pending: dict[str, _Unsent] = {}

    def of(self, task: TrainingTask) -> NDArray[np.float32] | None:
        """What the client's updates before this task left out; None if that is nothing."""
        counted = self._counted.get(task.client)
        total = None if counted is None else counted.values
        for task_id, unsent in self._pending.items():
            if task_id == task.task_id:
                break
            if unsent.client == task.client:
                total = unsent.values if total is None else total + unsent.values
        return total

    def keep(self, task: TrainingTask, unsent: NDArray[np.float32]) -> None:
        """Note what the task's update leaves out; of one trained before, it is the same again."""
        self._pending[task.task_id] = _Unsent(task.data_client, task.client, unsent)

    def count(self, task_ids: Iterable[str]) -> None:
        """These updates count: what they left out stays. Others are ignored."""
        for task_id in task_ids:
            unsent = self._pending.pop(task_id, None)
            if unsent is not None:
                before = self._counted.get(unsent.client)
                total = unsent.values if before is None else before.values + unsent.values
                self._counted[unsent.client] = _Unsent(unsent.data_client, unsent.client, total)

    def forget(self, task_id: str) -> list[str]:
        """This update does not count; returns the client's later ones, which are forgotten too.

        They were trained with what this one left out, and have to be trained again.
        """
        gone = self._pending.get(task_id)
        if gone is None:
            return []
        ids = [each for each, unsent in self._pending.items() if unsent.client == gone.client]
        later = ids[ids.index(task_id) :]
        for each in later:
            del self._pending[each]
        return later[1:]

    def forget_clients(self, clients: Iterable[int]) -> None:
        """These clients have left out nothing."""
        for client in clients:
            self._counted.pop(client, None)
            for task_id in [i for i, unsent in self._pending.items() if unsent.client == client]:
                del self._pending[task_id]

    def clear(self) -> None:
        """Nobody has left out anything."""
        self._counted.clear()
        self._pending.clear()

    def state(self) -> dict[str, Any]:
        """Everything, for a checkpoint."""
        return {
            "counted": [_plain(unsent) for unsent in self._counted.values()],
            "pending": [_plain(u) | {"task_id": i} for i, u in self._pending.items()],
        }

    def restore(self, state: Mapping[str, Any], *, share: int = 0, of: int = 1) -> None:
        """Go on after `state`.

        Args:
            share: Which data clients are meant: those that are this modulo ``of``.
        """
        self.clear()
        for each in _shared(state.get("counted", ()), share, of):
            self._counted[each["client"]] = _unsent(each)
        for each in _shared(state.get("pending", ()), share, of):
            self._pending[each["task_id"]] = _unsent(each)


def merged(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The states of several executors, each of clients of its own, as one."""
    return {
        key: [each for state in states for each in state[key]] for key in ("counted", "pending")
    }


def _plain(unsent: _Unsent) -> dict[str, Any]:
    return {
        "data_client": unsent.data_client,
        "client": unsent.client,
        "values": unsent.values,
    }


def _unsent(plain: Mapping[str, Any]) -> _Unsent:
    return _Unsent(plain["data_client"], plain["client"], plain["values"])


def _shared(entries: Iterable[Mapping[str, Any]], share: int, of: int) -> list[Mapping[str, Any]]:
    return [each for each in entries if each["data_client"] % of == share]
