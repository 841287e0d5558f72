"""What a device keeps to train on under a feature service: events with keys, and their labels.

An app records what its user saw and did: the keys of what it was about (``ad_id``), the values of
the service's device views at that moment, and the label. Values go through their `device_ingest`
chains first and are in the file in no other form. What the cloud knows of the keys is joined when a
task wants it (`joined_examples`). A value is known by its view and ``column``
(`feature_manifest`), so an event stored under one contract serves another that stores the same, and
no other.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from device_runtime.columns import Column, Kind, UnsuitableColumn
from device_runtime.errors import FlintError
from device_runtime.feature_database import FeatureDatabase
from device_runtime.feature_manifest import FeatureManifest, ManifestFeature, Place
from device_runtime.feature_policies import OnFull, Retention
from device_runtime.feature_values import (
    MAX_KEY_BYTES,
    Value,
    decode_row,
    encode_key,
    encode_row,
)
from device_runtime.retained_records import RetainedRecords
from device_runtime.transform_assets import Assets

Key = str | int

LABELS_ALONE = Retention(max_age_s=30 * 86_400.0, max_records=5_000, max_bytes=4 * 2**20)
"""Of a service without a device view: no policy of its own says how long keys and labels stay."""

_MAX_EVENT_BYTES = 2**20
_KEY, _COLUMN, _LABEL = "k.", "c.", "label"
_INTEGER_BITS = {"int32": 31, "int64": 63}


class UnsuitableLabelledEvent(FlintError):
    """An event that is not what the service's device views and entities say."""

    code = "FLN-2962"


@dataclass(frozen=True, slots=True)
class LabelledEvent:
    """One event as it is stored.

    Attributes:
        keys: Values of join keys by name.
        columns: Stored values, by `stored_as`.
        label: One number, or one a task.
    """

    at_ms: int
    keys: Mapping[str, Key]
    columns: Mapping[str, Value]
    label: Value


class LabelledEvents:
    """The labelled events of one service, under the strictest retention of its device views.

    Attributes:
        service: Its name.
    """

    def __init__(
        self, database: FeatureDatabase, manifest: FeatureManifest, assets: Assets | None = None
    ) -> None:
        """Take up what is there; what the retention does not allow any more goes.

        Args:
            database: Where they are kept.
            manifest: Of the service.
            assets: What `device_ingest` chains read.
        """
        self._assets = assets or {}
        self._stored = {stored_as(f): f for f in device_features(manifest)}
        views = manifest.views.values()
        self._keys = {key.name: key.dtype for view in views for key in view.join_keys}
        self._looked_up = {
            tuple(key.name for key in view.join_keys) for view in views if view.place is Place.CLOUD
        }
        self._needed_keys = {name for names in self._looked_up for name in names}
        self.service = manifest.service
        self._records = RetainedRecords(
            database, stream_of(manifest.service), strictest_retention(manifest)
        )

    @property
    def database(self) -> FeatureDatabase:
        """Where they are."""
        return self._records.database

    def append(
        self,
        keys: Mapping[str, Key],
        events: Mapping[str, Mapping[str, Value]],
        label: float | Sequence[float],
        *,
        at_ms: int | None = None,
    ) -> bool:
        """Keep one event; what must go for it goes in the same transaction.

        Args:
            keys: Every join key of the service's cloud views; those of device views may be there.
            events: By device view, the values of its fields; one left out is missing.
            label: One number, or one a task.
            at_ms: When it happened, since the epoch; now if None.

        Returns:
            Whether it is kept, see `RetainedRecords.append`.

        Raises:
            UnsuitableLabelledEvent: If a key is missing or none the cloud could know, a value is of
                another kind or shape, or the whole is too large.
        """
        its_keys = {
            name: self._checked_key(name, keys)
            for name in self._keys
            if name in self._needed_keys or keys.get(name) is not None
        }
        self._check_encoded(its_keys)
        row: dict[str, Value] = {
            **{_KEY + name: value for name, value in its_keys.items()},
            **{
                _COLUMN + column: self._ingested(f, events.get(f.view, {}).get(f.field))
                for column, f in self._stored.items()
            },
            _LABEL: label,
        }
        try:
            body = encode_row(row)
        except UnicodeEncodeError:
            raise self._not_utf8() from None
        if len(body) > _MAX_EVENT_BYTES:
            raise UnsuitableLabelledEvent(
                f"an event for {self.service} has {len(body)} bytes; at most {_MAX_EVENT_BYTES} "
                "are kept of one"
            )
        return self._records.append(body, at_ms=at_ms)

    def newest(self, max_events: int) -> list[LabelledEvent]:
        """The newest events that have all the service needs, oldest first.

        Args:
            max_events: Looked at, at most. Those kept under another contract, without a key or a
                column of this one, are left out.
        """
        needed = {_KEY + name for name in self._needed_keys}
        needed |= {_COLUMN + name for name in self._stored}
        records = self._records.newest(max_events)
        rows = ((record.at_ms, decode_row(record.body)) for record in records)
        return [
            LabelledEvent(at_ms, dict(_part(row, _KEY)), dict(_part(row, _COLUMN)), row[_LABEL])
            for at_ms, row in rows
            if needed <= row.keys()
        ]

    def count(self) -> int:
        """Number of events now."""
        return self._records.count()

    def totals(self) -> tuple[int, int]:
        """Number of events and the bytes they count as."""
        return self._records.totals()

    def clear(self) -> None:
        """Delete all, as when a user asks for it."""
        self._records.clear()

    def _checked_key(self, name: str, keys: Mapping[str, Key]) -> Key:
        value, bits = keys.get(name), _INTEGER_BITS.get(self._keys[name])
        is_key = isinstance(value, str)
        if bits is not None:
            is_key = type(value) is int and -(2**bits) <= value < 2**bits
        if value is None or not is_key:
            raise UnsuitableLabelledEvent(
                f"the key {name} of an event for {self.service} is {str(value)[:60]!r}; give "
                f"{'text' if bits is None else f'a whole number that fits {self._keys[name]}'}"
            )
        return value

    def _check_encoded(self, keys: Mapping[str, Key]) -> None:
        """Refuse keys that no gateway takes: one would stop every fetch that it is part of."""
        for names in self._looked_up:
            try:
                size = len(encode_key([keys[name] for name in names]))
            except UnicodeEncodeError:
                raise self._not_utf8() from None
            if size > MAX_KEY_BYTES:
                raise UnsuitableLabelledEvent(
                    f"the key {', '.join(names)} of an event for {self.service} has {size} bytes, "
                    f"and none has more than {MAX_KEY_BYTES}; give a digest of it"
                )

    def _not_utf8(self) -> UnsuitableLabelledEvent:
        return UnsuitableLabelledEvent(
            f"a text of an event for {self.service} has a lone surrogate, which no text in UTF-8 "
            "holds; clean the text"
        )

    def _ingested(self, feature: ManifestFeature, value: Value) -> Value:
        try:
            column = column_of_values([value], feature.kind, feature.shape)
        except UnsuitableColumn as error:
            raise UnsuitableLabelledEvent(
                f"the value of {feature.view}:{feature.field} is no {feature.kind} of shape "
                f"{feature.shape} ({error.sentence}); record what its view says"
            ) from error
        stored: Value = feature.ingest.apply(column, self._assets).to_list()[0]
        return stored


