"""What a device stores, caches, downloads and transforms of a feature service, and why."""

from feature_catalog.on_device.profile import DeviceProfile, InvalidDeviceProfile, StorageClass
from feature_catalog.on_device.resolution import (
    CachedFeatures,
    DeviceResolution,
    DownloadedAsset,
    Effect,
    Reason,
    Remark,
    StoredColumn,
    StoredEvents,
    TransformedFeature,
)
from feature_catalog.on_device.resolve import resolve_for_device
from feature_catalog.on_device.rules import BUDGETS, Budget, DeviceRules, InvalidDeviceRules

__all__ = [
    "BUDGETS",
    "Budget",
    "CachedFeatures",
    "DeviceProfile",
    "DeviceResolution",
    "DeviceRules",
    "DownloadedAsset",
    "Effect",
    "InvalidDeviceProfile",
    "InvalidDeviceRules",
    "Reason",
    "Remark",
    "StorageClass",
    "StoredColumn",
    "StoredEvents",
    "TransformedFeature",
    "resolve_for_device",
]
