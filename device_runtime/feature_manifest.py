"""The feature manifest: what one device is to do for one feature service.

The catalog makes it, from a contract and what is known of the device; the gateway serves it. It is
JSON in one canonical form (keys sorted, no blanks, ASCII) and known by the SHA-256 of its bytes: a
device hashes what it got and never has to write it. Transform chains stand in it as text, in their
own canonical form (`device_runtime.transform_chain`), for the same reason.

**Columns.** What a row from the cloud, a cached row or a stored event calls a value is not the
field's name but the feature's ``column``: the field's name where the value is as its source says
it, else ``field.digest``, the digest being of the transforms it went through before it was stored
and of their assets. So values of two services, or of two contracts of one, that went through
different transforms have different names wherever they are kept, and are never taken for each
other; those that went through the same are shared.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

from device_runtime.columns import Kind
from device_runtime.errors import FlintError
from device_runtime.feature_policies import CachePolicy, Network, Retention
from device_runtime.feature_values import Value
from device_runtime.transform_chain import TransformChain

FORMAT = 1
"""Goes up when a device that reads the older form would go wrong."""

MAX_MANIFEST_BYTES = 4 * 2**20
MAX_FEATURES = 2_000
MAX_VIEWS = 500
MAX_ASSETS = 500
MAX_REFUSALS = 2_000
MAX_REASON_CHARACTERS = 500

COLUMN_DIGEST_BYTES = 8


class InvalidFeatureManifest(FlintError):
    """A feature manifest that is not one, is too large, or contradicts itself."""

    code = "FLN-2940"


class Place(StrEnum):
    """Where a view's values are made."""

    CLOUD = "cloud"
    DEVICE = "device"


@dataclass(frozen=True, slots=True)
class ManifestFeature:
    """One input of the model.

    Attributes:
        name: What the model knows it as; unique in a manifest.
        view: Of which view.
        field: The view's field it is.
        column: Its name in rows and events; see above.
        kind: Of what stands in a row from the cloud; of a device view, of the event's field, before
            ``ingest``.
        shape: Of that value.
        default: What stands for a value of a cloud view that is not there, in the form that rows
            have; None: nothing may.
        ingest: Of a device view: what the value goes through before it is stored. Empty for views
            of the cloud, whose whole chain on the device is ``read``.
        read: What it goes through each time it is read.
        gives: Kind of what comes out at the end.
        gives_shape: Shape of that.
    """

    name: str
    view: str
    field: str
    column: str
    kind: Kind
    shape: tuple[int, ...]
    default: Value
    ingest: TransformChain
    read: TransformChain
    gives: Kind
    gives_shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class JoinKey:
    """A column that tells one entity from another.

    Attributes:
        dtype: ``string``, ``int32`` or ``int64``.
    """

    name: str
    dtype: str


@dataclass(frozen=True, slots=True)
class EventField:
    """What an event holds, before any transform."""

    name: str
    kind: Kind
    shape: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ManifestView:
    """A view that features are of.

    Attributes:
        version: Rises when its values mean something else; part of the cache's keys.
        join_keys: In the order in which `feature_values.encode_key` takes their values.
        ttl_s: How long a value is true after its event; None: until the next.
        audience: Host apps among which this device may share its values.
        event: Of a device view: the event's name in the app's calls; else empty.
        event_fields: Of a device view: all that the event holds.
        retention: Of a device view.
        cache: Of a cloud view.
    """

    name: str
    version: int
    place: Place
    join_keys: tuple[JoinKey, ...]
    ttl_s: float | None = None
    audience: frozenset[str] = frozenset()
    event: str = ""
    event_fields: tuple[EventField, ...] = ()
    retention: Retention | None = None
    cache: CachePolicy | None = None


@dataclass(frozen=True, slots=True)
class ManifestAsset:
    """A file that transforms on the device read.

    Attributes:
        name: As the chains name it.
        uses: Name of the asset whose file it is: the same, or that of a fallback.
        type: ``vocabulary`` or ``embedding``.
        sha256: Of the file.
        size_bytes: Of the file.
        network: Over which network it may be fetched.
    """

    name: str
    uses: str
    type: str
    sha256: bytes
    size_bytes: int
    network: Network = Network.UNMETERED


