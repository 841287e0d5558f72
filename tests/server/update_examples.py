"""A small model, jobs and updates for tests of gate, aggregator and gateway."""

from typing import Any

import numpy as np

from device_runtime.manifest import InputSpec
from device_runtime.protocol import device_pb2 as pb
from device_runtime.update_codec import encode_update, sha256_of
from modeling.spec import Dense, ModelSpec
from server.aggregation.aggregator import Envelope
from server.job import Job

MODEL = ModelSpec(
    name="two_inputs",
    layers=(Dense("hidden", 2, 3, "relu"), Dense("out", 3, 1, "none")),
    input=InputSpec("x", (2,), "float32"),
    label_shape=(1,),
    loss="binary_cross_entropy",
    metric="auprc",
)

FEDBUFF = {"name": "fedbuff", "buffer_size": 4, "concurrency": 8}
FEDAVG = {"name": "fedavg", "cohort_size": 4}


def make_job(
    *,
    strategy: dict[str, Any] | None = None,
    max_update_norm: float | None = None,
    max_claimed_examples: int | None = None,
    **blocks: Any,
) -> Job:
    """A job; ``blocks`` are further top-level blocks of the job file."""
    return Job.model_validate(
        {
            "name": "clicks",
            "model": MODEL.name,
            "client": {"max_records": 100, "optimizer": {"learning_rate": 0.1}},
            "strategy": strategy or FEDBUFF,
            "stop": {"max_aggregations": 10},
            "privacy": {
                "robustness": {
                    "max_update_norm": max_update_norm,
                    "max_claimed_examples": max_claimed_examples,
                }
            },
            **blocks,
        }
    )


def make_delta(seed: int = 0, model: ModelSpec = MODEL) -> list[np.ndarray]:
    """Normal values of the model's shapes."""
    generator = np.random.default_rng(seed)
    return [
        generator.standard_normal(parameter.shape).astype(np.float32)
        for parameter in model.parameters
    ]


def make_payload(
    delta: list[np.ndarray] | None = None, *, num_examples: int = 10, loss_after: float = 0.5
) -> bytes:
    """An honest update's bytes."""
    return encode_update(
        MODEL.parameters,
        make_delta() if delta is None else delta,
        num_examples=num_examples,
        loss_before=0.7,
        loss_after=loss_after,
    )


def make_envelope(task_id: str, base_version: int = 0, payload: bytes = b"") -> Envelope:
    """What the gateway would say of an update."""
    return Envelope(task_id, f"device-of-{task_id}", base_version, sha256_of(payload), 1.5, 10, 20)


def changed(payload: bytes, **fields: Any) -> bytes:
    """The same update with fields of its ``Update`` message replaced."""
    message = pb.Update.FromString(payload)
    for name, value in fields.items():
        setattr(message, name, value)
    return message.SerializeToString()


def with_tensor(payload: bytes, index: int = 0, **fields: Any) -> bytes:
    """The same update with fields of one tensor replaced (``name``, ``dtype``, ``shape``, ...)."""
    message = pb.Update.FromString(payload)
    tensor = message.delta.tensors[index]
    for name, value in fields.items():
        if name == "shape":
            del tensor.shape[:]
            tensor.shape.extend(value)
        elif name == "array":
            tensor.data = np.ascontiguousarray(value).tobytes()
            del tensor.shape[:]
            tensor.shape.extend(value.shape)
            tensor.dtype = value.dtype.name
        else:
            setattr(tensor, name, value)
    return message.SerializeToString()
