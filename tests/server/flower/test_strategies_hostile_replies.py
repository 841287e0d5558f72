"""A reply that cannot be used costs its own update, and nothing else."""

import math

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from server.flower.strategies import FedBuff, OverCommittedFedAvg, failing_nodes
from server.flower.strategies.errors import EveryNodeFails
from server.flower.strategies.failing_nodes import FailingNodes
from tests.server.flower.in_process_grid import (
    InProcessGrid,
    Node,
    base_of,
    evaluated,
    raising,
    reply,
    silent,
    stepping,
)

INITIAL = ArrayRecord({"w": Array(np.zeros((2, 3), np.float32)), "b": Array(np.zeros(3))})


def changed(message, **arrays):
    return reply(message, base_of(message) | arrays)


def claiming(count):
    return lambda message: reply(message, base_of(message), {"num-examples": count, "loss": 1.0})


def with_records(**records):
    """An honest reply with records added or, if None, left out."""

    def answer(message):
        content = dict(reply(message, base_of(message)).content.items()) | records
        kept = {name: record for name, record in content.items() if record is not None}
        return Message(RecordDict(kept), reply_to=message)

    return answer


HOSTILE = {
    "no array of the model": (lambda m: reply(m, {"x": np.zeros(1)}), "wrong_names"),
    "one array too few": (lambda m: reply(m, {"w": base_of(m)["w"]}), "wrong_names"),
    "one array too many": (lambda m: changed(m, more=np.zeros(1)), "wrong_names"),
    "no arrays at all": (lambda m: reply(m, {}), "wrong_names"),
    "another shape": (lambda m: changed(m, w=np.zeros((3, 2), np.float32)), "wrong_shape"),
    "another shape, of float64": (lambda m: changed(m, b=np.zeros((3, 1))), "wrong_shape"),
    "booleans": (lambda m: changed(m, b=np.zeros(3, bool)), "wrong_dtype"),
    "complex numbers": (lambda m: changed(m, b=np.zeros(3, complex)), "wrong_dtype"),
    "text": (lambda m: changed(m, b=np.array(["a", "b", "c"])), "wrong_dtype"),
    "NaN": (lambda m: changed(m, b=np.array([0, np.nan, 0])), "not_finite"),
    "infinity": (lambda m: changed(m, w=np.full((2, 3), np.inf, np.float32)), "not_finite"),
    "beyond float32": (lambda m: changed(m, b=np.array([0, 1e300, 0])), "not_finite"),
    "a step no sum could hold": (lambda m: changed(m, b=np.full(3, 1e32)), "norm_exceeded"),
    "ten to the nine examples": (claiming(10**9), "too_many_examples"),
    "more examples than fit in 64 bits": (claiming(2**80), "too_many_examples"),
    "minus five examples": (claiming(-5), "non_positive_examples"),
    "no examples": (claiming(0), "non_positive_examples"),
    "half an example": (claiming(0.5), "malformed"),
    "NaN examples": (claiming(math.nan), "malformed"),
    "a list of example counts": (claiming([20, 20]), "malformed"),
    "no example count": (lambda m: reply(m, base_of(m), {"loss": 1.0}), "malformed"),
    "no metrics": (with_records(metrics=None), "malformed"),
    "two MetricRecords": (with_records(more=MetricRecord({"num-examples": 1})), "malformed"),
    "two ArrayRecords": (with_records(more=ArrayRecord()), "malformed"),
    "no ArrayRecord": (with_records(arrays=None), "malformed"),
    "nothing": (lambda m: Message(RecordDict(), reply_to=m), "malformed"),
    "bytes that are no array": (
        with_records(
            arrays=ArrayRecord({"w": Array("float32", (2, 3), "numpy.ndarray", b"\x93NUMPY junk")})
        ),
        "malformed",
    ),
    "an array of another kind": (
        with_records(arrays=ArrayRecord({"w": Array("float32", (2, 3), "pickle", b"cos\nsystem")})),
        "malformed",
    ),
    "megabytes": (lambda m: changed(m, more=np.zeros(300_000)), "too_large"),
}

STRATEGIES = {
    "fedbuff": lambda **more: FedBuff(
        buffer_size=2, concurrency=3, poll_interval_s=0.001, fraction_evaluate=0, **more
    ),
    "fedavg": lambda **more: OverCommittedFedAvg(
        cohort_size=2,
        over_commitment=1.5,
        poll_interval_s=0.001,
        fraction_evaluate=0,
        min_available_nodes=3,
        **more,
    ),
}


def strategies(test):
    return pytest.mark.parametrize("make", STRATEGIES.values(), ids=STRATEGIES)(test)


