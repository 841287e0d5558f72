"""What an enclave lets out and when, in the form that its key is bound to and devices read."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

LARGEST_JSON_BYTES = 4096
_INT32_MAX = 2**31 - 1
_LEAST_STEPS = 128  # 8 bits, sign included
_KINDS: dict[str, tuple[type, ...]] = {
    "mode": (str,),
    "release_threshold": (int,),
    "max_share_per_device": (int, float),
    "max_share_per_host_app": (int, float, type(None)),
    "clip_value": (int, float),
    "max_updates": (int,),
    "staleness_steps": (int,),
}


class InvalidReleasePolicy(ValueError):
    """A release policy that this runtime does not understand, or that promises nothing."""


@dataclass(frozen=True, slots=True)
class ReleasePolicy:
    """What an aggregate must be like before it leaves the enclave.

    Attributes:
        mode: ``enclave``: updates go in. ``masked``: seeds of one-time pads go in, the host sums
            padded updates (PAPAYA, MLSys 2022, section 5).
        release_threshold: Least number of distinct devices in an aggregate.
        max_share_per_device: Largest share of an aggregate's weight that one device may have.
        max_share_per_host_app: Of the devices of one host app together; None for any.
        clip_value: Masked mode: no value of an update is beyond this.
        max_updates: Masked mode: most updates in an aggregate; more would not fit 32 bits.
        staleness_steps: Masked mode: staleness factors are multiples of one in so many.
    """

    mode: Literal["enclave", "masked"]
    release_threshold: int
    max_share_per_device: float
    max_share_per_host_app: float | None = None
    clip_value: float = 0.0
    max_updates: int = 0
    staleness_steps: int = 1

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, bool) or not isinstance(value, _KINDS[name]):
                raise InvalidReleasePolicy(f"{name} is {str(value)[:20]!r}")
        if self.mode not in ("enclave", "masked"):
            raise InvalidReleasePolicy(f"mode is {self.mode[:20]!r}, not enclave or masked")
        if self.release_threshold < 2:
            raise InvalidReleasePolicy(
                f"release_threshold is {self.release_threshold}: an aggregate of one device is its "
                "update"
            )
        for name in ("max_share_per_device", "max_share_per_host_app"):
            share = getattr(self, name)
            if share is not None and not 0 < share <= 1:
                raise InvalidReleasePolicy(f"{name} is {share}, not a share above 0")
        if self.mode == "masked":
            self._check_fixed_point()

    def _check_fixed_point(self) -> None:
        if not (math.isfinite(self.clip_value) and self.clip_value > 0):
            raise InvalidReleasePolicy(f"clip_value is {self.clip_value}, not above 0")
        if not self.release_threshold <= self.max_updates <= 2**20:
            raise InvalidReleasePolicy(f"max_updates is {self.max_updates}")
        if not 1 <= self.staleness_steps <= 2**10:
            raise InvalidReleasePolicy(f"staleness_steps is {self.staleness_steps}")
        if self.most_steps < _LEAST_STEPS:
            raise InvalidReleasePolicy(
                f"max_updates ({self.max_updates}) leaves {self.most_steps} steps on each side of "
                f"0 for an update's values; at least {_LEAST_STEPS} are needed"
            )

    @property
    def scale(self) -> float:
        """Masked mode: fixed-point units in 1.0, a power of two, so that scaling is exact."""
        room = _INT32_MAX / (self.max_updates * self.staleness_steps)
        return float(2.0 ** math.floor(math.log2(room / self.clip_value)))

    @property
    def most_steps(self) -> int:
        """Masked mode: largest fixed-point value one update may hold.

        ``max_updates * staleness_steps * most_steps < 2**31``: no sum of values wraps around.
        """
        return math.floor(self.clip_value * self.scale)

    def to_json(self) -> str:
        """Serialise canonically, so equal policies have equal digests."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    def sha256(self) -> bytes:
        """What an enclave's key is bound to."""
        return hashlib.sha256(self.to_json().encode()).digest()

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Parse `to_json` output; an unknown key is an error, for it may be a condition.

        Raises:
            InvalidReleasePolicy: If it is none this runtime understands.
        """
        if len(text) > LARGEST_JSON_BYTES:
            raise InvalidReleasePolicy(f"it has {len(text)} bytes")
        try:
            fields: Any = json.loads(text)
            return cls(**fields)
        except (TypeError, ValueError, RecursionError, KeyError, OverflowError) as error:
            raise InvalidReleasePolicy(str(error)[:200]) from error
