"""Columns of feature values: text, integers or floats, and which of them are missing.

A column is what a transform takes and gives, on a device and in the cloud alike. Three kinds are
enough: every integer fits int64, every float float64, and both widenings are exact. Missing is a
mask of its own, so no value has to stand for it. A float's NaN counts as missing: no bucket and
no bound fits it, and one NaN that reaches training spoils the model. Text is any Unicode text that
UTF-8 can hold (no lone surrogates), never normalised: two spellings of one letter are two texts.
The empty string is a value, not a missing one.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from device_runtime.errors import FlintError


class UnsuitableColumn(FlintError):
    """Feature values that are not of the kind, range or shape they must have."""

    code = "FLN-2851"


class Kind(StrEnum):
    """What a column's values are."""

    STRING = "string"
    INT = "int"
    FLOAT = "float"


_DTYPES: dict[Kind, np.dtype[Any]] = {
    Kind.STRING: np.dtype(object),
    Kind.INT: np.dtype(np.int64),
    Kind.FLOAT: np.dtype(np.float64),
}
_FILL: dict[Kind, Any] = {Kind.STRING: "", Kind.INT: 0, Kind.FLOAT: 0.0}


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """Values of one feature, row after row.

    Attributes:
        kind: What they are.
        values: Shape ``(rows, *shape of one value)``: int64, float64, or Python strings. What
            stands where a value is missing is 0, 0.0 or the empty string.
        missing: Which are missing, bool, of the shape of ``values``.
    """

    kind: Kind
    values: NDArray[Any]
    missing: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        values: Iterable[Any] | NDArray[Any],
        missing: NDArray[np.bool_] | None = None,
        *,
        kind: Kind | None = None,
    ) -> Self:
        """Take values as they come: a list with None in it, or an array.

        Args:
            values: Booleans count as the integers 0 and 1, floats of any width as float64.
            missing: More that is missing, of the shape of ``values``.
            kind: What they must be; None takes what they are. Integers may become floats.

        Raises:
            UnsuitableColumn: If the values are of another kind, of several, out of int64's range,
                or text that UTF-8 cannot hold.
        """
        array = values if isinstance(values, np.ndarray) else _object_array(values)
        mask = np.zeros(array.shape, np.bool_) if missing is None else missing.copy()
        if mask.shape != array.shape:
            raise UnsuitableColumn(
                f"the mask of missing values has shape {mask.shape}, the values {array.shape}; "
                "give one flag a value"
            )
        if array.dtype == object:
            mask |= _is_none(array)
            found = _kind_of_objects(array, mask, kind)
        else:
            found = _kind_of_dtype(array)
        wanted = kind or found
        if wanted is not found and (wanted, found) != (Kind.FLOAT, Kind.INT):
            raise UnsuitableColumn(
                f"the column holds {found} values where {wanted} ones are needed; "
                "convert them before, or change the field's dtype"
            )
        return cls(wanted, *_canonical(wanted, array, mask))

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.values)

    def as_float(self) -> "Column":
        """The same numbers as float64; integers beyond 2**53 round to the nearest, ties to even.

        Raises:
            UnsuitableColumn: If it holds text.
        """
        if self.kind is Kind.FLOAT:
            return self
        if self.kind is Kind.STRING:
            raise UnsuitableColumn("the column holds text where numbers are needed")
        return Column(Kind.FLOAT, self.values.astype(np.float64), self.missing)

    def filled(self, fill: Any) -> "Column":  # noqa: ANN401
        """The column with ``fill``, a value of its kind, in place of what is missing."""
        values = self.values.copy()
        values[self.missing] = fill
        return Column(self.kind, values, np.zeros_like(self.missing))

    def to_list(self) -> list[Any]:
        """The rows as Python values, None where missing."""
        values = self.values.astype(object)
        values[self.missing] = None
        return list(values.tolist())

    def as_dtype(self, dtype: str) -> NDArray[Any]:
        """Hand out the values for a model, e.g. as int32 or float32.

        Args:
            dtype: ``int32``, ``int64``, ``float32``, ``float64`` or ``object`` (for text). A
                float32 rounds to the nearest, ties to even; what is too large becomes infinite.

        Raises:
            UnsuitableColumn: If a value is missing, does not fit the integer, or is of another
                kind.
        """
        if self.missing.any():
            raise UnsuitableColumn(
                f"{int(self.missing.sum())} values of the column are missing where a model needs "
                "all; give the last transform a value for missing ones"
            )
        wanted = np.dtype(dtype)
        if self.kind is Kind.STRING or wanted.kind not in "if":
            if self.kind is Kind.STRING and wanted.kind == "O":
                return self.values
            raise UnsuitableColumn(
                f"a column of {self.kind} values cannot be handed out as {dtype}"
            )
        if wanted.kind == "f":
            with np.errstate(over="ignore"):
                return self.as_float().values.astype(wanted)
        if self.kind is Kind.FLOAT:
            raise UnsuitableColumn(f"a column of float values cannot be handed out as {dtype}")
        limits = np.iinfo(wanted)
        if self.values.size and not (
            limits.min <= self.values.min() and self.values.max() <= limits.max
        ):
            raise UnsuitableColumn(f"a value of the column does not fit {dtype}")
        return self.values.astype(wanted)


