from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import pytest
from flwr.app import Error, Message

from device_runtime.flower_records import CONFIG, TaskKey
from device_runtime.update_codec import encode_parameters
from feature_catalog.blobs import BlobStore
from server.coordination.events import Event, TaskCompleted, TaskEnded, TaskStarted
from server.coordination.fleet import OpenJob
from server.coordination.tasks import Grant, Outcome, Release
from server.flower.adapter import FlowerRun, stop_run, submit_run
from server.flower.grid_fleet import GridFleet
from server.operations.settings import ServerSettings
from server.update_gate.rejections import RejectionReason
from tests.server.coordination.fleet_contract import CLIENTS, FleetContract
from tests.server.flower.conftest import eventually
from tests.server.flower.node_replies import BASE, CONTRACT, HOSTILE, MODEL, base_of, job, reply
from tests.server.flower.scripted_node import ScriptedNode

pytestmark = pytest.mark.integration


@dataclass
class Opened:
    """A fleet on a real Flower run, with what tests need to drive it."""

    fleet: GridFleet
    run: FlowerRun
    blobs: BlobStore

    def announce(self, version: int, oldest_live: int, arrays: list[np.ndarray] = BASE) -> None:
        digest = self.blobs.put(encode_parameters(MODEL.parameters, arrays))
        self.fleet.set_model(version, digest, oldest_live)

    def await_nodes(self, count: int) -> None:
        eventually(lambda: self.fleet.capacity() == count)

    def event(self, kind: type[Event]) -> Event:
        event = self.fleet.next_event(20.0)
        assert isinstance(event, kind), event
        return event

    def run_task(self, grant_id: str = "g") -> Event:
        """Grant one task and wait for how it ends."""
        self.fleet.grant(Grant(grant_id, 1, None, 60.0))
        started = self.event(TaskStarted)
        assert started.grant_id == grant_id
        ended = self.event(TaskCompleted | TaskEnded)
        task_id = ended.reference.task_id if isinstance(ended, TaskCompleted) else ended.task_id
        assert task_id == started.task_id
        return ended


@pytest.fixture
def open_fleet(settings: ServerSettings, tmp_path) -> Iterator[Callable[..., Opened]]:
    opened: list[Opened] = []

    def open_one(**changes: object) -> Opened:
        blobs = BlobStore(f"file://{tmp_path}/blobs")
        run = FlowerRun.acquire(settings, submit_run(settings, "nodes"), "nodes")
        fleet = GridFleet(run.grid, blobs, poll_s=0.1, membership_s=0.3)
        opened.append(Opened(fleet, run, blobs))
        artifact, manifest = blobs.put(b"model.tflite"), blobs.put(b'{"manifest": 1}')
        fleet.open(OpenJob("j-1", 1, job(**changes), MODEL, artifact, manifest, CONTRACT))
        opened[-1].announce(1, 0)
        return opened[-1]

    yield open_one
    for one in opened:
        one.fleet.close("test over")
        one.run.finish("completed", "")


def answer_in_turn(answers: Iterator[Callable[[Message], Message]]) -> Callable[[Message], Message]:
    def answer(task: Message) -> Message:
        return next(answers)(task)

    return answer


@dataclass
class GridRig:
    fleet: GridFleet
    quiet_s: float = 0.5

    def train(self) -> None:
        """Nodes train by themselves."""


class TestGridFleet(FleetContract):
    @pytest.fixture
    def rig(self, open_fleet, settings):
        opened = open_fleet()
        with ExitStack() as nodes:
            for _ in range(CLIENTS):
                nodes.enter_context(ScriptedNode(settings, reply))
            opened.await_nodes(CLIENTS)
            yield GridRig(opened.fleet)


def test_without_nodes_there_is_no_capacity_and_slots_are_given_back(open_fleet):
    opened = open_fleet()
    assert opened.fleet.capacity() == 0
    opened.fleet.grant(Grant("g", 5, None, 60.0))
    assert opened.fleet.next_event(0.0) is None
    assert opened.fleet.give_back_slots() == {"g": 5}


