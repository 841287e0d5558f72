"""Caches replayed, beside a device's real cache and a plain loop."""

from collections import defaultdict

import numpy as np
import pytest

from device_runtime.feature_cache import CachedView, EntryKey, FeatureCache
from device_runtime.feature_database import FeatureDatabase
from device_runtime.feature_policies import CacheMode, CachePolicy
from feature_catalog.locality.coded_columns import MISSING
from feature_catalog.locality.replay import replay
from tests.device_runtime.set_time import SetTime

CLIENTS, READS = 4, 400


@pytest.fixture
def reads():
    """Key, client and time of reads, out of the order of time; some rows have no key."""
    rng = np.random.default_rng(11)
    key = (40 * rng.random(READS) ** 2).astype(np.int64)
    key[rng.random(READS) < 0.05] = MISSING
    times_s = rng.permutation(READS) * 10.0
    return key, rng.integers(0, CLIENTS, READS), times_s


def cached_reads(folder, key, client, times_s, *, rows, max_age_s=None):
    """Reads that a device's real cache has, one file a client."""
    hits = 0
    for each in range(CLIENTS):
        time = SetTime()
        database = FeatureDatabase(folder / f"{each}.sqlite", read_time=time)
        policy = CachePolicy(CacheMode.ON_DEMAND, max_age_s=max_age_s, max_rows=rows)
        cache = FeatureCache(database, "app", [CachedView("ads", 1, policy)])
        now_s = 0.0
        for row in np.argsort(times_s):
            if client[row] != each or key[row] == MISSING:
                continue
            time.pass_s(times_s[row] - now_s)
            now_s = times_s[row]
            entry = EntryKey(int(key[row]).to_bytes(4, "big"))
            if cache.get("ads", entry) is None:
                cache.put("ads", entry, b"row")
            else:
                hits += 1
        database.close()
    return hits


@pytest.mark.parametrize("rows", [2, 16])
@pytest.mark.parametrize("max_age_s", [None, 700.0])
def test_a_replay_has_the_hits_of_a_devices_cache(tmp_path, reads, rows, max_age_s):
    key, client, times_s = reads
    order = np.argsort(times_s)
    found = replay(key, client, order, [rows], times_s=times_s, max_age_s=max_age_s)
    hits = cached_reads(tmp_path, key, client, times_s, rows=rows, max_age_s=max_age_s)
    assert found.hit_share == {rows: hits / found.reads}


def test_without_a_limit_only_first_reads_miss(reads):
    key, client, times_s = reads
    found = replay(key, client, np.argsort(times_s), [64])
    there = key != MISSING
    keys = defaultdict(set)
    for k, c in zip(key[there].tolist(), client[there].tolist(), strict=True):
        keys[c].add(k)
    distinct = sum(map(len, keys.values()))
    assert found.unlimited_hit_share == found.hit_share[64] == 1 - distinct / there.sum()
    assert (found.reads, found.clients) == (there.sum(), CLIENTS)
    assert found.keys_per_client == distinct / CLIENTS
    assert found.keys == len(set(key[there].tolist()))


def test_no_reads_are_no_division_by_zero():
    nothing = np.full(3, MISSING)
    found = replay(nothing, np.zeros(3, np.int64), np.arange(3), [4])
    assert (found.reads, found.clients, found.hit_share[4]) == (0, 0, 0.0)
