"""What becomes of a data file's columns: hashed tokens or numbers, as a model's first layer takes.

`HashedBag` takes a set of tokens, `Embedding` the token of each field in a place of its own or,
below a convolution, the words of the text in order, and `Dense` numbers.

Tokens of a bag in the order in which they fill its places (64 in ``sparse_mlp``): single-valued
columns in file order, list columns in file order, then the text field's words and pairs. See
`field_encodings` for what each column becomes, and `encoders` for the arrays made of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from feature_catalog.field_encodings import (
    ColumnSample,
    FieldEncoding,
    is_list,
    is_text_like,
)
from feature_catalog.table_files import TableFile
from modeling.spec import HashedBag, ModelSpec, TextConvolution


class InputWidthMismatch(FlintError):
    """The number of numeric columns is not the number of inputs of a dense model."""

    code = "FLN-1106"


class NoFeatures(FlintError):
    """No column is left to learn from."""

    code = "FLN-1109"


class SeveralLabels(FlintError):
    """A model with several tasks needs several labels, and a data file has one."""

    code = "FLN-1119"


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


InputKind = Literal["bag", "fields", "words", "numbers"]


def input_kind(model: ModelSpec) -> InputKind:
    """What a model reads of a record; see the top of this file."""
    if model.ids is None:
        return "numbers"
    first, above = model.layers[0], model.layers[1]
    if isinstance(first, HashedBag):
        return "bag"
    return "words" if isinstance(above, TextConvolution) else "fields"


def learn_encodings(
    table: TableFile, roles: FieldRoles, model: ModelSpec, is_training: NDArray[np.bool_]
) -> tuple[FieldEncoding, ...]:
    """Decide what becomes of each column, from the rows of training clients.

    Args:
        is_training: Whether each row of the file belongs to a training client, ``(rows,)``.

    Raises:
        UnsupportedColumn: If a column's type has no encoding.
        NoFeatures: If no column is left to learn from.
        InputWidthMismatch: If the model takes another number of columns.
        SeveralLabels: If the model has several tasks.
    """
    if model.label_shape != (1,):
        raise SeveralLabels(
            f"{table.path}: {model.name} learns {model.label_shape[0]} labels a record "
            f"({', '.join(model.tasks)}), and a data file has one label field; choose a model "
            "with one label"
        )
    kind = input_kind(model)
    fields = roles.feature_fields(table.schema)
    samples = [ColumnSample(table.path, field, int(is_training.sum())) for field in fields]
    start = 0
    for batch in table.batches([field.name for field in fields]) if fields else ():
        chosen = np.flatnonzero(is_training[start : start + batch.num_rows])
        start += batch.num_rows
        training_rows = batch.take(pa.array(chosen))
        for sample, column in zip(samples, training_rows.columns, strict=True):
            sample.add(column)
    match kind:
        case "numbers":
            encodings = [sample.dense_encoding() for sample in samples]
            _check_width(table, encodings, model)
        case "bag":
            encodings = [sample.bag_encoding() for sample in samples]
            encodings.sort(key=_is_listed)
        case "fields":
            encodings = [_single_valued(sample.bag_encoding()) for sample in samples]
            _check_places(table, encodings, model)
        case "words":
            reason = "the model reads the text field alone"
            encodings = [FieldEncoding(f.name, "left_out", reason=reason) for f in fields]
    if roles.text_field is not None:
        encodings.append(_text_encoding(table, roles.text_field, kind))
    if all(encoding.treatment == "left_out" for encoding in encodings):
        raise NoFeatures(
            f"{table.path}: no column is left to learn from; exclude fewer fields or name a text "
            "field"
        )
    return tuple(encodings)


def _is_listed(encoding: FieldEncoding) -> bool:
    return encoding.treatment in {"elements", "element_bins"}


def _single_valued(encoding: FieldEncoding) -> FieldEncoding:
    if not _is_listed(encoding):
        return encoding
    reason = "a list has several values, and the model takes one a column"
    return replace(encoding, treatment="left_out", edges=(), reason=reason)


def _text_encoding(table: TableFile, text_field: str, input_of: InputKind) -> FieldEncoding:
    kind = table.schema.field(text_field).type
    if input_of in {"numbers", "fields"}:
        taken = "numbers" if input_of == "numbers" else "one value a column"
        reason = f"the model takes {taken}, not text"
        return FieldEncoding(text_field, "left_out", reason=reason)
    if is_list(kind) or not (is_text_like(kind) or pa.types.is_integer(kind)):
        raise NoFeatures(
            f"{table.path}: the text field {text_field!r} holds {kind}, not text; name a column of "
            "strings"
        )
    return FieldEncoding(text_field, "text")


def _check_places(table: TableFile, encodings: Sequence[FieldEncoding], model: ModelSpec) -> None:
    used = [e.field for e in encodings if e.treatment != "left_out"]
    (places,) = model.input.shape
    if len(used) > places:
        raise InputWidthMismatch(
            f"{table.path}: {model.name} takes at most {places} columns a record, but the file has "
            f"{len(used)} to learn from ({', '.join(used)}); exclude fields or choose another model"
        )


def _check_width(table: TableFile, encodings: Sequence[FieldEncoding], model: ModelSpec) -> None:
    numeric = [e.field for e in encodings if e.treatment == "standardize"]
    (width,) = model.input.shape
    if len(numeric) != width:
        raise InputWidthMismatch(
            f"{table.path}: {model.name} takes {width} numbers a record, but the file has "
            f"{len(numeric)} numeric columns to learn from ({', '.join(numeric) or 'none'}); "
            "exclude fields or choose another model"
        )