def test_weights_from_a_node_become_a_weighted_sum_of_deltas(open_fleet, settings):
    opened = open_fleet()
    with ScriptedNode(settings, reply) as node:
        opened.await_nodes(1)
        completed = opened.run_task()
        config = node.tasks[0].content[CONFIG]
    reference = completed.reference
    assert reference.client_id == f"node-{node.node_id}"
    assert (reference.num_examples, reference.weight, reference.base_version) == (20, 20.0, 1)
    assert reference.update_norm == pytest.approx(2.0)  # four ones
    assert (reference.loss_before, reference.loss_after) == (0.7, 0.5)
    assert reference.train_s == 1.5
    assert reference.bytes_up > 16
    assert (config[TaskKey.MANIFEST], config[TaskKey.ARTIFACT]) == (
        '{"manifest": 1}',
        b"model.tflite",
    )
    assert config[TaskKey.LEARNING_RATE] == 0.5
    released = opened.fleet.release(Release("r-1"))
    (partial,) = released.sums
    assert released.release_ids == ("r-1",)
    np.testing.assert_array_equal(partial.total, np.full(4, 20.0, np.float32))
    assert (partial.base_version, partial.weight) == (1, 20.0)
    assert partial.task_ids == (reference.task_id,)
    assert opened.fleet.release(Release("r-1")).sums[0].task_ids == partial.task_ids
    opened.fleet.commit("r-1")
    assert opened.fleet.release(Release("r-2")).sums == ()


def test_hostile_replies_are_refused_by_number_and_honest_ones_still_count(open_fleet, settings):
    opened = open_fleet()
    sent = ["a negative example count", "NaN", "bytes that are no array", "megabytes"]
    answers = iter([reply, *(HOSTILE[what][0] for what in sent), reply])
    with ScriptedNode(settings, answer_in_turn(answers)):
        opened.await_nodes(1)
        ends = [opened.run_task() for _ in range(len(sent) + 2)]
    assert isinstance(ends[0], TaskCompleted)
    assert isinstance(ends[-1], TaskCompleted)
    expected = [RejectionReason[HOSTILE[what][1]] for what in sent]
    assert [(end.outcome, end.reason, end.reason_code) for end in ends[1:-1]] == [
        (Outcome.REJECTED, reason.name.lower(), int(reason)) for reason in expected
    ]
    (partial,) = opened.fleet.release(Release("r")).sums
    np.testing.assert_array_equal(partial.total, np.full(4, 40.0, np.float32))


def test_a_step_of_zero_is_legal(open_fleet, settings):
    opened = open_fleet()
    with ScriptedNode(settings, lambda task: reply(task, base_of(task))):
        opened.await_nodes(1)
        assert opened.run_task().reference.update_norm == 0.0


def test_arrays_in_another_order_are_the_same_update(open_fleet, settings):
    opened = open_fleet()

    def reversed_order(task: Message) -> Message:
        arrays = {name: array + 1 for name, array in base_of(task).items()}
        return reply(task, dict(reversed(arrays.items())))

    with ScriptedNode(settings, reversed_order):
        opened.await_nodes(1)
        assert isinstance(opened.run_task(), TaskCompleted)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Error(2, "no_examples: the store is empty"), "no_examples"),
        (Error(2, "Traceback (most recent call last): ..."), "flower_error_2"),
        (Error(6, "a mod refused"), "flower_error_6"),
    ],
)
def test_an_error_reply_fails_the_task_with_its_code(open_fleet, settings, error, reason):
    opened = open_fleet()
    with ScriptedNode(settings, lambda task: Message(error, reply_to=task)):
        opened.await_nodes(1)
        ended = opened.run_task()
    assert (ended.outcome, ended.reason, ended.reason_code) == (Outcome.FAILED, reason, 0)


