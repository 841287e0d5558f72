"""`get_online_features`: the newest values of a service's features for given entities."""

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from sqlalchemy import Engine, func, select

from device_runtime.columns import Column
from feature_catalog.blobs import BlobStore
from feature_catalog.definitions import RunAt
from feature_catalog.feature_registry import FeatureRegistry
from feature_catalog.offline.feature_assets import blob_assets, load_assets
from feature_catalog.online.entity_keys import EntityRows, ViewKeys, entity_columns, keys_of
from feature_catalog.online.online_view import JoinKey, OnlineView
from feature_catalog.online.serving_plan import (
    PlannedFeature,
    ServingPlan,
    device_column,
    planned,
    planned_views,
    requested_service,
    served_through,
)
from feature_catalog.online.store import OnlineStore
from feature_catalog.online.view_rows import ValueStatus, ViewRows, column_of_stored
from feature_catalog.schema import FeatureApplyRecord

Through = Literal["cloud", "device_ingest", "device_read"]

_MAX_PLANS = 64
_TRIES = 3


@dataclass(frozen=True)
class OnlineResponse:
    """Values of features, a row each entity row.

    Attributes:
        entities: The entity rows' columns.
        names: Of the features, ascending.
    """

    entities: Mapping[str, list[Any]]
    names: tuple[str, ...]
    _values: Callable[[str], list[Any]]
    _statuses: Callable[[str], list[ValueStatus]]
    _event_us: Callable[[str], list[int | None]]

    @cached_property
    def values(self) -> Mapping[str, list[Any]]:
        """By feature; None where missing."""
        return {name: self._values(name) for name in self.names}

    @cached_property
    def statuses(self) -> Mapping[str, list[ValueStatus]]:
        """By feature: what is known of the value as it was stored, before any transform."""
        return {name: self._statuses(name) for name in self.names}

    @cached_property
    def event_us(self) -> Mapping[str, list[int | None]]:
        """By feature: when the value became true, microseconds since 1970."""
        return {name: self._event_us(name) for name in self.names}

    def to_dict(self, include_statuses: bool = False) -> dict[str, list[Any]]:
        """Columns by name: the entity rows', then the features'.

        Args:
            include_statuses: Also ``NAME__status`` of each feature.
        """
        columns = {**self.entities, **self.values}
        if include_statuses:
            for name in self.names:
                columns[f"{name}__status"] = [str(status) for status in self.statuses[name]]
        return columns

    def to_arrow(self) -> pa.Table:
        """`to_dict` as a table."""
        return pa.table(self.to_dict())


class OnlineFeatures:
    """Reads online features, for models that are served in the cloud.

    Definitions are kept in memory and read again once someone has applied others, of which each
    read knows. Safe to use from several threads.

    Args:
        blobs: Where files of assets are.
    """

    def __init__(self, engine: Engine, blobs: BlobStore) -> None:
        self._engine = engine
        self._blobs = blobs
        self._store = OnlineStore(engine)
        self._plans: dict[tuple[str | tuple[str, ...], Through | None], ServingPlan] = {}

    def get_online_features(
        self,
        features: str | Sequence[str],
        entity_rows: EntityRows,
        *,
        through: Through | None = "device_read",
        at: dt.datetime | None = None,
    ) -> OnlineResponse:
        """The newest values of features, in one round trip to the database.

        Args:
            features: A feature service's name, or references ``view:field``.
            entity_rows: A mapping each row, columns by name, or a table: with all join keys.
                Features of device views are taken from columns ``view__field`` or ``field``.
            through: Up to which stage values are transformed: ``device_read`` is all, what a model
                takes; ``cloud`` what a device is sent; None nothing.
            at: As of when ages are judged, with a time zone; now, if not given.

        Raises:
            NotServedOnline: If there is no such service or view.
            InvalidEntityRow: If a join key is missing or of another type.
            TooManyKeys: If they are more than `store.MAX_KEYS`.
            MissingAsset: If a transform's asset is not in the blob store.
            DatabaseUnreachable: If the database does not answer.
        """
        columns = entity_columns(entity_rows)
        asked = (features if isinstance(features, str) else tuple(features), through)
        plan = self._plans.get(asked) or self._make_plan(*asked)
        used = plan
        for _ in range(_TRIES):
            used = plan
            keys = _keys_by_view(columns, plan.views)
            found, apply_id = self._store.read_newest(
                [(view, keys[view.name].keys) for view in plan.views], at=at
            )
            if apply_id == plan.apply_id:
                break
            plan = self._make_plan(*asked)
        rows = {read.view.name: read for read in found}
        return _response(used, columns, keys, rows)

    def close(self) -> None:
        """Close all connections."""
        self._store.close()

    def _make_plan(self, asked: str | tuple[str, ...], through: Through | None) -> ServingPlan:
        with self._engine.connect() as connection:
            newest = select(func.coalesce(func.max(FeatureApplyRecord.id), 0))
            apply_id: int = connection.execute(newest).scalar_one()
        definitions = FeatureRegistry(self._engine).state().definitions
        service = requested_service(definitions, asked)
        served = served_through(definitions, service, None if through is None else RunAt(through))
        features = tuple(planned(each) for each in served)
        plan = ServingPlan(
            views=planned_views(definitions, features),
            features=features,
            assets=load_assets(definitions, served, blob_assets(self._blobs)),
            apply_id=apply_id,
        )
        if len(self._plans) >= _MAX_PLANS:
            self._plans.clear()
        self._plans[asked, through] = plan
        return plan


