"""Where each feature of a data set could live, by how its values lie among clients and keys.

The rules, in this order: a column with one value a client tells of the user, and the device can
keep it; one that another column's values determine (an item's year), or whose variance they explain
(an item's rate of clicks), is of that key and comes from the cloud, with a cache; a key itself is
named by the app; whatever else varies from record to record is made where the record is, on the
device. All of it is read off the data: where a file is small, a column may look determined that is
not, so the numbers stand beside each reason.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from device_runtime.feature_cache import EntryKey, entry_bytes
from device_runtime.feature_values import encode_key, encode_row
from feature_catalog.locality.coded_columns import CodedColumn
from feature_catalog.locality.facts import (
    ColumnFacts,
    determined_share,
    explained_variance,
    facts_of,
)
from feature_catalog.locality.network import NetworkFigures
from feature_catalog.locality.replay import Replay, replay

CACHE_SIZES = (16, 64, 256, 1024)
CONSTANT_SHARE = 0.99
SHARED_BY_CLIENTS = 2.0
ROWS_A_KEY = 2.0
DETERMINED_SHARE = 0.98
EXPLAINED_VARIANCE = 0.9
WORTH_CACHING = 0.2
ENOUGH_OF_UNLIMITED = 0.95

Report = Callable[[str, int, int | None], None]


class Place(StrEnum):
    """Where a feature lives.

    ``device``: made and kept there. ``device_key``: the app says it, and it keys what the cloud
    has. ``cloud_prefetch``, ``cloud_on_demand``, ``cloud_never``: in the cloud, all of it fetched
    ahead, or kept once it was needed, or fetched for each read.
    """

    DEVICE = "device"
    DEVICE_KEY = "device_key"
    CLOUD_PREFETCH = "cloud_prefetch"
    CLOUD_ON_DEMAND = "cloud_on_demand"
    CLOUD_NEVER = "cloud_never"


@dataclass(frozen=True, slots=True)
class KeyedGroup:
    """Columns that one key determines, as a feature view of the cloud would hold them.

    Attributes:
        columns: Of the key, ascending.
        row_bytes: Mean bytes of a row as it is fetched.
        entry_bytes: Mean bytes of a row as a device's cache counts it.
        whole_bytes: Of all keys' rows in a cache.
        cache_rows: Rows a device would keep; 0 where it keeps none.
        hit_share: Of reads that such a cache has.
        fetched_bytes_a_day: Of a client on a day on which it reads; None where no time is known.
        read_ms: Mean of the network for one read, by the figures given.
    """

    key: str
    columns: tuple[str, ...]
    place: Place
    replay: Replay
    row_bytes: float
    entry_bytes: float
    whole_bytes: float
    cache_rows: int
    hit_share: float
    fetched_bytes_a_day: float | None
    read_ms: float


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one column could live, and why."""

    column: str
    place: Place
    reason: str
    facts: ColumnFacts


@dataclass(frozen=True, slots=True)
class Locality:
    """Where each column of a data set could live."""

    placements: tuple[Placement, ...]
    groups: tuple[KeyedGroup, ...]
    rows: int
    clients: int
    client_days: int | None
    network: NetworkFigures
    whole_bytes: int


