"""Entity rows: what training data are wanted of, and the moment as of which each row is joined."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from feature_catalog.definitions.catalog_set import DefinitionSet
from feature_catalog.definitions.errors import did_you_mean, listed
from feature_catalog.definitions.fields import Dtype
from feature_catalog.definitions.views import FeatureView
from feature_catalog.offline.errors import (
    AmbiguousColumns,
    InvalidEntityRows,
    MismatchedKeys,
    MissingEntityColumn,
    NaiveTimestamps,
)

ROW = "row_number"
MOMENT = "moment"

_EARLIEST_US = -62_135_596_800_000_000  # the year 1
_LATEST_US = 253_402_300_799_999_999  # the last of 9999
_PER_UNIT_US = {"s": 1_000_000, "ms": 1_000, "us": 1}


@dataclass(frozen=True, slots=True)
class EntityRows:
    """Entity rows with their moments.

    Attributes:
        table: As they were given.
        moments: UTC, in whole microseconds, rounded down; one a row, none is null.
    """

    table: pa.Table
    moments: pa.ChunkedArray


def entity_column(table: pa.Table, name: str, wanted_for: str) -> pa.ChunkedArray:
    """A column of the entity rows.

    Args:
        wanted_for: What needs it, for the refusal.

    Raises:
        MissingEntityColumn: If there is none of that name.
    """
    names = table.column_names
    if name not in names:
        raise MissingEntityColumn(
            f"the entity rows have no column {name}{did_you_mean(name, names)}, which is "
            f"{wanted_for}; they have {listed(names)}"
        )
    return table[name]


def read_entity_rows(given: object, event_ts: str, *, naive_is_utc: bool = False) -> EntityRows:
    """Check entity rows and read their moments.

    Args:
        given: A `pyarrow.Table`, or a data frame that `pyarrow.table` takes.
        event_ts: Column of the moments.
        naive_is_utc: Take timestamps without a time zone as UTC.

    Raises:
        InvalidEntityRows: If it is no table, or a moment is missing or out of the years 1 to 9999.
        AmbiguousColumns: If two columns have one name.
        MissingEntityColumn: If there is no column of moments.
        NaiveTimestamps: If they have no time zone, or are dates.
    """
    try:
        table = given if isinstance(given, pa.Table) else pa.table(given)
    except (TypeError, ValueError, pa.ArrowException) as error:
        raise InvalidEntityRows(
            f"entity rows of type {type(given).__name__} are no table; give a pyarrow.Table or a "
            "data frame"
        ) from error
    names = table.column_names
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise AmbiguousColumns(
            f"the entity rows have two columns named {repeated}; rename one of them"
        )
    column = entity_column(table, event_ts, "to be the moment as of which a row is joined")
    return EntityRows(table, _moments(column, event_ts, naive_is_utc=naive_is_utc))


def key_columns(definitions: DefinitionSet, view: FeatureView) -> tuple[tuple[str, Dtype], ...]:
    """Join keys of a view with their types, entity by entity, in order of name."""
    entities = [definitions.entity(name) for name in view.entities]
    return tuple((key, e.dtype) for e in entities if e is not None for key in e.join_keys)


def asked(rows: EntityRows, keys: Sequence[tuple[str, Dtype]]) -> pa.Table:
    """What an engine joins: `ROW` (int64, from 0), ``k0``, ``k1``..., and `MOMENT`.

    Raises:
        MissingEntityColumn: If there is no column of a key's name.
        MismatchedKeys: If one is of another type than the entity says.
    """
    columns = {ROW: pa.array(np.arange(len(rows.table))), MOMENT: rows.moments}
    for place, (name, dtype) in enumerate(keys):
        column = entity_column(rows.table, name, f"a join key ({dtype})")
        columns[f"k{place}"] = _key(column, name, dtype)
    return pa.table(columns)


def _key(column: pa.ChunkedArray, name: str, dtype: Dtype) -> pa.ChunkedArray:
    found = column.type.value_type if pat.is_dictionary(column.type) else column.type
    is_text = pat.is_string(found) or pat.is_large_string(found) or pat.is_string_view(found)
    wanted = pa.string() if dtype is Dtype.STRING else pa.int64()
    fits = is_text if dtype is Dtype.STRING else pat.is_integer(found)
    if not fits and not pat.is_null(found):
        raise MismatchedKeys(
            f"the entity rows' column {name} holds {found}, and the join key {name} is of type "
            f"{dtype}: keys are compared exactly, so nothing would be found; convert the column, "
            f"or correct the entity's dtype"
        )
    try:
        return column.cast(wanted)
    except pa.ArrowInvalid as error:
        raise MismatchedKeys(
            f"the entity rows' column {name} holds a number that does not fit int64 ({error}); "
            "correct it"
        ) from error


def _moments(column: pa.ChunkedArray, name: str, *, naive_is_utc: bool) -> pa.ChunkedArray:
    kind = column.type
    if not pat.is_timestamp(kind):
        what = "dates: a day is no moment" if pat.is_date(kind) else f"{kind}, which is no time"
        raise NaiveTimestamps(
            f"the entity rows' column {name} holds {what}; give timestamps with a time zone"
        )
    if kind.tz is None and not naive_is_utc:
        raise NaiveTimestamps(
            f"the entity rows' column {name} holds timestamps without a time zone, and an hour's "
            "difference would let in values of the future; give them a time zone, or, if they "
            "are UTC, say so (naive_is_utc=True, --naive-is-utc)"
        )
    if column.null_count:
        raise InvalidEntityRows(
            f"{column.null_count} of the entity rows have no {name}; take them out, or say when "
            "they were"
        )
    numbers = column.cast(pa.int64())
    try:
        whole = _floor_us(numbers, kind.unit)
    except pa.ArrowInvalid as error:
        raise _impossible(name) from error
    if len(whole):
        bounds = pc.min_max(whole).as_py()
        if bounds["min"] < _EARLIEST_US or bounds["max"] > _LATEST_US:
            raise _impossible(name)
    return whole.cast(pa.timestamp("us", "UTC"))


def _floor_us(numbers: pa.ChunkedArray, unit: str) -> pa.ChunkedArray:
    if unit != "ns":
        return pc.multiply_checked(numbers, _PER_UNIT_US[unit])
    # Arrow divides towards zero.
    quotient = pc.divide(numbers, 1_000)
    is_above = pc.greater(pc.multiply(quotient, 1_000), numbers)
    return pc.subtract(quotient, is_above.cast(pa.int64()))


def _impossible(name: str) -> InvalidEntityRows:
    return InvalidEntityRows(
        f"the entity rows' column {name} holds a moment outside of the years 1 to 9999; correct it"
    )
