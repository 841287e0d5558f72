"""The gateway processes of the deployment, as the coordinator told last."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KnownGateway:
    """One gateway process.

    Attributes:
        gateway_id: The same over all its boots; empty for one that was given up.
        boot_id: Of this process.
        attached: Whether the coordinator hears it now.
    """

    gateway_id: str
    boot_id: str
    attached: bool


class KnownGateways:
    """Who is there, who was given up, and which gateway is a device's home.

    Every device has one home at a time, so what is kept per device (its lease, its part in a round,
    its limits) is kept in one place, whichever process its connection reaches. Safe for several
    threads: what is known is replaced as a whole.
    """

    def __init__(self, boot_id: str) -> None:
        self._boot_id = boot_id
        self._known: dict[str, KnownGateway] = {}
        self._attached: tuple[KnownGateway, ...] = ()

    def tell(self, gateways: Iterable[KnownGateway]) -> None:
        """The coordinator reckons with these, and with no others."""
        known = {gateway.boot_id: gateway for gateway in gateways}
        self._attached = tuple(gateway for gateway in known.values() if gateway.attached)
        self._known = known

    def attached(self) -> int:
        """Gateways that share the devices now; at least this one."""
        return max(1, len(self._attached))

    def others(self) -> tuple[str, ...]:
        """Boot ids of all other processes the coordinator reckons with, also of those away."""
        return tuple(boot_id for boot_id in self._known if not self.is_own(boot_id))

    def is_own(self, boot_id: str) -> bool:
        """Whether this is that process."""
        return boot_id == self._boot_id

    def is_given_up(self, boot_id: str) -> bool:
        """Whether another process is gone for the coordinator, and all it gave is stored.

        Once it is so it stays so, for a process that has really ended.
        """
        return not self.is_own(boot_id) and boot_id not in self._known

    def home_of(self, device_id: str) -> str:
        """Boot id of the gateway a device belongs to now; this one's when nobody else is known.

        By rendezvous hashing (Thaler and Ravishankar, 1998) over gateway ids: when a gateway comes
        or goes, only the devices that are its own change their home.
        """
        attached = self._attached
        if len(attached) < 2:
            return self._boot_id
        return max(attached, key=lambda gateway: _score(gateway.gateway_id, device_id)).boot_id


def _score(gateway_id: str, device_id: str) -> bytes:
    return hashlib.blake2b(f"{gateway_id}\0{device_id}".encode(), digest_size=8).digest()
