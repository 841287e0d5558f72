"""Everything malformed or dishonest that a device may send, each with the number it is refused by.

The table of what one client of ten does to a Flower server, and more: cut-off and lying protobuf,
lengths and shapes beyond memory, positions and scales that lead outside, wrong types, hostile
strings, forged and borrowed envelopes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import grpc
import numpy as np

from device_runtime.compression import compress
from device_runtime.identity import DeviceKey, sign_upload
from device_runtime.protocol import device_pb2 as pb
from device_runtime.sparse_positions import encode_gaps
from device_runtime.update_codec import encode_compressed_update, encode_update
from modeling.zoo import get_model
from server.gateway.listening import MAX_DEVICE_MESSAGE_BYTES
from server.job import Job
from tests.server.gateway.scripted_device import ScriptedDevice
from tests.server.update_examples import changed, with_tensor

MODEL = get_model("tiny_mlp")
FIRST, SECOND = (parameter.shape for parameter in MODEL.parameters[:2])
PLAIN = "none"

Attack = Callable[[ScriptedDevice, pb.Task], pb.UploadResponse]


@dataclass(frozen=True)
class Case:
    """One way to harm.

    Attributes:
        family: What it is a case of; what counts as a class.
        codec: The job's, which makes it possible.
        code: FLN number of its refusal, or a gRPC status where the transport refuses it.
    """

    name: str
    family: str
    code: int | grpc.StatusCode
    attack: Attack
    codec: str = PLAIN


def _honest() -> bytes:
    delta = [np.zeros(p.shape, np.float32) for p in MODEL.parameters]
    delta[0].flat[0] = 0.5
    return encode_update(MODEL.parameters, delta, num_examples=10, loss_before=0.7, loss_after=0.6)


HONEST = _honest()


def _first(value: float) -> bytes:
    array = np.zeros(FIRST, np.float32)
    array.flat[0] = value
    return with_tensor(HONEST, array=array)


def _with_the_second_twice() -> bytes:
    message = pb.Update.FromString(HONEST)
    message.delta.tensors.append(message.delta.tensors[1])
    return message.SerializeToString()


def _encoded(codec: str) -> bytes:
    block = {"name": codec} | ({"fraction": 0.2} if codec == "top_k" else {})
    job = Job.model_validate(
        {
            "name": "corpus",
            "model": MODEL.name,
            "client": {"optimizer": {"learning_rate": 0.1}, "compression": block},
            "strategy": {"name": "fedavg", "cohort_size": 2},
            "stop": {"max_aggregations": 1},
        }
    )
    wanted = job.client.compression.codec
    assert wanted is not None
    delta = [np.zeros(p.shape, np.float32) for p in MODEL.parameters]
    return encode_compressed_update(
        MODEL.parameters,
        compress(delta, wanted, seed=1),
        num_examples=10,
        loss_before=0.7,
        loss_after=0.6,
    )


def _sparse(positions: list[int], values: list[float], **tensor: object) -> bytes:
    fields: dict[str, object] = {
        "data": np.array(values, "<f2").tobytes(),
        "gaps": encode_gaps(np.array(positions, np.int64)),
        "dtype": "float16",
    }
    return with_tensor(_encoded("top_k"), **(fields | tensor))


def _scaled(*scales: float) -> bytes:
    return with_tensor(_encoded("int8"), scales=np.array(scales, "<f4").tobytes())


def _sends(payload: bytes) -> Attack:
    return lambda device, task: device.upload(task, payload)


_PLAIN_PAYLOADS: dict[str, tuple[str, bytes, int]] = {
    "1e9-examples": ("examples", changed(HONEST, num_examples=10**9), 2108),
    "largest-int64-examples": ("examples", changed(HONEST, num_examples=2**63 - 1), 2108),
    "negative-examples": ("examples-not-positive", changed(HONEST, num_examples=-80), 2107),
    "cancelling-examples": ("examples-not-positive", changed(HONEST, num_examples=-10), 2107),
    "no-examples": ("examples-not-positive", changed(HONEST, num_examples=0), 2107),
    "nan": ("not-a-number", _first(math.nan), 2105),
    "infinity": ("infinite", _first(math.inf), 2105),
    "norm-1e6": ("norm", _first(1e6), 2106),
    "finite-1e30": ("norm", _first(1e30), 2106),
    "other-key": ("names", with_tensor(HONEST, name="other/kernel"), 2102),
    "name-of-a-megabyte": ("size", with_tensor(HONEST, name="x" * 2**20), 2006),
    "name-with-null-and-escape": (
        "hostile-string",
        with_tensor(HONEST, name="kernel\0\x1b[2J\r\n"),
        2102,
    ),
    "name-that-climbs-folders": (
        "hostile-string",
        with_tensor(HONEST, name="../../../etc/passwd"),
        2102,
    ),
    "name-that-is-sql": (
        "hostile-string",
        with_tensor(HONEST, name="'; DROP TABLE jobs; --"),
        2102,
    ),
    "shape-1-silent-broadcast": (
        "shape-broadcast",
        with_tensor(HONEST, array=np.ones(1, np.float32)),
        2103,
    ),
    "shape-2-2": ("shape", with_tensor(HONEST, array=np.ones((2, 2), np.float32)), 2103),
    "rank-up": ("rank", with_tensor(HONEST, shape=(*FIRST, 1)), 2103),
    "rank-down": ("rank", with_tensor(HONEST, shape=(math.prod(FIRST),)), 2103),
    "shape-beyond-memory": ("declared-size", with_tensor(HONEST, shape=(2**40, 2**40)), 2101),
    "shape-that-overflows": ("declared-size", with_tensor(HONEST, shape=(2**63, 2)), 2101),
    "bytes-missing": ("data-too-short", with_tensor(HONEST, data=b"\0\0\0"), 2101),
    "float64": ("type", with_tensor(HONEST, 1, array=np.ones(SECOND)), 2104),
    "int32": ("type", with_tensor(HONEST, array=np.ones(FIRST, np.int32)), 2104),
    "pickle": ("pickle", with_tensor(HONEST, dtype="O"), 2104),
    "type-of-no-kind": ("type", with_tensor(HONEST, dtype="float32\0"), 2104),
    "truncated": ("truncated-protobuf", HONEST[:-5], 2101),
    "declared-length-beyond": ("lying-protobuf", b"\x0a\xff\xff\xff\xff\x0f" + HONEST[6:], 2101),
    "wrong-wire-type": ("lying-protobuf", b"\x0d" + HONEST[1:], 2101),
    "a-group-that-never-ends": ("lying-protobuf", b"\x0b" * 200, 2101),
    "noise": ("noise", bytes(range(256)), 2101),
    "empty": ("empty", b"", 2102),
    "oversize": ("size", HONEST + bytes(2**20), 2006),
    "zip-bomb": ("decompression-bomb", b"\x1f\x8b\x08" + bytes(997), 2101),
    "tensor-twice": ("names", _with_the_second_twice(), 2102),
}
_TOP_K_PAYLOADS: dict[str, tuple[str, bytes, int]] = {
    "position-beyond": ("positions", _sparse([math.prod(FIRST)], [1.0]), 2110),
    "position-far-beyond": ("positions", _sparse([2**34], [1.0]), 2110),
    "positions-fewer-than-values": ("positions", _sparse([1], [1.0, 1.0]), 2110),
    "positions-cut-off": ("positions", _sparse([], [1.0], gaps=b"\x80"), 2110),
    "sparse-nan": ("not-a-number", _sparse([0], [math.nan]), 2105),
    "sparse-of-a-shape-beyond-memory": (
        "decompression-bomb",
        _sparse([0], [1.0], shape=(2**31, 2**31)),
        2103,
    ),
    "sparse-that-is-dense": (
        "encoding",
        _sparse(list(range(math.prod(FIRST))), [1.0] * math.prod(FIRST)),
        2109,
    ),
}
_INT8_PAYLOADS: dict[str, tuple[str, bytes, int]] = {
    "scale-nan": ("scales", _scaled(math.nan), 2111),
    "scale-negative": ("scales", _scaled(-1.0), 2111),
    "scales-cut-off": ("scales", with_tensor(_encoded("int8"), scales=b"123"), 2111),
    "scales-missing": ("scales", _scaled(), 2111),
}


def _wrong_digest(device: ScriptedDevice, task: pb.Task) -> pb.UploadResponse:
    return device.upload(task, HONEST, digest=b"x" * 32)


def _wrong_contract(device: ScriptedDevice, task: pb.Task) -> pb.UploadResponse:
    return device.upload(task, HONEST, contract=b"x" * 32)


def _forged_token(device: ScriptedDevice, task: pb.Task) -> pb.UploadResponse:
    return device.upload(task, HONEST, token=task.token[:-1] + b"\0\0")


def _no_token(device: ScriptedDevice, task: pb.Task) -> pb.UploadResponse:
    return device.upload(task, HONEST, token=b"")


def _forged_signature(device: ScriptedDevice, task: pb.Task) -> pb.UploadResponse:
    request = device.upload_request(task, HONEST)
    request.proof.signature = request.proof.signature[:-1] + b"\0"
    return device.stub.Upload(request)


def _another_key(device: ScriptedDevice, task: pb.Task) -> pb.UploadResponse:
    request = device.upload_request(task, HONEST)
    sign_upload(
        DeviceKey.generate(),
        request,
        device_id=device.device_id,
        credential=device.credential,
        timestamp_ms=device.now_ms(),
    )
    return device.stub.Upload(request)


def _out_of_time(skew_ms: int) -> Attack:
    def attack(device: ScriptedDevice, task: pb.Task) -> pb.UploadResponse:
        device.skew_ms = skew_ms
        try:
            return device.upload(task, HONEST)
        finally:
            device.skew_ms = 0

    return attack


def _changed_after_an_answer(device: ScriptedDevice, task: pb.Task) -> pb.UploadResponse:
    device.upload(task, _first(math.nan))  # the task has its answer: refused
    return device.upload(task, HONEST)


def _larger_than_any_message(device: ScriptedDevice, task: pb.Task) -> pb.UploadResponse:
    return device.upload(task, bytes(MAX_DEVICE_MESSAGE_BYTES))


_ENVELOPES: dict[str, tuple[str, Attack, int | grpc.StatusCode]] = {
    "wrong-digest": ("digest", _wrong_digest, 2003),
    "wrong-contract": ("contract", _wrong_contract, 2005),
    "forged-token": ("token", _forged_token, 2001),
    "no-token": ("token", _no_token, 2001),
    "forged-signature": ("signature", _forged_signature, 2007),
    "another-key": ("signature", _another_key, 2007),
    "an-hour-old": ("time", _out_of_time(-3_600_000), 2007),
    "an-hour-ahead": ("time", _out_of_time(3_600_000), 2007),
    "another-update-for-an-answered-task": ("second-update", _changed_after_an_answer, 2004),
    "larger-than-any-message": (
        "size",
        _larger_than_any_message,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    ),
}


def borrowed(other: ScriptedDevice) -> Case:
    """An update under a task that another device leased."""

    def attack(device: ScriptedDevice, task: pb.Task) -> pb.UploadResponse:
        return other.upload(task, HONEST)

    return Case("someone-elses-token", "borrowed-token", 2002, attack)


CORPUS: tuple[Case, ...] = (
    *(
        Case(name, family, code, _sends(payload), codec)
        for codec, payloads in (
            (PLAIN, _PLAIN_PAYLOADS),
            ("top_k", _TOP_K_PAYLOADS),
            ("int8", _INT8_PAYLOADS),
        )
        for name, (family, payload, code) in payloads.items()
    ),
    *(Case(name, family, code, attack) for name, (family, attack, code) in _ENVELOPES.items()),
)
