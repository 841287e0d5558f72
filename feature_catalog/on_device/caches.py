"""Values of a service's cloud views that a device keeps, within what it has room for."""

from collections.abc import Sequence
from dataclasses import replace

from device_runtime.columns import Kind
from device_runtime.feature_cache import CacheLimits
from device_runtime.feature_policies import CacheMode, CachePolicy, OnMiss
from feature_catalog.definitions.catalog_set import DefinitionSet
from feature_catalog.definitions.fields import Dtype
from feature_catalog.definitions.served import ServedFeature
from feature_catalog.definitions.transforms import RunAt
from feature_catalog.definitions.views import FeatureView
from feature_catalog.on_device.profile import DeviceProfile
from feature_catalog.on_device.resolution import CachedFeatures, Effect, Reason, Remark
from feature_catalog.on_device.room import LEAST_KEPT, Wish, room_remark, share_out
from feature_catalog.on_device.rules import DeviceRules
from feature_catalog.on_device.served_views import by_view, chain_at, stored_name
from feature_catalog.on_device.sizes import (
    FILE_OVER_COUNTED,
    SizedField,
    file_bytes,
    processed_entry_bytes,
    raw_entry_bytes,
    row_bytes,
)

_LONGEST_APP = "x" * 40


def least_cached_bytes(
    served: Sequence[ServedFeature],
    definitions: DefinitionSet,
    profile: DeviceProfile,
    rules: DeviceRules,
) -> int:
    """Bytes without which caches are of no use; kept free of events, where there is room for both.

    Args:
        served: Features that the device can have.
    """
    wanted = [
        _cache(features, definitions, profile, rules)
        for _, features in by_view(served, device=False)
    ]
    return sum(_wish(cache).least_bytes for cache in wanted if cache.counted_bytes)


def cached_features(
    served: Sequence[ServedFeature],
    definitions: DefinitionSet,
    profile: DeviceProfile,
    available_bytes: int,
    rules: DeviceRules,
) -> tuple[tuple[CachedFeatures, ...], tuple[Remark, ...]]:
    """Values of cloud views kept, within what there is room for."""
    wanted = {
        name: _cache(features, definitions, profile, rules)
        for name, features in by_view(served, device=False)
    }
    kept = {name: cache for name, cache in wanted.items() if cache.counted_bytes}
    cache_file_bytes = file_bytes(CacheLimits().max_bytes)
    room = min(available_bytes, cache_file_bytes)
    granted = share_out(
        {name: _wish(cache) for name, cache in kept.items()},
        room,
    )
    reason = Reason.OUT_OF_STORAGE if available_bytes < cache_file_bytes else Reason.CACHE_FILE_FULL
    caches: list[CachedFeatures] = []
    remarks: list[Remark] = []
    for name, cache in wanted.items():
        if name not in kept:
            caches.append(cache)
            continue
        its_bytes = granted.get(name)
        if its_bytes is None and _can_be_fetched_each_time(cache.policy):
            caches.append(_not_kept(cache))
            remarks.append(_not_kept_remark(cache, room, reason))
            continue
        remark = room_remark(name, "cached values", cache.bytes, its_bytes, room, reason)
        if remark is not None:
            remarks.append(remark)
        if its_bytes is not None:
            caches.append(_reduced_cache(cache, its_bytes))
    return tuple(caches), tuple(remarks)


def _wish(cache: CachedFeatures) -> Wish:
    least_bytes = file_bytes(LEAST_KEPT * cache.key_bytes)
    return Wish(cache.bytes, min(least_bytes, cache.bytes))


def _can_be_fetched_each_time(policy: CachePolicy) -> bool:
    return policy.mode is not CacheMode.BUNDLED and policy.on_miss is OnMiss.FETCH


def _not_kept(cache: CachedFeatures) -> CachedFeatures:
    """The same view, of which nothing is kept."""
    policy = CachePolicy(
        CacheMode.NEVER, network=cache.policy.network, on_miss=cache.policy.on_miss
    )
    return replace(cache, policy=policy, counted_bytes=0)


