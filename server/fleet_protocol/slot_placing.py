"""Which slots of which grant wait at which gateway, and which at none."""

from collections import OrderedDict
from collections.abc import Sequence

from server.coordination.tasks import Grant
from server.fleet_protocol.gateway_link import GatewayLink, share_slots

_REMEMBERED_CANCELS = 10_000

Placed = tuple[GatewayLink, Grant, int]


class SlotPlacing:
    """Splits grants over gateways and remembers who was given what.

    Not safe for several threads; its owner holds a lock.
    """

    def __init__(self) -> None:
        self._grants: dict[str, Grant] = {}
        self._unplaced: dict[str, int] = {}
        self._cancelled: OrderedDict[str, None] = OrderedDict()

    def clear(self) -> None:
        """Another job begins."""
        self._grants.clear()
        self._unplaced.clear()
        self._cancelled.clear()

    def add(self, grant: Grant) -> None:
        """Slots to be placed."""
        self._grants[grant.grant_id] = grant
        self._unplaced[grant.grant_id] = grant.count

    def cancel(self, grant_id: str, *, running_too: bool) -> None:
        """Slots of this grant are not to be placed any more."""
        self._grants.pop(grant_id, None)
        self._unplaced.pop(grant_id, None)
        if running_too:
            self._cancelled[grant_id] = None
            while len(self._cancelled) > _REMEMBERED_CANCELS:
                self._cancelled.popitem(last=False)

    @property
    def cancelled(self) -> OrderedDict[str, None]:
        """Grants whose running tasks are late, the newest of them."""
        return self._cancelled

    def place(self, links: Sequence[GatewayLink]) -> list[Placed]:
        """Give all that waits to these gateways by their share of check-ins; returns who gets what.

        Without gateways everything goes on waiting.
        """
        if not links:
            return []
        placed = []
        for grant_id, count in self._unplaced.items():
            for link, share in share_slots(links, count):
                link.offered[grant_id] = link.offered.get(grant_id, 0) + share
                placed.append((link, self._grants[grant_id], share))
        self._unplaced.clear()
        return placed

    def offer_again(self, link: GatewayLink) -> list[Placed]:
        """A gateway came back, its slots void: what it was offered and may still have."""
        again: list[Placed] = []
        for grant_id, count in list(link.offered.items()):
            if grant_id in self._grants and count > 0:
                again.append((link, self._grants[grant_id], count))
            else:
                del link.offered[grant_id]
        return again

    def take(self, link: GatewayLink, grant_id: str, links: Sequence[GatewayLink]) -> None:
        """A device took a slot there.

        Args:
            link: Where.
            grant_id: Of which grant.
            links: All gateways.
        """
        link.leases_since += 1
        left = link.offered.pop(grant_id, 0)
        if left > 1:
            link.offered[grant_id] = left - 1
            return
        grant = self._grants.get(grant_id)
        waits = self._unplaced.get(grant_id, 0) or any(grant_id in other.offered for other in links)
        # A pinned grant is known until its round closes; of others there are as many as tasks.
        if grant is not None and grant.base_version is None and not waits:
            del self._grants[grant_id]

    def take_back(self, link: GatewayLink) -> None:
        """A gateway is lost: its slots wait again."""
        for grant_id, count in link.offered.items():
            self._wait(grant_id, count)
        link.offered.clear()

    def balance(self, links: Sequence[GatewayLink]) -> list[tuple[GatewayLink, str]]:
        """Take half of the slots from gateways where nobody comes for them, for one that has none.

        Called now and then. A task that starts under a slot in the moment it is taken away is one
        more than was granted.

        Args:
            links: Gateways that slots may be placed at.

        Returns:
            Whose slots of which grant are void now. What is left to a gateway is in its
            ``offered`` and has to be granted to it again; what was taken waits to be placed.
        """
        starving = [link for link in links if is_starving(link)]
        idle = [link for link in links if link.offered and not link.leases_since]
        for link in links:
            link.leases_since = 0
        void = []
        for link in idle if starving else ():
            for grant_id, count in list(link.offered.items()):
                moved = (count + 1) // 2
                void.append((link, grant_id))
                if count > moved:
                    link.offered[grant_id] = count - moved
                else:
                    del link.offered[grant_id]
                self._wait(grant_id, moved)
        return void

    def grant_of(self, grant_id: str) -> Grant | None:
        """A grant that has slots."""
        return self._grants.get(grant_id)

    def _wait(self, grant_id: str, count: int) -> None:
        if grant_id in self._grants and count > 0:
            self._unplaced[grant_id] = self._unplaced.get(grant_id, 0) + count


def is_starving(link: GatewayLink) -> bool:
    """Whether devices come to a gateway that has nothing to give them."""
    return not link.offered and link.check_ins_per_s > 0
