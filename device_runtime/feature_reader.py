"""Reads cloud features on the device for given keys: cached, fetched, default or skipped.

What the cache holds is used first, processed values before raw ones; what it lacks is fetched where
the view's policy and the network allow it, by a function the caller gives. Nothing here needs the
network: without one, a read gives defaults where every field has one and leaves out the example
where not.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from device_runtime.columns import Column, Kind, UnsuitableColumn
from device_runtime.feature_cache import CachedView, EntryKey, FeatureCache
from device_runtime.feature_policies import CacheMode, CachePolicy, Network, OnMiss
from device_runtime.feature_values import (
    Value,
    decode_processed,
    decode_row,
    encode_processed,
    encode_row,
)
from device_runtime.transform_assets import Assets
from device_runtime.transform_chain import TransformChain

_FETCH_KEYS = 256
_DIGEST_BYTES = 16


class FetchFailed(Exception):
    """Raised by a fetching function that cannot reach the cloud now."""


@dataclass(frozen=True, slots=True)
class FetchedRow:
    """One key's features as the cloud says them.

    Attributes:
        values: By column; one left out is missing.
        age_s: How old they were when they were sent.
    """

    values: Mapping[str, Value]
    age_s: float = 0.0


Fetch = Callable[[str, int, Sequence[bytes]], Mapping[bytes, FetchedRow]]
"""View, version and keys to rows; a key the cloud does not know is left out, raises FetchFailed."""


@dataclass(frozen=True, slots=True)
class ViewField:
    """One feature of a view.

    Attributes:
        name: What the read calls it.
        shape: Of one value; ``()`` for a single one.
        default: What stands for it where nothing is known, before transforms; None: nothing may.
        chain: What it goes through on the device.
        column: What rows call its value, see `feature_manifest`; empty: as its name.
    """

    name: str
    kind: Kind
    shape: tuple[int, ...] = ()
    default: Value = None
    chain: TransformChain = field(default_factory=TransformChain)
    column: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "column", self.column or self.name)


@dataclass(frozen=True, slots=True)
class DeviceView:
    """A cloud feature view as this device uses it."""

    name: str
    version: int
    fields: tuple[ViewField, ...]
    policy: CachePolicy = field(default_factory=CachePolicy)
    audience: frozenset[str] = frozenset()

    @property
    def columns(self) -> tuple[str, ...]:
        """What its rows hold, each column once."""
        return tuple(dict.fromkeys(f.column for f in self.fields))

    def cached(self) -> CachedView:
        """The cache's rules."""
        return CachedView(self.name, self.version, self.policy, self.audience)


class KeyStatus(StrEnum):
    """Where one key's features came from."""

    CACHED = "cached"
    FETCHED = "fetched"
    DEFAULT = "default"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class FeatureRead:
    """What a read gave.

    Attributes:
        statuses: Of each key asked for, in order.
        rows: Which keys have a row in the columns: all that were not skipped.
        columns: By field, what came out of its chain, a row each.
    """

    statuses: tuple[KeyStatus, ...]
    rows: tuple[int, ...]
    columns: Mapping[str, Column]


@dataclass(slots=True)
class _Found:
    """What is known of each key so far."""

    processed: dict[bytes, dict[str, bytes]] = field(default_factory=dict)
    raw: dict[bytes, Mapping[str, Value]] = field(default_factory=dict)
    kept_at_ms: dict[bytes, int] = field(default_factory=dict)
    statuses: dict[bytes, KeyStatus] = field(default_factory=dict)