def place_columns(
    columns: Sequence[CodedColumn],
    client: CodedColumn,
    *,
    keys: Sequence[str],
    times_s: NDArray[np.float64] | None,
    network: NetworkFigures,
    whole_bytes: int,
    progress: Report | None = None,
) -> Locality:
    """Place columns.

    Args:
        columns: Features and keys, of all rows.
        client: Whose rows they are; no value may be missing.
        keys: Columns that key what the cloud has; without any they are found.
        times_s: Time of each row, shape ``(rows,)``, by which reads are ordered; None: the file's
            order.
        network: By which reads are reckoned.
        whole_bytes: A key's rows that take no more are fetched ahead, all of them.
    """
    clients = client.distinct
    facts = {each.name: facts_of(each, client.code, clients) for each in columns}
    by_name = {each.name: each for each in columns}
    of_client = {name for name, f in facts.items() if f.constant_share >= CONSTANT_SHARE}
    key_names = list(keys) or [
        name
        for name, f in facts.items()
        if name not in of_client and by_name[name].can_key and may_be_key(f)
    ]
    key_of = _keys_of(by_name, facts, key_names, of_client)
    order = np.arange(len(client.code)) if times_s is None else np.argsort(times_s, kind="stable")
    days = None if times_s is None else client_days(client.code, times_s)
    groups = []
    for key in sorted(set(key_of.values())):
        members = [by_name[name] for name, its in sorted(key_of.items()) if its == key]
        replayed = replay(
            by_name[key].code, client.code, order, CACHE_SIZES, what=key, progress=progress
        )
        groups.append(_group(by_name[key], members, replayed, days, network, whole_bytes))
    of_key = {group.key: group for group in groups}
    placements = tuple(
        _placement(facts[each.name], key_of.get(each.name), of_key, of_client) for each in columns
    )
    return Locality(
        placements=placements,
        groups=tuple(groups),
        rows=len(client.code),
        clients=clients,
        client_days=days,
        network=network,
        whole_bytes=whole_bytes,
    )


def may_be_key(facts: ColumnFacts) -> bool:
    """Whether a column's values are things that many clients meet, each more than once.

    A value that comes once determines whatever stands beside it, which tells nothing.
    """
    return (
        facts.rows_per_value >= ROWS_A_KEY
        and facts.clients_per_value >= SHARED_BY_CLIENTS
        and facts.distinct > 1
    )


