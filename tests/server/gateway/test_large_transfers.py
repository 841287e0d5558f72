"""Updates in parts and large blobs: gathered on disk, a few at a time in memory, gate as ever."""

import io
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from device_runtime import gateway_client
from device_runtime.gateway_client import GatewayClient, upload_parts
from device_runtime.protocol import device_pb2 as pb
from device_runtime.update_codec import sha256_of
from feature_catalog.blobs import BlobStore, CorruptBlob, MissingBlob
from server.gateway.served_blobs import CHUNK_BYTES, ServedBlobs
from server.gateway.upload_parts import MemoryBudget, UploadFolder, WrongParts
from server.update_gate.rejections import RejectionReason
from tests.server.gateway.scripted_device import ScriptedDevice, status_of
from tests.server.update_examples import make_delta, make_payload

Verdict = pb.UploadResponse
HONEST = make_payload()


def parts_of(payload: bytes, size: int, announced: int | None = None) -> list[pb.UploadRequest]:
    announced = len(payload) if announced is None else announced
    cut = [payload[start : start + size] for start in range(0, len(payload), size)]
    first = pb.UploadRequest(payload=cut[0], payload_bytes=announced)
    return [first, *(pb.UploadRequest(payload=part) for part in cut[1:])]


def gather(folder: UploadFolder, messages: list[pb.UploadRequest]) -> bytes:
    others = iter(messages)
    with folder.gather(next(others), others) as file:
        return file.read()


# -- gathering ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 100, 1000])
def test_parts_of_any_size_come_to_the_payload_and_no_file_stays(tmp_path, size):
    folder = UploadFolder(tmp_path / "parts")
    payload = os.urandom(100)
    assert gather(folder, parts_of(payload, size)) == payload
    assert list((tmp_path / "parts").iterdir()) == []
    assert (tmp_path / "parts").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("announced", [0, 99, 101, 2**60])
def test_parts_that_come_to_more_or_less_than_was_announced_are_refused(tmp_path, announced):
    with pytest.raises(WrongParts):
        gather(UploadFolder(tmp_path), parts_of(bytes(100), 9, announced))


def test_empty_parts_do_not_keep_a_gateway_busy_for_ever(tmp_path):
    messages = [*parts_of(bytes(100), 50)[:1], pb.UploadRequest(), pb.UploadRequest()]
    with pytest.raises(WrongParts):
        gather(UploadFolder(tmp_path), messages)


def test_updates_are_in_memory_only_as_far_as_the_budget_goes():
    budget, lock = MemoryBudget(250), threading.Lock()
    held, most = [0], [0]

    def work(size: int) -> None:
        with budget.hold(size):
            with lock:
                held[0] += size
                most[0] = max(most[0], held[0])
            with lock:
                held[0] -= size

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, [100] * 200))
    assert most[0] <= 200


def test_an_update_larger_than_the_budget_goes_alone():
    budget = MemoryBudget(10)
    entered = threading.Event()

    def second() -> None:
        with budget.hold(1):
            entered.set()

    with budget.hold(100):
        thread = threading.Thread(target=second)
        thread.start()
        assert not entered.wait(0.1)
    thread.join(10)
    assert entered.is_set()


# -- devices ------------------------------------------------------------------------------------


def test_parts_carry_all_that_the_whole_request_does(monkeypatch):
    monkeypatch.setattr(gateway_client, "PART_BYTES", 10)
    request = pb.UploadRequest(
        proof=pb.DeviceProof(device_id="d", signature=b"s"),
        task_token=b"t",
        payload_sha256=b"h",
        contract_sha256=b"c",
        payload=os.urandom(95),
        cost=pb.DeviceCost(train_s=1.5),
        session_course="-v[]+",
    )
    said = {field.name for field in pb.UploadRequest.DESCRIPTOR.fields} - {"payload_bytes"}
    assert said == {field.name for field, _ in request.ListFields()}
    first, *others = upload_parts(request)
    assert first.payload_bytes == 95
    assert all(
        {f.name for f, _ in part.ListFields()} == {"payload"} and len(part.payload) <= 10
        for part in others
    )
    first.ClearField("payload_bytes")
    first.payload += b"".join(part.payload for part in others)
    assert first == request


