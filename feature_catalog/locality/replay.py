"""How often a device's cache would have held what it needed: reads replayed, least recent out."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_catalog.locality.coded_columns import MISSING

_REPORT_EVERY = 1_000

ReportClients = Callable[[str, int, int | None], None]


@dataclass(frozen=True, slots=True)
class Replay:
    """Reads of one key by all clients, each with a cache of its own.

    Attributes:
        reads: Rows with a key.
        clients: With at least one.
        keys: Different ones, of all clients.
        keys_per_client: Mean different keys of a client.
        hit_share: By rows a cache holds, share of reads it had.
        unlimited_hit_share: Had nothing ever gone.
    """

    reads: int
    clients: int
    keys: int
    keys_per_client: float
    hit_share: dict[int, float]
    unlimited_hit_share: float


def replay(
    key: NDArray[np.int64],
    client: NDArray[np.int64],
    order: NDArray[np.int64],
    sizes: Sequence[int],
    *,
    times_s: NDArray[np.float64] | None = None,
    max_age_s: float | None = None,
    what: str = "",
    progress: ReportClients | None = None,
) -> Replay:
    """Replay every client's reads through caches of several sizes.

    Args:
        key: Number of each row's key, `MISSING` where it has none; shape ``(rows,)``.
        client: Number of each row's client, shape ``(rows,)``.
        order: Rows in the order of time, shape ``(rows,)``.
        sizes: Rows that caches hold, at least 1 each.
        times_s: Time of each row, shape ``(rows,)``; needed where ``max_age_s`` is given.
        max_age_s: A row fetched longer ago is fetched anew; None: rows are good for ever.
    """
    ordered = order[key[order] != MISSING]
    # Each client's rows together, in the order of time.
    ordered = ordered[np.argsort(client[ordered], kind="stable")]
    its_keys, whose = key[ordered], client[ordered]
    starts = np.flatnonzero(np.diff(whose, prepend=-1))
    ends = np.append(starts, len(ordered))[1:]
    at_s = None if times_s is None or max_age_s is None else times_s[ordered]
    hits = dict.fromkeys(sizes, 0)
    different = unlimited = 0
    for number, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        if progress is not None and number % _REPORT_EVERY == 0:
            progress(f"replaying {what}", number, len(starts))
        reads = its_keys[start:end].tolist()
        distinct = len(set(reads))
        different += distinct
        without_limit = len(reads) - distinct
        if at_s is not None and max_age_s is not None:
            when_s = at_s[start:end].tolist()
            without_limit = _fresh_hits(reads, when_s, distinct, max_age_s)
        unlimited += without_limit
        for size in hits:
            if distinct <= size:
                hits[size] += without_limit
            elif at_s is not None and max_age_s is not None:
                hits[size] += _fresh_hits(reads, when_s, size, max_age_s)
            else:
                hits[size] += _hits(reads, size)
    total = max(len(ordered), 1)
    return Replay(
        reads=len(ordered),
        clients=len(starts),
        keys=len(np.unique(its_keys)),
        keys_per_client=different / max(len(starts), 1),
        hit_share={size: count / total for size, count in hits.items()},
        unlimited_hit_share=unlimited / total,
    )


def _hits(reads: Sequence[int], size: int) -> int:
    held: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for key in reads:
        if key in held:
            hits += 1
            held.move_to_end(key)
        else:
            held[key] = None
            if len(held) > size:
                held.popitem(last=False)
    return hits


def _fresh_hits(reads: Sequence[int], at_s: Sequence[float], size: int, max_age_s: float) -> int:
    """As `_hits`, but what was fetched ``max_age_s`` ago or before is fetched anew.

    What is too old goes when a row is stored, as in `FeatureCache`, so it takes no room.
    """
    used: OrderedDict[int, None] = OrderedDict()
    fetched_s: OrderedDict[int, float] = OrderedDict()
    hits = 0
    for key, now_s in zip(reads, at_s, strict=True):
        its_s = fetched_s.get(key)
        if its_s is not None and now_s - its_s < max_age_s:
            hits += 1
            used.move_to_end(key)
            continue
        fetched_s.pop(key, None)
        used.pop(key, None)
        while fetched_s and now_s - next(iter(fetched_s.values())) >= max_age_s:
            gone, _ = fetched_s.popitem(last=False)
            del used[gone]
        if len(used) == size:
            gone, _ = used.popitem(last=False)
            del fetched_s[gone]
        used[key] = None
        fetched_s[key] = now_s
    return hits
