"""Training data from the catalog's features: point-in-time joins over files and tables."""

from feature_catalog.offline.feature_assets import AssetReader, asset_folder, blob_assets
from feature_catalog.offline.historical import FeatureSummary, HistoricalFeatures, OfflineFeatures

__all__ = [
    "AssetReader",
    "FeatureSummary",
    "HistoricalFeatures",
    "OfflineFeatures",
    "asset_folder",
    "blob_assets",
]
