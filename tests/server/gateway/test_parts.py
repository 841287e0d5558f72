"""The gateway's small parts: cache, barrier, outbox, answers, reasons."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from server.coordination.tasks import Grant, Outcome
from server.fleet_protocol import fleet_pb2 as pb
from server.gateway.answers import Answer, AnswerBook
from server.gateway.blob_cache import BlobCache
from server.gateway.device_reasons import DeviceReasons
from server.gateway.fold_barrier import FoldBarrier
from server.gateway.grants import GrantBook
from server.gateway.outbox import Outbox
from server.update_gate.rejections import RejectionReason


class CountingStore:
    def __init__(self) -> None:
        self.reads: list[bytes] = []
        self.gate = threading.Event()
        self.gate.set()

    def get(self, digest: bytes) -> bytes:
        self.reads.append(digest)
        assert self.gate.wait(10)
        if digest == b"missing":
            raise KeyError("missing")
        return digest * 100


def test_a_blob_many_devices_ask_for_at_once_is_read_once():
    store = CountingStore()
    store.gate.clear()
    cache = BlobCache(store)
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(cache.get, b"v1") for _ in range(8)]
        store.gate.set()
        assert {future.result() for future in asked} == {b"v1" * 100}
    assert store.reads == [b"v1"]


def test_the_blobs_least_used_are_forgotten_first():
    store = CountingStore()
    cache = BlobCache(store, max_bytes=500)
    for digest in (b"aa", b"bb", b"aa", b"cc", b"aa", b"bb"):
        cache.get(digest)
    assert store.reads == [b"aa", b"bb", b"cc", b"bb"]


def test_a_blob_larger_than_the_cache_is_given_and_not_kept():
    store = CountingStore()
    cache = BlobCache(store, max_bytes=10)
    assert cache.get(b"aa") == cache.get(b"aa")
    assert len(store.reads) == 2


def test_a_failed_read_is_raised_and_tried_again():
    store = CountingStore()
    cache = BlobCache(store)
    for _ in range(2):
        with pytest.raises(KeyError):
            cache.get(b"missing")
    assert len(store.reads) == 2


def test_an_order_waits_for_running_uploads_and_goes_before_new_ones():
    barrier, happened = FoldBarrier(), []
    uploading, finish = threading.Event(), threading.Event()

    def upload() -> None:
        with barrier.upload():
            uploading.set()
            assert finish.wait(10)
            happened.append("upload")

    def order() -> None:
        with barrier.order():
            happened.append("order")

    def late_upload() -> None:
        with barrier.upload():
            happened.append("late upload")

    first = threading.Thread(target=upload)
    first.start()
    assert uploading.wait(10)
    second = threading.Thread(target=order)
    second.start()
    with barrier._condition:
        barrier._condition.wait_for(lambda: barrier._orders == 1, timeout=10)
    third = threading.Thread(target=late_upload)
    third.start()
    finish.set()
    for thread in (first, second, third):
        thread.join(10)
    assert happened == ["upload", "order", "late upload"]


def test_uploads_run_beside_each_other():
    barrier, together = FoldBarrier(), threading.Barrier(4)

    def upload() -> None:
        with barrier.upload():
            together.wait(10)

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(upload) for _ in range(4)]:
            future.result()


def test_an_order_that_fails_lets_the_others_go_on():
    barrier = FoldBarrier()
    with pytest.raises(ValueError, match="broken"), barrier.order():
        raise ValueError("broken")
    with barrier.upload(), barrier.upload():
        pass


def test_changes_gather_into_one_message_and_are_kept_until_acknowledged():
    outbox = Outbox()
    assert outbox.take() is None
    outbox.leased(pb.Leased(task_id="a"))
    outbox.refused(RejectionReason.UNKNOWN_TASK)
    outbox.refused(RejectionReason.UNKNOWN_TASK)
    first = outbox.take()
    assert first.sequence == 1
    assert [(r.reason_code, r.count) for r in first.progress.refusals] == [(2001, 2)]
    outbox.ended([pb.Ended(task_id="a")])
    snapshot = pb.Progress(snapshot=True)
    resumed = outbox.resume(snapshot)
    assert [m.sequence for m in resumed] == [1, 2, 3]
    assert resumed[0].progress == first.progress
    outbox.acknowledge(1)
    assert [m.sequence for m in outbox.resume(snapshot)] == [2, 4]
    outbox.clear()
    assert [m.sequence for m in outbox.resume(snapshot)] == [5]


def test_only_so_many_answers_are_remembered():
    book = AnswerBook(remembered=2)
    for name in "abc":
        book.put(name, Answer(Outcome.STALE, name))
    assert book.find("a") is None
    assert book.find("c").reason == "c"


def test_devices_cannot_make_a_label_of_anything():
    reasons = DeviceReasons(most=2)
    assert reasons.admit("battery") == "battery"
    assert reasons.admit("Battery!") == "other"
    assert reasons.admit("x" * 40) == "other"
    assert reasons.admit("network") == "network"
    assert reasons.admit("third") == "other"
    assert reasons.admit("battery") == "battery"


def test_a_grant_that_was_cancelled_is_not_opened_again():
    grants = GrantBook()
    grants.cancel("g", running_too=True)
    grants.add(Grant("g", 3, None, 60.0))
    assert grants.open_slots() == 0
    assert grants.is_cancelled("g")


def test_grants_are_taken_in_order_and_used_up_ones_forgotten():
    grants = GrantBook()
    grants.add(Grant("first", 1, None, 60.0))
    grants.add(Grant("second", 1, None, 60.0))
    taken = []
    while (grant := grants.offer("d")) is not None:
        grants.take(grant, "d")
        taken.append(grant.grant_id)
    assert taken == ["first", "second"]
    assert grants.open_slots() == 0