def test_a_node_that_leaves_with_a_task_interrupts_it(open_fleet, settings):
    opened = open_fleet()
    with ScriptedNode(settings, lambda _: None) as node:
        opened.await_nodes(1)
        opened.fleet.grant(Grant("g", 1, None, 60.0))
        opened.event(TaskStarted)
        eventually(lambda: node.tasks)
    ended = opened.event(TaskEnded)
    assert (ended.outcome, ended.reason) == (Outcome.INTERRUPTED, "node_gone")


def test_a_task_without_an_answer_is_interrupted_at_its_deadline(open_fleet, settings):
    opened = open_fleet()
    with ScriptedNode(settings, lambda _: None):
        opened.await_nodes(1)
        granted_s = opened.fleet.now_s()
        opened.fleet.grant(Grant("g", 1, None, 1.0))
        opened.event(TaskStarted)
        ended = opened.event(TaskEnded)
    assert (ended.outcome, ended.reason) == (Outcome.INTERRUPTED, "deadline")
    assert 1.0 <= ended.at_s - granted_s < 6.0


def test_an_answer_to_a_base_version_no_longer_live_is_stale(open_fleet, settings):
    opened = open_fleet()

    def slow(task: Message) -> Message:
        opened.announce(3, 2)
        return reply(task)

    with ScriptedNode(settings, slow):
        opened.await_nodes(1)
        ended = opened.run_task()
    assert (ended.outcome, ended.reason, ended.base_version) == (Outcome.STALE, "base_version", 1)
    assert opened.fleet.release(Release("r")).sums == ()


def test_an_answer_to_an_older_live_version_is_a_step_from_that_version(open_fleet, settings):
    opened = open_fleet()

    def slow(task: Message) -> Message:
        opened.announce(2, 0, [array + 100 for array in BASE])
        return reply(task)

    with ScriptedNode(settings, slow):
        opened.await_nodes(1)
        completed = opened.run_task()
    assert completed.reference.base_version == 1
    assert completed.reference.update_norm == pytest.approx(2.0)


def test_an_answer_after_its_round_closed_is_over_committed(open_fleet, settings):
    opened = open_fleet()

    def slow(task: Message) -> Message:
        opened.fleet.cancel("g", running_too=True)
        return reply(task)

    with ScriptedNode(settings, slow):
        opened.await_nodes(1)
        ended = opened.run_task("g")
        assert (ended.outcome, ended.reason) == (Outcome.OVER_COMMITTED, "round_closed")
        assert opened.fleet.capacity() == 1


@pytest.mark.parametrize(
    "asked", [{"state": {"min_battery": 0.8}}, {"device": {"min_os_release": "2019-09"}}]
)
def test_a_job_that_asks_for_device_states_or_models_uses_no_plain_node(
    open_fleet, settings, asked
):
    opened = open_fleet(participation=asked)
    with ScriptedNode(settings, reply):
        assert opened.fleet.next_event(1.0) is None
        assert opened.fleet.capacity() == 0


def test_stopping_the_run_interrupts_its_tasks(open_fleet, settings):
    opened = open_fleet()
    with ScriptedNode(settings, lambda _: None):
        opened.await_nodes(1)
        opened.fleet.grant(Grant("g", 1, None, 60.0))
        opened.event(TaskStarted)
        stop_run(settings, opened.run.run_id)
        ended = opened.event(TaskEnded)
    assert (ended.outcome, ended.reason) == (Outcome.INTERRUPTED, "flower_run_over")
    assert opened.fleet.capacity() == 0


def test_an_update_folded_just_before_its_version_went_stale_is_not_in_the_next_sum(
    open_fleet, settings
):
    opened = open_fleet()
    with ScriptedNode(settings, reply):
        opened.await_nodes(1)
        opened.run_task()
    opened.announce(2, 2)
    assert opened.fleet.release(Release("r")).sums == ()


def test_a_dropped_bucket_is_never_released(open_fleet, settings):
    opened = open_fleet()
    with ScriptedNode(settings, reply):
        opened.await_nodes(1)
        opened.run_task()
    opened.fleet.drop(1, Outcome.FAILED, "round_abandoned")
    assert opened.fleet.release(Release("r")).sums == ()
