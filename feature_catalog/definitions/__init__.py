"""Feature definitions: what features there are, on devices and in the cloud, and their policies."""

from device_runtime.feature_policies import CacheMode, Network, OnFull, OnMiss
from feature_catalog.definitions.assets import Asset, AssetType
from feature_catalog.definitions.features import Feature
from feature_catalog.definitions.fields import (
    Bool,
    Dtype,
    Entity,
    Field,
    Float32,
    Float64,
    Int32,
    Int64,
    String,
)
from feature_catalog.definitions.policies import CachePolicy, Retention
from feature_catalog.definitions.services import FeatureService
from feature_catalog.definitions.sources import CloudSource, DeviceSource
from feature_catalog.definitions.transforms import RunAt, Transform
from feature_catalog.definitions.views import FeatureView

__all__ = [
    "Asset",
    "AssetType",
    "Bool",
    "CacheMode",
    "CachePolicy",
    "CloudSource",
    "DeviceSource",
    "Dtype",
    "Entity",
    "Feature",
    "FeatureService",
    "FeatureView",
    "Field",
    "Float32",
    "Float64",
    "Int32",
    "Int64",
    "Network",
    "OnFull",
    "OnMiss",
    "Retention",
    "RunAt",
    "String",
    "Transform",
]
