"""Events a device keeps as features and labels: typed records under their retention policy."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from device_runtime.columns import Column, Kind
from device_runtime.errors import FlintError
from device_runtime.feature_database import FeatureDatabase
from device_runtime.feature_policies import Retention
from device_runtime.feature_values import Value, decode_row, encode_row
from device_runtime.retained_records import RetainedRecords
from device_runtime.transform_assets import Assets
from device_runtime.transform_chain import TransformChain

_MAX_EVENT_BYTES = 2**20


class UnsuitableEvent(FlintError):
    """An event that is not of its schema."""

    code = "FLN-2856"


@dataclass(frozen=True, slots=True)
class EventSchema:
    """What an event of a name consists of.

    Attributes:
        fields: Kind of each field; any may be missing.
    """

    event: str
    fields: Mapping[str, Kind]


@dataclass(frozen=True, slots=True)
class Event:
    """One event.

    Attributes:
        number: Rises with each event of the file.
        at_ms: When it happened, by the system's clock, since the epoch.
        age_ms: How long it has been kept; what retention goes by.
    """

    number: int
    at_ms: int
    age_ms: int
    values: Mapping[str, Value]


class EventStore:
    """The events of one schema."""

    def __init__(
        self,
        database: FeatureDatabase,
        schema: EventSchema,
        retention: Retention,
        *,
        ingest: Mapping[str, TransformChain] | None = None,
        assets: Assets | None = None,
    ) -> None:
        """Take up what is there.

        Args:
            database: Where they are kept.
            schema: What an event consists of.
            retention: How long and how much is kept.
            ingest: By field, what a value goes through before it is stored; what comes in is in
                the file in no other form.
            assets: What those chains read.

        Raises:
            InvalidTransform: If a chain does not take its field's values.
            UnsuitableEvent: If a chain is for a field the schema does not have.
        """
        self.schema = schema
        self._ingest = dict(ingest or {})
        self._assets = assets
        for name in self._ingest:
            if name not in schema.fields:
                raise UnsuitableEvent(
                    f"an ingest transform is for {name[:60]}, which an event {schema.event} does "
                    f"not have; its fields are {', '.join(schema.fields)}"
                )
        self._kinds = {
            name: self._ingest[name].gives(kind) if name in self._ingest else kind
            for name, kind in schema.fields.items()
        }
        self._records = RetainedRecords(database, f"event/{schema.event}", retention)

    @property
    def database(self) -> FeatureDatabase:
        """Where they are."""
        return self._records.database

    def append(self, values: Mapping[str, Value], *, at_ms: int | None = None) -> bool:
        """Keep an event; what must go for it goes in the same transaction.

        Args:
            values: By field; one left out is missing.
            at_ms: When it happened; now if None.

        Returns:
            Whether it is kept, see `RetainedRecords.append`.

        Raises:
            UnsuitableEvent: If a field is unknown, of another kind, or the event is too large.
        """
        checked = {name: self._checked(name, value) for name, value in values.items()}
        for name, chain in self._ingest.items():
            column = Column.of([checked.get(name)], kind=self.schema.fields[name])
            checked[name] = chain.apply(column, self._assets).to_list()[0]
        body = encode_row(checked)
        if len(body) > _MAX_EVENT_BYTES:
            raise UnsuitableEvent(
                f"an event {self.schema.event} has {len(body)} bytes; at most "
                f"{_MAX_EVENT_BYTES} are kept of one"
            )
        return self._records.append(body, at_ms=at_ms)

    def newest(self, max_events: int) -> list[Event]:
        """The newest events, at most ``max_events``, oldest first."""
        return [
            Event(r.number, r.at_ms, r.age_ms, decode_row(r.body))
            for r in self._records.newest(max_events)
        ]

    def columns(self, max_events: int) -> dict[str, Column]:
        """The newest events as columns, a row each, oldest first, of the kinds that are stored."""
        events = self.newest(max_events)
        return {
            name: Column.of([event.values.get(name) for event in events], kind=kind)
            for name, kind in self._kinds.items()
        }

    def count(self) -> int:
        """Number of events now."""
        return self._records.count()

    def totals(self) -> tuple[int, int]:
        """Number of events and the bytes they count as."""
        return self._records.totals()

    def expire(self) -> None:
        """Delete what is too old."""
        self._records.expire()

    def clear(self) -> None:
        """Delete all, as when a user asks for it."""
        self._records.clear()

    def _checked(self, name: str, value: Value) -> Any:  # noqa: ANN401
        kind = self.schema.fields.get(name)
        if kind is None:
            known = ", ".join(self.schema.fields)
            raise UnsuitableEvent(
                f"an event {self.schema.event} has no field {name[:60]}; its fields are {known}"
            )
        if isinstance(value, np.generic):
            value = value.item()
        if value is None or value != value:  # noqa: PLR0124 - NaN is missing
            return None
        if not _fits(kind, value):
            raise UnsuitableEvent(
                f"field {name} of an event {self.schema.event} is {str(value)[:60]!r}; give a "
                f"value that fits {kind}, or none"
            )
        return float(value) if kind is Kind.FLOAT and isinstance(value, int) else value


def _fits(kind: Kind, value: Value) -> bool:
    if kind is Kind.STRING:
        # errors="ignore" leaves out what UTF-8 cannot hold: lone surrogates.
        return isinstance(value, str) and value.encode(errors="ignore").decode() == value
    if kind is Kind.INT:
        return isinstance(value, int) and -(2**63) <= value < 2**63
    return isinstance(value, int | float) and -sys.float_info.max <= value <= sys.float_info.max
