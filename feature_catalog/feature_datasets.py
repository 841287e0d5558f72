"""Data sets of a feature service: rows joined with its features as of their moments, and encoded.

The arrays are made by the code devices make theirs with (`device_runtime.feature_inputs`), so a
model is measured on what devices train on.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from device_runtime.feature_inputs import FeatureInput
from feature_catalog.blobs import BlobStore
from feature_catalog.datasets import (
    CONTRACT,
    SERVICE,
    USER_EVENTS,
    DatasetCatalog,
    DatasetRow,
    EncodedRecords,
    SplitRows,
    checked_seed,
    read_split,
)
from feature_catalog.definitions.catalog_set import DefinitionSet
from feature_catalog.definitions.contracts import freeze
from feature_catalog.feature_fit import input_features, served_of
from feature_catalog.featurize import FieldRoles
from feature_catalog.offline import FeatureSummary, OfflineFeatures
from feature_catalog.offline.entity_rows import read_entity_rows
from feature_catalog.offline.historical import Progress
from feature_catalog.recorded_events import collect_user_events
from feature_catalog.table_files import BATCH_ROWS, TableFile, open_table
from feature_catalog.transform_columns import column_of
from modeling.feature_input_form import input_form
from modeling.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class RowRoles:
    """What the columns of a file of rows are for; the rest are keys and what devices recorded.

    Attributes:
        client_field: Whose row it is.
        label_field: 0 or 1.
        event_ts: Moment as of which features are joined.
    """

    client_field: str
    label_field: str
    event_ts: str = "event_ts"


@dataclass(frozen=True, slots=True)
class FeatureDataset:
    """A data set of a feature service, and how its features were found.

    Attributes:
        row: What the catalog knows of it.
        features: Of each feature, how many rows had a value, and why others had none.
    """

    row: DatasetRow
    features: tuple[FeatureSummary, ...]


def add_feature_dataset(
    datasets: DatasetCatalog,
    blobs: BlobStore,
    offline: OfflineFeatures,
    path: Path,
    service: str,
    roles: RowRoles,
    model: ModelSpec,
    *,
    name: str | None = None,
    seed: int = 0,
    naive_is_utc: bool = False,
    progress: Progress | None = None,
) -> FeatureDataset:
    """Join a Parquet or CSV file of rows with a service's features, and store a data set of it.

    Args:
        offline: Where the features' past values are.
        path: One row an example: client, label, moment, join keys, what the device recorded.
        name: Defaults to the file's name without its ending.
        seed: Of the feature hash, 32 bits unsigned.
        naive_is_utc: Take moments without a time zone as UTC.

    Raises:
        UnsuitableFeatures: If the model cannot read the features; names the first that is why.
        FlintError: If file, rows, sources or assets are not as they must be; in one sentence.
    """
    checked_seed(seed)
    definitions = offline.definitions
    served = served_of(definitions, service)
    made = FeatureInput(input_form(model, seed), input_features(served))
    table = open_table(path)
    split = read_split(table, FieldRoles(roles.client_field, roles.label_field))
    rows = _whole(table)
    found = offline.get_historical_features(
        entity_rows=rows,
        service=service,
        event_ts=roles.event_ts,
        naive_is_utc=naive_is_utc,
        progress=progress,
    )
    moments = read_entity_rows(rows, roles.event_ts, naive_is_utc=naive_is_utc).moments
    events = collect_user_events(
        rows,
        definitions,
        service,
        served,
        at_ms=moments.cast(pa.int64()).to_numpy() // 1000,
        labels=split.clients.labels,
        order=_training_order(split),
    )
    contract = contract_sha256(definitions, service)
    encoded = EncodedRecords(
        name or path.stem,
        roles={
            "client_field": roles.client_field,
            "label_field": roles.label_field,
            "event_ts": roles.event_ts,
            SERVICE: service,
            CONTRACT: contract,
            USER_EVENTS: blobs.put(events.to_parquet()).hex(),
        },
        encodings=[{"field": f.name, "treatment": "feature", "reason": ""} for f in made.features],
        batches=_batches(found.table, made),
    )
    return FeatureDataset(datasets.store(path, split, model, seed, encoded), found.features)


def contract_sha256(definitions: DefinitionSet, service: str) -> str:
    """Digest of a service's contract as it is defined, hexadecimal."""
    found = definitions.service(service)
    if found is None:
        raise LookupError(f"{service} was not looked for before")
    return freeze(definitions, found).sha256


def _whole(table: TableFile) -> pa.Table:
    if table.table is not None:
        return table.table
    return pa.Table.from_batches(table.batches(table.schema.names), table.schema)


def _training_order(split: SplitRows) -> NDArray[np.int64]:
    """Rows of training clients, in the order of the records."""
    order = np.empty(len(split.place), np.int64)
    order[split.place] = np.arange(len(split.place))
    return order[: split.index.training_rows]


def _batches(table: pa.Table, made: FeatureInput) -> Iterator[NDArray[Any]]:
    names = [feature.name for feature in made.features]
    for start in range(0, len(table), BATCH_ROWS):
        part = table.select(names).slice(start, BATCH_ROWS).combine_chunks()
        yield made.assemble({name: column_of(part[name].combine_chunks()) for name in names})
