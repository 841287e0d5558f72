"""What an aggregate must be like to be let out, decided on who is in it and with what weight."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from device_runtime.release_policy import ReleasePolicy

_TOLERANCE = 1e-9  # shares are quotients of sums of float64


class ReleaseRefusal(IntEnum):
    """Numbered reasons of an enclave to keep an aggregate; each has a page in docs/errors."""

    TOO_FEW_DEVICES = 2401
    DEVICE_SHARE = 2402
    HOST_APP_SHARE = 2403
    VERSION_RELEASED = 2404
    BUDGET_ROLLED_BACK = 2405
    WRONG_RECEIPT = 2406
    NOT_PREPARED = 2407
    UNKNOWN_JOB = 2408
    MALFORMED_REQUEST = 2409
    BUDGET_TAKEN = 2410
    NO_BUDGET = 2411


class ReleaseRefused(Exception):
    """The aggregate stays inside.

    Attributes:
        refusal: Why.
        detail: One sentence with the value seen and the limit.
    """

    def __init__(self, refusal: ReleaseRefusal, detail: str) -> None:
        super().__init__(f"{detail} [FLN-{int(refusal)}]")
        self.refusal = refusal
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Contribution:
    """One update's part in an aggregate.

    Attributes:
        weight: ``c_i``.
    """

    device_id: str
    host_app: str
    weight: float


def host_app_factors(
    contributions: Sequence[Contribution], policy: ReleasePolicy
) -> Mapping[str, float]:
    """Whether the aggregate may be let out, and what each host app's updates are scaled by.

    An app beyond ``max_share_per_host_app`` is scaled down until it, and every other, is within.

    Returns:
        A factor in (0, 1] by host app.

    Raises:
        ReleaseRefused: ``TOO_FEW_DEVICES``, ``DEVICE_SHARE`` or ``HOST_APP_SHARE``.
    """
    devices = {contribution.device_id for contribution in contributions}
    if len(devices) < policy.release_threshold:
        raise ReleaseRefused(
            ReleaseRefusal.TOO_FEW_DEVICES,
            f"the aggregate holds updates of {len(devices)} devices; "
            f"release_threshold is {policy.release_threshold}",
        )
    by_app: defaultdict[str, float] = defaultdict(float)
    for contribution in contributions:
        by_app[contribution.host_app] += contribution.weight
    factors = _factors(by_app, policy.max_share_per_host_app)
    by_device: defaultdict[str, float] = defaultdict(float)
    for contribution in contributions:
        scaled = factors[contribution.host_app] * contribution.weight
        by_device[contribution.device_id] += scaled
    total, largest = sum(by_device.values()), max(by_device.values())
    if largest > policy.max_share_per_device * total * (1 + _TOLERANCE):
        raise ReleaseRefused(
            ReleaseRefusal.DEVICE_SHARE,
            f"one device has {largest / total:.3g} of the aggregate's weight; "
            f"max_share_per_device is {policy.max_share_per_device:.3g}",
        )
    return factors


def _factors(weights: Mapping[str, float], most: float | None) -> dict[str, float]:
    """Scale the heaviest apps down to one common weight: the least that brings all within."""
    factors = dict.fromkeys(weights, 1.0)
    if most is None:
        return factors
    if len(weights) * most < 1 - _TOLERANCE:
        raise ReleaseRefused(
            ReleaseRefusal.HOST_APP_SHARE,
            f"the aggregate holds updates of {len(weights)} host apps; with at most {most:.3g} "
            f"each, no fewer than {-int(-1 // most)} can make a whole",
        )
    heaviest = sorted(weights, key=lambda app: weights[app], reverse=True)
    rest = sum(weights.values())
    cap = most * rest
    for count, app in enumerate(heaviest, start=1):
        if weights[app] <= cap * (1 + _TOLERANCE):
            break
        rest -= weights[app]
        # `count` apps at the cap, the others as they are: cap = most * (count * cap + rest).
        cap = most * rest / (1 - count * most)
        for scaled in heaviest[:count]:
            factors[scaled] = cap / weights[scaled]
    return factors
