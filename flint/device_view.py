"""What a device does with a feature service, as people read it."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta

from device_runtime.feature_policies import CacheMode
from device_runtime.transform_chain import TransformChain
from feature_catalog.definitions.quantities import format_duration
from feature_catalog.on_device import (
    CachedFeatures,
    DeviceResolution,
    StoredEvents,
    TransformedFeature,
)

Row = tuple[object, ...]

STORED = ("stored on the device", "event", "kept", "bytes an event", "bytes at most")
CACHED = ("cached", "mode", "of it", "network", "missing", "keys", "bytes at most")
DOWNLOADED = ("downloaded", "for", "network", "in memory", "bytes")
TRANSFORMED = ("feature", "from", "in the cloud", "when stored", "when read", "gives")
DEVICES = ("device", "class", "features", "bytes at most", "of", "memory", "otherwise")
OTHERWISE = ("what", "about", "why")


def headline(found: DeviceResolution) -> str:
    """Which service, which device, and what it may spend."""
    budget = found.budget
    return (
        f"{found.service} on {found.profile.device_model}: storage class {found.storage_class}, "
        f"at most {budget.total_bytes:,} bytes in all, {budget.asset_bytes:,} an asset, "
        f"{budget.asset_memory_bytes:,} of memory for assets"
    )


def stored_rows(found: DeviceResolution) -> list[Row]:
    """Rows of `STORED`."""
    return [
        (each.view, each.event, _kept(each), f"{each.event_bytes:,}", _at_most(each))
        for each in found.stored
    ]


def cached_rows(found: DeviceResolution) -> list[Row]:
    """Rows of `CACHED`."""
    return [
        (
            each.view,
            each.policy.mode,
            f"{each.row_bytes:,} bytes a row",
            each.policy.network,
            each.policy.on_miss,
            "-" if each.policy.mode is CacheMode.NEVER else f"about {each.max_keys:,}",
            f"{each.bytes:,}",
        )
        for each in found.cached
    ]


def downloaded_rows(found: DeviceResolution) -> list[Row]:
    """Rows of `DOWNLOADED`."""
    return [
        (
            each.name,
            ", ".join(each.used_by),
            each.network,
            f"{each.memory_bytes:,}",
            f"{each.bytes:,}",
        )
        for each in found.downloaded
    ]


def transformed_rows(found: DeviceResolution) -> list[Row]:
    """Rows of `TRANSFORMED`."""
    return [
        (
            each.name,
            f"{each.view}:{each.field}",
            "-" if each.is_on_device else in_words(each.cloud),
            in_words(each.device_ingest),
            in_words(each.device_read),
            _gives(each),
        )
        for each in found.transformed
    ]


def device_rows(found: Mapping[str, DeviceResolution]) -> list[Row]:
    """Rows of `DEVICES`, a device each."""
    rows: list[Row] = []
    for name, each in found.items():
        had = len(each.transformed)
        reasons = Counter(f"{remark.effect}: {remark.reason}" for remark in each.remarks)
        rows.append(
            (
                name,
                each.storage_class,
                f"{had} of {had + len(each.refused)}",
                f"{each.total_bytes:,}",
                f"{each.budget.total_bytes:,}",
                f"{each.memory_bytes:,}",
                ", ".join(f"{reason} ({count})" for reason, count in reasons.items()) or "-",
            )
        )
    return rows


def otherwise_rows(found: DeviceResolution) -> list[Row]:
    """Rows of `OTHERWISE`."""
    return [(each.effect, each.about, each.sentence) for each in found.remarks]


def closing_lines(found: DeviceResolution) -> Iterator[str]:
    """Totals, and whether the device can have the whole service."""
    yield (
        f"at most {found.total_bytes:,} bytes: events {found.stored_bytes:,}, cached values "
        f"{found.cached_bytes:,}, assets {found.downloaded_bytes:,}, the file itself "
        f"{found.file_overhead_bytes:,}; {found.memory_bytes:,} bytes of memory for assets"
    )
    estimated = [s.view for s in found.stored if not s.is_bound]
    estimated += [c.view for c in found.cached if not c.is_bound]
    if estimated:
        yield (
            f"bytes an event and a row of {', '.join(estimated)} are estimates: texts have no "
            "greatest length"
        )
    if found.refused:
        yield (
            f"{len(found.refused)} of {len(found.refused) + len(found.transformed)} features "
            "cannot be had: this device can neither train nor serve the model"
        )


def in_words(chain: TransformChain) -> str:
    """A chain, briefly: ``vocab ad_categories, normalize``.

    >>> in_words(TransformChain())
    '-'
    """
    steps = []
    for step in json.loads(chain.to_json()):
        detail = step.get("asset") or step.get("buckets")
        steps.append(step["op"] if detail is None else f"{step['op']} {detail}")
    return ", ".join(steps) or "-"


def _kept(store: StoredEvents) -> str:
    limits = store.retention
    parts = [f"{store.max_events:,} events"]
    if limits.max_bytes is not None:
        parts.append(f"{limits.max_bytes:,} bytes")
    if limits.max_age_s is not None:
        parts.append(format_duration(timedelta(seconds=limits.max_age_s)))
    return ", ".join(parts)


def _at_most(kept: StoredEvents | CachedFeatures) -> str:
    return f"{kept.bytes:,}" if kept.is_bound else f"about {kept.bytes:,}"


def _gives(feature: TransformedFeature) -> str:
    return f"{feature.gives}{list(feature.shape)}" if feature.shape else str(feature.gives)


def tables(found: DeviceResolution) -> Iterator[tuple[Sequence[str], list[Row]]]:
    """Columns and rows of each table that has rows."""
    for columns, rows in (
        (STORED, stored_rows(found)),
        (CACHED, cached_rows(found)),
        (DOWNLOADED, downloaded_rows(found)),
        (TRANSFORMED, transformed_rows(found)),
        (OTHERWISE, otherwise_rows(found)),
    ):
        if rows:
            yield columns, rows
