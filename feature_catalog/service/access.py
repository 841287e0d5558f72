"""Which feature services devices may read here: those of open jobs, and those the settings list."""

from collections.abc import Callable, Iterable

from feature_catalog.service.errors import NotServedToDevices, OutdatedManifest
from feature_catalog.service.served_contracts import ServedContract, ServedContracts

OpenServices = Callable[[], Iterable[tuple[str, bytes]]]
"""Service and contract of every open job that has one."""


class DeviceAccess:
    """Knows what may be read.

    A listed service may be read under its newest contract alone: a contract it had before may hold
    a feature that was taken out of it since. One listed as ``name@contract`` stays readable under
    that contract, e.g. for a model in the field that was trained with it.
    """

    def __init__(
        self, contracts: ServedContracts, listed: Iterable[str], open_services: OpenServices
    ) -> None:
        """Assemble.

        Args:
            contracts: Finds them.
            listed: ``name`` or ``name@contract`` each, the digest in hexadecimal.
            open_services: Of the open jobs, asked with every call.
        """
        self._contracts = contracts
        self._open_services = open_services
        self._newest: set[str] = set()
        self._pinned: list[tuple[str, bytes]] = []
        for each in listed:
            name, _, digest = each.partition("@")
            if digest:
                self._pinned.append((name, bytes.fromhex(digest)))
            else:
                self._newest.add(name)

    def find(self, service: str, contract_sha256: bytes) -> ServedContract:
        """The contract a device may read a service under.

        Args:
            contract_sha256: The one it wants; empty: an open job's, else the listed one.

        Raises:
            NotServedToDevices: If devices may not read the service, under whatever contract.
            OutdatedManifest: If they may not under this one.
        """
        readable = [
            digest for name, digest in (*self._open_services(), *self._pinned) if name == service
        ]
        is_pinned = bool(readable) and (not contract_sha256 or contract_sha256 in readable)
        if service in self._newest and not is_pinned:
            # What a job or a pin allows does not depend on what the catalog has by now.
            readable.append(self._contracts.newest(service))
        if not readable:
            # The same words whether there is such a service or not: names tell of others' work.
            raise NotServedToDevices(
                "devices may not read this feature service here; open a job that names it, or "
                "list it with --device-feature-service"
            )
        wanted = contract_sha256 or readable[0]
        if wanted not in readable:
            raise OutdatedManifest(
                f"the feature service {service} is not served under contract "
                f"{contract_sha256.hex()[:16]} (any more); fetch its manifest again"
            )
        return self._contracts.find(service, wanted)