# -- the real gateway ---------------------------------------------------------------------------


@pytest.fixture
def device(new_device, coordinator) -> ScriptedDevice:
    return new_device()


def in_parts(device: ScriptedDevice, request: pb.UploadRequest, size: int = 1000):
    payload = request.payload
    request.payload_bytes = request.payload_bytes or len(payload)
    request.payload = payload[:size]
    rest = (payload[start : start + size] for start in range(size, len(payload), size))
    return device.stub.UploadInParts(
        iter([request, *(pb.UploadRequest(payload=part) for part in rest)])
    )


@pytest.mark.integration
def test_an_update_in_parts_counts_as_one_in_a_message_does(device, new_device, coordinator):
    other = new_device()
    task, of_other = device.lease(), other.lease()
    assert in_parts(device, device.upload_request(task, HONEST)).verdict == Verdict.ACCEPTED
    assert other.upload(of_other, make_payload(make_delta(2))).verdict == Verdict.ACCEPTED
    # The same answer again, whichever way it comes.
    assert device.upload(task, HONEST).verdict == Verdict.ACCEPTED
    assert in_parts(device, device.upload_request(task, HONEST)).verdict == Verdict.ACCEPTED
    (bucket,) = coordinator.release(f"r-{task.task_id}").buckets
    assert sorted(bucket.task_ids) == sorted([task.task_id, of_other.task_id])
    assert bucket.weight == 2.0


@pytest.mark.integration
def test_a_device_cuts_what_is_large(device, coordinator, monkeypatch):
    monkeypatch.setattr(gateway_client, "PART_BYTES", 2000)
    task = device.lease()
    response = GatewayClient(device.channel).upload(device.upload_request(task, HONEST))
    assert response.verdict == Verdict.ACCEPTED
    (bucket,) = coordinator.release(f"r-{task.task_id}").buckets
    assert list(bucket.task_ids) == [task.task_id]


@pytest.mark.integration
def test_nothing_more_is_read_of_an_update_that_cannot_be_one_of_the_model(device):
    task = device.lease()
    request = device.upload_request(task, HONEST)
    request.payload_bytes = 2**40
    read = []

    def endless():
        yield request
        while len(read) < 10_000:
            read.append(1)
            yield pb.UploadRequest(payload=bytes(100_000))

    response = device.stub.UploadInParts(endless())
    assert response.verdict == Verdict.REJECTED
    assert response.reason_code == RejectionReason.TOO_LARGE
    assert len(read) < 1000


@pytest.mark.integration
def test_nothing_more_is_read_of_an_update_that_its_device_did_not_sign(device, coordinator):
    task = device.lease()
    request = device.upload_request(task, HONEST)
    request.proof.signature = b"forged"
    response = in_parts(device, request)
    assert response.verdict == Verdict.REJECTED
    assert response.reason_code == RejectionReason.BAD_SIGNATURE
    assert device.upload(task, HONEST).verdict == Verdict.ACCEPTED


@pytest.mark.integration
def test_parts_that_do_not_fit_or_break_off_count_nothing_and_the_task_goes_on(device):
    task = device.lease()
    for announced in (len(HONEST) - 1, len(HONEST) + 1):
        request = device.upload_request(task, HONEST)
        request.payload_bytes = announced
        status = status_of(lambda r=request: in_parts(device, r))
        assert status == grpc.StatusCode.INVALID_ARGUMENT
    assert status_of(lambda: device.stub.UploadInParts(iter([]))) == (
        grpc.StatusCode.INVALID_ARGUMENT
    )
    swapped = device.upload_request(task, HONEST)
    swapped.payload = HONEST[::-1]
    digest_mismatch = in_parts(device, swapped)
    assert digest_mismatch.reason_code == RejectionReason.DIGEST_MISMATCH


