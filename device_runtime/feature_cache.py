"""Cached cloud features and processed values on a device: least recently used out first.

An entry is what the cloud says of one view's key, or what one chain of transforms made of it; the
latter's key also holds the chain's digest and its assets' digests, so a new version of any of them
finds nothing old. A processed value is as old as what it was made of. Entries belong to the app
that stored them; another app reads them only if the owner's view names it in ``audience``, and such
reads are counted. A limit holds in the transaction that could break it (see `FeatureDatabase`).
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from device_runtime.feature_database import FeatureDatabase
from device_runtime.feature_policies import CacheMode, CachePolicy

ENTRY_OVERHEAD_BYTES = 192
"""What the file spends on an entry besides body, key and names: columns and five index rows."""
_CHECKSUM_BYTES = 16
_MAX_TOUCHED = 512
_LOOK_UP_KEYS = 200
_LOOK_UP = """
SELECT key, id, app, kept_at_ms, checksum, body FROM entries
WHERE view = ? AND version = ? AND key IN (:keys) AND transform = ? AND assets = ? AND (
    app = ? OR EXISTS (
        SELECT 1 FROM audiences
        WHERE audiences.app = entries.app AND audiences.view = entries.view AND reader = ?))
ORDER BY app != ?, kept_at_ms DESC
"""


@dataclass(frozen=True, slots=True)
class CacheLimits:
    """What one file may hold of entries, of all views together."""

    max_bytes: int = 16 * 2**20
    max_rows: int = 100_000


@dataclass(frozen=True, slots=True)
class CachedView:
    """One view's rules on this device.

    Attributes:
        audience: Other apps that may read what this app has stored of the view.
    """

    name: str
    version: int
    policy: CachePolicy
    audience: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class EntryKey:
    """What an entry is of, within its view.

    Attributes:
        key: The entity's join key values, encoded.
        transform: Digest of what a value went through, see `feature_reader.transform_digest`; of a
            row as the cloud says it, of its columns, see `feature_reader.row_digest`, or empty.
        assets: Digest of the assets it was made with, see `assets_digest`; empty without any.
    """

    key: bytes
    transform: bytes = b""
    assets: bytes = b""


@dataclass(frozen=True, slots=True)
class CachedValue:
    """What was found.

    Attributes:
        kept_at_ms: When it was true in the cloud, by the file's age clock.
    """

    body: bytes
    kept_at_ms: int


@dataclass(slots=True)
class CacheCounts:
    """What a cache has done since it was opened."""

    hits: int = 0
    misses: int = 0
    evicted: int = 0
    expired: int = 0
    torn: int = 0
    refused: int = 0


@dataclass(slots=True)
class _Use:
    """Order of use: kept in memory and written with the next change, since it may be lost."""

    latest: int
    touched: dict[int, int] = field(default_factory=dict)


class FeatureCache:
    """One app's view of a cache file. Works offline: it fetches nothing by itself."""

    def __init__(
        self,
        database: FeatureDatabase,
        app: str,
        views: Iterable[CachedView],
        limits: CacheLimits = CacheLimits(),
    ) -> None:
        """Take up what is there; what a changed rule does not allow any more is deleted.

        Args:
            database: May be shared with other apps.
            app: Whose entries these are, e.g. ``com.example.feed``.
            views: Whatever is to be cached; entries of this app of other views or versions go.
            limits: Of the whole file.
        """
        self.counts = CacheCounts()
        self._database = database
        self._app = app
        self._views = {view.name: view for view in views}
        self._limits = limits
        with database.transaction() as connection:
            latest = connection.execute("SELECT max(used) FROM entries").fetchone()[0]
            self._use = _Use(latest or 0)
            self._take_up_views()
            self.expire()

    def get(self, view: str, entry: EntryKey) -> CachedValue | None:
        """Find an entry, see `get_all`."""
        return self.get_all(view, [entry]).get(entry)

    def get_all(self, view: str, entries: Sequence[EntryKey]) -> dict[EntryKey, CachedValue]:
        """Find entries that are not too old: one's own, else of an app that allows it."""
        rules = self._views[view]
        made: defaultdict[tuple[bytes, bytes], list[bytes]] = defaultdict(list)
        for entry in dict.fromkeys(entries):
            made[entry.transform, entry.assets].append(entry.key)
        found: dict[EntryKey, CachedValue] = {}
        with self._database.reading():
            for (transform, assets), keys in made.items():
                for start in range(0, len(keys), _LOOK_UP_KEYS):
                    part = keys[start : start + _LOOK_UP_KEYS]
                    for row in self._rows(rules, part, transform, assets):
                        entry = EntryKey(row[0], transform, assets)
                        if entry not in found:
                            self._take(rules, entry, row, found)
            self.counts.hits += len(found)
            self.counts.misses += len(set(entries)) - len(found)
            if len(self._use.touched) >= _MAX_TOUCHED:
                with self._database.transaction():
                    self._write_use()
        return found

    def put(
        self, view: str, entry: EntryKey, body: bytes, *, kept_at_ms: int | None = None
    ) -> bool:
        """Store an entry in place of the one that is there; see `put_all`."""
        return self.put_all(view, {entry: body}, kept_at_ms=kept_at_ms) == 1

    def put_all(
        self,
        view: str,
        bodies: Mapping[EntryKey, bytes],
        *,
        kept_at_ms: int | None = None,
        made_of_them: Sequence[bytes] = (),
    ) -> int:
        """Store entries of one age, in one transaction.

        Args:
            view: Of which.
            bodies: What to store.
            kept_at_ms: When they were true, by the age clock: a source's for a processed value;
                now if None.
            made_of_them: Digests of the chains whose values were made of what was there before;
                these go with it. All of a key's values go with an entry without a digest.

        Returns:
            How many are stored. One that is alone too large, too old or of a view that is never
            cached is not, and what was there of it is gone. What the cloud says anew takes what
            was made of the old with it.
        """
        rules = self._views[view]
        with self._database.transaction():
            self._write_use()
            now_ms = self._database.now_ms()
            when_ms = now_ms if kept_at_ms is None else min(kept_at_ms, now_ms)
            stored = 0
            for entry, body in bodies.items():
                self._make_way(rules, entry, made_of_them)
                stored += self._put(rules, entry, body, when_ms)
        self.counts.refused += len(bodies) - stored
        return stored

    def remove(self, view: str, key: bytes) -> None:
        """Delete everything this app has of a key, whatever it was made into."""
        with self._database.transaction() as connection:
            connection.execute(
                "DELETE FROM entries WHERE view = ? AND key = ? AND app = ?", (view, key, self._app)
            )

    def clear(self) -> None:
        """Delete everything of this app."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM entries WHERE app = ?", (self._app,))

    def expire(self) -> int:
        """Delete what is too old or over a limit; returns how many entries were too old."""
        with self._database.transaction():
            self._write_use()
            expired = sum(self._expire(rules) for rules in self._views.values())
            for rules in self._views.values():
                self._evict(rules, 0)
            self._evict_from_file(0)
        return expired

    def totals(self, view: str | None = None) -> tuple[int, int]:
        """Entries and bytes of a view that are this app's, or of the whole file."""
        return self._database.totals("entries", *([] if view is None else [self._app, view]))

    def reads_across_apps(self) -> dict[tuple[str, str, str], int]:
        """How often an app has read another's entries: (owner, view, reader) → reads."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT app, view, reader, reads FROM reads_across_apps")
            return {(owner, view, reader): reads for owner, view, reader, reads in rows}

    @property
    def database(self) -> FeatureDatabase:
        """The file."""
        return self._database

    def _make_way(self, rules: CachedView, entry: EntryKey, made_of_it: Sequence[bytes]) -> None:
        """Delete what an entry takes the place of, and what was made of that."""
        connection = self._database.connection
        what = "DELETE FROM entries WHERE view = ? AND version = ? AND key = ? AND app = ?"
        of_key = (rules.name, rules.version, entry.key, self._app)
        if not entry.transform:
            connection.execute(what, of_key)
            return
        made = (*of_key, entry.transform, entry.assets)
        connection.execute(f"{what} AND transform = ? AND assets = ?", made)
        if made_of_it:
            marks = ",".join("?" * len(made_of_it))
            connection.execute(f"{what} AND transform IN ({marks})", (*of_key, *made_of_it))

    def _put(self, rules: CachedView, entry: EntryKey, body: bytes, kept_at_ms: int) -> bool:
        connection = self._database.connection
        size = entry_bytes(self._app, rules.name, entry, body)
        if (
            rules.policy.mode is CacheMode.NEVER
            or self._is_too_old(rules, kept_at_ms)
            or size > (rules.policy.max_bytes or size)
            or size > self._limits.max_bytes
        ):
            return False
        self._expire(rules)
        self._evict(rules, size)
        self._use.latest += 1
        connection.execute(
            "INSERT INTO entries (app, view, version, key, transform, assets, kept_at_ms, used, "
            "bytes, checksum, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(self._app, rules.name, rules.version, entry.key, entry.transform, entry.assets),
                *(kept_at_ms, self._use.latest, size),
                *(_checksum(self._app, rules, entry, kept_at_ms, body), body),
            ),
        )
        return True

    def _evict(self, rules: CachedView, size: int) -> None:
        """Make room for ``size`` bytes: first within the view's limits, then within the file's."""
        policy = rules.policy
        of_view = "SELECT id, bytes FROM entries WHERE app = ? AND view = ? ORDER BY used"
        held = self.totals(rules.name)
        limits = (policy.max_rows, policy.max_bytes)
        self._evict_from(of_view, (self._app, rules.name), held, limits, size)
        self._evict_from_file(size)

    def _evict_from_file(self, size: int) -> None:
        held = self._database.totals("entries")
        of_file = "SELECT id, bytes FROM entries ORDER BY used"
        limits = (self._limits.max_rows, self._limits.max_bytes)
        self._evict_from(of_file, (), held, limits, size)

    def _evict_from(
        self,
        query: str,
        values: tuple[str, ...],
        held: tuple[int, int],
        limits: tuple[int | None, int | None],
        size: int,
    ) -> None:
        rows, total_bytes = held[0] + (size > 0), held[1] + size
        max_rows, max_bytes = limits
        going: list[tuple[int]] = []
        connection = self._database.connection
        for number, its_bytes in connection.execute(query, values):
            if (max_rows is None or rows <= max_rows) and (
                max_bytes is None or total_bytes <= max_bytes
            ):
                break
            going.append((number,))
            rows -= 1
            total_bytes -= its_bytes
        connection.executemany("DELETE FROM entries WHERE id = ?", going)
        self.counts.evicted += len(going)

    def _expire(self, rules: CachedView) -> int:
        if rules.policy.max_age_s is None:
            return 0
        gone = self._database.connection.execute(
            "DELETE FROM entries WHERE app = ? AND view = ? AND kept_at_ms <= ?",
            (self._app, rules.name, self._database.now_ms() - int(rules.policy.max_age_s * 1000)),
        ).rowcount
        self.counts.expired += gone
        return gone

    def _is_too_old(self, rules: CachedView, kept_at_ms: int) -> bool:
        age_ms = self._database.now_ms() - kept_at_ms
        return rules.policy.max_age_s is not None and age_ms >= int(rules.policy.max_age_s * 1000)

    def _take_up_views(self) -> None:
        connection = self._database.connection
        connection.execute("DELETE FROM audiences WHERE app = ?", (self._app,))
        connection.executemany(
            "INSERT INTO audiences VALUES (?, ?, ?)",
            [
                (self._app, view.name, reader)
                for view in self._views.values()
                for reader in sorted(view.audience)
            ],
        )
        held = connection.execute(
            "SELECT DISTINCT view, version FROM entries WHERE app = ?", (self._app,)
        ).fetchall()
        for name, version in held:
            rules = self._views.get(name)
            if rules is None or rules.version != version or rules.policy.mode is CacheMode.NEVER:
                connection.execute(
                    "DELETE FROM entries WHERE app = ? AND view = ? AND version = ?",
                    (self._app, name, version),
                )

    def _rows(
        self, rules: CachedView, keys: Sequence[bytes], transform: bytes, assets: bytes
    ) -> list[tuple[bytes, int, str, int, bytes, bytes]]:
        """Entries this app may read, its own first, then the freshest."""
        query = _LOOK_UP.replace(":keys", ",".join("?" * len(keys)))
        values = (rules.name, rules.version, *keys, transform, assets, *[self._app] * 3)
        with self._database.reading() as connection:
            return connection.execute(query, values).fetchall()

    def _take(
        self,
        rules: CachedView,
        entry: EntryKey,
        row: tuple[bytes, int, str, int, bytes, bytes],
        found: dict[EntryKey, CachedValue],
    ) -> None:
        """Add a row to what is found, if it is sound and not too old."""
        _, number, owner, kept_at_ms, checksum, body = row
        if self._is_too_old(rules, kept_at_ms):
            return
        if checksum != _checksum(owner, rules, entry, kept_at_ms, body):
            self.counts.torn += 1
            self._delete(number)
            return
        if owner != self._app:
            self._count_read_across_apps(owner, rules.name)
        self._use.latest += 1
        self._use.touched[number] = self._use.latest
        found[entry] = CachedValue(body, kept_at_ms)

    def _write_use(self) -> None:
        self._database.connection.executemany(
            "UPDATE entries SET used = ? WHERE id = ?",
            [(used, number) for number, used in self._use.touched.items()],
        )
        self._use.touched.clear()

    def _count_read_across_apps(self, owner: str, view: str) -> None:
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO reads_across_apps VALUES (?, ?, ?, 1) "
                "ON CONFLICT (app, view, reader) DO UPDATE SET reads = reads + 1",
                (owner, view, self._app),
            )

    def _delete(self, number: int) -> None:
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM entries WHERE id = ?", (number,))


def entry_bytes(app: str, view: str, entry: EntryKey, body: bytes) -> int:
    """Bytes an entry counts as: content, columns and index rows, and what pages have left over.

    The file takes 0.7 to 1.4 times what its entries count as (measured, bodies of 30 to 1,000
    bytes).
    """
    names = len(app.encode()) + len(view.encode())
    keys = len(entry.key) + len(entry.transform) + len(entry.assets)
    # Names and keys stand in the row and in the unique index.
    return len(body) + len(body) // 8 + 2 * (names + keys) + ENTRY_OVERHEAD_BYTES


def _checksum(app: str, view: CachedView, entry: EntryKey, kept_at_ms: int, body: bytes) -> bytes:
    of_what = (app, view.name, view.version, entry.key, entry.transform, entry.assets, kept_at_ms)
    digest = hashlib.sha256(repr(of_what).encode())
    digest.update(body)
    return digest.digest()[:_CHECKSUM_BYTES]
