"""How criteria shift a population: which groups of clients they let through less often."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulation.availability.kept_facts import ClientFacts
from simulation.portable_math import Floats
from simulation.run_summary import TIERS, speed_tiers
from simulation.traces.device_profiles import DeviceProfiles

ALL_CRITERIA = "all"
LEAST_CLIENTS = 30
UNKNOWN = "unknown"
_MODELS_SHOWN = 8
_ACTIVITY = ("least active third", "middle third", "most active third")


@dataclass(frozen=True, slots=True)
class GroupShift:
    """One group of clients under one criterion.

    Attributes:
        dimension: What groups are told apart by: ``device tier``, ``OS release``, ``activity`` or
            ``device model``.
        criterion: Its name, or ``all``: all at once, in one session.
        clients: In the group.
        passing: Of these, with a session that passes.
        share: Of the group among all clients.
        passing_share: Of the group among clients that pass; None if nobody passes.
        ratio: ``passing_share / share``: 1 if the criterion leaves the group as large as it was.
        is_judged: Whether the group has at least `LEAST_CLIENTS` clients.
        is_below: Whether it is judged and its ratio is below the least one asked for.
    """

    dimension: str
    group: str
    criterion: str
    clients: int
    passing: int
    share: float
    passing_share: float | None
    ratio: float | None
    is_judged: bool
    is_below: bool

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def group_shifts(
    clients: ClientFacts,
    criteria: Sequence[str],
    *,
    profiles: DeviceProfiles | None = None,
    least_ratio: float = 0.8,
) -> tuple[GroupShift, ...]:
    """Shift of every group under each criterion and under all of them.

    Groups: thirds of clients by the median speed of their device model (with profiles), the year
    their operating system was released, thirds by how long their sessions are in all, and the most
    common device models. Clients of whom the log does not tell are a group of their own.

    Args:
        criteria: Names of the bits of ``passes_ever``.
        profiles: Speeds, for tiers.
        least_ratio: Below it a group counts as shifted out.
    """
    passing = {
        name: (clients.passes_ever >> bit & 1).astype(np.bool_) for bit, name in enumerate(criteria)
    }
    passing[ALL_CRITERIA] = clients.passes_all
    dimensions: dict[str, Callable[[], tuple[NDArray[np.int64], Sequence[str]]]] = {
        "OS release": lambda: _by_year(clients.os_years),
        "activity": lambda: (_thirds(clients.session_s), _ACTIVITY),
        "device model": lambda: _by_model(clients.device_models),
    }
    if profiles is not None:
        dimensions = {"device tier": lambda: _by_tier(clients.device_models, profiles)} | dimensions
    found = []
    for dimension, grouping in dimensions.items():
        group, names = grouping()
        if len(np.unique(group)) > 1:  # a group that is everybody cannot be shifted
            found += _shifts(dimension, group, names, passing, least_ratio)
    return tuple(found)


def _shifts(
    dimension: str,
    group: NDArray[np.int64],
    names: Sequence[str],
    passing: Mapping[str, NDArray[np.bool_]],
    least_ratio: float,
) -> list[GroupShift]:
    sizes = np.bincount(group, minlength=len(names))
    shifts = []
    for at, name in enumerate(names):
        if sizes[at] == 0:
            continue
        share = float(sizes[at] / len(group))
        for criterion, passes in passing.items():
            count, total = int(passes[group == at].sum()), int(passes.sum())
            passing_share = count / total if total else None
            ratio = passing_share / share if passing_share is not None else None
            is_judged = bool(sizes[at] >= LEAST_CLIENTS)
            is_below = is_judged and ratio is not None and ratio < least_ratio
            shifts.append(
                GroupShift(dimension, name, criterion, int(sizes[at]), count, share, passing_share,
                           ratio, is_judged, is_below)
            )  # fmt: skip
    return shifts


def _by_tier(
    device_models: NDArray[np.object_], profiles: DeviceProfiles
) -> tuple[NDArray[np.int64], Sequence[str]]:
    code = {name: at for at, name in enumerate(profiles.device_models)}
    models = np.array([code.get(name, -1) for name in device_models], dtype=np.int32)
    known = models >= 0
    group = np.full(len(models), len(TIERS), dtype=np.int64)
    if known.any():
        median_s = profiles.per_example_s_many(models[known], np.full(int(known.sum()), 0.5))
        group[known] = speed_tiers(median_s)
    names = [f"{tier} devices" for tier in TIERS]
    return group, [*names, "not measured"]


def _by_year(years: NDArray[np.int64]) -> tuple[NDArray[np.int64], Sequence[str]]:
    distinct, group = np.unique(years, return_inverse=True)
    return group.astype(np.int64), [str(y) if y else UNKNOWN for y in distinct.tolist()]


def _thirds(values: Floats) -> NDArray[np.int64]:
    bounds = np.quantile(values, [1 / 3, 2 / 3], method="inverted_cdf")
    return np.searchsorted(bounds, values, side="left").astype(np.int64)


def _by_model(device_models: NDArray[np.object_]) -> tuple[NDArray[np.int64], Sequence[str]]:
    named = np.array([UNKNOWN if name is None else str(name) for name in device_models])
    distinct, code, counts = np.unique(named, return_inverse=True, return_counts=True)
    largest = np.argsort(-counts, kind="stable")[:_MODELS_SHOWN]
    place = np.full(len(distinct), len(largest), dtype=np.int64)
    place[largest] = np.arange(len(largest))
    return place[code], [*(str(distinct[at]) for at in largest), "all others"]
