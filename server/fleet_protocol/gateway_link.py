"""One attached gateway, as the coordinator keeps it: an outgoing queue and what it was given."""

import queue
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from server.fleet_protocol import fleet_pb2 as pb


@dataclass
class GatewayLink:
    """State of one gateway process (one boot id), over all its connections.

    Attributes:
        ready: It has answered the job's `Open` with its snapshot, so grants may be placed.
        offered: Slots placed here and not leased yet, by grant.
        slot_credit: Slots owed by the rate of check-ins and not placed here; negative: too many.
        leases_since: Slots devices took here since slots were balanced last.
        leased: Tasks running under it.
        held: Base version of every update it holds, by task.
        last_progress: Sequence of the newest progress message handled.
        acknowledged: Sequence up to which all that followed from it is stored.
        heard_s: When it last said anything; it has a heartbeat.
    """

    gateway_id: str
    boot_id: str
    outgoing: queue.SimpleQueue[pb.CoordinatorMessage | None] = field(
        default_factory=queue.SimpleQueue
    )
    connected: bool = True
    ready: bool = False
    disconnected_at_s: float = 0.0
    heard_s: float = field(default_factory=time.monotonic)
    check_ins_per_s: float = 0.0
    offered: dict[str, int] = field(default_factory=dict)
    slot_credit: float = 0.0
    leases_since: int = 0
    leased: set[str] = field(default_factory=set)
    held: dict[str, int] = field(default_factory=dict)
    last_progress: int = 0
    acknowledged: int = 0

    def reconnect(self) -> None:
        """A new connection of the same boot: old unsent messages are void, the snapshot decides."""
        self.outgoing.put(None)
        self.outgoing = queue.SimpleQueue()
        self.connected, self.ready = True, False
        self.heard_s = time.monotonic()

    def is_lost(self, now_s: float, lost_after_s: float, silent_after_s: float) -> bool:
        """Whether it has stayed away, or said nothing on a connection that stands, for too long."""
        if self.connected:
            return now_s - self.heard_s > silent_after_s
        return now_s - self.disconnected_at_s > lost_after_s

    @property
    def tasks(self) -> set[str]:
        """All that is lost with it."""
        return self.leased | self.held.keys()

    def forget(self, task_id: str) -> None:
        """A task ended or was handed over in a partial."""
        self.leased.discard(task_id)
        self.held.pop(task_id, None)

    def forget_bucket(self, base_version: int) -> None:
        """The updates of one base version were dropped."""
        self.held = {task: base for task, base in self.held.items() if base != base_version}


def share_slots(links: Sequence[GatewayLink], count: int) -> list[tuple[GatewayLink, int]]:
    """Split ``count`` slots by check-in rates, whole slots, nothing lost.

    What a gateway is owed beyond whole slots is kept as its credit and counts next time (smooth
    weighted round robin): slots that are placed one by one are shared as those placed at once, and
    no gateway's devices wait for ever.
    """
    rates = [link.check_ins_per_s + 1e-6 for link in links]
    exact = [count * rate / sum(rates) for rate in rates]
    whole = [int(share) for share in exact]
    for link, share, given in zip(links, exact, whole, strict=True):
        link.slot_credit += share - given
    for _ in range(count - sum(whole)):
        most = max(range(len(links)), key=lambda i: links[i].slot_credit)
        links[most].slot_credit -= 1.0
        whole[most] += 1
    return [(link, share) for link, share in zip(links, whole, strict=True) if share]