def _object_array(values: Iterable[Any]) -> NDArray[Any]:
    rows = list(values)
    try:
        return np.array(rows, dtype=object)
    except ValueError as error:
        raise UnsuitableColumn(
            f"the column's rows are of several lengths ({error}); give all one shape"
        ) from error


def _is_none(array: NDArray[Any]) -> NDArray[np.bool_]:
    # numpy compares object arrays with None element by element, three times faster than a loop.
    return np.asarray(array == np.array(None, object), np.bool_)


def _kind_of_dtype(array: NDArray[Any]) -> Kind:
    if array.dtype.kind in "iub":
        return Kind.INT
    if array.dtype.kind == "f" and array.dtype.itemsize <= np.dtype(np.float64).itemsize:
        return Kind.FLOAT
    if array.dtype.kind == "U":
        return Kind.STRING
    raise UnsuitableColumn(
        f"a column of {array.dtype} is neither text nor integers nor floats; convert it before"
    )


def _kind_of_objects(array: NDArray[Any], mask: NDArray[np.bool_], kind: Kind | None) -> Kind:
    types = set(map(type, array.flat if not mask.any() else array[~mask]))
    if not types:
        if kind is None:
            raise UnsuitableColumn("no value of the column is present; say what kind it is")
        return kind
    if types == {str}:
        return Kind.STRING
    if all(issubclass(t, int | np.integer | np.bool_) for t in types):
        return Kind.INT
    if all(issubclass(t, int | float | np.integer | np.floating | np.bool_) for t in types):
        return Kind.FLOAT
    names = ", ".join(sorted(t.__name__ for t in types))
    raise UnsuitableColumn(
        f"the column holds values of type {names}; give text, integers or floats, one of them"
    )


def _canonical(
    kind: Kind, array: NDArray[Any], mask: NDArray[np.bool_]
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    if array.dtype == object or kind is Kind.STRING:
        array = array.astype(object)
        array[mask] = _FILL[kind]
    if kind is Kind.STRING:
        _check_text(array)
        return array, mask
    try:
        # From uint64 numpy would wrap around in silence; by way of Python's integers it does not.
        source = array.astype(object) if array.dtype == np.uint64 else array
        values = source.astype(_DTYPES[kind])
    except OverflowError as error:
        raise UnsuitableColumn(
            f"a value of the column does not fit a 64-bit number ({error})"
        ) from error
    if kind is Kind.FLOAT:
        mask = mask | np.isnan(values)
    values[mask] = _FILL[kind]
    return values, mask


def _check_text(array: NDArray[Any]) -> None:
    try:
        "".join(array.ravel().tolist()).encode()
    except UnicodeEncodeError as error:
        raise UnsuitableColumn(
            f"a text of the column has a lone surrogate, which UTF-8 cannot hold "
            f"({error.reason}); clean the text at its source"
        ) from error