@pytest.mark.parametrize("what", HOSTILE)
@strategies
def test_a_hostile_reply_is_refused_by_its_reason_and_moves_nothing(make, what):
    answer, reason = HOSTILE[what]
    grid = InProcessGrid([Node(stepping(1.0), looks=2), Node(stepping(1.0), looks=2), answer])
    strategy = make()
    result = strategy.start(grid, INITIAL, 2)
    for array in result.arrays.to_numpy_ndarrays():
        np.testing.assert_allclose(array, 2.0)
    assert strategy.totals.outcomes["succeeded"] == 4
    assert strategy.totals.outcomes["rejected"] >= 1
    assert strategy.totals.reasons[reason] == strategy.totals.outcomes["rejected"]


def test_a_refusal_is_logged_with_node_value_limit_and_code(caplog):
    caplog.set_level("INFO", "flwr")
    slow = [Node(stepping(1.0), looks=2), Node(stepping(1.0), looks=2)]
    grid = InProcessGrid([*slow, claiming(10**9)])
    STRATEGIES["fedbuff"](max_claimed_examples=500).start(grid, INITIAL, 1)
    refused = [r.getMessage() for r in caplog.records if "refused" in r.getMessage()]
    assert refused == [
        "node-12: update refused, update claims 1000000000 examples; at most 500 are accepted "
        "[FLN-2108]"
    ]


def test_replies_of_other_floats_are_taken_as_numbers():
    def float64(message):
        base = base_of(message)
        return reply(message, {name: array.astype(np.float64) + 1 for name, array in base.items()})

    result = STRATEGIES["fedbuff"]().start(InProcessGrid([float64] * 3), INITIAL, 1)
    assert [a.dtype for a in result.arrays.to_numpy_ndarrays()] == [np.float32, np.float64]
    np.testing.assert_allclose(result.arrays.to_numpy_ndarrays()[0], 1.0)


def test_an_update_beyond_the_norm_is_refused():
    slow = [Node(stepping(0.1), looks=2), Node(stepping(0.1), looks=2)]
    grid = InProcessGrid([*slow, stepping(50.0)])
    strategy = STRATEGIES["fedbuff"](max_update_norm=10.0)
    result = strategy.start(grid, INITIAL, 1)
    np.testing.assert_allclose(result.arrays.to_numpy_ndarrays()[0], 0.1, rtol=1e-6)
    assert strategy.totals.reasons["norm_exceeded"] == 1


def test_one_clients_weight_is_capped():
    grid = InProcessGrid([stepping(1.0, examples=10), stepping(3.0, examples=900_000)])
    strategy = OverCommittedFedAvg(
        cohort_size=2,
        over_commitment=1,
        max_examples=10,
        poll_interval_s=0.001,
        fraction_evaluate=0,
    )
    result = strategy.start(grid, INITIAL, 1)
    np.testing.assert_allclose(result.arrays.to_numpy_ndarrays()[0], 2.0)


@strategies
def test_errors_of_the_client_app_end_their_own_task(make):
    slow = [Node(stepping(1.0), looks=2), Node(stepping(1.0), looks=2)]
    strategy = make()
    result = strategy.start(InProcessGrid([*slow, raising]), INITIAL, 2)
    np.testing.assert_allclose(result.arrays.to_numpy_ndarrays()[0], 2.0)
    assert strategy.totals.reasons["flower_error_2"] >= 1


@strategies
def test_a_node_that_leaves_with_a_task_interrupts_it(make):
    leaving = Node(stepping(1.0), looks=3)
    grid = InProcessGrid([Node(stepping(1.0), looks=3), Node(stepping(1.0), looks=3), leaving])

    def leave():
        leaving.online = False

    grid.before_pull = leave
    strategy = make()
    strategy.start(grid, INITIAL, 3)
    assert len(leaving.received) == 1
    assert strategy.totals.outcomes["succeeded"] == 6


def test_a_node_that_never_answers_costs_one_round_its_deadline_at_most():
    grid = InProcessGrid([stepping(1.0), silent])
    strategy = OverCommittedFedAvg(
        cohort_size=2,
        over_commitment=1,
        round_deadline_s=0.2,
        poll_interval_s=0.01,
        fraction_evaluate=0,
    )
    result = strategy.start(grid, INITIAL, 1)
    np.testing.assert_allclose(result.arrays.to_numpy_ndarrays()[0], 1.0)
    assert strategy.totals.outcomes == {"succeeded": 1, "over_committed": 1}
    assert strategy.totals.reasons == {"round_closed": 1}


