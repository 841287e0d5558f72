"""Moments as whole microseconds since 1970 in UTC, and back."""

import datetime as dt

from feature_catalog.online.errors import InvalidInterval

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)


def microseconds(moment: dt.datetime) -> int:
    """A moment's microseconds since 1970.

    Raises:
        InvalidInterval: If it has no time zone.

    >>> microseconds(dt.datetime(1970, 1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1))))
    0
    """
    if moment.tzinfo is None:
        raise InvalidInterval(
            f"{moment.isoformat()} has no time zone, so it is not clear which moment it is; add "
            "one, such as +00:00"
        )
    return (moment - _EPOCH) // _MICROSECOND


def moment_of(us: int) -> dt.datetime:
    """The moment of microseconds since 1970, in UTC."""
    return _EPOCH + us * _MICROSECOND
