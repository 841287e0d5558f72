import json

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.task_identity import TaskIdentity

from server.flower.node_messages import NodeReply, NodeTask
from server.flower.records import object_ids, read_reply, task_messages

LIMIT = 2**20


@pytest.fixture(autouse=True)
def task_identity():
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1


def reply_with(content: RecordDict | Error) -> Message:
    task = Message(RecordDict(), 5, "train")
    task.metadata.__dict__["_message_id"] = "asked"
    return Message(content, reply_to=task)


def objects_of(message: Message) -> dict[str, bytes]:
    return {i: thing.deflate() for i, thing in get_all_nested_objects(message).items()}


def read(message: Message, limit: int = LIMIT) -> NodeReply:
    return read_reply("asked", message.object_id, objects_of(message), limit)


def arrays(**named: np.ndarray) -> RecordDict:
    return RecordDict({"arrays": ArrayRecord({k: Array(v) for k, v in named.items()})})


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
        np.arange(4, dtype=">f4"),
        np.full((), 7.0, np.float32),
        np.zeros((0, 3), np.float32),
        np.array([np.nan, np.inf], np.float64),
        np.arange(2_000_000, dtype=np.float32),  # more than one of Flower's chunks
    ],
)
def test_an_array_comes_back_as_it_was_sent(array):
    (found,) = read(reply_with(arrays(w=array)), 2**24).arrays["arrays"]
    assert (found.name, found.dtype, found.shape) == ("w", array.dtype.name, array.shape)
    values = np.frombuffer(found.data, array.dtype.newbyteorder("<")).reshape(found.shape)
    np.testing.assert_array_equal(values, array)


def test_numbers_and_texts_come_back_by_record():
    content = RecordDict(
        {"metrics": MetricRecord({"num-examples": 3}), "echo": ConfigRecord({"v": b"x"})}
    )
    reply = read(reply_with(content))
    assert reply.values == {"metrics": {"num-examples": 3}, "echo": {"v": b"x"}}
    assert reply.malformed is None


def test_an_error_comes_back_with_its_code():
    reply = read(reply_with(Error(2, "no_examples: none")))
    assert (reply.error_code, reply.error_reason) == (2, "no_examples: none")


@pytest.mark.parametrize(
    "array",
    [
        Array("float32", (2,), "numpy.ndarray", b"not a .npy file"),
        Array("float32", (2,), "cbor", b"\x93NUMPY"),
        Array("float32", (2,), "numpy.ndarray", b""),
    ],
)
def test_bytes_that_are_no_array_are_malformed(array):
    reply = read(reply_with(RecordDict({"arrays": ArrayRecord({"w": array})})))
    assert reply.malformed is not None
    assert reply.arrays == {}


def npy(array: np.ndarray) -> bytearray:
    return bytearray(Array(array).data)


def test_an_array_that_claims_more_values_than_it_carries_is_malformed():
    data = bytes(npy(np.zeros(10, np.float32))).replace(b"(10,)", b"(10000000000000,)")
    data = data[:8] + (int.from_bytes(data[8:10], "little") + 12).to_bytes(2, "little") + data[10:]
    liar = Array("float32", (10,), "numpy.ndarray", data)
    reply = read(reply_with(RecordDict({"arrays": ArrayRecord({"w": liar})})))
    assert "carries 40 bytes" in reply.malformed


def test_pickled_objects_are_never_loaded():
    data = bytes(npy(np.zeros(10, np.float64))).replace(b"'<f8'", b"'|O8'")
    pickled = Array("object", (10,), "numpy.ndarray", data)
    reply = read(reply_with(RecordDict({"arrays": ArrayRecord({"w": pickled})})))
    assert "dtype object" in reply.malformed


def test_the_arrays_own_header_rules_not_what_flower_says_about_it():
    liar = Array("float32", (1000,), "numpy.ndarray", bytes(npy(np.zeros((2, 2), np.float64))))
    reply = read(reply_with(RecordDict({"arrays": ArrayRecord({"w": liar})})))
    (found,) = reply.arrays["arrays"]
    assert (found.dtype, found.shape) == ("float64", (2, 2))


def test_a_small_chunk_named_a_million_times_is_too_large_and_never_built():
    message = reply_with(arrays(w=np.zeros(250_000, np.float32)))
    contents = objects_of(message)
    (array_id,) = [i for i, c in contents.items() if c.startswith(b"Array ")]
    head, _, body = contents[array_id].partition(b"\0")
    bomb = json.dumps(json.loads(body) | {"arraychunk_ids": [0] * 200_000}).encode()
    kind, children, _ = head.split(b" ")
    contents[array_id] = b" ".join([kind, children, str(len(bomb)).encode()]) + b"\0" + bomb
    reply = read_reply("asked", message.object_id, contents, 2**21)
    assert reply.too_large


def test_an_object_that_is_missing_is_malformed():
    message = reply_with(arrays(w=np.zeros(3, np.float32)))
    contents = objects_of(message)
    contents.pop(next(i for i, c in contents.items() if c.startswith(b"ArrayChunk ")))
    assert "KeyError" in read_reply("asked", message.object_id, contents, LIMIT).malformed


def test_any_single_corruption_is_survived():
    message = reply_with(arrays(w=np.arange(4, dtype=np.float32)))
    good = objects_of(message)
    generator = np.random.Generator(np.random.Philox(3))
    for object_id, content in good.items():
        for _ in range(50):
            broken = bytearray(content)
            broken[generator.integers(len(broken))] = generator.integers(256)
            reply = read_reply("asked", message.object_id, good | {object_id: bytes(broken)}, LIMIT)
            assert reply.message_id == "asked"


def test_object_ids_are_listed_once_each_children_first():
    leaf = ObjectTree(object_id="leaf")
    tree = ObjectTree(
        object_id="root",
        children=[
            ObjectTree(object_id="a", children=[leaf]),
            ObjectTree(object_id="b", children=[leaf]),
        ],
    )
    ids = list(object_ids(tree))
    assert sorted(ids) == ["a", "b", "leaf", "root"]
    assert ids.index("leaf") < min(ids.index("a"), ids.index("b")) < ids.index("root")


def test_tasks_of_one_base_version_share_its_record():
    parameters = {"w": np.zeros(3, np.float32)}
    tasks = [
        NodeTask(node, "arrays", "config", parameters, {"n": node, "seed": 2**64 - 1}, 60.0, "3")
        for node in (5, 6)
    ]
    first, second = task_messages(tasks)
    assert first.content["arrays"] is second.content["arrays"]
    assert first.content["config"]["n"] == 5
    assert second.content["config"]["seed"] == 2**64 - 1
    assert (second.metadata.dst_node_id, second.metadata.ttl, second.metadata.group_id) == (
        6,
        60.0,
        "3",
    )
