"""What both engines refuse of a source's columns, in the same words."""

from typing import NoReturn

from feature_catalog.definitions.fields import Dtype
from feature_catalog.offline.errors import MismatchedKeys, NaiveTimestamps


def refuse_key(where: str, name: str, found: str, dtype: Dtype) -> NoReturn:
    """Refuse a join key of another type than the entity says.

    Args:
        where: The source.
        found: Its type in the source's own words.

    Raises:
        MismatchedKeys: Always.
    """
    raise MismatchedKeys(
        f"{where} holds {name} as {found}, and the join key {name} is of type {dtype}: keys are "
        "compared exactly, so nothing would be found; convert the column, or correct the entity's "
        "dtype"
    )


def refuse_time(where: str, name: str, found: str, *, is_timestamp: bool) -> NoReturn:
    """Refuse a column that holds no moments.

    Raises:
        NaiveTimestamps: Always.
    """
    if is_timestamp:
        raise NaiveTimestamps(
            f"{where} holds {name} without a time zone, and an hour's difference would let in "
            "values of the future; write it with a time zone, or, if it is UTC, say so "
            "(naive_is_utc=True, --naive-is-utc)"
        )
    raise NaiveTimestamps(
        f"{where} holds {name} as {found}, which is no moment; write timestamps with a time zone"
    )
