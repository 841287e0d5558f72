"""Devices whose every update moves one parameter of its own: the model itself tells what counted.

A task's update is 1 at the parameter of its number and 0 elsewhere. With a server step of 1 and no
staleness weighting a version moves that parameter by 1 / n, n being the updates in it, if the task
was counted once; by 2 / n if twice; not at all if never.
"""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
import numpy as np

from device_runtime.protocol import device_pb2 as pb
from device_runtime.update_codec import encode_update, unflatten
from modeling.zoo import get_model
from server.job import Job
from server.operations.settings import ServerSettings
from tests.server.gateway.scripted_device import ScriptedDevice

MODEL = get_model("tiny_mlp")
_MOST_WAIT_S = 1.0
_AGAIN_S = 0.2


def one_hot_job(strategy: str, aggregations: int) -> Job:
    """A job whose versions are plain means of the updates in them."""
    strategies = {
        "fedbuff": {
            "name": "fedbuff",
            "buffer_size": 6,
            "concurrency": 12,
            "staleness_weight": {"name": "polynomial", "exponent": 0},
        },
        "fedavg": {
            "name": "fedavg",
            "cohort_size": 6,
            "over_commitment": 1.5,
            "round_deadline_s": 20,
            "weighting": "uniform",
        },
    }
    return Job.model_validate(
        {
            "name": f"one-hot-{strategy}",
            "model": MODEL.name,
            "client": {"optimizer": {"learning_rate": 0.1}, "task_timeout_s": 20},
            "strategy": strategies[strategy]
            | {"server_optimizer": {"name": "sgd", "learning_rate": 1.0}},
            "stop": {"max_aggregations": aggregations, "max_hours": 0.1},
        }
    )


@dataclass
class OneHotFleet:
    """What all devices together did.

    Attributes:
        number_of: Parameter of each task's update.
        told: What its device was told in the end, by task: ``COMMITTED``, ``DROPPED``, a verdict.
        asked_again: Uploads that were asked for again.
        uploads: Uploads sent, repeats too.
        at_rest: While set, no device says anything.
    """

    number_of: dict[str, int] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)
    asked_again: int = 0
    uploads: int = 0
    at_rest: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def number(self, task_id: str) -> int:
        with self.lock:
            return self.number_of.setdefault(task_id, len(self.number_of) % MODEL.parameter_count)

    def payload(self, task_id: str) -> bytes:
        flat = np.zeros(MODEL.parameter_count, np.float32)
        flat[self.number(task_id)] = 1.0
        return encode_update(
            MODEL.parameters,
            unflatten(MODEL.parameters, flat),
            num_examples=10,
            loss_before=0.7,
            loss_after=0.6,
        )


class OneHotDevice(threading.Thread):
    """One device in a thread: uploads now and then twice, or later than the next check-in."""

    def __init__(
        self, settings: ServerSettings, token: str, fleet: OneHotFleet, number: int
    ) -> None:
        super().__init__(daemon=True)
        self.stop = threading.Event()
        self._device = ScriptedDevice(settings, token)
        self._fleet = fleet
        self._source = random.Random(number)
        self._policy = b""
        self._kept: dict[str, tuple[pb.Task, bytes]] = {}
        self._to_send: list[str] = []

    def run(self) -> None:
        while not self.stop.is_set():
            if self._fleet.at_rest.is_set():
                self.stop.wait(_AGAIN_S)
                continue
            try:
                wait_s = self._turn()
            except grpc.RpcError:
                wait_s = _AGAIN_S
            self.stop.wait(min(wait_s, _MOST_WAIT_S))
        self._device.close()

    def _turn(self) -> float:
        pending = [self._device.pending(task, payload) for task, payload in self._kept.values()]
        answer = self._device.check_in(self._policy, pending)
        for settlement in answer.settlements:
            self._settle(settlement)
        wait_s = answer.come_back_after_s
        if answer.HasField("policy"):
            self._policy, wait_s = answer.policy.policy_sha256, 0.0
        # What was held back the last time goes first: out of order.
        for task_id in self._to_send[:]:
            self._send(task_id)
        if answer.HasField("task"):
            task = answer.task
            self._kept[task.task_id] = (task, self._fleet.payload(task.task_id))
            self._to_send.append(task.task_id)
            wait_s = 0.05
            if self._source.random() > 0.2:
                self._send(task.task_id)
        return wait_s

    def _send(self, task_id: str) -> None:
        task, payload = self._kept[task_id]
        for _ in range(2 if self._source.random() < 0.3 else 1):
            response = self._device.upload(task, payload)
            self._fleet.uploads += 1
        verdict = pb.UploadResponse.Verdict.Name(response.verdict)
        if verdict == "RETRY_LATER":
            return
        self._to_send.remove(task_id)
        if verdict != "ACCEPTED":
            self._end(task_id, verdict)

    def _settle(self, settlement: pb.Settlement) -> None:
        task_id = settlement.task_id
        if task_id not in self._kept:
            return
        if settlement.state == pb.Settlement.UPLOAD_AGAIN and task_id not in self._to_send:
            self._fleet.asked_again += 1
            self._to_send.append(task_id)
        elif settlement.state in (pb.Settlement.COMMITTED, pb.Settlement.DROPPED):
            self._end(task_id, pb.Settlement.State.Name(settlement.state))

    def _end(self, task_id: str, how: str) -> None:
        self._fleet.told[task_id] = how
        del self._kept[task_id]
        if task_id in self._to_send:
            self._to_send.remove(task_id)


@contextmanager
def one_hot_devices(settings: ServerSettings, token: str, count: int) -> Iterator[OneHotFleet]:
    """Devices that work until the block ends, and then some: all are told what became of theirs."""
    fleet = OneHotFleet()
    devices = [OneHotDevice(settings, token, fleet, number) for number in range(count)]
    for device in devices:
        device.start()
    try:
        yield fleet
    finally:
        deadline_s = time.monotonic() + 20.0
        while any(device._kept for device in devices) and time.monotonic() < deadline_s:
            time.sleep(0.1)
        for device in devices:
            device.stop.set()
        for device in devices:
            device.join()
