"""How what a device has room for is shared among those that want more together."""

from collections.abc import Mapping
from dataclasses import dataclass

from feature_catalog.on_device.resolution import Effect, Reason, Remark

LEAST_KEPT = 16
"""Events, or keys of a cached view, below which keeping any is of no use."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What one store or cache wants.

    Attributes:
        bytes: At most.
        least_bytes: Below which it is of no use.
    """

    bytes: int
    least_bytes: int


def share_out(wishes: Mapping[str, Wish], available_bytes: int) -> dict[str, int]:
    """Bytes each gets; one that is not in it gets none.

    All get what they want if there is room. Else each gets what it needs least, and of the rest the
    same share of what it wants beyond. If not even the least of all fits, those that need most go
    without.

    >>> share_out({"a": Wish(100, 10), "b": Wish(50, 10)}, 85)
    {'a': 55, 'b': 30}
    """
    granted = dict(wishes)
    while granted and sum(_least(wish) for wish in granted.values()) > available_bytes:
        del granted[max(granted, key=lambda name: (_least(granted[name]), name))]
    wanted = sum(wish.bytes for wish in granted.values())
    least = sum(_least(wish) for wish in granted.values())
    if wanted <= available_bytes:
        return {name: wish.bytes for name, wish in granted.items()}
    spare, beyond = available_bytes - least, wanted - least
    return {
        name: _least(wish) + (wish.bytes - _least(wish)) * spare // beyond
        for name, wish in granted.items()
    }


def room_remark(
    view: str,
    what: str,
    wanted_bytes: int,
    granted_bytes: int | None,
    available_bytes: int,
    reason: Reason = Reason.OUT_OF_STORAGE,
) -> Remark | None:
    """What to say of a view that gets less than it may keep; None if it gets all."""
    about = f"feature_view {view}"
    where = "the cache's file" if reason is Reason.CACHE_FILE_FULL else "the device's budget"
    left = f"{max(available_bytes, 0):,} bytes of {where} are left for {what}"
    if granted_bytes is None:
        why = f"{view} may keep {wanted_bytes:,} bytes, and {left}: too few to keep any of it"
        return Remark(Effect.REFUSED, reason, about, why)
    if granted_bytes >= wanted_bytes:
        return None
    why = f"{view} keeps {granted_bytes:,} of the {wanted_bytes:,} bytes it may: {left}"
    return Remark(Effect.REDUCED, reason, about, why)


def _least(wish: Wish) -> int:
    return min(wish.bytes, wish.least_bytes)