def device_features(manifest: FeatureManifest) -> tuple[ManifestFeature, ...]:
    """The features of a service whose values are made on the device."""
    return tuple(f for f in manifest.features if manifest.views[f.view].place is Place.DEVICE)


def stored_as(feature: ManifestFeature) -> str:
    """What an event calls a device feature's value: two views may have fields of one name."""
    return f"{feature.view}/{feature.column}"


def stream_of(service: str) -> str:
    """What a service's labelled events are called in the feature file."""
    return f"labelled/{service}"


def strictest_retention(manifest: FeatureManifest) -> Retention:
    """What all device views of a service allow at once; `LABELS_ALONE` where there is none."""
    given = [view.retention for view in manifest.views.values() if view.retention is not None]
    if not given:
        return LABELS_ALONE
    ages = [each.max_age_s for each in given if each.max_age_s is not None]
    records = [each.max_records for each in given if each.max_records is not None]
    sizes = [each.max_bytes for each in given if each.max_bytes is not None]
    refuses = any(each.on_full is OnFull.DROP_NEWEST for each in given)
    return Retention(
        max_age_s=min(ages, default=None),
        max_records=min(records, default=None),
        max_bytes=min(sizes, default=None),
        on_full=OnFull.DROP_NEWEST if refuses else OnFull.DROP_OLDEST,
    )


def column_of_values(values: Sequence[Value], kind: Kind, shape: tuple[int, ...]) -> Column:
    """A column of values of one shape; where one is missing, all its elements are.

    Raises:
        UnsuitableColumn: If a value is of another kind or shape.
    """
    rows = [_missing(shape) if value is None else value for value in values]
    column = Column.of(rows, kind=kind)
    if column.values.shape[1:] != shape and rows:
        raise UnsuitableColumn(
            f"a value has the shape {column.values.shape[1:]} where {shape} is needed"
        )
    return column


def _missing(shape: tuple[int, ...]) -> Any:  # noqa: ANN401
    return [_missing(shape[1:]) for _ in range(shape[0])] if shape else None


def _part(row: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    return ((name.removeprefix(prefix), row[name]) for name in row if name.startswith(prefix))
