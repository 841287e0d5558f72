"""Where executors of a cluster run, as an environment says it."""

from dataclasses import dataclass
from typing import Literal

ADDRESSES = "auto, local, HOST:PORT or ray://HOST:PORT"
"""What an address may be, in words."""


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
