"""Where executors of a cluster run, as an environment says it."""

import re
from dataclasses import dataclass
from typing import Literal

ADDRESSES = "auto, local, HOST:PORT or ray://HOST:PORT"
"""What an address may be, in words."""
_ADDRESS = re.compile(r"^(auto|local|(ray://)?[A-Za-z0-9._\-\[\]:]+:[0-9]{1,5})$")
_HIGHEST_PORT = 65_535


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """Where executors run, and how records reach them.

    Attributes:
        address: ``auto``: the cluster this machine belongs to, or ``RAY_ADDRESS``; ``local``: one
            started on this machine for this run alone; else the address of a cluster.
        records: ``shared``: each node maps the records file at the path it has here; ``sent``:
            each executor is sent those of its clients.
        ready_timeout_s: Within this all executors must be ready.
    """

    address: str = "auto"
    records: Literal["shared", "sent"] = "shared"
    ready_timeout_s: float = 300.0


def is_cluster_address(address: str) -> bool:
    """Whether an address is one of `ADDRESSES`, its port one that can be."""
    port = address.rpartition(":")[2]
    is_formed = _ADDRESS.match(address) is not None
    return is_formed and (not port.isdecimal() or 1 <= int(port) <= _HIGHEST_PORT)
