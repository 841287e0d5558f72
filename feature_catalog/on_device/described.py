"""What a device does with a feature service, as JSON for programs and pages."""

import json
from dataclasses import asdict
from typing import Any

from feature_catalog.on_device.resolution import (
    CachedFeatures,
    DeviceResolution,
    DownloadedAsset,
    StoredEvents,
    TransformedFeature,
)


def describe(found: DeviceResolution) -> dict[str, Any]:
    """A resolution as plain values; bytes are the most that the device spends."""
    return {
        "service": found.service,
        "device": found.profile.to_json(),
        "storage_class": str(found.storage_class),
        "budget": asdict(found.budget),
        "complete": found.is_complete,
        "stored": [_stored(each) for each in found.stored],
        "cached": [_cached(each) for each in found.cached],
        "downloaded": [_downloaded(each) for each in found.downloaded],
        "transformed": [_transformed(each) for each in found.transformed],
        "refused": list(found.refused),
        "remarks": [
            {
                "effect": str(each.effect),
                "reason": str(each.reason),
                "about": each.about,
                "sentence": each.sentence,
            }
            for each in found.remarks
        ],
        "totals": {
            "stored_bytes": found.stored_bytes,
            "cached_bytes": found.cached_bytes,
            "downloaded_bytes": found.downloaded_bytes,
            "file_overhead_bytes": found.file_overhead_bytes,
            "total_bytes": found.total_bytes,
            "memory_bytes": found.memory_bytes,
        },
    }


def _stored(store: StoredEvents) -> dict[str, Any]:
    return {
        "view": store.view,
        "event": store.event,
        "columns": [
            {
                "field": each.field,
                "ingest": json.loads(each.ingest.to_json()),
                "kind": each.kind,
                "shape": list(each.shape),
            }
            for each in store.columns
        ],
        "retention": store.retention.to_json(),
        "event_bytes": store.event_bytes,
        "max_events": store.max_events,
        "bytes": store.bytes,
        "is_bound": store.is_bound,
    }


def _cached(cache: CachedFeatures) -> dict[str, Any]:
    return {
        "view": cache.view,
        "policy": cache.policy.to_json(),
        "row_bytes": cache.row_bytes,
        "key_bytes": cache.key_bytes,
        "max_keys": cache.max_keys,
        "bytes": cache.bytes,
        "is_bound": cache.is_bound,
    }


def _downloaded(asset: DownloadedAsset) -> dict[str, Any]:
    return {
        "asset": asset.name,
        "asked": list(asset.asked),
        "type": str(asset.type),
        "version": asset.version,
        "sha256": asset.sha256,
        "bytes": asset.bytes,
        "memory_bytes": asset.memory_bytes,
        "network": str(asset.network),
        "used_by": list(asset.used_by),
    }


def _transformed(feature: TransformedFeature) -> dict[str, Any]:
    return {
        "feature": feature.name,
        "view": feature.view,
        "field": feature.field,
        "on_device": feature.is_on_device,
        "cloud": json.loads(feature.cloud.to_json()),
        "device_ingest": json.loads(feature.device_ingest.to_json()),
        "device_read": json.loads(feature.device_read.to_json()),
        "assets": dict(feature.assets),
        "gives": str(feature.gives),
        "shape": list(feature.shape),
    }