def _not_kept_remark(cache: CachedFeatures, room_bytes: int, reason: Reason) -> Remark:
    return Remark(
        Effect.REDUCED,
        reason,
        f"feature_view {cache.view}",
        f"{cache.view} may keep {cache.bytes:,} bytes, and of the {room_bytes:,} there are for "
        "cached values too few are left to keep any of it: it is fetched for each read",
    )


def _cache(
    features: Sequence[ServedFeature],
    definitions: DefinitionSet,
    profile: DeviceProfile,
    rules: DeviceRules,
) -> CachedFeatures:
    view, text_bytes = features[0].view, rules.text_bytes
    app, policy = profile.app or _LONGEST_APP, device_cache_policy(view)
    join_keys = _join_key_dtypes(view, definitions)
    row = row_bytes(_fetched_fields(features, definitions), text_bytes)
    key = raw_entry_bytes(app, view.name, join_keys, row, text_bytes)
    for each in features:
        chain = chain_at(each, RunAt.DEVICE_INGEST, RunAt.DEVICE_READ)
        if chain.steps:
            key += processed_entry_bytes(
                app,
                view.name,
                join_keys,
                (each.gives, each.shape),
                text_bytes,
                reads_asset=bool(chain.asset_names),
            )
    return _within_policy(
        CachedFeatures(
            view=view.name,
            policy=policy,
            row_bytes=row.bytes,
            key_bytes=key.bytes,
            max_keys=0,
            counted_bytes=0,
            is_bound=key.is_bound,
        )
    )


def _fetched_fields(
    features: Sequence[ServedFeature], definitions: DefinitionSet
) -> list[SizedField]:
    """A view's fields as the cloud sends them: what the cloud's transforms give."""
    fields: dict[tuple[str, str], SizedField] = {}
    for each in features:
        found = each.view.field(each.feature.field)
        if found is None:
            raise LookupError(f"{each.feature.ref} was not looked for before")
        chain = chain_at(each, RunAt.CLOUD)
        dtype = found.dtype
        shape = found.shape
        if chain.steps:
            gives = chain.gives(dtype.column_kind)
            dtype = {
                Kind.STRING: Dtype.STRING,
                Kind.INT: Dtype.INT64,
                Kind.FLOAT: Dtype.FLOAT64,
            }[gives]
            assets = [definitions.asset(name) for name in chain.asset_names]
            rows = [asset.dimension for asset in assets if asset is not None]
            shape = (*shape, *(size for size in rows if size is not None))
        fields[each.feature.field, chain.to_json()] = SizedField(
            stored_name(found.name, chain), dtype, shape
        )
    return list(fields.values())


def _join_key_dtypes(view: FeatureView, definitions: DefinitionSet) -> list[Dtype]:
    entities = [definitions.entity(name) for name in view.entities]
    return [e.dtype for e in entities if e is not None for _ in e.join_keys]


def _within_policy(cache: CachedFeatures) -> CachedFeatures:
    """How many keys a policy lets a device keep, and what they count as."""
    policy = cache.policy
    if policy.mode is CacheMode.NEVER or policy.max_bytes is None:
        return cache
    return replace(
        cache, max_keys=policy.max_bytes // cache.key_bytes, counted_bytes=policy.max_bytes
    )


def _reduced_cache(cache: CachedFeatures, granted_bytes: int) -> CachedFeatures:
    if granted_bytes >= cache.bytes:
        return cache
    policy = replace(cache.policy, max_bytes=int(granted_bytes / FILE_OVER_COUNTED))
    return _within_policy(replace(cache, policy=policy))


def device_cache_policy(view: FeatureView) -> CachePolicy:
    """How a device keeps a cloud view's values, as the device says it."""
    cache = view.cache
    if cache is None:
        raise LookupError(f"{view.name} is no cloud view")
    return CachePolicy(
        mode=cache.mode,
        max_age_s=None if cache.max_age is None else cache.max_age.total_seconds(),
        max_bytes=cache.max_bytes,
        max_rows=cache.max_rows,
        network=cache.network,
        on_miss=cache.on_miss,
    )
