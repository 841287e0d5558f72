"""Rows of a data file as arrays of a model's input, encoded as `featurize` learnt.

Tokens are hashed by `device_runtime.hashing`, so a device of any language can repeat it.
"""

import re
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from device_runtime.hashing import PADDING, hash_bucket
from feature_catalog.featurize import input_kind
from feature_catalog.field_encodings import (
    FieldEncoding,
    as_floats,
    bin_tokens,
    category_tokens,
    list_rows,
    text_tokens,
)
from feature_catalog.table_files import TableFile
from modeling.spec import ModelSpec

_WORDS = re.compile(r"\w+|[^\w\s]")
_MAX_REMEMBERED_TOKENS = 2_000_000


class MissingNumber(FlintError):
    """A numeric column of a dense model has a missing value."""

    code = "FLN-1110"


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
            field_rows, field_ids = self.encode_field(encoding, column)
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

    def encode_field(
        self, encoding: FieldEncoding, column: pa.Array
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row and bucket of each token of one column, each shape ``(tokens,)``."""
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


class FieldEncoder:
    """Encodes rows as one id a column, each column in a place of its own; -1 where none is."""

    def __init__(
        self, encodings: Sequence[FieldEncoding], *, num_ids: int, places: int, seed: int
    ) -> None:
        """Prepare an encoder.

        Args:
            encodings: As learnt; a column's place is its number among those not left out.
            num_ids: Rows of the model's table.
            places: Of a record; at least as many as columns.
            seed: Of the hash.
        """
        self._encodings = [e for e in encodings if e.treatment != "left_out"]
        self._places = places
        self._tokens = BagEncoder(encodings, num_buckets=num_ids, max_ids=places, seed=seed)
        self.truncated_records = 0

    @property
    def columns(self) -> list[str]:
        """Columns `encode` needs, in this order."""
        return self._tokens.columns

    def encode(self, batch: pa.RecordBatch) -> NDArray[np.int32]:
        """Encode rows; int32, shape ``(rows, places)``."""
        encoded = np.full((batch.num_rows, self._places), PADDING, np.int32)
        for place, (encoding, column) in enumerate(
            zip(self._encodings, batch.columns, strict=True)
        ):
            rows, ids = self._tokens.encode_field(encoding, column)
            encoded[rows, place] = ids
        return encoded


class WordEncoder:
    """Encodes rows as the hashed words of a text in order, padded with -1."""

    def __init__(self, text_field: str, *, num_ids: int, places: int, seed: int) -> None:
        """Prepare an encoder.

        Args:
            text_field: Column with the text.
            num_ids: Rows of the model's table.
            places: Words of a record; those beyond are cut and counted.
            seed: Of the hash.
        """
        self._text_field = text_field
        self._num_ids, self._places, self._seed = num_ids, places, seed
        self._remembered: dict[str, int] = {}
        self.truncated_records = 0

    @property
    def columns(self) -> list[str]:
        """Columns `encode` needs."""
        return [self._text_field]

    def encode(self, batch: pa.RecordBatch) -> NDArray[np.int32]:
        """Encode rows; int32, shape ``(rows, places)``. Counts truncated records."""
        encoded = np.full((batch.num_rows, self._places), PADDING, np.int32)
        texts = batch.columns[0].cast(pa.large_string()).to_pylist()
        for row, text in zip(encoded, texts, strict=True):
            words = _WORDS.findall((text or "").lower())
            self.truncated_records += len(words) > self._places
            ids = [self._id(word) for word in words[: self._places]]
            row[: len(ids)] = ids
        return encoded

    def _id(self, word: str) -> int:
        if len(self._remembered) > _MAX_REMEMBERED_TOKENS:
            self._remembered.clear()
        found = self._remembered.get(word)
        if found is None:
            found = self._remembered[word] = hash_bucket(word, self._num_ids, self._seed)
        return found


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


Encoder = BagEncoder | FieldEncoder | WordEncoder | DenseEncoder


def build_encoder(
    table: TableFile, encodings: Sequence[FieldEncoding], model: ModelSpec, seed: int
) -> Encoder:
    """The encoder for a model's input."""
    places = model.input.shape[0]
    if model.ids is None:
        return DenseEncoder(table, encodings)
    match input_kind(model):
        case "words":
            text = next(e.field for e in encodings if e.treatment == "text")
            return WordEncoder(text, num_ids=model.ids, places=places, seed=seed)
        case "fields":
            return FieldEncoder(encodings, num_ids=model.ids, places=places, seed=seed)
        case _:
            return BagEncoder(encodings, num_buckets=model.ids, max_ids=places, seed=seed)
