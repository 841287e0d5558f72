"""Events a device keeps of a service's device views, within what it has room for."""

from collections.abc import Sequence
from dataclasses import replace

from device_runtime.feature_policies import Retention
from device_runtime.transforms import EmbedLookup
from feature_catalog.definitions.served import ServedFeature
from feature_catalog.definitions.sources import DeviceSource
from feature_catalog.definitions.transforms import RunAt
from feature_catalog.definitions.views import FeatureView
from feature_catalog.on_device.resolution import Remark, StoredColumn, StoredEvents
from feature_catalog.on_device.room import LEAST_KEPT, Wish, room_remark, share_out
from feature_catalog.on_device.rules import DeviceRules
from feature_catalog.on_device.served_views import by_view, chain_at, stored_name
from feature_catalog.on_device.sizes import FILE_OVER_COUNTED, event_bytes, file_bytes


def stored_events(
    served: Sequence[ServedFeature], available_bytes: int, rules: DeviceRules
) -> tuple[tuple[StoredEvents, ...], tuple[Remark, ...]]:
    """Events kept, within what there is room for."""
    wanted = {name: _store(features, rules) for name, features in by_view(served, device=True)}
    wishes = {
        name: Wish(store.bytes, file_bytes(LEAST_KEPT * store.event_bytes))
        for name, store in wanted.items()
    }
    granted = share_out(wishes, available_bytes)
    stores: list[StoredEvents] = []
    remarks: list[Remark] = []
    for name, store in wanted.items():
        remark = room_remark(name, "events", store.bytes, granted.get(name), available_bytes)
        if remark is not None:
            remarks.append(remark)
        if name in granted:
            stores.append(_reduced_store(store, granted[name]))
    return tuple(stores), tuple(remarks)


def _store(features: Sequence[ServedFeature], rules: DeviceRules) -> StoredEvents:
    view = features[0].view
    columns = _columns(features)
    fields = {stored_name(each.field, each.ingest): (each.kind, each.shape) for each in columns}
    size = event_bytes(fields, rules.text_bytes)
    return _within_retention(
        StoredEvents(
            view=view.name,
            event=_event_of(view).event,
            columns=columns,
            retention=device_retention(view),
            event_bytes=size.bytes,
            max_events=0,
            counted_bytes=0,
            is_bound=size.is_bound,
        )
    )


def _columns(features: Sequence[ServedFeature]) -> tuple[StoredColumn, ...]:
    """Each field after each of its ingest chains, once."""
    columns: dict[tuple[str, str], StoredColumn] = {}
    for each in features:
        found = each.view.field(each.feature.field)
        if found is None:
            raise LookupError(f"{each.feature.ref} was not looked for before")
        ingest = chain_at(each, RunAt.DEVICE_INGEST)
        kind = ingest.gives(found.dtype.column_kind)
        # Each look-up of an embedding adds a dimension, at the end.
        dimensions = len(found.shape) + sum(isinstance(s, EmbedLookup) for s in ingest.steps)
        shape = each.shape[:dimensions]
        columns[found.name, ingest.to_json()] = StoredColumn(found.name, ingest, kind, shape)
    return tuple(columns[key] for key in sorted(columns))


def _event_of(view: FeatureView) -> DeviceSource:
    if isinstance(view.source, DeviceSource):
        return view.source
    raise LookupError(f"{view.name} is no device view")


def _within_retention(store: StoredEvents) -> StoredEvents:
    """How many events a store's retention lets it have, and what they count as."""
    limits = store.retention
    by_bytes = None if limits.max_bytes is None else limits.max_bytes // store.event_bytes
    most = min(n for n in (limits.max_records, by_bytes) if n is not None)
    if limits.max_records is None or not store.is_bound:
        # Smaller events than reckoned fill it up to the limit all the same.
        counted = limits.max_bytes or most * store.event_bytes
    else:
        full = limits.max_records * store.event_bytes
        counted = full if limits.max_bytes is None else min(full, limits.max_bytes)
    is_bound = store.is_bound or limits.max_bytes is not None
    return replace(store, max_events=most, counted_bytes=counted, is_bound=is_bound)


def _reduced_store(store: StoredEvents, granted_bytes: int) -> StoredEvents:
    if granted_bytes >= store.bytes:
        return store
    retention = replace(store.retention, max_bytes=int(granted_bytes / FILE_OVER_COUNTED))
    return _within_retention(replace(store, retention=retention))


def device_retention(view: FeatureView) -> Retention:
    """How long and how much a device keeps of a device view, as the device says it."""
    kept = view.retention
    if kept is None:
        raise LookupError(f"{view.name} is no device view")
    return Retention(
        max_age_s=None if kept.max_age is None else kept.max_age.total_seconds(),
        max_records=kept.max_records,
        max_bytes=kept.max_bytes,
        on_full=kept.on_full,
    )
