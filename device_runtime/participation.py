"""Who may take part and when: the job's criteria and the user's own settings, decided on the device."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class ParticipationPolicy:
    """A job's criteria a device can tell by itself (FLINT, Table 1). None: not asked for.

    Attributes:
        wifi: Needs an unmetered network.
        min_battery: Least charge, 0 to 1.
        foreground: The host app must (true) or must not (false) be in the foreground.
        allowed_hours: Local time window ``"HH:MM-HH:MM"``; may cross midnight.
        min_account_age_days: Age of the user's account.
        min_hours_between_participations: Since this device's last finished task.
    """

    wifi: bool | None = None
    min_battery: float | None = None
    foreground: bool | None = None
    allowed_hours: str | None = None
    min_account_age_days: int | None = None
    min_hours_between_participations: float | None = None

    def to_json(self) -> str:
        """Serialise canonically, so equal policies have equal digests."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    def sha256(self) -> bytes:
        """Digest a device names when it satisfies this policy."""
        return hashlib.sha256(self.to_json().encode()).digest()

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Parse `to_json` output; unknown keys are an error, so no criterion is ever ignored."""
        return cls(**json.loads(text))
