"""A process killed at any moment leaves a feature file that is sound and within its limits."""

import sqlite3

from device_runtime.feature_cache import EntryKey
from tests.device_runtime.feature_kills import run_kills
from tests.device_runtime.feature_worker import World, body_of, key_of


def test_kills_at_random_moments_break_no_limit_and_tear_no_value(tmp_path):
    figures = run_kills(tmp_path, steps=1500, seed=11, steps_a_kill=200, least_kills=5)
    assert figures.wrongs == []
    assert figures.steps >= 1500
    assert figures.kills >= 5
    assert figures.observed > 0
    assert figures.values_checked > 50


def test_the_check_itself_notices_a_torn_a_foreign_and_an_expired_value(tmp_path):
    world = World(tmp_path, step=100)
    entry = EntryKey(key_of(1))
    assert world.wrongs_of("rows", entry, body_of("rows", entry.key, 100, 200)) == []
    assert world.wrongs_of("rows", entry, body_of("rows", entry.key, 100, 200)[:-1] + b"?")
    assert world.wrongs_of("rows", entry, body_of("rows", key_of(2), 100, 200))
    world.time.step = 100 + 20_000 // 40
    assert world.wrongs_of("rows", entry, body_of("rows", entry.key, 100, 200))


def test_the_check_itself_notices_an_exceeded_limit(tmp_path):
    world = World(tmp_path, step=0)
    assert world.wrongs_of_limits() == []
    with sqlite3.connect(tmp_path / "features.sqlite") as raw:
        raw.execute("INSERT INTO totals VALUES ('records', 'new', 13, 100)")
    assert world.wrongs_of_limits() == ["records ('new',): 13 rows, 100 bytes"]
