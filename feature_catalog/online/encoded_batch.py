"""A source's rows as the online tables hold them."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from device_runtime.feature_values import MAX_KEY_BYTES, encode_key
from feature_catalog.definitions import Dtype, Field
from feature_catalog.offline.field_values import field_type, field_values
from feature_catalog.online.errors import UnfitKey
from feature_catalog.online.online_view import OnlineView
from feature_catalog.online.row_codec import encode_rows
from feature_catalog.online.value_writer import EncodedRows
from feature_catalog.online_schema import CREATED_UNKNOWN_US

_OVERHEAD_BYTES = 9  # of CBOR, for one join key
_BITS = {Dtype.INT32: 31, Dtype.INT64: 63}


def encode_batch(batch: pa.Table, view: OnlineView, where: str) -> EncodedRows:
    """Rows that `source_rows.SourceRows.batches` gave, encoded.

    Args:
        where: The source, for refusals.

    Raises:
        UnfitValues: If a value is not of its field's type or shape.
    """
    fields = [
        _plain(field_values(batch[f"f{place}"], field, f"{where}: {field.name}"), field)
        for place, field in enumerate(view.fields)
    ]
    keys = [batch[f"k{place}"].to_pylist() for place in range(len(view.join_keys))]
    encoded = [encode_key(row) for row in zip(*keys, strict=True)]
    created_us = (
        batch["created_us"].to_pylist()
        if "created_us" in batch.column_names
        else [CREATED_UNKNOWN_US] * len(encoded)
    )
    return EncodedRows(
        encoded, batch["event_us"].to_pylist(), created_us, encode_rows(zip(*fields, strict=True))
    )


def last_key(batch: pa.Table, view: OnlineView) -> list[Any]:
    """The last row's key, as plain values."""
    return [batch[f"k{place}"][-1].as_py() for place in range(len(view.join_keys))]


def check_keys(batch: pa.Table, view: OnlineView, where: str) -> None:
    """Check keys of rows before any is written.

    Args:
        batch: ``k0``..., none NULL; at least one row.

    Raises:
        UnfitKey: If a key is out of its type's range, too long, or has the character NUL.
    """
    sizes: Any = _OVERHEAD_BYTES * len(view.join_keys)
    for place, key in enumerate(view.join_keys):
        values, bits = batch[f"k{place}"], _BITS.get(key.dtype)
        if bits is None:
            if pc.any(pc.match_substring(values, "\0")).as_py():
                # Postgres could not keep how far a run has come.
                raise UnfitKey(
                    f"{where} has a key {key.name} with the character NUL; clean the text"
                )
            sizes = pc.add(pc.binary_length(values), sizes)
            continue
        bounds = pc.min_max(values).as_py()
        if not -(2**bits) <= bounds["min"] <= bounds["max"] < 2**bits:
            raise UnfitKey(
                f"{where} has keys {key.name} from {bounds['min']} to {bounds['max']}, which do "
                f"not all fit {key.dtype}; correct them, or the entity's dtype"
            )
    if pc.max(sizes).as_py() > MAX_KEY_BYTES:
        raise UnfitKey(
            f"{where} has a key of more than {MAX_KEY_BYTES} bytes, all join keys "
            "together; shorten them, e.g. to a digest"
        )


def _plain(values: pa.ChunkedArray, field: Field) -> list[Any]:
    """A field's values as Python's own, None where missing or NaN; arrays as flat lists."""
    is_float = field.dtype in {Dtype.FLOAT32, Dtype.FLOAT64}
    if not field.shape:
        if is_float:
            values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
        found: list[Any] = values.to_pylist()
        return found
    rows = []
    for row in values.to_pylist():
        flat = None if row is None else _flat(row, len(field.shape))
        if flat is not None and is_float:
            flat = [None if value != value else value for value in flat]  # noqa: PLR0124 - NaN
        rows.append(flat)
    return rows


def _flat(value: list[Any], depth: int) -> list[Any]:
    for _ in range(depth - 1):
        value = [item for part in value for item in part]
    return value


def may_be_unfit(types: Sequence[pa.DataType], view: OnlineView) -> bool:
    """Whether values may be refused: a column is not yet of its field's type."""
    wanted = (field_type(field) for field in view.fields)
    return any(found != each for found, each in zip(types, wanted, strict=True))
