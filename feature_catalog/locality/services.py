"""How a feature service's views do on a device, by the reads of a data set: caches replayed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from device_runtime.feature_policies import CacheMode
from feature_catalog.definitions.catalog_set import DefinitionSet
from feature_catalog.definitions.errors import listed
from feature_catalog.locality.coded_columns import CodedColumn, joint_code
from feature_catalog.locality.network import NetworkFigures
from feature_catalog.locality.placement import (
    CACHE_SIZES,
    ENOUGH_OF_UNLIMITED,
    WORTH_CACHING,
    client_days,
)
from feature_catalog.locality.replay import Replay, replay
from feature_catalog.on_device import CachedFeatures, DeviceResolution

ROOMY = 4
"""A cache of so many times the rows it needs is told that it could be smaller."""

Report = Callable[[str, int, int | None], None]


class MissingJoinKeys(FlintError):
    """Rows that lack the columns a service's views are joined by."""

    code = "FLN-3001"


@dataclass(frozen=True, slots=True)
class ViewLocality:
    """How one view does.

    Attributes:
        keys: Columns it is joined by.
        mode: Of its cache; None of a device view.
        held_rows: Keys that its cache holds on the device; 0 where it keeps none.
        hit_share: Of reads that it has; None of a device view.
        replay: By cache sizes; None of a device view.
        key_bytes: Of a key in the cache.
        fetched_bytes_a_day: Of a client on a day on which it reads; None where no time is known.
        read_ms: Mean of the network for one read; 0 of a device view.
        advice: What to do about it, and why.
    """

    view: str
    keys: tuple[str, ...]
    mode: CacheMode | None
    held_rows: int
    hit_share: float | None
    replay: Replay | None
    key_bytes: int
    fetched_bytes_a_day: float | None
    read_ms: float
    advice: str


def place_service(
    resolution: DeviceResolution,
    definitions: DefinitionSet,
    columns: Mapping[str, CodedColumn],
    client: CodedColumn,
    *,
    times_s: NDArray[np.float64] | None,
    network: NetworkFigures,
    progress: Report | None = None,
) -> tuple[ViewLocality, ...]:
    """Replay a data set's reads through the caches of a service on a device.

    Args:
        resolution: What the device keeps of it.
        columns: The rows' columns; the join keys of all views are among them.
        client: Whose rows they are.
        times_s: Time of each row, shape ``(rows,)``; None: they are in the order of time, and
            nothing grows too old.

    Raises:
        MissingJoinKeys: If the rows lack a join key.
    """
    found = [
        ViewLocality(
            view=each.view,
            keys=(),
            mode=None,
            held_rows=each.max_events,
            hit_share=None,
            replay=None,
            key_bytes=each.event_bytes,
            fetched_bytes_a_day=0.0,
            read_ms=0.0,
            advice=f"on the device: {each.event} is recorded there and never leaves it",
        )
        for each in resolution.stored
    ]
    order = np.arange(len(client.code)) if times_s is None else np.argsort(times_s, kind="stable")
    days = None if times_s is None else client_days(client.code, times_s)
    for each in resolution.cached:
        keys = join_keys(each.view, definitions)
        key = joint_code([columns[name] for name in keys])
        held = 0 if each.policy.mode is CacheMode.NEVER else max(each.max_keys, 1)
        sizes = sorted({*CACHE_SIZES, *([held] if held else [])})
        replayed = replay(
            key,
            client.code,
            order,
            sizes,
            times_s=times_s,
            max_age_s=each.policy.max_age_s,
            what=each.view,
            progress=progress,
        )
        found.append(_of_view(each, keys, replayed, held, days, network))
    return tuple(found)


def join_keys(view: str, definitions: DefinitionSet) -> tuple[str, ...]:
    """Columns a view is joined by, ascending by entity."""
    defined = definitions.view(view)
    names = () if defined is None else defined.entities
    entities = [definitions.entity(name) for name in names]
    return tuple(key for entity in entities if entity is not None for key in entity.join_keys)


def require_join_keys(
    resolution: DeviceResolution, definitions: DefinitionSet, there: Sequence[str]
) -> list[str]:
    """All join keys that the replay needs.

    Raises:
        MissingJoinKeys: If one is not among the rows' columns; names the view.
    """
    needed: dict[str, str] = {}
    for each in resolution.cached:
        for key in join_keys(each.view, definitions):
            needed.setdefault(key, each.view)
    for key, view in needed.items():
        if key not in there:
            raise MissingJoinKeys(
                f"the rows have no column {key}, by which {view} is joined; their columns are "
                f"{listed(list(there))}: rename one, or give other rows"
            )
    return list(needed)


def _of_view(
    cache: CachedFeatures,
    keys: tuple[str, ...],
    replayed: Replay,
    held: int,
    days: int | None,
    network: NetworkFigures,
) -> ViewLocality:
    hit_share = replayed.hit_share[held] if held else 0.0
    fetched = replayed.reads * (1.0 - hit_share) * cache.row_bytes
    return ViewLocality(
        view=cache.view,
        keys=keys,
        mode=cache.policy.mode,
        held_rows=held,
        hit_share=hit_share,
        replay=replayed,
        key_bytes=cache.key_bytes,
        fetched_bytes_a_day=None if not days else fetched / days,
        read_ms=(1.0 - hit_share) * network.request_ms(cache.row_bytes),
        advice=_advice(cache, replayed, held, hit_share),
    )


def _advice(cache: CachedFeatures, replayed: Replay, held: int, hit_share: float) -> str:
    best = replayed.unlimited_hit_share
    at_best = f"a cache without limit would have {best:.0%} of reads"
    if best < WORTH_CACHING:
        return f"{at_best}, so caching saves little: keys are hardly read twice by one client"
    enough = [n for n, share in replayed.hit_share.items() if share >= ENOUGH_OF_UNLIMITED * best]
    needed = min(enough, default=max(replayed.hit_share))
    then = f"{replayed.hit_share[needed]:.0%}"
    wanted = f"max_bytes of about {needed * cache.key_bytes:,} ({needed:,} rows)"
    if not held:
        return f"nothing is kept; mode: on_demand with {wanted} would have {then} of reads"
    if hit_share < ENOUGH_OF_UNLIMITED * best:
        return f"it holds about {held:,} rows, {hit_share:.0%} of reads; {wanted} would have {then}"
    if held > ROOMY * needed:
        return f"it has {hit_share:.0%} of reads; {wanted} would do, with {then}"
    return f"it has {hit_share:.0%} of reads, and {at_best}: leave it as it is"