def test_a_round_below_its_minimum_is_begun_anew():
    grid = InProcessGrid([stepping(1.0), Node(stepping(1.0), looks=100)])
    strategy = OverCommittedFedAvg(
        cohort_size=2,
        over_commitment=1,
        round_deadline_s=0.1,
        min_updates=2,
        poll_interval_s=0.002,
        fraction_evaluate=0,
    )
    grid.nodes[11].looks = 10**6  # not in the first round
    abandoned = []

    def answer_from_the_second_round_on():
        if len(grid.nodes[10].received) > 1 and not abandoned:
            abandoned.append(True)
            grid.nodes[11].looks = 1
            for pending in grid.pending.values():
                pending.looks_left = 1

    grid.before_pull = answer_from_the_second_round_on
    result = strategy.start(grid, INITIAL, 1)
    assert abandoned
    np.testing.assert_allclose(result.arrays.to_numpy_ndarrays()[0], 1.0)
    assert strategy.totals.reasons["round_abandoned"] >= 1


def test_a_message_that_is_refused_is_offered_to_another_node():
    grid = InProcessGrid([stepping(1.0), stepping(1.0)])
    online = grid.get_node_ids
    grid.get_node_ids = lambda: [99, *online()]  # nobody has this id
    strategy = FedBuff(
        buffer_size=2,
        concurrency=3,
        selection="arrival",
        poll_interval_s=0.001,
        fraction_evaluate=0,
    )
    strategy.start(grid, INITIAL, 2)
    assert strategy.totals.outcomes == {"succeeded": 4}


@strategies
def test_when_nothing_ever_works_the_run_ends_and_says_why(make, monkeypatch):
    monkeypatch.setattr(failing_nodes, "_FIRST_REST_S", 0.001)
    with pytest.raises(EveryNodeFails, match=r"node 1\d: Flower error 2 .*no data.*FLN-1624"):
        make().start(InProcessGrid([raising] * 3), INITIAL, 2)


def test_a_failing_node_rests_longer_each_time_and_half_a_minute_at_most():
    failing = FailingNodes()
    assert [failing.note_failure(1, "x") for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    failing.note_update(1)
    assert failing.note_failure(1, "x") == 1


def test_once_an_update_was_accepted_no_number_of_bad_nodes_ends_a_run():
    failing = FailingNodes()
    for _ in range(20):
        failing.note_failure(1, "x")
    assert failing.hopeless([1, 2]) is None
    assert failing.hopeless([1]) == "node 1: x"
    failing.note_update(2)
    failing.note_failure(1, "x")
    assert failing.hopeless([1]) is None


def evaluating(answer):
    """Train honestly, evaluate as told."""

    def both(message):
        if message.metadata.message_type == "evaluate":
            return answer(message)
        return stepping(1.0)(message)

    return both


BAD_METRICS = {
    "other keys": lambda m: evaluated(m, **{"num-examples": 1, "accuracy": 1.0}),
    "no example count": lambda m: evaluated(m, value=1.0),
    "no examples": lambda m: evaluated(m, **{"num-examples": 0, "value": 1.0}),
    "too many examples": lambda m: evaluated(m, **{"num-examples": 10**9, "value": 1.0}),
    "NaN": lambda m: evaluated(m, **{"num-examples": 1, "value": math.nan}),
    "a list": lambda m: evaluated(m, **{"num-examples": 1, "value": [1.0, 2.0]}),
    "no record": lambda m: Message(RecordDict({"c": ConfigRecord()}), reply_to=m),
    "two records": lambda m: Message(
        RecordDict({"metrics": MetricRecord({"num-examples": 1}), "more": MetricRecord()}),
        reply_to=m,
    ),
    "an error": raising,
}


@pytest.mark.parametrize("what", BAD_METRICS)
def test_bad_metrics_of_one_node_leave_the_evaluation_to_the_others(what):
    grid = InProcessGrid([stepping(1.0), stepping(1.0), evaluating(BAD_METRICS[what])])
    strategy = OverCommittedFedAvg(
        cohort_size=3, over_commitment=1, min_evaluate_nodes=3, poll_interval_s=0.001
    )
    result = strategy.start(grid, INITIAL, 2)
    assert {n: dict(m) for n, m in result.evaluate_metrics_clientapp.items()} == {
        1: {"value": pytest.approx(1.0)},
        2: {"value": pytest.approx(2.0)},
    }


def test_bad_metrics_beside_a_good_update_leave_the_rounds_metrics_to_the_others():
    def odd(message):
        arrays = {name: array + 1 for name, array in base_of(message).items()}
        return reply(message, arrays, {"num-examples": 20, "surprise": 1.0})

    grid = InProcessGrid([stepping(1.0), stepping(1.0), odd])
    strategy = OverCommittedFedAvg(
        cohort_size=3, over_commitment=1, fraction_evaluate=0, poll_interval_s=0.001
    )
    result = strategy.start(grid, INITIAL, 1)
    assert dict(result.train_metrics_clientapp[1]) == {"loss": pytest.approx(1.0)}
    assert strategy.totals.outcomes == {"succeeded": 3}
