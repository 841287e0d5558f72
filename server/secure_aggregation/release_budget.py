"""One release a version: a state that enclave and catalog advance together.

The enclave names the next state, the catalog takes it by compare-and-set, and only then does the
enclave let the aggregate out. An enclave that was restarted or rolled back finds its version spent.
This stops accidents; an operator who shows an enclave an old state on purpose is stopped only where
hardware releases keys to a measurement (docs/security.md).
"""

import hashlib
from dataclasses import dataclass
from typing import Self

STATE_BYTES = 32
NOTHING_RELEASED = -1


@dataclass(frozen=True, slots=True)
class ReleaseBudget:
    """What one enclave slot of one job has released.

    Attributes:
        version: Newest model version an aggregate was released for; -1 for none.
        state: Digest over all releases so far, in order.
    """

    version: int
    state: bytes

    @classmethod
    def unspent(cls, job_id: str, slot: int) -> Self:
        """Of a slot that has released nothing.

        Args:
            slot: Which of the deployment's enclaves, by its gateway's number.
        """
        return cls(NOTHING_RELEASED, _digest("begin", job_id, str(slot)))

    def after(self, version: int, release_id: str, boot_id: str) -> "ReleaseBudget":
        """What it will be once ``release_id`` is released for ``version``."""
        state = _digest("release", self.state.hex(), str(version), release_id, boot_id)
        return ReleaseBudget(version, state)


def _digest(*parts: str) -> bytes:
    hashed = hashlib.sha256(b"flint.release-budget.v1")
    for part in parts:
        encoded = part.encode()
        hashed.update(len(encoded).to_bytes(8, "big") + encoded)
    return hashed.digest()
