"""Makes a device's manifest of a contract: what `resolve_for_device` found, in the device's form.

It says nothing of where the cloud's values come from, who owns what, or of other services: only
what a device needs to ask for values, keep them and make a model's inputs of them.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from device_runtime.feature_manifest import (
    MAX_MANIFEST_BYTES,
    MAX_REASON_CHARACTERS,
    EventField,
    FeatureManifest,
    JoinKey,
    ManifestAsset,
    ManifestFeature,
    ManifestView,
    Place,
    Refusal,
    column_name,
)
from device_runtime.feature_policies import Network
from device_runtime.transform_assets import Assets
from device_runtime.transform_chain import TransformChain
from feature_catalog.definitions.assets import Asset
from feature_catalog.definitions.catalog_set import DefinitionSet
from feature_catalog.definitions.served import ServedFeature
from feature_catalog.definitions.sources import DeviceSource
from feature_catalog.definitions.transforms import RunAt
from feature_catalog.definitions.views import FeatureView
from feature_catalog.on_device import (
    DeviceProfile,
    DeviceResolution,
    DeviceRules,
    Effect,
    Remark,
)
from feature_catalog.on_device.caches import device_cache_policy
from feature_catalog.on_device.resolve import resolve_for_device
from feature_catalog.on_device.rules import DEFAULT_RULES
from feature_catalog.on_device.served_views import chain_at
from feature_catalog.on_device.stores import device_retention
from feature_catalog.service.columns import asset_digests, field_of, sent_column
from feature_catalog.service.errors import UnservableService
from feature_catalog.service.served_contracts import ServedContract

_KINDS = {"asset": "asset", "feature_view": "view"}


@dataclass(frozen=True, slots=True)
class ManifestMaker:
    """What manifests are made with.

    Attributes:
        is_stored: Whether an asset's file, by its digest, is there to be fetched.
        cloud_assets: Reads what the cloud's chains of a contract need.
        rules: What devices may spend.
    """

    is_stored: Callable[[bytes], bool]
    cloud_assets: Callable[[ServedContract], Assets]
    rules: DeviceRules = DEFAULT_RULES

    def make(self, contract: ServedContract, profile: DeviceProfile) -> FeatureManifest:
        """What a device is to do for a contract.

        Raises:
            UnservableService: If a device could not read it.
            InvalidAsset: If an asset that the cloud's own chains read is not there.
        """
        service = contract.definitions.service(contract.service)
        if service is None:
            raise LookupError(f"the contract of {contract.service} lacks the service")
        found = resolve_for_device(
            profile,
            service,
            contract.definitions,
            self.rules,
            is_stored=lambda asset: self.is_stored(bytes.fromhex(asset.sha256)),
        )
        taken = {name: each.name for each in found.downloaded for name in each.asked}
        digests = asset_digests(contract.definitions, taken)
        cloud_assets = self.cloud_assets(contract)
        features = tuple(
            _feature(contract.definitions, each, digests, cloud_assets)
            for each in contract.features
        )
        manifest = FeatureManifest(
            service=contract.service,
            contract_sha256=contract.sha256,
            features=features,
            views={name: _view(contract, name, found) for name in sorted(contract.views)},
            assets={
                name: _asset(name, contract.definitions.asset(uses), self.rules)
                for name, uses in taken.items()
            },
            refusals=tuple(_refusals(contract, found)),
        )
        size = len(manifest.to_json())
        if size > MAX_MANIFEST_BYTES:
            raise UnservableService(
                f"the manifest of {contract.service} has {size} bytes, more than the "
                f"{MAX_MANIFEST_BYTES} a device reads; split the service, or shorten boundaries"
            )
        return manifest


def _feature(
    definitions: DefinitionSet,
    served: ServedFeature,
    digests: Mapping[str, bytes],
    cloud_assets: Assets,
) -> ManifestFeature:
    ingest, read = chain_at(served, RunAt.DEVICE_INGEST), chain_at(served, RunAt.DEVICE_READ)
    field = field_of(served)
    named = ManifestFeature(
        name=served.feature.name,
        view=served.view.name,
        field=field.name,
        column=field.name,
        kind=field.dtype.column_kind,
        shape=field.shape,
        default=None,
        ingest=ingest,
        read=read,
        gives=served.gives,
        gives_shape=served.shape,
    )
    if served.view.is_on_device:
        # A feature whose asset is refused is never stored: any name will do.
        is_refused = any(name not in digests for name in ingest.asset_names)
        column = field.name if is_refused else column_name(field.name, ingest, digests)
        return replace(named, column=column)
    sent = sent_column(definitions, served)
    return replace(
        named,
        column=sent.name,
        kind=sent.kind,
        shape=sent.shape,
        default=sent.default(cloud_assets),
        ingest=TransformChain(),
        read=TransformChain((*ingest.steps, *read.steps)),
    )


def _view(contract: ServedContract, name: str, found: DeviceResolution) -> ManifestView:
    view = contract.views[name]
    plain = ManifestView(
        name=name,
        version=contract.view_version(name),
        place=Place.DEVICE if view.is_on_device else Place.CLOUD,
        join_keys=tuple(_join_keys(contract.definitions, view)),
        ttl_s=None if view.ttl is None else view.ttl.total_seconds(),
        audience=frozenset(view.audience),
    )
    if isinstance(view.source, DeviceSource):
        kept = {each.view: each.retention for each in found.stored}
        return replace(
            plain,
            event=view.source.event,
            event_fields=tuple(
                EventField(each.name, each.dtype.column_kind, each.shape)
                for each in view.source.schema
            ),
            retention=kept.get(name) or device_retention(view),
        )
    policies = {each.view: each.policy for each in found.cached}
    policy = policies.get(name) or device_cache_policy(view)
    if policy.max_age_s is None and plain.ttl_s is not None and policy.max_bytes is not None:
        # Kept until it is not true any more.
        policy = replace(policy, max_age_s=plain.ttl_s)
    return replace(plain, cache=policy)


def _join_keys(definitions: DefinitionSet, view: FeatureView) -> Iterator[JoinKey]:
    """Of entities by name, each one's by name: the order in which keys are encoded."""
    for entity_name in view.entities:
        entity = definitions.entity(entity_name)
        if entity is not None:
            yield from (JoinKey(name, str(entity.dtype)) for name in entity.join_keys)


