"""A view's row as it is stored: a CBOR array of its fields' values in the order of their names.

CBOR (RFC 8949) in its shortest form keeps every float to the last bit in as few bytes as that
takes, and tells a missing value (null) from all others. NaN counts as missing, as everywhere.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import cbor2

from feature_catalog.online.errors import UnreadableOnlineValue


def encode_rows(rows: Iterable[Sequence[Any]]) -> list[bytes]:
    """Rows of plain Python values, None where missing, as bytes each."""
    dumps = cbor2.dumps
    return [dumps(row, canonical=True) for row in rows]


def decode_rows(payloads: Sequence[bytes | memoryview], width: int) -> list[list[Any]]:
    """Read what `encode_rows` wrote, ``width`` values a row.

    Raises:
        UnreadableOnlineValue: If bytes are no such row.
    """
    loads = cbor2.loads
    try:
        rows = [loads(payload) for payload in payloads]
    except (cbor2.CBORDecodeError, ValueError, RecursionError, OverflowError) as error:
        raise _unreadable(str(error)) from error
    for row in rows:
        if type(row) is not list or len(row) != width:
            raise _unreadable(f"no array of {width} values")
    return rows


def _unreadable(detail: str) -> UnreadableOnlineValue:
    return UnreadableOnlineValue(
        f"a stored row of online values is damaged ({detail}); materialise its view again with "
        "`flint catalog materialize VIEW --restart`"
    )
