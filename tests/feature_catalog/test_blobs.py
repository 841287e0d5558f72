"""The blob store keeps exactly what was put, and notices when a disk did not."""

import hashlib
import os
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_catalog.blobs import BlobStore, BlobStoreUnreachable, CorruptBlob, MissingBlob

# One store for all examples is what is meant: blobs of different bytes must not meet.
SHARED_STORE = [HealthCheck.function_scoped_fixture, HealthCheck.differing_executors]


class BlobStoreContract:
    """What every kind of store must do."""

    @settings(max_examples=40, suppress_health_check=SHARED_STORE)
    @given(data=st.binary(max_size=3000))
    def test_what_was_put_is_got_under_its_sha256(self, store: BlobStore, data: bytes) -> None:
        digest = store.put(data)
        assert digest == hashlib.sha256(data).digest()
        assert store.get(digest) == data
        assert store.exists(digest)
        assert store.size(digest) == len(data)
        with store.open(digest) as stream:
            assert stream.read() == data

    def test_a_file_and_its_bytes_are_the_same_blob(self, store: BlobStore, tmp_path: Path) -> None:
        data = bytes(range(256)) * 5000
        (tmp_path / "file").write_bytes(data)
        assert store.put_file(tmp_path / "file") == store.put(data)
        assert store.get(store.put_file(tmp_path / "file")) == data

    def test_an_unknown_digest_is_missing(self, store: BlobStore) -> None:
        unknown = hashlib.sha256(b"never put").digest()
        assert not store.exists(unknown)
        for look in (store.get, store.open, store.size):
            with pytest.raises(MissingBlob, match=unknown.hex()):
                look(unknown)

    def test_a_deleted_blob_is_gone_and_may_be_put_again(self, store: BlobStore) -> None:
        digest, other = store.put(b"checkpoint"), store.put(b"model")
        store.delete(digest)
        assert not store.exists(digest)
        store.delete(digest)  # a second time is nothing
        assert store.get(other) == b"model"
        assert store.get(store.put(b"checkpoint")) == b"checkpoint"


class TestLocalDirectory(BlobStoreContract):
    @pytest.fixture
    def store(self, blobs: BlobStore) -> BlobStore:
        return blobs

    def test_a_file_url_is_the_same_store(self, store: BlobStore, tmp_path: Path) -> None:
        digest = store.put(b"model")
        assert BlobStore(f"file://{tmp_path}/blobs").get(digest) == b"model"
        assert (tmp_path / "blobs" / digest.hex()[:2] / digest.hex()).read_bytes() == b"model"

    def test_a_flipped_bit_is_noticed_and_putting_again_mends_it(self, store: BlobStore) -> None:
        digest = store.put(b"model parameters")
        path = store.local_path(digest)
        assert path is not None
        path.write_bytes(b"model parametert")
        with pytest.raises(CorruptBlob, match="damaged"):
            store.get(digest)
        with pytest.raises(CorruptBlob):
            store.local_path(digest)
        store.put(b"model parameters")
        assert store.get(digest) == b"model parameters"

    def test_many_writers_of_one_blob_leave_one_whole_file(
        self, store: BlobStore, tmp_path: Path
    ) -> None:
        data = b"x" * 300_000
        threads = [threading.Thread(target=store.put, args=(data,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        files = [p for p in (tmp_path / "blobs").rglob("*") if p.is_file()]
        assert [p.read_bytes() for p in files] == [data]

    def test_a_place_that_cannot_be_written_is_said_in_one_sentence(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(BlobStoreUnreachable, match="cannot be used"):
            BlobStore(str(tmp_path / "file" / "blobs")).put(b"data")


class TestObjectStore(BlobStoreContract):
    @pytest.fixture
    def store(self) -> BlobStore:
        return BlobStore(f"memory://{uuid.uuid4().hex}")

    def test_it_has_no_file_to_map(self, store: BlobStore) -> None:
        assert store.local_path(store.put(b"data")) is None


def test_an_unknown_kind_of_url_is_refused() -> None:
    with pytest.raises(BlobStoreUnreachable, match="nosuch"):
        BlobStore("nosuch://bucket")


def test_what_a_killed_process_left_half_written_is_removed_once_it_is_old(tmp_path: Path) -> None:
    store = BlobStore(str(tmp_path))
    digest = store.put(b"whole")
    (tmp_path / ".new-left").write_bytes(b"half a blo")
    (tmp_path / ".new-now").write_bytes(b"being writ")
    an_hour_ago_s = time.time() - 3601
    os.utime(tmp_path / ".new-left", (an_hour_ago_s, an_hour_ago_s))
    assert store.remove_drafts() == 1
    assert store.remove_drafts() == 0
    assert [path.name for path in tmp_path.glob(".new-*")] == [".new-now"]
    assert store.get(digest) == b"whole"
    assert BlobStore("memory://drafts").remove_drafts() == 0


def test_a_full_disk_is_said_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    """A limit on the size of files is to the writer what a full disk is."""
    script = (
        "import resource, sys\n"
        "from feature_catalog.blobs import BlobStore, BlobStoreUnreachable\n"
        "store = BlobStore(sys.argv[1])\n"
        "limit = resource.getrlimit(resource.RLIMIT_FSIZE)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))\n"
        "try:\n"
        "    store.put(bytes(100_000))\n"
        "except BlobStoreUnreachable as error:\n"
        "    print(error)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, limit)\n"
        "print(store.put(bytes(100_000)).hex())\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said, digest = done.stdout.splitlines()
    assert "File too large" in said
    assert "has space; [FLN-1237]" in said or "has space [FLN-1237]" in said
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == [digest]