def _asset(name: str, asset: Asset | None, rules: DeviceRules) -> ManifestAsset:
    if asset is None:
        raise LookupError(f"the asset {name} was not looked for before")
    return ManifestAsset(
        name=name,
        uses=asset.name,
        type=str(asset.type),
        sha256=bytes.fromhex(asset.sha256),
        size_bytes=asset.size_bytes,
        network=Network.ANY if asset.size_bytes <= rules.metered_asset_bytes else Network.UNMETERED,
    )


def _refusals(contract: ServedContract, found: DeviceResolution) -> Iterator[Refusal]:
    """What was refused, replaced or reduced; every feature the device lacks is in one of them."""
    sentences = {}
    names = {*contract.definitions.names(Asset.kind), *contract.views}
    for remark in found.remarks:
        kind, _, name = remark.about.partition(" ")
        if kind == "feature":
            sentences[name] = _short(remark)
        elif kind in _KINDS and name in names and remark.effect is not Effect.WAITS:
            # What waits for another network the device knows best; what is about the device as a
            # whole, whose model may be called anything, is told of each feature.
            yield Refusal(_KINDS[kind], name, _short(remark))
    for name in found.refused:
        why = sentences.get(name) or _first_refusal(found)
        yield Refusal("feature", name, why, (name,))


def _first_refusal(found: DeviceResolution) -> str:
    """Of the device as a whole, e.g. for its system's age."""
    refused = (_short(each) for each in found.remarks if each.effect is Effect.REFUSED)
    return next(refused, "the device cannot have it")


def _short(remark: Remark) -> str:
    return remark.sentence[:MAX_REASON_CHARACTERS]
