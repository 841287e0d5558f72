"""Training data: every feature of a service as it was known at the moment of each entity row."""

import contextlib
import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sqlalchemy import Engine

from device_runtime.errors import named_in
from device_runtime.transform_assets import Assets
from device_runtime.transform_chain import TransformChain
from feature_catalog.definitions.catalog_set import DefinitionSet
from feature_catalog.definitions.contracts import freeze
from feature_catalog.definitions.errors import did_you_mean, listed
from feature_catalog.definitions.fields import Dtype, Field
from feature_catalog.definitions.served import ServedFeature, served_features
from feature_catalog.definitions.services import FeatureService
from feature_catalog.definitions.sources import CloudSource
from feature_catalog.definitions.views import FeatureView
from feature_catalog.feature_plan import UnknownDefinition
from feature_catalog.offline.device_values import device_column
from feature_catalog.offline.entity_rows import (
    ROW,
    EntityRows,
    asked,
    entity_column,
    key_columns,
    read_entity_rows,
)
from feature_catalog.offline.errors import AmbiguousColumns, UnreadableSource
from feature_catalog.offline.feature_assets import AssetReader, load_assets
from feature_catalog.offline.field_values import field_values
from feature_catalog.offline.newest_rows import EVENT
from feature_catalog.offline.parquet_source import ParquetSources
from feature_catalog.offline.postgres_source import postgres_sources
from feature_catalog.transform_columns import transform_array

Progress = Callable[[str, int, int], None]
"""Told what is done next, how many steps have been, and how many there are."""

_US = dt.timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class FeatureSummary:
    """How a feature's values were found; the counts add up to the entity rows.

    Attributes:
        ref: ``view:field``.
        present: Rows with a value.
        null: Rows whose newest row has NULL (of a device's: whose own value is null).
        not_found: Rows for which there was nothing yet: no row of the key that was true and
            written by then.
        too_old: Rows whose newest row was older than the view's ``ttl``.
    """

    name: str
    ref: str
    present: int
    null: int
    not_found: int
    too_old: int


@dataclass(frozen=True, slots=True)
class HistoricalFeatures:
    """Entity rows with their features.

    Attributes:
        table: The entity rows' columns in their order, then a column a feature, by name; as many
            rows in the same order.
        features: How each feature's values were found.
        contract_sha256: Digest of the service's contract, hexadecimal.
    """

    table: pa.Table
    features: tuple[FeatureSummary, ...]
    contract_sha256: str


class Joiner(Protocol):
    """Finds newest rows in one kind of source."""

    def newest(
        self,
        view: FeatureView,
        source: CloudSource,
        asked: pa.Table,
        keys: Sequence[tuple[str, Dtype]],
        wanted: Sequence[Field],
        *,
        naive_is_utc: bool,
    ) -> pa.Table:
        """A row for each asked one: its `ROW`, `EVENT` in microseconds, each wanted field."""
        ...


