"""What data tell of where a column comes from: how its values lie among clients and keys."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_catalog.locality.coded_columns import MISSING, CodedColumn

Codes = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ColumnFacts:
    """How a column's values lie among clients.

    Attributes:
        distinct: Different values.
        rows_per_value: Mean rows of a value.
        values_per_client: Mean different values of a client.
        clients_per_value: Mean clients of a value.
        one_client_share: Share of values that a single client has.
        constant_share: Share of clients with one value at most.
        missing_share: Share of rows without a value.
    """

    column: str
    distinct: int
    rows_per_value: float
    values_per_client: float
    clients_per_value: float
    one_client_share: float
    constant_share: float
    missing_share: float


def facts_of(column: CodedColumn, client: Codes, clients: int) -> ColumnFacts:
    """Facts about a column.

    Args:
        client: Number of each row's client, shape ``(rows,)``.
        clients: There are.
    """
    there = column.code != MISSING
    code, whose = column.code[there], client[there]
    pairs = np.unique(code * clients + whose)
    per_value = np.bincount(pairs // clients, minlength=column.distinct)
    per_client = np.bincount(pairs % clients, minlength=clients)
    distinct = max(column.distinct, 1)
    return ColumnFacts(
        column=column.name,
        distinct=column.distinct,
        rows_per_value=len(code) / distinct,
        values_per_client=len(pairs) / clients,
        clients_per_value=len(pairs) / distinct,
        one_client_share=float((per_value == 1).mean()) if column.distinct else 0.0,
        constant_share=float((per_client <= 1).mean()),
        missing_share=float(1.0 - there.mean()),
    )


def determined_share(column: Codes, key: Codes) -> float:
    """How far each key has one value of a column: 1 if it has, 0 if keys tell nothing.

    Of the rows whose value is not the most frequent of all, the share less that is told right by
    their key's most frequent value (Goodman and Kruskal's lambda, 1954).

    Args:
        column: Shape ``(rows,)``, `MISSING` where there is none.
        key: The same.
    """
    there = (column != MISSING) & (key != MISSING)
    if not there.any():
        return 0.0
    base = int(column.max()) + 1
    pairs, count = np.unique(key[there] * base + column[there], return_counts=True)
    firsts = np.flatnonzero(np.diff(pairs // base, prepend=-1))
    told = int(np.maximum.reduceat(count, firsts).sum())
    total, most = int(there.sum()), int(np.bincount(column[there]).max())
    return (told - most) / (total - most) if total > most else 0.0


def explained_variance(number: NDArray[np.float64], key: Codes) -> float:
    """Share of numbers' variance that their keys explain, corrected for the number of keys.

    Epsilon squared (Kelley, 1935): near 0 for keys that tell nothing, however many there are.

    Args:
        number: Shape ``(rows,)``, NaN where there is none.
        key: Shape ``(rows,)``, `MISSING` where there is none.
    """
    there = np.isfinite(number) & (key != MISSING)
    values, of_key = number[there], key[there]
    _, of_key, count = np.unique(of_key, return_inverse=True, return_counts=True)
    rows, keys = len(values), len(count)
    whole = float(np.sum((values - values.mean()) ** 2)) if rows else 0.0
    if rows <= keys or whole == 0.0:
        return 0.0
    means = np.bincount(of_key, values) / count
    within = float(np.sum((values - means[of_key]) ** 2))
    return 1.0 - (within / (rows - keys)) / (whole / (rows - 1))
