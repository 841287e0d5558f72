"""Devices that do everything but train: enrolled, signing, over TLS, replaying updates.

One process drives many identities on threads. Each has a key, a credential and a TLS connection of
its own, checks in when it is told to, fetches the blobs of its task that it does not have yet (the
parameters of every new version, as a phone would) and uploads an update made beforehand.
"""

import heapq
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from device_runtime.compression import UpdateCodec, compress
from device_runtime.gateway_client import GatewayClient, GatewayError, open_channel
from device_runtime.identity import DeviceKey, sign_check_in, sign_enrol, sign_upload
from device_runtime.protocol import device_pb2 as pb
from device_runtime.update_codec import encode_compressed_update, encode_update, sha256_of
from modeling.zoo import get_model

_THREADS = 8
_LONGEST_WAIT_S = 5.0


@dataclass(frozen=True)
class Replay:
    """What the devices are to do.

    Attributes:
        ca_certificate: None without TLS.
        codec: Update codec of the job; None for plain float32.
        new_connections: A new TLS connection for every session, as after a phone's sleep.
        seconds: From the first check-in to the last.
    """

    address: str
    ca_certificate: Path | None
    enrolment_token: str
    devices: int
    model: str
    codec: str | None
    new_connections: bool
    seconds: float
    seed: int


def make_payloads(model_name: str, codec: str | None, count: int, seed: int) -> list[bytes]:
    """Honest updates of a model: small normal values."""
    parameters = get_model(model_name).parameters
    generator = np.random.default_rng(seed)
    payloads = []
    for _ in range(count):
        delta = [(generator.standard_normal(p.shape) * 1e-4).astype(np.float32) for p in parameters]
        said: dict[str, Any] = {"num_examples": 20, "loss_before": 0.7, "loss_after": 0.6}
        if codec is None:
            payloads.append(encode_update(parameters, delta, **said))
        else:
            tensors = compress(delta, UpdateCodec(codec), seed=seed)
            payloads.append(encode_compressed_update(parameters, tensors, **said))
    return payloads


class ReplayedDevice:
    """One identity."""

    def __init__(self, replay: Replay, payloads: Sequence[tuple[bytes, bytes]]) -> None:
        self._replay = replay
        self._payloads = payloads
        self._key = DeviceKey.generate()
        self._policy = b""
        self._has: set[bytes] = set()
        self._pending: list[pb.PendingUpdate] = []
        self._connect()
        request = pb.EnrolRequest(
            enrolment_token=replay.enrolment_token,
            app_id="com.example.replay",
            device_model="replayed",
            os_release="2024-05",
        )
        sign_enrol(self._key, request)
        enrolled = self._client.enrol(request)
        self._id, self._credential = enrolled.device_id, enrolled.credential

    def session(self, counts: Counter[str]) -> float:
        """Check in, and do the task there may be; returns when to come again, seconds."""
        if self._replay.new_connections:
            self._channel.close()
            self._connect()
        answer = self._check_in(counts)
        if answer.HasField("policy"):
            self._policy = answer.policy.policy_sha256
            answer = self._check_in(counts)
        if not answer.HasField("task"):
            return answer.come_back_after_s
        task = answer.task
        for digest in (task.artifact_sha256, task.manifest_sha256, task.parameters_sha256):
            if digest not in self._has:
                for chunk in self._client.fetch_blob(task.token, digest, 0):
                    counts["bytes_down"] += len(chunk)
                self._has.add(digest)
        return self._upload(task, counts)

    def close(self) -> None:
        """Hang up."""
        self._channel.close()

    def _connect(self) -> None:
        self._channel = open_channel(self._replay.address, self._replay.ca_certificate)
        self._client = GatewayClient(self._channel)

    def _check_in(self, counts: Counter[str]) -> pb.CheckInResponse:
        request = pb.CheckInRequest(
            runtime_version=1,
            satisfied_policy_sha256=self._policy,
            pending=self._pending,
            codecs=[self._replay.codec] if self._replay.codec else [],
        )
        sign_check_in(self._key, request, **self._identity())
        counts["check_ins"] += 1
        answer = self._client.check_in(request)
        over = {
            s.task_id
            for s in answer.settlements
            if s.state in (pb.Settlement.COMMITTED, pb.Settlement.DROPPED)
        }
        self._pending = [update for update in self._pending if update.task_id not in over]
        return answer

    def _upload(self, task: pb.Task, counts: Counter[str]) -> float:
        payload, digest = self._payloads[hash(task.task_id) % len(self._payloads)]
        request = pb.UploadRequest(
            task_token=task.token,
            payload_sha256=digest,
            contract_sha256=task.contract_sha256,
            payload=payload,
            cost=pb.DeviceCost(train_s=1.0, bytes_up=len(payload)),
            session_course="-v[]+",
        )
        sign_upload(self._key, request, **self._identity())
        response = self._client.upload(request)
        while response.verdict == pb.UploadResponse.RETRY_LATER:
            counts["retry_later"] += 1
            time.sleep(response.come_back_after_s)
            response = self._client.upload(request)
        counts[pb.UploadResponse.Verdict.Name(response.verdict).lower()] += 1
        counts["bytes_up"] += len(payload)
        self._pending.append(
            pb.PendingUpdate(task_id=task.task_id, payload_sha256=digest, task_token=task.token)
        )
        return response.come_back_after_s

    def _identity(self) -> dict[str, Any]:
        return {
            "device_id": self._id,
            "credential": self._credential,
            "timestamp_ms": int(time.time() * 1000),
        }


def drive(replay: Replay, enrolled: Any, begin: Any, report: Any) -> None:  # noqa: ANN401
    """Run one process of devices.

    Args:
        replay: What to do.
        enrolled: Event, set when all are.
        begin: Event to wait for then.
        report: Queue for the counts at the end, the process's CPU seconds among them.
    """
    payloads = [
        (p, sha256_of(p)) for p in make_payloads(replay.model, replay.codec, 8, replay.seed)
    ]
    devices = [ReplayedDevice(replay, payloads) for _ in range(replay.devices)]
    enrolled.set()
    begin.wait()
    counts: Counter[str] = Counter()
    cpu_before_s = time.process_time()
    begun_s = time.monotonic()
    due = [(begun_s + n / max(1, len(devices)), n) for n in range(len(devices))]
    changed = threading.Condition()

    def work() -> None:
        mine: Counter[str] = Counter()
        while True:
            with changed:
                while not due:
                    changed.wait(0.1)
                at_s, number = heapq.heappop(due)
            time.sleep(max(0.0, at_s - time.monotonic()))
            if time.monotonic() - begun_s > replay.seconds:
                break
            try:
                wait_s = devices[number].session(mine)
            except GatewayError as error:
                mine[f"error_{error.status}"] += 1
                wait_s = 1.0
            with changed:
                heapq.heappush(due, (time.monotonic() + min(wait_s, _LONGEST_WAIT_S), number))
                changed.notify()
        with changed:
            counts.update(mine)
            heapq.heappush(due, (0.0, number))  # for the others to see that it is over
            changed.notify_all()

    with ThreadPoolExecutor(_THREADS) as pool:
        for _ in range(_THREADS):
            pool.submit(work)
    counts["cpu_s"] = round(time.process_time() - cpu_before_s, 3)  # type: ignore[assignment]
    report.put(dict(counts))
    for device in devices:
        device.close()