class FeatureReader:
    """Gives a device's features of cloud views, and fills its cache."""

    def __init__(
        self,
        cache: FeatureCache,
        views: Iterable[DeviceView],
        fetch: Fetch,
        assets: Assets | None = None,
    ) -> None:
        self._cache = cache
        self._views = {view.name: view for view in views}
        self._fetch = fetch
        self._assets = assets or {}
        self._digests = {
            (view.name, f.name): self._digests_of(f)
            for view in self._views.values()
            for f in view.fields
        }
        self._rows = {view.name: row_digest(view.columns) for view in self._views.values()}

    def read(self, view_name: str, keys: Sequence[bytes], *, unmetered: bool | None) -> FeatureRead:
        """Features of keys, transformed.

        Args:
            view_name: Of which view.
            keys: See `encode_key`; may repeat.
            unmetered: Whether the network is; None: there is none.

        Raises:
            UnsuitableColumn: If the cloud's values are not of the fields' kinds.
            InvalidAsset: If an asset is not there.
        """
        view = self._views[view_name]
        found = _Found()
        wanted = self._find(view, list(dict.fromkeys(keys)), found)
        if wanted and view.policy.on_miss is OnMiss.FETCH and may_fetch(view.policy, unmetered):
            self._fetch_into(view, wanted, found)
        self._settle(view, wanted, found)
        columns, made = self._columns(view, keys, found)
        self._keep_processed(view, made, found)
        statuses = tuple(found.statuses[key] for key in keys)
        rows = tuple(i for i, s in enumerate(statuses) if s is not KeyStatus.SKIPPED)
        return FeatureRead(statuses, rows, columns)

    def prefetch(
        self, view_name: str, keys: Iterable[bytes], *, unmetered: bool | None
    ) -> tuple[int, int]:
        """Fetch ahead what is not cached, or is past half of its greatest age.

        Returns:
            Keys fetched, and bytes of their rows; both 0 where the network does not allow it.
        """
        view = self._views[view_name]
        if not may_fetch(view.policy, unmetered) or view.policy.mode is CacheMode.NEVER:
            return 0, 0
        stale = self._stale(view, list(dict.fromkeys(keys)))
        count = total_bytes = 0
        for part in _batches(stale):
            try:
                rows = self._fetch(view.name, view.version, part)
            except FetchFailed:
                break
            stored = self._store(view, part, rows)
            count += len(part)
            total_bytes += sum(len(encode_row(row)) for row in stored.values())
        return count, total_bytes

    def load_bundle(
        self, view_name: str, rows: Mapping[bytes, Mapping[str, Value]], *, as_of_ms: int
    ) -> int:
        """Store what came with the app; ``as_of_ms``, since the epoch, is when it was true."""
        view = self._views[view_name]
        database = self._cache.database
        age_ms = max(0, database.wall_ms() - as_of_ms)
        return self._cache.put_all(
            view.name,
            {
                EntryKey(key, self._rows[view.name]): encode_row(values)
                for key, values in rows.items()
            },
            made_of_them=self._chains(view),
            kept_at_ms=database.now_ms() - age_ms,
        )

    def _find(self, view: DeviceView, keys: Sequence[bytes], found: _Found) -> list[bytes]:
        """Take from the cache what every field needs, processed or else raw; gives the rest."""
        if view.policy.mode is CacheMode.NEVER:
            return list(keys)
        processed: dict[bytes, dict[str, bytes]] = {key: {} for key in keys}
        for f in view.fields:
            if f.chain.steps:
                digests = self._digests[view.name, f.name]
                entries = [EntryKey(key, *digests) for key in keys]
                for entry, value in self._cache.get_all(view.name, entries).items():
                    processed[entry.key][f.name] = value.body
        unfinished = [key for key in keys if len(processed[key]) < len(view.fields)]
        row = self._rows[view.name]
        raw = self._cache.get_all(view.name, [EntryKey(key, row) for key in unfinished])
        for entry, value in raw.items():
            found.raw[entry.key] = decode_row(value.body)
            found.kept_at_ms[entry.key] = value.kept_at_ms
        wanted = [key for key in unfinished if key not in found.raw]
        for key in set(keys).difference(wanted):
            found.processed[key] = processed[key]
            found.statuses[key] = KeyStatus.CACHED
        return wanted

    def _fetch_into(self, view: DeviceView, wanted: Sequence[bytes], found: _Found) -> None:
        for part in _batches(wanted):
            try:
                rows = self._fetch(view.name, view.version, part)
            except FetchFailed:
                return
            now_ms = self._cache.database.now_ms()
            for key, values in self._store(view, part, rows).items():
                found.raw[key] = values
                age_s = rows[key].age_s if key in rows else 0.0
                found.kept_at_ms[key] = now_ms - int(age_s * 1000)
                found.statuses[key] = KeyStatus.FETCHED

    def _store(
        self, view: DeviceView, keys: Sequence[bytes], rows: Mapping[bytes, FetchedRow]
    ) -> dict[bytes, Mapping[str, Value]]:
        """Keep fetched rows; a key the cloud does not know is kept as one without values."""
        values: dict[bytes, Mapping[str, Value]] = {}
        by_age: defaultdict[float, dict[EntryKey, bytes]] = defaultdict(dict)
        digest = self._rows[view.name]
        for key in keys:
            row = rows.get(key)
            known = {} if row is None else {name: row.values.get(name) for name in view.columns}
            values[key] = known
            by_age[row.age_s if row else 0.0][EntryKey(key, digest)] = encode_row(known)
        if view.policy.mode is not CacheMode.NEVER:
            now_ms = self._cache.database.now_ms()
            with self._cache.database.transaction():
                for age_s, bodies in by_age.items():
                    kept_at_ms = now_ms - int(age_s * 1000)
                    self._cache.put_all(
                        view.name,
                        bodies,
                        kept_at_ms=kept_at_ms,
                        made_of_them=self._chains(view),
                    )
        return values

    def _settle(self, view: DeviceView, wanted: Sequence[bytes], found: _Found) -> None:
        """Default or skip what is still not there."""
        defaults = {f.column: f.default for f in view.fields}
        may_default = view.policy.on_miss is not OnMiss.SKIP_EXAMPLE and None not in (
            defaults.values()
        )
        for key in wanted:
            if key in found.statuses:
                continue
            if may_default:
                found.raw[key] = defaults
            found.statuses[key] = KeyStatus.DEFAULT if may_default else KeyStatus.SKIPPED

    def _columns(
        self, view: DeviceView, keys: Sequence[bytes], found: _Found
    ) -> tuple[dict[str, Column], dict[str, tuple[list[bytes], Column]]]:
        """Every field's column, and what had to be made for it."""
        kept = [key for key in keys if found.statuses[key] is not KeyStatus.SKIPPED]
        columns, made = {}, {}
        for f in view.fields:
            ready = {
                key: found.processed[key][f.name]
                for key in dict.fromkeys(kept)
                if f.name in found.processed.get(key, {})
            }
            raw = [key for key in dict.fromkeys(kept) if key not in ready]
            parts = [decode_processed(list(ready.values()))] if ready else []
            if raw or not parts:
                values = [found.raw[key].get(f.column) for key in raw]
                column = f.chain.apply(_column_of(f, values), self._assets)
                parts.append(column)
                made[f.name] = (raw, column)
            place = {key: number for number, key in enumerate([*ready, *raw])}
            index = [place[key] for key in kept]
            columns[f.name] = Column(
                parts[0].kind,
                np.concatenate([part.values for part in parts])[index],
                np.concatenate([part.missing for part in parts])[index],
            )
        return columns, made

    def _keep_processed(
        self, view: DeviceView, made: Mapping[str, tuple[list[bytes], Column]], found: _Found
    ) -> None:
        if view.policy.mode is CacheMode.NEVER:
            return
        with_chain = {f.name for f in view.fields if f.chain.steps}
        by_age: defaultdict[int, dict[EntryKey, bytes]] = defaultdict(dict)
        for name, (keys, column) in made.items():
            if name not in with_chain:
                continue
            digests = self._digests[view.name, name]
            for row, key in enumerate(keys):
                if found.statuses[key] is not KeyStatus.DEFAULT:
                    entry = EntryKey(key, *digests)
                    by_age[found.kept_at_ms[key]][entry] = encode_processed(column, row)
        for kept_at_ms, bodies in by_age.items():
            self._cache.put_all(view.name, bodies, kept_at_ms=kept_at_ms)

    def _stale(self, view: DeviceView, keys: Sequence[bytes]) -> list[bytes]:
        """Keys whose raw row is not there, or past half of its greatest age."""
        row = self._rows[view.name]
        held = self._cache.get_all(view.name, [EntryKey(key, row) for key in keys])
        max_age_s, now_ms = view.policy.max_age_s, self._cache.database.now_ms()
        fresh = {
            entry.key
            for entry, value in held.items()
            if max_age_s is None or now_ms - value.kept_at_ms < max_age_s * 500
        }
        return [key for key in keys if key not in fresh]

    def _chains(self, view: DeviceView) -> list[bytes]:
        """Digests of what is made of the view's rows."""
        return [self._digests[view.name, f.name][0] for f in view.fields if f.chain.steps]

    def _digests_of(self, f: ViewField) -> tuple[bytes, bytes]:
        return transform_digest(f.column, f.chain), assets_digest(f.chain, self._assets)


