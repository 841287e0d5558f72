"""What devices are to have recorded, taken from the rows that a data set is made of."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from feature_catalog.definitions.catalog_set import DefinitionSet
from feature_catalog.definitions.fields import Dtype
from feature_catalog.definitions.served import ServedFeature
from feature_catalog.offline.device_values import device_column
from feature_catalog.offline.entity_rows import entity_column, key_columns
from feature_catalog.offline.field_values import field_values
from feature_catalog.user_events import AT, EVENT, KEY, LABEL, UserEvents


class UnsuitableRows(FlintError):
    """Rows that a data set of joined features cannot be made of."""

    code = "FLN-2964"


def collect_user_events(
    rows: pa.Table,
    definitions: DefinitionSet,
    service: str,
    served: Sequence[ServedFeature],
    *,
    at_ms: NDArray[np.int64],
    labels: NDArray[np.uint8],
    order: NDArray[np.int64],
) -> UserEvents:
    """What devices are to have recorded, for the device to join as the data set was.

    Args:
        rows: Entity rows as they were given.
        served: The service's features.
        at_ms: Moment of each row.
        labels: Of each row.
        order: Rows to take, in the order of the records.

    Raises:
        UnsuitableRows: If a row has no join key.
        FlintError: If a column is missing or of another type than its view says.
    """
    columns: dict[str, pa.Array | pa.ChunkedArray] = {}
    for each in served:
        if each.view.is_on_device:
            field = each.view.field(each.feature.field)
            name = device_column(rows, each, served)
            if field is not None:
                values = entity_column(rows, name, f"of {each.feature.ref}")
                columns[f"{EVENT}{each.view.name}/{field.name}"] = field_values(
                    values, field, f"the entity rows' column {name}"
                )
            continue
        for key, dtype in key_columns(definitions, each.view):
            column = entity_column(rows, key, f"a join key ({dtype})")
            if column.null_count:
                raise UnsuitableRows(
                    f"{column.null_count} of the rows have no {key}, which {each.view.name} is "
                    "joined by; drop them, for a device always knows what its events are about"
                )
            columns[KEY + key] = column.cast(pa.string() if dtype is Dtype.STRING else pa.int64())
    columns[AT] = pa.array(at_ms)
    columns[LABEL] = pa.array(labels.astype(np.float32))
    return UserEvents(service, pa.table(columns).take(pa.array(order)))