# -- blobs --------------------------------------------------------------------------------------


def served(store: BlobStore, folder: Path) -> ServedBlobs:
    return ServedBlobs(store, folder, in_memory_bytes=100)


def read_whole(blobs: ServedBlobs, digest: bytes) -> bytes:
    blob = blobs.open(digest)
    return b"".join(blob.read(start, 70) for start in range(0, blob.size, 70))


@pytest.mark.parametrize("url", ["{folder}/blobs", "memory://served-blobs"])
@pytest.mark.parametrize("size", [0, 100, 101, 5000])
def test_blobs_are_served_alike_from_memory_file_or_copy(tmp_path, url, size):
    store = BlobStore(url.format(folder=tmp_path))
    data = os.urandom(size)
    blobs = served(store, tmp_path / "transfers")
    digest = store.put(data)
    assert read_whole(blobs, digest) == read_whole(blobs, digest) == data
    assert blobs.open(digest).read(size, 10) == b""
    assert list((tmp_path / "transfers").iterdir()) == []


@pytest.mark.parametrize("in_memory_bytes", [100, 4 * CHUNK_BYTES])
def test_a_blob_comes_in_the_same_chunks_from_memory_and_from_a_file(tmp_path, in_memory_bytes):
    store = BlobStore(str(tmp_path / "blobs"))
    data = os.urandom(2 * CHUNK_BYTES + 7)
    blobs = ServedBlobs(store, tmp_path / "transfers", in_memory_bytes=in_memory_bytes)
    blob = blobs.open(store.put(data))
    for offset, end in [(0, CHUNK_BYTES), (5, CHUNK_BYTES + 5), (2 * CHUNK_BYTES, len(data))]:
        expected = pb.BlobChunk(data=data[offset:end], total_bytes=len(data))
        assert pb.BlobChunk.FromString(blob.chunk(offset)) == expected
    assert pb.BlobChunk.FromString(blob.chunk(len(data))) == pb.BlobChunk(total_bytes=len(data))


def test_of_many_large_blobs_a_few_files_are_open(tmp_path):
    store = BlobStore(str(tmp_path / "blobs"))
    blobs = served(store, tmp_path / "transfers")
    before = len(list(Path("/proc/self/fd").iterdir()))
    first = blobs.open(store.put(b"first" * 100))
    for number in range(40):
        blobs.open(store.put(f"{number:03}".encode() * 100))
    assert len(list(Path("/proc/self/fd").iterdir())) - before <= 17
    assert first.read(0, 5) == b"first"  # forgotten, and still good for who reads it
    assert read_whole(blobs, sha256_of(b"first" * 100)) == b"first" * 100


def test_a_large_blob_that_is_missing_or_damaged_is_not_served(tmp_path):
    store = BlobStore(str(tmp_path / "blobs"))
    blobs = served(store, tmp_path / "transfers")
    with pytest.raises(MissingBlob):
        blobs.open(sha256_of(b"nobody's"))
    digest = store.put(bytes(1000))
    (stored,) = (path for path in (tmp_path / "blobs").rglob(digest.hex()))
    stored.write_bytes(b"x" * 1000)
    with pytest.raises(CorruptBlob):
        blobs.open(digest)


def test_a_copy_of_a_damaged_blob_is_not_served(tmp_path):
    class Damaged:
        def size(self, digest: bytes) -> int:
            return 1000

        def local_path(self, digest: bytes) -> None:
            return None

        def open(self, digest: bytes) -> io.BytesIO:
            return io.BytesIO(bytes(1000))

        def get(self, digest: bytes) -> bytes:
            raise AssertionError(digest)

    with pytest.raises(CorruptBlob):
        served(Damaged(), tmp_path).open(sha256_of(b"another"))
