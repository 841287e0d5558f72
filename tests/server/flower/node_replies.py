"""Replies of honest and of hostile nodes, as the Flower messages they would send."""

import math
from collections.abc import Callable

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from device_runtime.flower_records import ARRAYS, CONFIG, ECHO, METRICS, EchoKey
from device_runtime.manifest import InputSpec
from modeling.spec import Dense, ModelSpec
from server.job import Job

MODEL = ModelSpec(
    "linear",
    (Dense("dense", 3, 1, "none"),),
    InputSpec("x", (3,), "float32"),
    (1,),
    "binary_cross_entropy",
    "accuracy",
)
CONTRACT = bytes(range(32))
BASE = [np.arange(3, dtype=np.float32).reshape(3, 1), np.array([-1.0], np.float32)]


def job(**changes: object) -> Job:
    raw = {
        "name": "nodes",
        "model": "linear",
        "client": {"optimizer": {"name": "sgd", "learning_rate": 0.5}, "max_records": 100},
        "strategy": {
            "name": "fedbuff",
            "buffer_size": 1,
            "concurrency": 1,
            "weighting": "examples",
        },
        "privacy": {"robustness": {"max_update_norm": 10.0}},
        "stop": {"max_aggregations": 10},
        "seed": 11,
    }
    return Job.model_validate(raw | changes)


def base_of(task: Message) -> dict[str, np.ndarray]:
    return {name: array.numpy() for name, array in task.content[ARRAYS].items()}


def reply(
    task: Message,
    arrays: dict[str, np.ndarray] | None = None,
    metrics: dict[str, float] | None = None,
    echo: dict[str, object] | None = None,
) -> Message:
    """The reply of an honest node, but for what is given."""
    config = task.content[CONFIG]
    if arrays is None:
        arrays = {name: array + 1 for name, array in base_of(task).items()}
    if metrics is None:
        metrics = {"num-examples": 20, "loss_before": 0.7, "loss_after": 0.5, "train_s": 1.5}
    if echo is None:
        echo = {str(key): config[key] for key in EchoKey}
    content = {
        ARRAYS: ArrayRecord({name: Array(array) for name, array in arrays.items()}),
        METRICS: MetricRecord(metrics),
        ECHO: ConfigRecord(echo),
    }
    return Message(RecordDict(content), reply_to=task)


def changed(task: Message, **changes: np.ndarray) -> Message:
    arrays = base_of(task)
    return reply(task, arrays | {f"dense/{name}": array for name, array in changes.items()})


def claiming(count: float) -> Callable[[Message], Message]:
    return lambda task: reply(task, metrics={"num-examples": count})


HOSTILE = {
    "a negative example count": (claiming(-5), "NON_POSITIVE_EXAMPLES"),
    "no examples": (claiming(0), "NON_POSITIVE_EXAMPLES"),
    "ten to the nine examples": (claiming(10**9), "TOO_MANY_EXAMPLES"),
    "more examples than fit in 64 bits": (claiming(2.0**70), "TOO_MANY_EXAMPLES"),
    "half an example": (claiming(0.5), "MALFORMED"),
    "an example count of NaN": (claiming(math.nan), "MALFORMED"),
    "no example count": (lambda t: reply(t, metrics={"train_s": 1.0}), "MALFORMED"),
    "another contract": (
        lambda t: reply(t, echo={"base_version": 1, "contract_sha256": bytes(32)}),
        "CONTRACT_MISMATCH",
    ),
    "another base version": (
        lambda t: reply(t, echo={"base_version": 0, "contract_sha256": CONTRACT}),
        "CONTRACT_MISMATCH",
    ),
    "nothing but arrays": (lambda t: reply(t, echo={}), "CONTRACT_MISMATCH"),
    "NaN": (lambda t: changed(t, bias=np.array([np.nan], np.float32)), "NOT_FINITE"),
    "infinity": (lambda t: changed(t, bias=np.array([np.inf], np.float32)), "NOT_FINITE"),
    "too large a step": (lambda t: changed(t, bias=np.array([1e6], np.float32)), "NORM_EXCEEDED"),
    "another shape": (lambda t: changed(t, kernel=np.zeros((1, 3), np.float32)), "WRONG_SHAPE"),
    "another rank": (lambda t: changed(t, kernel=np.zeros(3, np.float32)), "WRONG_SHAPE"),
    "another dtype": (lambda t: changed(t, bias=np.zeros(1, np.float64)), "WRONG_DTYPE"),
    "another name": (
        lambda t: reply(t, {"w": np.zeros((3, 1), np.float32), "b": np.zeros(1, np.float32)}),
        "WRONG_NAMES",
    ),
    "one array too many": (lambda t: changed(t, more=np.zeros(1, np.float32)), "WRONG_NAMES"),
    "no arrays": (lambda t: reply(t, {}), "WRONG_NAMES"),
    "bytes that are no array": (
        lambda t: Message(
            RecordDict(
                {
                    **reply(t).content,
                    ARRAYS: ArrayRecord({"a": Array("float32", (1,), "numpy.ndarray", b"junk")}),
                }
            ),
            reply_to=t,
        ),
        "MALFORMED",
    ),
    "megabytes": (lambda t: changed(t, more=np.zeros(500_000, np.float32)), "TOO_LARGE"),
}