def client_days(client: NDArray[np.int64], times_s: NDArray[np.float64]) -> int:
    """Pairs of a client and a day (of UTC) on which it has a row."""
    there = np.isfinite(times_s)
    day = (times_s[there] // 86_400).astype(np.int64)
    return len(np.unique(np.stack([client[there], day]), axis=1).T)


def _keys_of(
    by_name: dict[str, CodedColumn],
    facts: dict[str, ColumnFacts],
    keys: Sequence[str],
    of_client: set[str],
) -> dict[str, str]:
    """The key of each column that one determines: of several the one with the fewest values."""
    found: dict[str, str] = {}
    for name, column in by_name.items():
        if name in of_client or column.distinct < 2:
            continue
        fitting = [
            key
            for key in keys
            if key != name
            # Two columns that determine each other: the first stands for both.
            and (column.number is not None or facts[key].distinct > column.distinct or key < name)
            and _is_of(column, by_name[key])
        ]
        if fitting:
            found[name] = min(fitting, key=lambda key: (facts[key].distinct, key))
    return _to_outermost(found)


def _is_of(column: CodedColumn, key: CodedColumn) -> bool:
    if determined_share(column.code, key.code) >= DETERMINED_SHARE:
        return True
    number = column.number
    return number is not None and explained_variance(number, key.code) >= EXPLAINED_VARIANCE


def _to_outermost(key_of: dict[str, str]) -> dict[str, str]:
    """A key that another key determines is a column of that one, and so are its columns."""
    outermost = {}
    for name, given in key_of.items():
        key, seen = given, {name}
        while key in key_of and key not in seen:
            seen.add(key)
            key = key_of[key]
        outermost[name] = key
    return outermost


def _group(
    key: CodedColumn,
    members: Sequence[CodedColumn],
    replayed: Replay,
    days: int | None,
    network: NetworkFigures,
    whole_bytes: int,
) -> KeyedGroup:
    row_bytes, kept_bytes = _row_sizes(key, members)
    all_bytes = kept_bytes * replayed.keys
    if all_bytes <= whole_bytes:
        place, cache_rows, hit_share = Place.CLOUD_PREFETCH, replayed.keys, 1.0
    elif replayed.unlimited_hit_share < WORTH_CACHING:
        place, cache_rows, hit_share = Place.CLOUD_NEVER, 0, 0.0
    else:
        place = Place.CLOUD_ON_DEMAND
        cache_rows = _enough_rows(replayed)
        hit_share = replayed.hit_share[cache_rows]
    fetched = replayed.reads * (1.0 - hit_share) * row_bytes
    if place is Place.CLOUD_PREFETCH:
        # Once a day all of it: values change, and the data do not tell how often.
        fetched = replayed.keys * row_bytes * (days or 0)
    return KeyedGroup(
        key=key.name,
        columns=tuple(member.name for member in members),
        place=place,
        replay=replayed,
        row_bytes=row_bytes,
        entry_bytes=kept_bytes,
        whole_bytes=all_bytes,
        cache_rows=cache_rows,
        hit_share=hit_share,
        fetched_bytes_a_day=None if not days else fetched / days,
        read_ms=(1.0 - hit_share) * network.request_ms(row_bytes),
    )


def _enough_rows(replayed: Replay) -> int:
    """The smallest cache that has nearly all that one without limit has."""
    enough = ENOUGH_OF_UNLIMITED * replayed.unlimited_hit_share
    fitting = [size for size, share in replayed.hit_share.items() if share >= enough]
    return min(fitting) if fitting else max(replayed.hit_share)


def _row_sizes(key: CodedColumn, members: Sequence[CodedColumn]) -> tuple[float, float]:
    """Mean bytes of a row as it is fetched, and as it counts in a device's cache."""
    fetched, kept = [], []
    for place, value in enumerate(key.sample):
        row = encode_row({each.name: _plain(each.sample[place]) for each in members})
        its_key = encode_key([value if isinstance(value, str | int) else str(value)])
        fetched.append(len(row) + len(its_key))
        kept.append(entry_bytes("x" * 40, key.name, EntryKey(its_key), row))
    return float(np.mean(fetched)), float(np.mean(kept))


def _plain(value: object) -> str | int | float | list[str] | None:
    if isinstance(value, str | int | float) or value is None:
        return value
    return [str(each) for each in value] if isinstance(value, list) else str(value)


def _placement(
    facts: ColumnFacts, key: str | None, groups: dict[str, KeyedGroup], of_client: set[str]
) -> Placement:
    name = facts.column
    if not facts.distinct:
        return Placement(name, Place.DEVICE, "has no value in these rows: nothing tells", facts)
    if name in of_client:
        reason = (
            f"{facts.constant_share:.0%} of clients have one value: it is the user's, and one row "
            "on the device"
        )
        return Placement(name, Place.DEVICE, reason, facts)
    if key is not None:
        group = groups[key]
        return Placement(name, group.place, _of_key(group), facts)
    if name in groups:
        reason = (
            f"the app names it ({facts.distinct:,} values, {facts.clients_per_value:.1f} clients "
            f"each), and {', '.join(groups[name].columns)} are looked up by it"
        )
        return Placement(name, Place.DEVICE_KEY, reason, facts)
    reason = (
        f"varies within a client's own records ({facts.values_per_client:.1f} values a client) and "
        "no key determines it: it is made where the record is"
    )
    return Placement(name, Place.DEVICE, reason, facts)


def _of_key(group: KeyedGroup) -> str:
    shared = f"{group.key} determines it, and many clients share {group.key}"
    if group.place is Place.CLOUD_PREFETCH:
        return (
            f"{shared}; rows of all {group.replay.keys:,} keys take {group.whole_bytes:,.0f} "
            "bytes: fetch them ahead"
        )
    if group.place is Place.CLOUD_NEVER:
        return (
            f"{shared}; a client hardly meets one twice ({group.replay.unlimited_hit_share:.0%} of "
            "reads at best), so a cache saves little: send it with what is shown"
        )
    return (
        f"{shared}; a cache of {group.cache_rows:,} rows has {group.hit_share:.0%} of reads, one "
        f"without limit {group.replay.unlimited_hit_share:.0%}"
    )
