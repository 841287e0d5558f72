"""`resolve_for_device`: from a feature service and a device profile to what that device does.

Assets come first, for without them features cannot be at all; then events, which nobody can fetch
again, though each cache keeps room for a few keys; then cached values. What does not fit is
replaced by a fallback, reduced, or refused, in that order, and each time a remark says why.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from device_runtime.feature_policies import CacheMode, Network, OnMiss
from feature_catalog.definitions.catalog_set import DefinitionSet
from feature_catalog.definitions.served import ServedFeature, served_features
from feature_catalog.definitions.services import FeatureService
from feature_catalog.definitions.transforms import RunAt
from feature_catalog.definitions.views import FeatureView
from feature_catalog.on_device.asset_choice import AssetChoice, IsStored, choose_assets
from feature_catalog.on_device.caches import (
    cached_features,
    device_cache_policy,
    least_cached_bytes,
)
from feature_catalog.on_device.profile import DeviceProfile
from feature_catalog.on_device.resolution import (
    CachedFeatures,
    DeviceResolution,
    Effect,
    Reason,
    Remark,
    TransformedFeature,
)
from feature_catalog.on_device.rules import DEFAULT_RULES, Budget, DeviceRules, storage_class
from feature_catalog.on_device.served_views import chain_at
from feature_catalog.on_device.sizes import FILE_BYTES
from feature_catalog.on_device.stores import stored_events


def resolve_for_device(
    profile: DeviceProfile,
    service: FeatureService,
    definitions: DefinitionSet,
    rules: DeviceRules = DEFAULT_RULES,
    *,
    is_stored: IsStored | None = None,
) -> DeviceResolution:
    """What a device stores, caches, downloads and transforms of a service, and why not more.

    A pure function: the same definitions, profile and rules give the same.

    Args:
        definitions: A checked set that holds the service and all it needs: the catalog's, or what
            `contracts.thaw` made of a contract.
        is_stored: Whether an asset's file is there to be fetched; None: all are taken to be.
    """
    served = served_features(definitions, service)
    budget = rules.budget_for(profile)
    views = {each.view.name: each.view for each in served}
    overhead_bytes = FILE_BYTES if any(_is_kept(view) for view in views.values()) else 0
    obstacle = _os_refusal(profile, rules) or _no_room(profile, budget, overhead_bytes)
    if obstacle is not None:
        return DeviceResolution(
            service=service.name,
            profile=profile,
            storage_class=storage_class(profile),
            budget=budget,
            stored=(),
            cached=(),
            downloaded=(),
            transformed=(),
            refused=tuple(each.feature.name for each in served),
            remarks=(obstacle,),
        )
    left = budget.total_bytes - overhead_bytes
    for_assets = Budget(left, min(budget.asset_bytes, left), budget.asset_memory_bytes)
    choice = choose_assets(
        _assets_asked(served), definitions, profile, for_assets, rules, is_stored
    )
    left -= sum(each.bytes for each in choice.downloads)

    possible = [each for each in served if _needed_assets(each) <= set(choice.taken)]
    reserved = least_cached_bytes(possible, definitions, profile, rules)
    stored, store_remarks = stored_events(possible, left - min(reserved, left // 2), rules)
    left -= sum(each.bytes for each in stored)
    cached, cache_remarks = cached_features(possible, definitions, profile, left, rules)
    kept = {each.view for each in stored} | {each.view for each in cached}

    transformed = tuple(_transformed(each, choice) for each in possible if each.view.name in kept)
    refused = [each for each in served if each.feature.name not in {t.name for t in transformed}]
    return DeviceResolution(
        service=service.name,
        profile=profile,
        storage_class=storage_class(profile),
        budget=budget,
        stored=stored,
        cached=cached,
        downloaded=choice.downloads,
        transformed=transformed,
        refused=tuple(each.feature.name for each in refused),
        remarks=(
            *choice.remarks,
            *store_remarks,
            *cache_remarks,
            *_without(refused, choice),
            *_fetched_later(cached, possible, profile),
        ),
    )


def _os_refusal(profile: DeviceProfile, rules: DeviceRules) -> Remark | None:
    """Months in this form sort as text; an unknown one is not judged."""
    oldest, its = rules.min_os_release, profile.os_release
    if oldest is None or its is None or its >= oldest:
        return None
    why = f"{profile.device_model} has a system of {its}, and none older than {oldest} is served"
    return Remark(Effect.REFUSED, Reason.OS_TOO_OLD, profile.device_model, why)


def _no_room(profile: DeviceProfile, budget: Budget, overhead_bytes: int) -> Remark | None:
    if budget.total_bytes >= overhead_bytes:
        return None
    why = (
        f"{profile.device_model} has {budget.total_bytes:,} bytes for features, and the file alone "
        f"that holds events and cached values takes up to {overhead_bytes:,}"
    )
    return Remark(Effect.REFUSED, Reason.OUT_OF_STORAGE, profile.device_model, why)


def _is_kept(view: FeatureView) -> bool:
    return view.is_on_device or device_cache_policy(view).mode is not CacheMode.NEVER


def _needed_assets(served: ServedFeature) -> set[str]:
    """Assets that a feature's chains read on the device."""
    on_device = chain_at(served, RunAt.DEVICE_INGEST, RunAt.DEVICE_READ)
    return set(on_device.asset_names)


