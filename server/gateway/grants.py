"""Slots the coordinator has granted and devices have not taken yet."""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from server.coordination.tasks import Grant

_REMEMBERED_CANCELS = 10_000


@dataclass(slots=True)
class OpenGrant:
    """Slots of one grant.

    Attributes:
        base_version: Version its tasks train on; None means the newest at lease time.
        clients: Who took a slot of a pinned grant.
    """

    grant_id: str
    slots: int
    base_version: int | None
    task_timeout_s: float
    clients: set[str] = field(default_factory=set)


class GrantBook:
    """Grants in order of arrival.

    A client takes part once in a round: of all grants pinned to one base version it takes one
    slot. Not safe for several threads; its owner holds a lock.
    """

    def __init__(self) -> None:
        self._grants: OrderedDict[str, OpenGrant] = OrderedDict()
        self._slots = 0  # of all grants; asked for at every check-in
        self._cancelled: OrderedDict[str, None] = OrderedDict()

    def add(self, granted: Grant) -> None:
        """Add slots; more of a grant that is known already are added to it."""
        if granted.grant_id in self._cancelled:
            return
        grant = self._grants.get(granted.grant_id)
        if grant is None:
            grant = OpenGrant(granted.grant_id, 0, granted.base_version, granted.task_timeout_s)
            self._grants[granted.grant_id] = grant
        grant.slots += granted.count
        self._slots += granted.count

    def cancel(self, grant_id: str, *, running_too: bool) -> None:
        """Take back what is not leased; with ``running_too`` leased tasks are late from now on."""
        grant = self._grants.get(grant_id)
        if grant is not None:
            self._void(grant)
        if running_too:
            self._grants.pop(grant_id, None)
            self._cancelled[grant_id] = None
            while len(self._cancelled) > _REMEMBERED_CANCELS:
                self._cancelled.popitem(last=False)

    def is_cancelled(self, grant_id: str) -> bool:
        """Whether tasks of this grant are late."""
        return grant_id in self._cancelled

    def void_slots(self) -> None:
        """Take back every slot not leased: the coordinator grants them again."""
        for grant in self._grants.values():
            self._void(grant)

    def forget_open(self) -> None:
        """Forget what is open; what was cancelled stays cancelled."""
        self._grants.clear()
        self._slots = 0

    def forget_before(self, oldest_live_version: int) -> None:
        """Forget grants pinned to versions that are no longer live."""
        for grant in list(self._grants.values()):
            if grant.base_version is not None and grant.base_version < oldest_live_version:
                self._void(grant)
                del self._grants[grant.grant_id]

    def open_slots(self) -> int:
        """Slots of all grants."""
        return self._slots

    def offer(self, client_id: str) -> OpenGrant | None:
        """The oldest grant this client may take a slot of."""
        for grant in self._grants.values():
            if grant.slots > 0 and not self._takes_part(client_id, grant.base_version):
                return grant
        return None

    def take(self, grant: OpenGrant, client_id: str) -> None:
        """Take one slot of an offered grant."""
        grant.slots -= 1
        self._slots -= 1
        if grant.base_version is not None:
            grant.clients.add(client_id)
        elif grant.slots == 0:
            del self._grants[grant.grant_id]

    def clear(self) -> None:
        """Forget all."""
        self.forget_open()
        self._cancelled.clear()

    def open_grants(self) -> tuple[OpenGrant, ...]:
        """Grants with slots or with a round that goes on, oldest first; for a checkpoint."""
        return tuple(self._grants.values())

    def cancelled(self) -> tuple[str, ...]:
        """Ids of the grants cancelled last; for a checkpoint."""
        return tuple(self._cancelled)

    def restore(self, open_grants: Iterable[OpenGrant], cancelled: Iterable[str]) -> None:
        """Take up what a checkpoint holds, in place of everything else."""
        self.clear()
        self._grants.update((grant.grant_id, grant) for grant in open_grants)
        self._slots = sum(grant.slots for grant in self._grants.values())
        self._cancelled.update((grant_id, None) for grant_id in cancelled)

    def _void(self, grant: OpenGrant) -> None:
        self._slots -= grant.slots
        grant.slots = 0

    def _takes_part(self, client_id: str, base_version: int | None) -> bool:
        return base_version is not None and any(
            client_id in grant.clients
            for grant in self._grants.values()
            if grant.base_version == base_version
        )
