"""A manifest's cloud views, as the reader of cached features takes them."""

from device_runtime.feature_manifest import FeatureManifest, ManifestView, Place
from device_runtime.feature_policies import CachePolicy
from device_runtime.feature_reader import DeviceView, ViewField


def cloud_views(manifest: FeatureManifest) -> tuple[DeviceView, ...]:
    """The views of the cloud, by name, with the features this device can make."""
    of_cloud = (
        _device_view(manifest, manifest.views[name])
        for name in sorted(manifest.views)
        if manifest.views[name].place is Place.CLOUD
    )
    return tuple(view for view in of_cloud if view.fields)


def _device_view(manifest: FeatureManifest, view: ManifestView) -> DeviceView:
    fields = tuple(
        ViewField(
            name=each.name,
            kind=each.kind,
            shape=each.shape,
            default=each.default,
            chain=each.read,
            column=each.column,
        )
        for each in manifest.features_of(view.name)
        if each.name not in manifest.refused_features
    )
    policy = view.cache or CachePolicy()
    return DeviceView(view.name, view.version, fields, policy, view.audience)
