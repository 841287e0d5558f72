"""Which node takes which slot: open grants on one side, online and idle nodes on the other."""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from server.coordination.tasks import Grant
from server.job import Selection

_REMEMBERED_CANCELS = 10_000


@dataclass(slots=True)
class _OpenGrant:
    grant: Grant
    left: int


class NodeSlots:
    """Grants and nodes; no clock, no I/O, not locked.

    Args:
        selection: ``arrival`` gives slots to whoever has been idle longest, ``uniform`` draws.
        seed: The job's.
    """

    def __init__(self, selection: Selection, seed: int) -> None:
        self._selection = selection
        self._generator = np.random.Generator(np.random.Philox(seed))
        self._grants: dict[str, _OpenGrant] = {}
        self._cancelled: OrderedDict[str, None] = OrderedDict()
        self._online: dict[int, None] = {}  # in the order in which they came or became idle
        self._busy: set[int] = set()

    def note_members(self, node_ids: Iterable[int]) -> None:
        """These nodes are online, and no others."""
        now_online = dict.fromkeys(node_ids)
        stayed = {node_id: None for node_id in self._online if node_id in now_online}
        self._online = stayed | now_online

    def lose_node(self, node_id: int) -> None:
        """A node is gone, whatever the last list said."""
        self._online.pop(node_id, None)
        self._busy.discard(node_id)

    def lose_all_nodes(self) -> None:
        """No node can be reached any more."""
        self._online.clear()
        self._busy.clear()

    def free_node(self, node_id: int) -> None:
        """A node has answered: it is idle, and last in line."""
        self._busy.discard(node_id)
        if node_id in self._online:
            del self._online[node_id]
            self._online[node_id] = None

    def online(self) -> tuple[int, ...]:
        """Nodes that were online at the last look, busy or idle."""
        return tuple(self._online)

    def capacity(self) -> int:
        """Idle nodes, less the slots that wait for one."""
        return max(0, len(self._idle()) - self._waiting())

    def add(self, grant: Grant) -> None:
        """Open the slots of a grant."""
        self._grants[grant.grant_id] = _OpenGrant(grant, grant.count)

    def cancel(self, grant_id: str) -> None:
        """Close the slots that are left of a grant."""
        self._grants.pop(grant_id, None)
        self._cancelled[grant_id] = None
        if len(self._cancelled) > _REMEMBERED_CANCELS:
            self._cancelled.popitem(last=False)

    def give_back(self) -> dict[str, int]:
        """Close the slots that no idle node is there for, newest grants first; how many of each."""
        surplus = self._waiting() - len(self._idle())
        given_back: dict[str, int] = {}
        for grant_id, entry in reversed(self._grants.items()):
            count = min(entry.left, surplus)
            if count > 0:
                entry.left -= count
                surplus -= count
                given_back[grant_id] = count
        self._forget_used()
        return given_back

    def take(self) -> list[tuple[Grant, int]]:
        """Pair slots with idle nodes; both are then taken."""
        idle = self._idle()
        if not idle or not self._grants:
            return []  # and nothing is drawn, so that how often one looks changes no draw
        if self._selection.name == "uniform":
            idle = [idle[i] for i in self._generator.permutation(len(idle))]
        pairs = []
        for entry in self._grants.values():
            while entry.left > 0 and idle:
                entry.left -= 1
                node_id = idle.pop(0)
                self._busy.add(node_id)
                pairs.append((entry.grant, node_id))
        self._forget_used()
        return pairs

    def return_slot(self, grant: Grant) -> None:
        """A slot that was taken could not be used: it is open again, unless cancelled meanwhile."""
        if grant.grant_id in self._cancelled:
            return
        self._grants.setdefault(grant.grant_id, _OpenGrant(grant, 0)).left += 1

    def _idle(self) -> list[int]:
        return [node_id for node_id in self._online if node_id not in self._busy]

    def _waiting(self) -> int:
        return sum(entry.left for entry in self._grants.values())

    def _forget_used(self) -> None:
        for grant_id in [g for g, entry in self._grants.items() if entry.left == 0]:
            del self._grants[grant_id]