def _assets_asked(served: Sequence[ServedFeature]) -> dict[str, list[str]]:
    asked: defaultdict[str, list[str]] = defaultdict(list)
    for each in served:
        for name in _needed_assets(each):
            asked[name].append(each.feature.name)
    return dict(asked)


def _transformed(served: ServedFeature, choice: AssetChoice) -> TransformedFeature:
    needed = sorted(_needed_assets(served))
    return TransformedFeature(
        name=served.feature.name,
        view=served.view.name,
        field=served.feature.field,
        is_on_device=served.view.is_on_device,
        cloud=chain_at(served, RunAt.CLOUD),
        device_ingest=chain_at(served, RunAt.DEVICE_INGEST),
        device_read=chain_at(served, RunAt.DEVICE_READ),
        assets={name: choice.taken[name] for name in needed},
        gives=served.gives,
        shape=served.shape,
    )


def _without(refused: Sequence[ServedFeature], choice: AssetChoice) -> Iterator[Remark]:
    """Features that cannot be, for the lack of something."""
    for each in refused:
        missing = sorted(_needed_assets(each) - set(choice.taken))
        lacks = f"asset {missing[0]}" if missing else f"feature_view {each.view.name}"
        yield Remark(
            Effect.REFUSED,
            Reason.NEEDS_REFUSED,
            f"feature {each.feature.name}",
            f"{each.feature.name} needs {lacks}, which the device does not have",
        )


def _fetched_later(
    cached: Sequence[CachedFeatures], served: Sequence[ServedFeature], profile: DeviceProfile
) -> Iterator[Remark]:
    """Views that a device on a metered network may not fetch there."""
    for each in cached:
        policy = each.policy
        may_wait = policy.mode is not CacheMode.BUNDLED and policy.network is Network.UNMETERED
        if profile.unmetered is not False or not may_wait:
            continue
        fields = [s.view.field(s.feature.field) for s in served if s.view.name == each.view]
        has_defaults = all(f is not None and f.default is not None for f in fields)
        is_left_out = policy.on_miss is OnMiss.SKIP_EXAMPLE or not has_defaults
        becomes = "examples that need it are left out" if is_left_out else "defaults stand for it"
        yield Remark(
            Effect.WAITS,
            Reason.METERED_NETWORK,
            f"feature_view {each.view}",
            f"{each.view} is fetched over an unmetered network only, and the device's is metered: "
            f"until then {becomes} where it is not cached",
        )