def _keys_by_view(
    columns: Mapping[str, list[Any]], views: Sequence[OnlineView]
) -> dict[str, ViewKeys]:
    """Keys of each view; views of the same entities share them."""
    by_columns: dict[tuple[JoinKey, ...], ViewKeys] = {}
    for view in views:
        if view.join_keys not in by_columns:
            by_columns[view.join_keys] = keys_of(columns, view)
    return {view.name: by_columns[view.join_keys] for view in views}


def _response(
    plan: ServingPlan,
    columns: Mapping[str, list[Any]],
    keys: Mapping[str, ViewKeys],
    rows: Mapping[str, ViewRows],
) -> OnlineResponse:
    by_name = {feature.name: feature for feature in plan.features}
    count = len(next(iter(columns.values()), []))

    def values(name: str) -> list[Any]:
        feature = by_name[name]
        if feature.is_on_device:
            given = device_column(columns, feature)
            found = [None] * count if given is None else columns[given]
            if feature.chain is None:
                return found
            return _plain(plan.transform(feature, column_of_stored(found, feature.field)))
        read = rows[feature.view]
        if feature.chain is None:
            return keys[feature.view].spread(read.values(feature.field.name))
        column = plan.transform(feature, read.column(feature.field.name))
        return keys[feature.view].spread(_plain(column))

    def statuses(name: str) -> list[ValueStatus]:
        feature = by_name[name]
        if feature.is_on_device:
            return _given_statuses(columns, feature, count)
        return keys[feature.view].spread(rows[feature.view].field_statuses(feature.field.name))

    def event_us(name: str) -> list[int | None]:
        feature = by_name[name]
        if feature.is_on_device:
            return [None] * count
        return keys[feature.view].spread(list(rows[feature.view].event_us))

    return OnlineResponse(columns, tuple(by_name), values, statuses, event_us)


def _given_statuses(
    columns: Mapping[str, list[Any]], feature: PlannedFeature, count: int
) -> list[ValueStatus]:
    name = device_column(columns, feature)
    if name is None:
        return [ValueStatus.NOT_FOUND] * count
    return [ValueStatus.NULL if v is None else ValueStatus.PRESENT for v in columns[name]]


def _plain(column: Column) -> list[Any]:
    """A column as values, None where missing; a row all of whose elements are missing is None."""
    if column.values.ndim == 1:
        return column.to_list()
    missing = column.missing.reshape(len(column), -1).all(axis=1)
    return [
        None if gone else row
        for row, gone in zip(column.to_list(), np.asarray(missing).tolist(), strict=True)
    ]
