"""The open job's criteria as a device keeps them, under the digest its gateway knows them by."""

import hashlib
from dataclasses import dataclass
from typing import Self

from device_runtime.participation import InvalidParticipation, ParticipationPolicy


@dataclass(frozen=True, slots=True)
class KnownPolicy:
    """Criteria, and the digest of the text they came in."""

    policy: ParticipationPolicy
    sha256: bytes

    @classmethod
    def parse(cls, policy_json: str) -> Self:
        """Read what a gateway told.

        Raises:
            InvalidParticipation: If a criterion is unknown to this runtime.
        """
        sha256 = hashlib.sha256(policy_json.encode()).digest()
        return cls(ParticipationPolicy.from_json(policy_json), sha256)

    @classmethod
    def stored(cls, policy_json: str | None) -> Self | None:
        """Read what the device kept; None if that was nothing, or another runtime's."""
        try:
            return None if policy_json is None else cls.parse(policy_json)
        except InvalidParticipation:
            return None  # Kept by another runtime version; the gateway tells it again.
