"""The same replies give what Flower's own FedAvg makes of them, and what the papers say."""

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp.strategy import FedAvg, FedAvgM

from server.flower.strategies import FedBuff, OverCommittedFedAvg
from server.job import ServerSgd
from tests.server.flower.in_process_grid import InProcessGrid, Node, shrinking, stepping

CLIENTS, ROUNDS = 5, 4


@pytest.fixture
def initial() -> ArrayRecord:
    generator = np.random.default_rng(3)
    return ArrayRecord(
        [
            generator.standard_normal((7, 3)).astype(np.float32),
            generator.standard_normal(3).astype(np.float32),
            np.array(0.5, np.float32),
        ]
    )


def clients() -> InProcessGrid:
    return InProcessGrid(shrinking(i) for i in range(CLIENTS))


def rounds_of(strategy, initial, **kwargs):
    """Arrays after each round, and the result."""
    seen = []

    def keep(server_round, arrays):
        seen.append(arrays.to_numpy_ndarrays())
        return MetricRecord({"round": server_round})

    result = strategy.start(clients(), initial, ROUNDS, evaluate_fn=keep, **kwargs)
    return seen, result


def assert_equal_rounds(ours, theirs):
    assert len(ours) == len(theirs) == ROUNDS + 1
    for mine, other in zip(ours, theirs, strict=True):
        for a, b in zip(mine, other, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "ours",
    [
        lambda: OverCommittedFedAvg(
            cohort_size=CLIENTS, over_commitment=1, poll_interval_s=0.001, fraction_evaluate=0
        ),
        lambda: FedBuff(
            buffer_size=CLIENTS,
            concurrency=CLIENTS,
            weighting="examples",
            poll_interval_s=0.001,
            fraction_evaluate=0,
        ),
    ],
    ids=["fedavg", "fedbuff"],
)
def test_without_staleness_a_round_is_flowers_own_fedavg(initial, ours):
    theirs, their_result = rounds_of(FedAvg(fraction_evaluate=0, min_train_nodes=CLIENTS), initial)
    mine, result = rounds_of(ours(), initial)
    assert_equal_rounds(mine, theirs)
    for a, b in zip(
        result.arrays.to_numpy_ndarrays(), their_result.arrays.to_numpy_ndarrays(), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert list(result.arrays) == list(their_result.arrays)
    assert result.train_metrics_clientapp.keys() == their_result.train_metrics_clientapp.keys()
    for number, metrics in their_result.train_metrics_clientapp.items():
        assert result.train_metrics_clientapp[number] == pytest.approx(dict(metrics))
    assert result.evaluate_metrics_serverapp == their_result.evaluate_metrics_serverapp


def test_server_momentum_is_flowers_own_fedavgm(initial):
    theirs, _ = rounds_of(
        FedAvgM(
            server_learning_rate=0.5,
            server_momentum=0.9,
            fraction_evaluate=0,
            min_train_nodes=CLIENTS,
        ),
        initial,
    )
    mine, _ = rounds_of(
        FedBuff(
            buffer_size=CLIENTS,
            concurrency=CLIENTS,
            weighting="examples",
            server_optimizer=ServerSgd(learning_rate=0.5, momentum=0.9),
            poll_interval_s=0.001,
            fraction_evaluate=0,
        ),
        initial,
    )
    assert_equal_rounds(mine, theirs)


def test_federated_evaluation_is_flowers_own(initial):
    def grid() -> InProcessGrid:
        return InProcessGrid(stepping(i, examples=1 + i) for i in range(CLIENTS))

    theirs = FedAvg(min_train_nodes=CLIENTS, min_evaluate_nodes=CLIENTS).start(
        grid(), initial, ROUNDS
    )
    mine = OverCommittedFedAvg(
        cohort_size=CLIENTS,
        over_commitment=1,
        min_evaluate_nodes=CLIENTS,
        poll_interval_s=0.001,
    ).start(grid(), initial, ROUNDS)
    assert mine.evaluate_metrics_clientapp.keys() == theirs.evaluate_metrics_clientapp.keys()
    for number, metrics in theirs.evaluate_metrics_clientapp.items():
        assert mine.evaluate_metrics_clientapp[number] == pytest.approx(dict(metrics), rel=1e-5)


def test_an_update_three_versions_old_moves_the_model_half_as_far():
    # The second client answers only at the fourth look, when the first has made three versions.
    grid = InProcessGrid([stepping(1.0), Node(stepping(8.0), looks=4)])
    versions = []
    strategy = FedBuff(buffer_size=1, concurrency=2, poll_interval_s=0.001, fraction_evaluate=0)
    strategy.start(
        grid,
        ArrayRecord([np.zeros(2, np.float32)]),
        5,
        evaluate_fn=lambda _, arrays: versions.append(arrays.to_numpy_ndarrays()[0][0]),
    )
    # At that look the first client's fourth reply is behind it, and so one version old.
    np.testing.assert_allclose(np.diff(versions), [1, 1, 1, 4, 2**-0.5], rtol=1e-6)


def test_too_old_an_update_is_stale_and_changes_nothing():
    grid = InProcessGrid([stepping(1.0), Node(stepping(100.0), looks=4)])
    strategy = FedBuff(
        buffer_size=1, concurrency=2, max_staleness=2, poll_interval_s=0.001, fraction_evaluate=0
    )
    result = strategy.start(grid, ArrayRecord([np.zeros(2, np.float32)]), 6)
    assert result.arrays.to_numpy_ndarrays()[0][0] == 6.0
    assert strategy.totals.outcomes["succeeded"] == 6
    assert strategy.totals.outcomes["stale"] == 1


def test_the_first_replies_make_the_round_and_late_ones_count_for_nothing():
    slow = Node(stepping(1000.0), looks=7)
    grid = InProcessGrid([stepping(1.0), stepping(1.0), stepping(1.0), slow])
    strategy = OverCommittedFedAvg(
        cohort_size=3, over_commitment=1.3, poll_interval_s=0.001, fraction_evaluate=0
    )
    result = strategy.start(grid, ArrayRecord([np.zeros(2, np.float32)]), 4)
    assert result.arrays.to_numpy_ndarrays()[0][0] == pytest.approx(4.0)
    assert strategy.totals.outcomes == {"succeeded": 12, "over_committed": 1}
    assert len(slow.received) == 1


def test_no_node_trains_twice_in_a_round():
    grid = InProcessGrid(
        [stepping(1.0), Node(stepping(1.0), looks=5), Node(stepping(1.0), looks=5)]
    )
    OverCommittedFedAvg(
        cohort_size=3, over_commitment=1, poll_interval_s=0.001, fraction_evaluate=0
    ).start(grid, ArrayRecord([np.zeros(2, np.float32)]), 3)
    for node in grid.nodes.values():
        rounds = [message.metadata.group_id for message in node.received]
        assert rounds == ["1", "2", "3"]


def test_arrays_keep_the_dtypes_the_app_gave_them():
    initial = ArrayRecord([np.full(2, 0.25), np.array(7), np.full(3, 0.5, np.float16)])
    grid = InProcessGrid([stepping(2.0), stepping(4.0)])
    strategy = FedBuff(buffer_size=2, concurrency=2, poll_interval_s=0.001, fraction_evaluate=0)
    arrays = strategy.start(grid, initial, 1).arrays.to_numpy_ndarrays()
    assert [array.dtype for array in arrays] == [np.float64, np.int64, np.float16]
    np.testing.assert_array_equal(arrays[0], [3.25, 3.25])
    assert arrays[1] == 10
    np.testing.assert_array_equal(arrays[2], np.full(3, 3.5))


def test_a_task_is_told_its_round_and_what_the_app_adds():
    class Falling(FedBuff):
        def task_config(self, server_round, config):
            config["lr"] = config["lr"] / server_round
            return super().task_config(server_round, config)

    grid = InProcessGrid([stepping(1.0)])
    config = ConfigRecord({"lr": 1.0})
    Falling(buffer_size=1, concurrency=1, poll_interval_s=0.001, fraction_evaluate=0).start(
        grid, ArrayRecord([np.zeros(1, np.float32)]), 2, train_config=config
    )
    told = [message.content["config"] for message in grid.sent]
    assert [dict(each) for each in told] == [
        {"lr": 1.0, "server-round": 1},
        {"lr": 0.5, "server-round": 2},
    ]
    assert dict(config) == {"lr": 1.0}
