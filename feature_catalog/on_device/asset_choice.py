"""Which assets a device gets: the one a transform names, else the first fallback that fits."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from device_runtime.feature_policies import Network
from device_runtime.transform_assets import MAX_ASSET_BYTES
from feature_catalog.definitions.assets import Asset
from feature_catalog.definitions.catalog_set import DefinitionSet
from feature_catalog.on_device.profile import DeviceProfile
from feature_catalog.on_device.resolution import DownloadedAsset, Effect, Reason, Remark
from feature_catalog.on_device.rules import Budget, DeviceRules, storage_class
from feature_catalog.on_device.sizes import memory_bytes

IsStored = Callable[[Asset], bool]
"""Whether an asset's file is on the server, to be fetched."""


@dataclass(frozen=True, slots=True)
class AssetChoice:
    """What became of the assets that a service's features ask for.

    Attributes:
        taken: Asset taken, by the one asked for; one that is not in it has none.
        downloads: Each asset taken, once.
    """

    taken: Mapping[str, str]
    downloads: tuple[DownloadedAsset, ...]
    remarks: tuple[Remark, ...]


@dataclass
class _Spent:
    """What the assets chosen so far take."""

    chosen: dict[str, Asset] = field(default_factory=dict)
    bytes: int = 0
    memory_bytes: int = 0


def choose_assets(
    asked: Mapping[str, Sequence[str]],
    definitions: DefinitionSet,
    profile: DeviceProfile,
    budget: Budget,
    rules: DeviceRules,
    is_stored: IsStored | None = None,
) -> AssetChoice:
    """Choose, in the order of their names, so that the same device gets the same.

    Args:
        asked: Features that need an asset on the device, by its name.
        budget: What is left of the device's for assets.
        is_stored: Those that are not count as refused; None: all are taken to be there.
    """
    spent = _Spent()
    taken: dict[str, str] = {}
    remarks: list[Remark] = []
    for name in sorted(asked):
        refusals: list[Remark] = []
        for asset in _with_fallbacks(definitions, name):
            refusal = _refusal(asset, profile, budget, spent, is_stored)
            if refusal is None:
                taken[name] = asset.name
                if asset.name not in spent.chosen:
                    spent.chosen[asset.name] = asset
                    spent.bytes += asset.size_bytes
                    spent.memory_bytes += memory_bytes(asset)
                break
            refusals.append(refusal)
        remarks.extend(_told(refusals, taken.get(name)))
    users: defaultdict[str, list[str]] = defaultdict(list)
    for name in sorted(taken):
        users[taken[name]].append(name)
    downloads = [
        _download(asset, users[asset.name], asked, rules)
        for asset in sorted(spent.chosen.values(), key=lambda asset: asset.name)
    ]
    remarks.extend(_waits(downloads, profile))
    return AssetChoice(taken, tuple(downloads), tuple(remarks))


def _with_fallbacks(definitions: DefinitionSet, name: str) -> Iterator[Asset]:
    """An asset, its fallback, that one's, and so on; `check_set` lets no circle in."""
    asset = definitions.asset(name)
    while asset is not None:
        yield asset
        asset = definitions.asset(asset.fallback) if asset.fallback is not None else None


def _refusal(
    asset: Asset,
    profile: DeviceProfile,
    budget: Budget,
    spent: _Spent,
    is_stored: IsStored | None,
) -> Remark | None:
    """Why a device cannot have an asset."""
    for reason, why in _obstacles(asset, profile, budget, spent, is_stored):
        about = f"asset {asset.name}"
        return Remark(Effect.REFUSED, reason, about, f"{asset.name} {why}")
    return None


def _obstacles(
    asset: Asset,
    profile: DeviceProfile,
    budget: Budget,
    spent: _Spent,
    is_stored: IsStored | None,
) -> Iterator[tuple[Reason, str]]:
    size, needed = asset.size_bytes, memory_bytes(asset)
    if profile.locale is not None and asset.locale and not fits_locale(asset, profile.locale):
        yield (
            Reason.OTHER_LOCALE,
            f"is for {asset.locale}, and the device's is {profile.locale}",
        )
    if asset.name in spent.chosen:
        return
    if size > MAX_ASSET_BYTES:
        yield (
            Reason.ASSET_UNREADABLE,
            f"has {size:,} bytes, and devices read at most {MAX_ASSET_BYTES:,} of one asset",
        )
    if size > budget.asset_bytes:
        yield (
            Reason.ASSET_TOO_LARGE,
            f"has {size:,} bytes, and this device, of storage class {storage_class(profile)}, "
            f"takes at most {budget.asset_bytes:,} of one asset",
        )
    if spent.bytes + size > budget.total_bytes:
        yield (
            Reason.OUT_OF_STORAGE,
            f"has {size:,} bytes, and of the {budget.total_bytes:,} that this device has for "
            f"assets {spent.bytes:,} are taken",
        )
    if spent.memory_bytes + needed > budget.asset_memory_bytes:
        yield (
            Reason.OUT_OF_MEMORY,
            f"takes {needed:,} bytes of memory, and of the {budget.asset_memory_bytes:,} that "
            f"assets may take on this device {spent.memory_bytes:,} are taken",
        )
    if is_stored is not None and not is_stored(asset):
        yield Reason.NOT_ON_SERVER, "has no file on the server"


def fits_locale(asset: Asset, locale: str) -> bool:
    """Whether an asset is for a user of a locale: of the same language, as far as it says.

    ``pt`` fits ``pt-BR``; ``pt-BR`` fits neither ``pt`` nor ``pt-PT`` (basic filtering of RFC 4647,
    section 3.3.1).
    """
    wanted, user = asset.locale.lower(), locale.lower().replace("_", "-")
    return user == wanted or user.startswith(f"{wanted}-")


def _told(refusals: Sequence[Remark], taken: str | None) -> Iterator[Remark]:
    """Refusals as they count: where a fallback is taken, the first was only replaced."""
    for refusal in refusals:
        if taken is None:
            yield refusal
        else:
            yield Remark(
                Effect.REPLACED,
                refusal.reason,
                refusal.about,
                f"{refusal.sentence}; {taken} is taken in its place",
            )


def _download(
    asset: Asset, asked_as: Sequence[str], asked: Mapping[str, Sequence[str]], rules: DeviceRules
) -> DownloadedAsset:
    is_small = asset.size_bytes <= rules.metered_asset_bytes
    return DownloadedAsset(
        name=asset.name,
        asked=tuple(asked_as),
        type=asset.type,
        version=asset.version,
        sha256=asset.sha256,
        bytes=asset.size_bytes,
        memory_bytes=memory_bytes(asset),
        network=Network.ANY if is_small else Network.UNMETERED,
        used_by=tuple(sorted({feature for name in asked_as for feature in asked[name]})),
    )


def _waits(downloads: Sequence[DownloadedAsset], profile: DeviceProfile) -> Iterator[Remark]:
    if profile.unmetered is not False:
        return
    for each in downloads:
        if each.network is Network.UNMETERED:
            yield Remark(
                Effect.WAITS,
                Reason.METERED_NETWORK,
                f"asset {each.name}",
                f"{each.name} ({each.bytes:,} bytes) is downloaded over an unmetered network only, "
                "and the device's is metered: it waits, and so do "
                f"{', '.join(each.used_by)}",
            )
