import numpy as np
import pytest
from flwr.app import Message
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.task_identity import TaskIdentity

from device_runtime.flower_records import ARRAYS, CONFIG
from server.aggregation.aggregator import Envelope
from server.aggregation.mean import MeanAggregator
from server.coordination.tasks import Outcome, Release, UpdateReference
from server.flower.node_messages import NodeReply, NodeTask
from server.flower.node_update import outcome_of_error, read_update
from server.flower.records import read_reply, task_messages
from server.update_gate.rejections import Rejection, RejectionReason
from tests.server.flower.node_replies import BASE, CONTRACT, HOSTILE, MODEL, job, reply

NAMES = [parameter.name for parameter in MODEL.parameters]
PARAMETERS = dict(zip(NAMES, BASE, strict=True))
LIMIT = 2**20


@pytest.fixture
def task() -> Message:
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1
    config = {"base_version": 1, "contract_sha256": CONTRACT}
    (message,) = task_messages([NodeTask(5, ARRAYS, CONFIG, PARAMETERS, config, 60.0, "1")])
    message.metadata.__dict__["_message_id"] = "asked"
    return message


@pytest.fixture
def aggregator() -> MeanAggregator:
    aggregator = MeanAggregator()
    aggregator.open("j-1", job(), MODEL)
    return aggregator


def received(message: Message) -> NodeReply:
    contents = {i: thing.deflate() for i, thing in get_all_nested_objects(message).items()}
    return read_reply("asked", message.object_id, contents, LIMIT)


def judge(aggregator: MeanAggregator, message: Message) -> UpdateReference | Rejection:
    update = read_update(received(message), PARAMETERS, 1, CONTRACT)
    if isinstance(update, Rejection):
        return update
    return aggregator.fold(Envelope("t", "node-5", 1, b""), update.payload)


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_reply_is_refused_by_number_and_changes_no_sum(aggregator, task, what):
    answer, name = HOSTILE[what]
    rejection = judge(aggregator, answer(task))
    assert isinstance(rejection, Rejection)
    assert rejection.reason is RejectionReason[name]
    assert rejection.detail
    assert aggregator.reduce(Release("r")) == ()


def test_an_honest_reply_is_its_weights_less_the_base(aggregator, task):
    new = {"dense/kernel": np.ones((3, 1), np.float32), "dense/bias": np.ones(1, np.float32)}
    assert isinstance(judge(aggregator, reply(task, new)), UpdateReference)
    (partial,) = aggregator.reduce(Release("r"))
    base = np.concatenate([array.ravel() for array in BASE])
    np.testing.assert_allclose(partial.total / partial.weight, 1 - base, rtol=1e-6)


def test_weights_so_far_apart_that_the_step_overflows_are_refused_as_not_finite(aggregator, task):
    far = {name: np.full_like(array, 3.4e38) for name, array in PARAMETERS.items()}
    start = {name: np.full_like(array, -3.4e38) for name, array in PARAMETERS.items()}
    update = read_update(received(reply(task, far)), start, 1, CONTRACT)
    folded = aggregator.fold(Envelope("t", "node-5", 1, b""), update.payload)
    assert folded.reason is RejectionReason.NOT_FINITE


@pytest.mark.parametrize("claimed", [-1.0, float("nan"), float("inf"), 1e301])
def test_a_nonsensical_training_time_counts_as_none(task, claimed):
    message = reply(task, metrics={"num-examples": 20, "train_s": claimed})
    assert read_update(received(message), PARAMETERS, 1, CONTRACT).train_s == 0.0


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (3, "Message Unavailable", (Outcome.INTERRUPTED, "deadline")),
        (4, "", (Outcome.INTERRUPTED, "reply_lost")),
        (5, "Node Unavailable", (Outcome.INTERRUPTED, "node_gone")),
        (2, "no_examples: none", (Outcome.FAILED, "no_examples")),
        (2, "ValueError: x", (Outcome.FAILED, "flower_error_2")),
        (2, "Über: x", (Outcome.FAILED, "flower_error_2")),
        (2, "a" * 41 + ": x", (Outcome.FAILED, "flower_error_2")),
        (2, ": x", (Outcome.FAILED, "flower_error_2")),
        (7, "invalid_fab: x", (Outcome.FAILED, "flower_error_7")),
        (-99, "", (Outcome.FAILED, "flower_error_-99")),
    ],
)
def test_an_error_becomes_an_outcome_with_a_short_reason(code, reason, expected):
    assert outcome_of_error(code, reason) == expected