def may_fetch(policy: CachePolicy, unmetered: bool | None) -> bool:
    """Whether a view may be fetched over the network there is; None: there is none."""
    if unmetered is None or policy.mode is CacheMode.BUNDLED:
        return False
    return unmetered or policy.network is Network.ANY


def row_digest(columns: Iterable[str]) -> bytes:
    """What tells rows of these columns from the same key's rows of others.

    Services that read different columns of a view have a row each: one of them finds no row in
    which its columns are missing only because the other had not asked for them.
    """
    return hashlib.sha256("\x00".join(sorted(columns)).encode()).digest()[:_DIGEST_BYTES]


def transform_digest(column: str, chain: TransformChain) -> bytes:
    """What tells processed values of one column and chain from all others."""
    return hashlib.sha256(column.encode() + b"\x00" + chain.sha256()).digest()[:_DIGEST_BYTES]


def assets_digest(chain: TransformChain, assets: Assets) -> bytes:
    """What tells processed values made with these versions of assets; empty without any."""
    held = [assets[name].sha256 for name in chain.asset_names if name in assets]
    return hashlib.sha256(b"".join(held)).digest()[:_DIGEST_BYTES] if held else b""


def _batches(keys: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    return (keys[start : start + _FETCH_KEYS] for start in range(0, len(keys), _FETCH_KEYS))


def _column_of(f: ViewField, values: Sequence[Value]) -> Column:
    """A field's values as a column; a missing one of several elements has all of them missing."""
    rows = [np.full(f.shape, None, object).tolist() if value is None else value for value in values]
    array = np.array(rows, object)
    if rows and array.shape != (len(rows), *f.shape):
        raise UnsuitableColumn(
            f"a value of {f.name} has another shape than {f.shape}, which its view says; "
            "correct the view's field or its source"
        )
    return Column.of(array.reshape(len(rows), *f.shape), kind=f.kind)