@dataclass(frozen=True, slots=True)
class Refusal:
    """What this device does not get, and why.

    Attributes:
        kind: ``asset``, ``view`` or ``feature``.
        name: Of that.
        reason: For people.
        features: Names of the features it cannot make because of it; none where it makes do.
    """

    kind: str
    name: str
    reason: str
    features: tuple[str, ...] = ()


@dataclass(frozen=True)
class FeatureManifest:
    """What one device is to do for one feature service.

    Attributes:
        contract_sha256: Of the service's contract that it is made from, 32 bytes.
        features: In the order of the model's inputs, which is that of their names.
        views: By name.
        assets: By the name in the chains; those on the device only.
        refusals: Empty where the device can do all of it.
    """

    service: str
    contract_sha256: bytes
    features: tuple[ManifestFeature, ...]
    views: Mapping[str, ManifestView]
    assets: Mapping[str, ManifestAsset]
    refusals: tuple[Refusal, ...] = ()

    @cached_property
    def refused_features(self) -> frozenset[str]:
        """Features this device cannot make: with any, it cannot serve the model."""
        return frozenset(name for refusal in self.refusals for name in refusal.features)

    def features_of(self, view: str) -> tuple[ManifestFeature, ...]:
        """The features of one view."""
        return tuple(each for each in self.features if each.view == view)

    def to_json(self) -> str:
        """The canonical form."""
        plain = {
            "format": FORMAT,
            "service": self.service,
            "contract_sha256": self.contract_sha256.hex(),
            "features": [_plain_feature(each) for each in self.features],
            "views": [_plain_view(self.views[name]) for name in sorted(self.views)],
            "assets": [
                {
                    "name": each.name,
                    "uses": each.uses,
                    "type": each.type,
                    "sha256": each.sha256.hex(),
                    "size_bytes": each.size_bytes,
                    "network": str(each.network),
                }
                for each in (self.assets[name] for name in sorted(self.assets))
            ],
            "refusals": [
                {
                    "kind": each.kind,
                    "name": each.name,
                    "reason": each.reason,
                    "features": list(each.features),
                }
                for each in self.refusals
            ],
        }
        return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)

    def sha256(self) -> bytes:
        """Digest of the canonical form."""
        return hashlib.sha256(self.to_json().encode()).digest()


def column_name(field: str, chain: TransformChain, asset_digests: Mapping[str, bytes]) -> str:
    """What a value is called once ``chain`` has made it what is stored.

    Args:
        field: The view's field.
        chain: What it went through before that: ``cloud``, or ``device_ingest`` of an event.
        asset_digests: SHA-256 of the file behind every asset the chain names.

    >>> column_name("ctr", TransformChain(), {})
    'ctr'
    """
    if not chain.steps:
        return field
    whole = hashlib.sha256(chain.to_json().encode())
    for name in chain.asset_names:
        whole.update(asset_digests[name])
    return f"{field}.{whole.digest()[:COLUMN_DIGEST_BYTES].hex()}"


def _plain_feature(feature: ManifestFeature) -> dict[str, Any]:
    return {
        "name": feature.name,
        "view": feature.view,
        "field": feature.field,
        "column": feature.column,
        "kind": str(feature.kind),
        "shape": list(feature.shape),
        "default": feature.default,
        "device_ingest": feature.ingest.to_json(),
        "device_read": feature.read.to_json(),
        "gives": str(feature.gives),
        "gives_shape": list(feature.gives_shape),
    }


def _plain_view(view: ManifestView) -> dict[str, Any]:
    return {
        "name": view.name,
        "version": view.version,
        "place": str(view.place),
        "join_keys": [{"name": key.name, "dtype": key.dtype} for key in view.join_keys],
        "ttl_s": view.ttl_s,
        "audience": sorted(view.audience),
        "event": view.event,
        "event_fields": [
            {"name": each.name, "kind": str(each.kind), "shape": list(each.shape)}
            for each in view.event_fields
        ],
        "retention": None if view.retention is None else view.retention.to_json(),
        "cache": None if view.cache is None else view.cache.to_json(),
    }