@dataclass(frozen=True)
class OfflineFeatures:
    """Where features' past values are.

    Attributes:
        definitions: What is defined: the registry's, or those of files.
        data_folder: Sources' relative paths are under it.
        engine: Database of sources that are tables.
        assets: Where the files of vocabularies and embeddings are.
        memory_bytes: What a join over files may hold in memory besides its result.
    """

    definitions: DefinitionSet
    data_folder: Path = field(default_factory=Path)
    engine: Engine | None = None
    assets: AssetReader | None = None
    memory_bytes: int | None = None

    def get_historical_features(
        self,
        *,
        entity_rows: object,
        service: str,
        event_ts: str = "event_ts",
        untransformed: bool = False,
        naive_is_utc: bool = False,
        progress: Progress | None = None,
    ) -> HistoricalFeatures:
        """Join a service's features as of each entity row's moment, and transform them.

        A value is that of the newest row of its key with ``event_ts <= moment``, ``created_ts <=
        moment`` (where the source has it) and ``event_ts > moment - ttl``.

        Args:
            entity_rows: `pyarrow.Table` or a data frame: join keys, the moment, what the device
                recorded, and whatever else is to be kept.
            event_ts: Column of the moments.
            untransformed: Leave values as their sources hold them.
            naive_is_utc: Take timestamps without a time zone as UTC, here and in sources.

        Raises:
            UnknownDefinition: If there is no such service.
            FlintError: If rows, sources or assets are not as they must be (`offline.errors`).
        """
        found_service = self._service(service)
        served = served_features(self.definitions, found_service)
        rows = read_entity_rows(entity_rows, event_ts, naive_is_utc=naive_is_utc)
        kept = _kept_columns(rows.table, served)
        assets = {} if untransformed else load_assets(self.definitions, served, self.assets)
        columns: dict[str, pa.ChunkedArray] = {}
        summaries: dict[str, FeatureSummary] = {}
        views = {each.view.name: each.view for each in served}
        with contextlib.ExitStack() as until_done:
            files = ParquetSources(self.data_folder, self.memory_bytes)
            tables = self._tables(list(views.values()), until_done)
            for done, view in enumerate(views.values()):
                if progress is not None:
                    progress(f"joining {view.name}", done, len(views))
                of_view = [each for each in served if each.view.name == view.name]
                if isinstance(view.source, CloudSource):
                    joiner = files if view.source.table is None or tables is None else tables
                    found = self._join(view, view.source, of_view, rows, joiner, naive_is_utc)
                else:
                    found = _recorded(rows, of_view, served)
                for each in of_view:
                    name = each.feature.name
                    values = found.values[each.feature.field]
                    summaries[name] = found.summary(each, values)
                    columns[name] = values if untransformed else _transformed(each, values, assets)
        if progress is not None:
            progress("done", len(views), len(views))
        table = rows.table.select(kept)
        for each in served:
            table = table.append_column(each.feature.name, columns[each.feature.name])
        return HistoricalFeatures(
            table=table,
            features=tuple(summaries[each.feature.name] for each in served),
            contract_sha256=freeze(self.definitions, found_service).sha256,
        )

    def _service(self, service: str) -> FeatureService:
        found = self.definitions.service(service)
        if found is None:
            known = self.definitions.names(FeatureService.kind)
            there = f"; there are {listed(known)}" if known else "; none is applied yet"
            raise UnknownDefinition(
                f"there is no feature service {service}{did_you_mean(service, known)}{there}"
            )
        return found

    def _tables(
        self, views: Sequence[FeatureView], until_done: contextlib.ExitStack
    ) -> Joiner | None:
        wanted = [v for v in views if isinstance(v.source, CloudSource) and v.source.table]
        if not wanted:
            return None
        if self.engine is None:
            raise UnreadableSource(
                f"the view {wanted[0].name} is of a Postgres table, and no database is given; "
                "give its engine (engine=connect(...)), or use the catalog's"
            )
        return until_done.enter_context(postgres_sources(self.engine))

    def _join(
        self,
        view: FeatureView,
        source: CloudSource,
        served: Sequence[ServedFeature],
        rows: EntityRows,
        joiner: Joiner,
        naive_is_utc: bool,
    ) -> "_Found":
        names = sorted({each.feature.field for each in served})
        wanted = [each for name in names if (each := view.field(name)) is not None]
        keys = key_columns(self.definitions, view)
        found = joiner.newest(
            view, source, asked(rows, keys), keys, wanted, naive_is_utc=naive_is_utc
        )
        places = np.empty(len(rows.table), np.int64)
        places[found[ROW].to_numpy()] = np.arange(len(rows.table))
        events = found[EVENT].cast(pa.int64()).take(places)
        is_found = _numpy(events.is_valid())
        is_fresh = is_found.copy()
        if view.ttl is not None:
            oldest_us = _numpy(rows.moments.cast(pa.int64())) - view.ttl // _US
            is_fresh &= _numpy(events.fill_null(0)) > oldest_us
        take = pa.array(places, mask=~is_fresh)
        values = {
            each.name: field_values(
                found[f"f{view.schema.index(each)}"],
                each,
                f"{source.path or source.table}: {each.name} of the view {view.name}",
            ).take(take)
            for each in wanted
        }
        return _Found(values, is_found, is_fresh)


@dataclass(frozen=True, slots=True)
class _Found:
    """A view's values in the order of the entity rows.

    Attributes:
        values: By field, null where there is none.
        is_found: Whether there was a row, shape ``(rows,)``.
        is_fresh: Whether it was within the ttl.
    """

    values: dict[str, pa.ChunkedArray]
    is_found: NDArray[np.bool_]
    is_fresh: NDArray[np.bool_]

    def summary(self, served: ServedFeature, values: pa.ChunkedArray) -> FeatureSummary:
        """How one feature's values were found."""
        fresh = int(self.is_fresh.sum())
        present = len(values) - values.null_count
        return FeatureSummary(
            name=served.feature.name,
            ref=served.feature.ref,
            present=present,
            null=fresh - present,
            not_found=int((~self.is_found).sum()),
            too_old=int(self.is_found.sum()) - fresh,
        )


def _recorded(
    rows: EntityRows, of_view: Sequence[ServedFeature], served: Sequence[ServedFeature]
) -> _Found:
    """What the device recorded, from the entity rows themselves."""
    values = {}
    for each in of_view:
        name = device_column(rows.table, each, served)
        wanted = each.view.field(each.feature.field)
        if wanted is not None:
            column = entity_column(rows.table, name, f"of {each.feature.ref}")
            values[wanted.name] = field_values(column, wanted, f"the entity rows' column {name}")
    everywhere = np.ones(len(rows.table), np.bool_)
    return _Found(values, everywhere, everywhere)


def _kept_columns(table: pa.Table, served: Sequence[ServedFeature]) -> list[str]:
    """Columns of the entity rows that the result has: not those that a feature is read from."""
    kept = list(table.column_names)
    for each in served:
        name = each.feature.name
        if name not in kept:
            continue
        if not each.view.is_on_device or device_column(table, each, served) != name:
            raise AmbiguousColumns(
                f"the entity rows have a column {name}, and so is a feature of {each.service} "
                f"named ({each.feature.ref}); rename the column, or give the feature another name"
            )
        kept.remove(name)
    return kept


def _transformed(each: ServedFeature, values: pa.ChunkedArray, assets: Assets) -> pa.ChunkedArray:
    chain = TransformChain(tuple(step.operation for step in each.feature.transforms))
    with named_in(f"feature {each.feature.name}"):
        return transform_array(values, chain, assets)


def _numpy(values: pa.ChunkedArray) -> NDArray[Any]:
    numbers: NDArray[Any] = values.to_numpy()
    return numbers
