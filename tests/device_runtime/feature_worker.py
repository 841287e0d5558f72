"""A process that puts, gets and evicts at random until it is killed; it checks every step itself.

Each value tells what it is and when it was put, so that one which is torn, of another key or too
old is known as such. The clock is the number of steps, so it goes on where a killed process
stopped. The number of steps done lies in a mapped file, which survives SIGKILL.

    python -m tests.device_runtime.feature_worker FOLDER SEED STEPS
"""

import hashlib
import mmap
import random
import struct
import sys
from collections import Counter
from pathlib import Path

from device_runtime.age_clock import TimeReading
from device_runtime.feature_cache import CachedView, CacheLimits, EntryKey, FeatureCache
from device_runtime.feature_database import FeatureDatabase
from device_runtime.feature_policies import CachePolicy, OnFull, Retention
from device_runtime.retained_records import RetainedRecords

STEP_MS = 40
APP = "com.example.feed"
VIEWS = (
    CachedView("rows", 1, CachePolicy(max_rows=20, max_age_s=20)),
    CachedView("bytes", 1, CachePolicy(max_bytes=12_000, max_age_s=60)),
    CachedView("free", 1, CachePolicy()),
)
LIMITS = CacheLimits(max_bytes=40_000, max_rows=70)
RETENTIONS = {
    "oldest": Retention(max_age_s=30, max_records=25, max_bytes=9_000),
    "new": Retention(max_age_s=10, max_records=12, max_bytes=6_000, on_full=OnFull.DROP_NEWEST),
}
KEYS = 60


class StepTime:
    """The device's clocks, moved by steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    def __call__(self) -> TimeReading:
        return TimeReading("one boot", self.step * STEP_MS, 10**12 + self.step * STEP_MS)


class World:
    """The file under test, opened as a device does."""

    def __init__(self, folder: Path, step: int) -> None:
        self.time = StepTime(step)
        self.database = FeatureDatabase(folder / "features.sqlite", read_time=self.time)
        self.cache = FeatureCache(self.database, APP, VIEWS, LIMITS)
        self.streams = {
            name: RetainedRecords(self.database, name, retention)
            for name, retention in RETENTIONS.items()
        }

    def wrongs_of_limits(self) -> list[str]:
        """Limits exceeded by what is committed."""
        found = []
        bounds = [("entries", (), LIMITS.max_rows, LIMITS.max_bytes)]
        bounds += [("entries", (APP, v.name), v.policy.max_rows, v.policy.max_bytes) for v in VIEWS]
        bounds += [
            ("records", (name,), r.max_records, r.max_bytes) for name, r in RETENTIONS.items()
        ]
        for part, names, max_rows, max_bytes in bounds:
            rows, total_bytes = self.database.totals(part, *names)
            if rows > (max_rows or rows) or total_bytes > (max_bytes or total_bytes):
                found.append(f"{part} {names}: {rows} rows, {total_bytes} bytes")
        return found

    def wrongs_of_values(self) -> list[str]:
        """Whatever could be read now and should not."""
        found = []
        for view in VIEWS:
            for number in range(KEYS):
                for entry in (EntryKey(key_of(number)), made_of(key_of(number))):
                    value = self.cache.get(view.name, entry)
                    if value is not None:
                        found += self.wrongs_of(view.name, entry, value.body)
        for name, stream in self.streams.items():
            for record in stream.newest(1000):
                body_step = int(record.body.split(b"|")[2])
                if record.body != body_of(name, b"", body_step, len(record.body)):
                    found.append(f"{name}: torn record {record.number}")
                max_age_s = RETENTIONS[name].max_age_s or 1e9
                if (self.time.step - body_step) * STEP_MS >= max_age_s * 1000:
                    found.append(f"{name}: record {record.number} of step {body_step} is too old")
        return found

    def wrongs_of(self, view: str, entry: EntryKey, body: bytes) -> list[str]:
        """What is wrong with a value that was returned."""
        step = int(body.split(b"|")[2])
        if body != body_of(view, entry.key + entry.transform, step, len(body)):
            return [f"{view} {entry.key!r}: torn or another's"]
        max_age_s = next(v.policy.max_age_s for v in VIEWS if v.name == view)
        if max_age_s is not None and (self.time.step - step) * STEP_MS >= max_age_s * 1000:
            return [f"{view} {entry.key!r}: of step {step}, read at {self.time.step}: too old"]
        return []

    def take_step(self, draws: random.Random) -> tuple[str, list[str]]:
        """One random step; its name and what it found wrong."""
        view = draws.choice(VIEWS).name
        key = key_of(min(int(draws.expovariate(0.08)), KEYS - 1))
        size = draws.choice((60, 200, 700, 1500))
        what = draws.random()
        if what < 0.40:
            body = body_of(view, key, self.time.step, size)
            self.cache.put(view, EntryKey(key), body)
            return "put", []
        if what < 0.75:
            value = self.cache.get(view, EntryKey(key))
            if value is None:
                return "miss", []
            step = int(value.body.split(b"|")[2])
            made = body_of(view, key + b"made", step, 100)
            if self.cache.get(view, made_of(key)) is None:
                self.cache.put(view, made_of(key), made, kept_at_ms=value.kept_at_ms)
            return "hit", self.wrongs_of(view, EntryKey(key), value.body)
        if what < 0.80:
            keys = [key_of(draws.randrange(KEYS)) for _ in range(8)]
            bodies = {EntryKey(k): body_of(view, k, self.time.step, size) for k in keys}
            self.cache.put_all(view, bodies)
            return "put_all", []
        if what < 0.85:
            self.cache.remove(view, key)
            return "remove", []
        if what < 0.88:
            self.cache.expire()
            return "expire", []
        name = draws.choice(sorted(self.streams))
        self.streams[name].append(body_of(name, b"", self.time.step, size))
        return "append", []


def key_of(number: int) -> bytes:
    return b"key %d" % number


def made_of(key: bytes) -> EntryKey:
    return EntryKey(key, b"made", b"assets")


def body_of(view: str, key: bytes, step: int, size: int) -> bytes:
    head = b"%s|%s|%d|" % (view.encode(), key, step)
    return (head + hashlib.shake_128(head).digest(size))[:size]


def main() -> None:
    folder, seed, steps = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    with (folder / "steps").open("r+b") as file, mmap.mmap(file.fileno(), 8) as done:
        first = struct.unpack("<q", done[:8])[0]
        world = World(folder, first)
        draws = random.Random(f"{seed} {first}")
        counts: Counter[str] = Counter()
        for step in range(first, steps):
            world.time.step = step
            name, wrongs = world.take_step(draws)
            counts[name] += 1
            wrongs += world.wrongs_of_limits()
            if wrongs:
                sys.exit(f"step {step}, {name}: {'; '.join(wrongs)}")
            done[:8] = struct.pack("<q", step + 1)
        world.database.close()


if __name__ == "__main__":
    main()
