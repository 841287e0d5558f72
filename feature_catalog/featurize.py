"""From rows of a data file to a model's input: hashed tokens (`HashedBag`) or numbers (`Dense`).

Tokens of a record in the order in which they fill its places (64 in ``sparse_mlp``): single-valued
columns in file order, list columns in file order, then the text field's words and pairs. See
`field_encodings` for what each column becomes. Tokens are hashed by `device_runtime.hashing`.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from device_runtime.hashing import PADDING, hash_bucket
from feature_catalog.field_encodings import (
    ColumnSample,
    FieldEncoding,
    as_floats,
    bin_tokens,
    category_tokens,
    is_list,
    is_text_like,
    list_rows,
    text_tokens,
)
from feature_catalog.table_files import TableFile
from modeling.spec import HashedBag, ModelSpec

_WORDS = re.compile(r"\w+|[^\w\s]")
_MAX_REMEMBERED_TOKENS = 2_000_000


class InputWidthMismatch(FlintError):
    """The number of numeric columns is not the number of inputs of a dense model."""

    code = "FLN-1106"


class NoFeatures(FlintError):
    """No column is left to learn from."""

    code = "FLN-1109"


class MissingNumber(FlintError):
    """A numeric column of a dense model has a missing value."""

    code = "FLN-1110"


@dataclass(frozen=True, slots=True)
class FieldRoles:
    """What the columns of a data file are for; those not named are features.

    Attributes:
        client_field: Whose record it is.
        label_field: 0 or 1.
        text_field: Free text, or None.
        exclude_fields: Columns not to learn from.
    """

    client_field: str
    label_field: str
    text_field: str | None = None
    exclude_fields: tuple[str, ...] = ()

    def named(self) -> tuple[str, ...]:
        """Every column these roles name."""
        text = (self.text_field,) if self.text_field is not None else ()
        return (self.client_field, self.label_field, *text, *self.exclude_fields)

    def feature_fields(self, schema: pa.Schema) -> list[pa.Field]:
        """Columns to learn from apart from the text field, in file order."""
        named = set(self.named())
        return [field for field in schema if field.name not in named]


def bag_layer(model: ModelSpec) -> HashedBag | None:
    """The table a model looks its input up in, or None for a model that takes numbers."""
    first = model.layers[0]
    return first if isinstance(first, HashedBag) else None


def learn_encodings(
    table: TableFile, roles: FieldRoles, model: ModelSpec, is_training: NDArray[np.bool_]
) -> tuple[FieldEncoding, ...]:
    """Decide what becomes of each column, from the rows of training clients.

    Args:
        is_training: Whether each row of the file belongs to a training client, ``(rows,)``.

    Raises:
        UnsupportedColumn: If a column's type has no encoding.
        NoFeatures: If no column is left to learn from.
        InputWidthMismatch: If a dense model takes another number of columns.
    """
    dense = bag_layer(model) is None
    fields = roles.feature_fields(table.schema)
    samples = [ColumnSample(table.path, field, int(is_training.sum())) for field in fields]
    start = 0
    for batch in table.batches([field.name for field in fields]) if fields else ():
        chosen = np.flatnonzero(is_training[start : start + batch.num_rows])
        start += batch.num_rows
        training_rows = batch.take(pa.array(chosen))
        for sample, column in zip(samples, training_rows.columns, strict=True):
            sample.add(column)
    if dense:
        encodings = [sample.dense_encoding() for sample in samples]
        _check_width(table, encodings, model)
    else:
        encodings = [sample.bag_encoding() for sample in samples]
        encodings.sort(key=lambda e: e.treatment in {"elements", "element_bins"})
    if roles.text_field is not None:
        encodings.append(_text_encoding(table, roles.text_field, dense))
    if all(encoding.treatment == "left_out" for encoding in encodings):
        raise NoFeatures(
            f"{table.path}: no column is left to learn from; exclude fewer fields or name a text "
            "field"
        )
    return tuple(encodings)


class BagEncoder:
    """Encodes rows as distinct bucket ids, at most ``max_ids`` a record, padded with -1."""

    def __init__(
        self, encodings: Sequence[FieldEncoding], *, num_buckets: int, max_ids: int, seed: int
    ) -> None:
        """Prepare an encoder.

        Args:
            encodings: As learnt; their order is the order of tokens in a record.
            num_buckets: Size of the model's table.
            max_ids: Places in a record.
            seed: Of the hash.
        """
        self._encodings = [e for e in encodings if e.treatment != "left_out"]
        self._num_buckets = num_buckets
        self._max_ids = max_ids
        self._seed = seed
        self._remembered: dict[str, int] = {}
        self.truncated_records = 0

    @property
    def columns(self) -> list[str]:
        """Columns `encode` needs, in this order."""
        return [encoding.field for encoding in self._encodings]

    def encode(self, batch: pa.RecordBatch) -> NDArray[np.int32]:
        """Encode rows; int32, shape ``(rows, max_ids)``. Counts truncated records."""
        rows: list[NDArray[np.int64]] = []
        ids: list[NDArray[np.int64]] = []
        for encoding, column in zip(self._encodings, batch.columns, strict=True):
            field_rows, field_ids = self._encode_field(encoding, column)
            rows.append(field_rows)
            ids.append(field_ids)
        all_rows, all_ids = np.concatenate(rows), np.concatenate(ids)
        # First occurrence of each (row, id), in order of row and then of token.
        order = np.argsort(all_rows, kind="stable")
        key = (all_rows * self._num_buckets + all_ids)[order]
        first = np.sort(np.unique(key, return_index=True)[1])
        kept_rows, kept_ids = np.divmod(key[first], self._num_buckets)
        counts = np.bincount(kept_rows, minlength=batch.num_rows)
        place = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
        fits = place < self._max_ids
        self.truncated_records += int((counts > self._max_ids).sum())
        encoded = np.full((batch.num_rows, self._max_ids), PADDING, np.int32)
        encoded[kept_rows[fits], place[fits]] = kept_ids[fits]
        return encoded

    def _encode_field(
        self, encoding: FieldEncoding, column: pa.Array
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        match encoding.treatment:
            case "text":
                return self._encode_text(column)
            case "elements":
                rows, values = list_rows(column)
                element, ids = self._encode_categories(encoding.field, values)
                return rows[element], ids
            case "element_bins":
                rows, values = list_rows(column)
                element, ids = self._encode_bins(encoding, values)
                return rows[element], ids
            case "quantile_bins":
                return self._encode_bins(encoding, column)
            case _:
                return self._encode_categories(encoding.field, column)

    def _encode_categories(
        self, field: str, column: pa.Array
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        column = pc.dictionary_encode(column)
        buckets = self._buckets(category_tokens(field, column.dictionary))
        present = np.flatnonzero(pc.is_valid(column).to_numpy(zero_copy_only=False))
        codes = column.indices.drop_null().to_numpy(zero_copy_only=False)
        return present.astype(np.int64), buckets[codes]

    def _encode_bins(
        self, encoding: FieldEncoding, column: pa.Array
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        values = as_floats(column)
        present = np.flatnonzero(~np.isnan(values))
        bins = np.searchsorted(np.array(encoding.edges), values[present], side="right")
        buckets = self._buckets(bin_tokens(encoding.field, encoding.edges))
        return present.astype(np.int64), buckets[bins]

    def _encode_text(self, column: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        if len(self._remembered) > _MAX_REMEMBERED_TOKENS:
            self._remembered.clear()
        remembered = self._remembered
        ids: list[int] = []
        counts = np.zeros(len(column), np.int64)
        for row, text in enumerate(column.cast(pa.large_string()).to_pylist()):
            if text is None:
                continue
            before = len(ids)
            for token in text_tokens(_WORDS.findall(text.lower())):
                bucket = remembered.get(token)
                if bucket is None:
                    bucket = hash_bucket(token, self._num_buckets, self._seed)
                    remembered[token] = bucket
                ids.append(bucket)
            counts[row] = len(ids) - before
        return np.repeat(np.arange(len(column)), counts), np.array(ids, np.int64)

    def _buckets(self, tokens: Iterable[str]) -> NDArray[np.int64]:
        return np.array([hash_bucket(t, self._num_buckets, self._seed) for t in tokens], np.int64)


class DenseEncoder:
    """Encodes rows as standardised numbers."""

    def __init__(self, table: TableFile, encodings: Sequence[FieldEncoding]) -> None:
        """Prepare an encoder.

        Args:
            table: Named in errors.
            encodings: As learnt; their order is the order of numbers in a record.
        """
        self._table = table
        self._encodings = [e for e in encodings if e.treatment == "standardize"]
        self.truncated_records = 0

    @property
    def columns(self) -> list[str]:
        """Columns `encode` needs, in this order."""
        return [encoding.field for encoding in self._encodings]

    def encode(self, batch: pa.RecordBatch) -> NDArray[np.float32]:
        """Encode rows; float32, shape ``(rows, columns)``.

        Raises:
            MissingNumber: If a value is missing or not finite; names its column.
        """
        encoded = np.empty((batch.num_rows, len(self._encodings)), np.float32)
        for place, (encoding, column) in enumerate(
            zip(self._encodings, batch.columns, strict=True)
        ):
            values = as_floats(column)
            if not np.isfinite(values).all():
                raise MissingNumber(
                    f"{self._table.path}: column {encoding.field!r} has a value that is missing or "
                    "not finite, and this model needs a number everywhere; fill it or exclude the "
                    "column"
                )
            encoded[:, place] = (values - encoding.mean) / encoding.std
        return encoded


Encoder = BagEncoder | DenseEncoder


def build_encoder(
    table: TableFile, encodings: Sequence[FieldEncoding], model: ModelSpec, seed: int
) -> Encoder:
    """The encoder for a model's input."""
    bag = bag_layer(model)
    if bag is None:
        return DenseEncoder(table, encodings)
    return BagEncoder(encodings, num_buckets=bag.buckets, max_ids=model.input.shape[0], seed=seed)


def _text_encoding(table: TableFile, text_field: str, dense: bool) -> FieldEncoding:
    kind = table.schema.field(text_field).type
    if dense:
        return FieldEncoding(text_field, "left_out", reason="the model takes numbers, not text")
    if is_list(kind) or not (is_text_like(kind) or pa.types.is_integer(kind)):
        raise NoFeatures(
            f"{table.path}: the text field {text_field!r} holds {kind}, not text; name a column of "
            "strings"
        )
    return FieldEncoding(text_field, "text")


def _check_width(table: TableFile, encodings: Sequence[FieldEncoding], model: ModelSpec) -> None:
    numeric = [e.field for e in encodings if e.treatment == "standardize"]
    (width,) = model.input.shape
    if len(numeric) != width:
        raise InputWidthMismatch(
            f"{table.path}: {model.name} takes {width} numbers a record, but the file has "
            f"{len(numeric)} numeric columns to learn from ({', '.join(numeric) or 'none'}); "
            "exclude fields or choose another model"
        )
