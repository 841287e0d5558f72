"""The cloud views of a feature manifest, as `FeatureReader` and the cache take them."""

from device_runtime.feature_manifest import FeatureManifest, Place
from device_runtime.feature_policies import CachePolicy
from device_runtime.feature_reader import DeviceView, ViewField


def cloud_views(manifest: FeatureManifest) -> tuple[DeviceView, ...]:
    """A view for each of the manifest's that the cloud makes, with a field for each feature."""
    return tuple(
        DeviceView(
            view.name,
            view.version,
            tuple(
                ViewField(f.name, f.kind, f.shape, f.default, f.read, f.column)
                for f in manifest.features_of(view.name)
            ),
            view.cache or CachePolicy(),
            view.audience,
        )
        for view in manifest.views.values()
        if view.place is Place.CLOUD
    )
