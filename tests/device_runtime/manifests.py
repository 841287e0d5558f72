"""Small feature manifests."""

from device_runtime.columns import Kind
from device_runtime.feature_manifest import (
    FeatureManifest,
    JoinKey,
    ManifestFeature,
    ManifestView,
    Place,
)
from device_runtime.feature_policies import CachePolicy
from device_runtime.transform_chain import TransformChain


def view(name: str = "v", *, ttl_s: float | None = None, max_age_s: float | None = None):
    """A cloud view of one integer, keyed by text."""
    return ManifestView(
        name=name,
        version=1,
        place=Place.CLOUD,
        join_keys=(JoinKey("k", "string"),),
        ttl_s=ttl_s,
        cache=CachePolicy(max_age_s=max_age_s, max_bytes=10_000),
    )


def manifest(service: str, contract_sha256: bytes, *, view_name: str = "v") -> FeatureManifest:
    """One feature of one view."""
    feature = ManifestFeature(
        name="a",
        view=view_name,
        field="a",
        column="a",
        kind=Kind.INT,
        shape=(),
        default=None,
        ingest=TransformChain(),
        read=TransformChain(),
        gives=Kind.INT,
        gives_shape=(),
    )
    return FeatureManifest(service, contract_sha256, (feature,), {view_name: view(view_name)}, {})
