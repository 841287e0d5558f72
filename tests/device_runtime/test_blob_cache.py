import hashlib
import os
import time

import pytest

from device_runtime.blob_cache import BlobCache, BlobRefused


def digest_of(blob: bytes) -> bytes:
    return hashlib.sha256(blob).digest()


def test_a_blob_is_found_by_its_digest_and_by_other_processes_too(tmp_path):
    digest = BlobCache(tmp_path, 1000).put(b"model")
    other = BlobCache(tmp_path, 1000)
    assert other.read(digest) == b"model"
    assert other.path(digest).read_bytes() == b"model"
    assert other.read(digest_of(b"another")) is None
    assert other.path(digest_of(b"another")) is None


@pytest.mark.parametrize("look", ["path", "read"])
def test_a_damaged_blob_is_as_good_as_absent(tmp_path, look):
    cache = BlobCache(tmp_path, 1000)
    digest = cache.put(b"model")
    cache.path(digest).write_bytes(b"mXdel")
    assert getattr(cache, look)(digest) is None
    assert list(tmp_path.iterdir()) == []


def test_bytes_that_are_not_what_was_asked_for_are_not_kept(tmp_path):
    cache = BlobCache(tmp_path, 1000)
    with pytest.raises(BlobRefused):
        cache.receive(digest_of(b"model"), [b"mod", b"al"])
    assert list(tmp_path.iterdir()) == []
    assert cache.partial_bytes(digest_of(b"model")) == 0


def test_a_broken_off_transfer_goes_on_where_it_stopped(tmp_path):
    cache = BlobCache(tmp_path, 1000)
    digest = digest_of(b"a model")

    def breaks_off():
        yield b"a mo"
        raise ConnectionError

    with pytest.raises(ConnectionError):
        cache.receive(digest, breaks_off())
    assert cache.path(digest) is None
    assert cache.partial_bytes(digest) == 4
    assert cache.receive(digest, [b"del"]).read_bytes() == b"a model"


def test_a_blob_larger_than_the_cache_stops_early(tmp_path):
    def endless():
        while True:
            yield b"x" * 400

    with pytest.raises(BlobRefused):
        BlobCache(tmp_path, 1000).receive(digest_of(b"model"), endless())
    assert list(tmp_path.iterdir()) == []


def test_the_least_recently_used_go_first_and_the_newest_stays(tmp_path):
    cache = BlobCache(tmp_path, 1000)
    digests = []
    for number in range(3):
        digests.append(cache.put(bytes([number]) * 300))
        age(cache.path(digests[-1]), 100 - number)
    assert cache.read(digests[0]) is not None  # used now, so the second is the oldest
    digests.append(cache.put(b"n" * 300))
    assert [cache.read(d) is not None for d in digests] == [True, False, True, True]
    cache.put(b"m" * 1000)
    assert [cache.read(d) is not None for d in digests] == [False] * 4
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1000


def test_what_a_dead_process_left_half_done_is_removed_once_it_is_old(tmp_path):
    old, fresh = tmp_path / "aa.1.partial", tmp_path / "bb.2.partial"
    old.touch()
    fresh.touch()
    age(old, 2 * 3600)
    BlobCache(tmp_path, 1000)
    assert [path.name for path in tmp_path.iterdir()] == ["bb.2.partial"]


def age(path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_half_a_blob_of_a_process_that_has_ended_is_taken_up_and_of_one_that_runs_is_not(tmp_path):
    cache = BlobCache(tmp_path, 1000)
    digest = digest_of(b"a model")
    ended, runs = (tmp_path / f"{digest.hex()}.{pid}.partial" for pid in (4_194_304, 1))
    runs.write_bytes(b"a m")
    cache.adopt_partial(digest)
    assert cache.partial_bytes(digest) == 0
    ended.write_bytes(b"a mo")
    cache.adopt_partial(digest)
    assert cache.partial_bytes(digest) == 4
    assert not ended.exists()
    assert cache.receive(digest, [b"del"]).read_bytes() == b"a model"
    cache.adopt_partial(digest)
    assert runs.exists()


def test_a_partial_that_is_given_up_is_gone(tmp_path):
    cache = BlobCache(tmp_path, 1000)
    digest = digest_of(b"a model")
    cache.receive(digest_of(b"a mo"), [b"a mo"]).rename(
        tmp_path / f"{digest.hex()}.{os.getpid()}.partial"
    )
    assert cache.partial_bytes(digest) == 4
    cache.forget_partial(digest)
    cache.forget_partial(digest)
    assert cache.partial_bytes(digest) == 0
