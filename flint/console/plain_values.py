"""Page data as JSON, so that programs get what people see."""

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any


def plain(value: Any) -> Any:  # noqa: ANN401 - any page's data
    """Data as JSON has it: numbers that are not finite are null, digests hexadecimal.

    >>> plain({"metric": math.nan, "sha256": bytes(2), "rows": (1, 2)})
    {'metric': None, 'sha256': '0000', 'rows': [1, 2]}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    return _single(value)


def _single(value: Any) -> Any:  # noqa: ANN401 - any value that holds no others
    if isinstance(value, Enum):
        return _single(value.value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dt.datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    return value if value is None or isinstance(value, bool | int) else str(value)
