"""A strategy on Flower's own `HttpGrid`: real SuperLink, nodes that answer as a test says."""

from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Error, Message, RecordDict
from flwr.common.serde import run_from_proto
from flwr.superlink.grid import HttpGrid

from server.flower.adapter import FlowerRun, submit_run
from server.flower.control import find_run, root_certificates
from server.flower.strategies import FedBuff
from server.operations.settings import ServerSettings
from tests.server.flower.conftest import eventually
from tests.server.flower.in_process_grid import base_of, reply, stepping
from tests.server.flower.scripted_node import ScriptedNode

pytestmark = pytest.mark.integration

INITIAL = ArrayRecord({"w": Array(np.zeros((2, 3), np.float32)), "b": Array(np.zeros(3))})


@pytest.fixture
def grid(settings: ServerSettings) -> Iterator[HttpGrid]:
    """The grid that a ServerApp of this run is given."""
    run_id = submit_run(settings, "somebodys-app")
    run = FlowerRun.acquire(settings, run_id, "somebodys-app")
    assert run._session is not None
    token = run._session.claim.token
    grid = HttpGrid(
        settings.superlink_address, root_certificates=root_certificates(settings), token=token
    )
    found = find_run(settings, run_id)
    assert found is not None
    grid.set_run(run_from_proto(found))
    yield grid
    grid.close()
    run.finish("completed", "")


def junk(message: Message) -> Message:
    array = Array("float32", (2, 3), "numpy.ndarray", b"\x93NUMPY junk")
    content = dict(reply(message, base_of(message)).content) | {"arrays": ArrayRecord({"w": array})}
    return Message(RecordDict(content), reply_to=message)


def strategy(**changes) -> FedBuff:
    settings = {"buffer_size": 2, "concurrency": 4, "fraction_evaluate": 0.0}
    return FedBuff(**(settings | {"poll_interval_s": 0.1} | changes))


def test_hostile_and_failing_nodes_beside_honest_ones(grid, settings):
    bad: list[ScriptedNode] = []

    def honest(message: Message) -> Message:
        if int(message.metadata.group_id) == 4:
            # Who is asked a second time has had a first answer judged.
            eventually(lambda: all(len(node.tasks) > 1 for node in bad))
        return stepping(1.0)(message)

    answers = [
        junk,
        lambda message: reply(message, base_of(message) | {"w": np.zeros(400_000)}),
        lambda message: Message(Error(2, "no data"), reply_to=message),
    ]
    with ExitStack() as nodes:
        bad += [nodes.enter_context(ScriptedNode(settings, answer)) for answer in answers]
        for _ in range(2):
            nodes.enter_context(ScriptedNode(settings, honest))
        eventually(lambda: len(list(grid.get_node_ids())) == 5)
        trained = strategy(concurrency=5, staleness_exponent=0.0)
        result = trained.start(grid, INITIAL, 4)
    for array in result.arrays.to_numpy_ndarrays():
        np.testing.assert_allclose(array, 4.0)
    assert trained.totals.outcomes["succeeded"] == 8
    assert {"malformed", "too_large", "flower_error_2"} <= trained.totals.reasons.keys()


def test_federated_evaluation_is_asked_and_answered(grid, settings):
    with ExitStack() as nodes:
        for _ in range(2):
            nodes.enter_context(ScriptedNode(settings, stepping(1.0)))
        eventually(lambda: len(list(grid.get_node_ids())) == 2)
        trained = strategy(concurrency=2, fraction_evaluate=1.0, evaluate_every=2)
        result = trained.start(grid, INITIAL, 2)
    assert result.evaluate_metrics_clientapp.keys() == {2}
    assert result.evaluate_metrics_clientapp[2]["value"] == pytest.approx(
        result.arrays["w"].numpy()[0, 0]
    )


def test_a_node_that_leaves_with_a_task_costs_nobody_else(grid, settings):
    with ScriptedNode(settings, stepping(1.0)), ScriptedNode(settings, lambda _: None) as leaving:
        eventually(lambda: len(list(grid.get_node_ids())) == 2)

        def leave_when_asked(server_round: int, arrays: ArrayRecord) -> None:
            if server_round == 1:
                eventually(lambda: leaving.tasks)
                leaving.leave()

        trained = strategy(buffer_size=1, concurrency=2)
        result = trained.start(grid, INITIAL, 4, evaluate_fn=leave_when_asked)
    assert result.arrays["w"].numpy()[0, 0] == pytest.approx(4.0)
    assert trained.totals.reasons["node_gone"] == 1


def test_a_node_that_does_not_answer_is_interrupted_at_the_timeout(grid, settings):
    asked: list[Message] = []

    def second_time_only(message: Message) -> Message | None:
        asked.append(message)
        return stepping(1.0)(message) if len(asked) > 1 else None

    with ScriptedNode(settings, second_time_only):
        eventually(lambda: len(list(grid.get_node_ids())) == 1)
        trained = strategy(buffer_size=1, concurrency=1)
        trained.start(grid, INITIAL, 1, timeout=2.0)
    assert trained.totals.reasons == {"deadline": 1}
    assert trained.totals.outcomes == {"interrupted": 1, "succeeded": 1}
