"""FLINT's strategies as a Flower user meets them: `start`, `Result`, wrappers, subclasses, logs."""

import subprocess
import sys

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy import (
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideAdaptiveClipping,
    DifferentialPrivacyServerSideFixedClipping,
    Strategy,
)

from server.coordination.fleet import OpenJob
from server.coordination.versions import StoredVersion
from server.flower.strategies import FedBuff, OverCommittedFedAvg
from server.flower.strategies.array_layout import ArrayLayout, record_of
from server.flower.strategies.array_versions import ArrayVersions
from server.flower.strategies.client_app_fleet import ClientAppFleet
from server.flower.strategies.errors import (
    InvalidStrategyArgument,
    NotRoundBased,
    UnusableArrays,
    UnusedRoundMethod,
)
from server.flower.strategies.grid_nodes import nodes_of
from server.job import ServerAdaptive
from tests.server.coordination.fleet_contract import CLIENTS, FleetContract
from tests.server.flower.in_process_grid import InProcessGrid, Node, silent, stepping

INITIAL = ArrayRecord([np.zeros(2, np.float32)])


def fedbuff(**changes):
    settings = {"buffer_size": 2, "concurrency": 3, "poll_interval_s": 0.001}
    return FedBuff(**(settings | {"fraction_evaluate": 0} | changes))


def fedavg(**changes):
    settings = {"cohort_size": 2, "over_commitment": 1.0, "poll_interval_s": 0.001}
    return OverCommittedFedAvg(**(settings | {"fraction_evaluate": 0} | changes))


BOTH = pytest.mark.parametrize("make", [fedbuff, fedavg])


def three_nodes() -> InProcessGrid:
    return InProcessGrid([stepping(1.0)] * 3)


WRAPPERS = {
    "server fixed": lambda s: DifferentialPrivacyServerSideFixedClipping(s, 1.0, 1.0, 3),
    "client fixed": lambda s: DifferentialPrivacyClientSideFixedClipping(s, 1.0, 1.0, 3),
    "server adaptive": lambda s: DifferentialPrivacyServerSideAdaptiveClipping(s, 0.1, 3),
    "client adaptive": lambda s: DifferentialPrivacyClientSideAdaptiveClipping(s, 0.1, 3),
}


@BOTH
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_flowers_round_based_wrappers_are_refused_before_a_message_is_sent(make, wrapper):
    grid = three_nodes()
    with pytest.raises(NotRoundBased) as caught:
        WRAPPERS[wrapper](make()).start(grid, INITIAL, 2)
    assert grid.sent == []
    name = type(make()).__name__
    assert str(caught.value) == (
        f"{name} cannot be wrapped in a strategy that works in Flower's rounds, such as its "
        f"differential privacy wrappers: they would train without what makes it {name}; call "
        f"{name}.start() itself [FLN-1622]"
    )


@BOTH
def test_it_is_a_strategy_and_its_round_methods_say_that_there_are_no_rounds(make):
    strategy = make()
    assert isinstance(strategy, Strategy)
    with pytest.raises(NotRoundBased, match="FLN-1622"):
        strategy.aggregate_train(1, [])


@pytest.mark.parametrize("method", ["configure_train", "aggregate_train"])
def test_a_subclass_that_overrides_what_is_never_called_is_told_so(method):
    class Mine(FedBuff):
        pass

    setattr(Mine, method, lambda *_: [])
    grid = three_nodes()
    with pytest.raises(UnusedRoundMethod, match=rf"Mine overrides {method}.*task_config.*FLN-1623"):
        Mine(buffer_size=1, concurrency=1).start(grid, INITIAL, 1)
    assert grid.sent == []


@pytest.mark.parametrize(
    ("make", "changes", "sentence"),
    [
        (fedbuff, {"buffer_size": 0}, "buffer_size = 0"),
        (fedbuff, {"buffer_size": 2.5}, "buffer_size = 2.5 .* whole number"),
        (fedbuff, {"concurrency": 0}, "concurrency = 0"),
        (fedbuff, {"max_staleness": -1}, "max_staleness = -1"),
        (fedbuff, {"staleness_exponent": -0.5}, "staleness_exponent = -0.5"),
        (fedbuff, {"server_learning_rate": 0.0}, "server_learning_rate = 0.0"),
        (fedbuff, {"server_learning_rate": float("nan")}, "server_learning_rate = nan"),
        (fedbuff, {"weighting": "size"}, "weighting = 'size'"),
        (fedbuff, {"selection": "best"}, "selection = 'best'"),
        (fedbuff, {"fraction_evaluate": 1.5}, "fraction_evaluate=1.5.*from 0 to 1"),
        (fedbuff, {"evaluate_every": 0}, "evaluate_every=0.*at least 1"),
        (fedbuff, {"poll_interval_s": 0.0}, "poll_interval_s=0.0"),
        (fedavg, {"cohort_size": 0}, "cohort_size = 0"),
        (fedavg, {"over_commitment": 0.5}, "over_commitment = 0.5"),
        (fedavg, {"round_deadline_s": 0.0}, "round_deadline_s = 0.0"),
        (fedavg, {"min_updates": 3}, r"min_updates \(3\) is larger than cohort_size \(2\)"),
    ],
)
def test_an_impossible_argument_is_refused_at_once_under_its_own_name(make, changes, sentence):
    with pytest.raises(InvalidStrategyArgument, match=sentence + r".*FLN-1620"):
        make(**changes)


def test_a_learning_rate_beside_an_optimizer_is_refused():
    with pytest.raises(InvalidStrategyArgument, match="give the learning rate to the server_opt"):
        fedbuff(
            server_learning_rate=0.5,
            server_optimizer=ServerAdaptive(name="adam", learning_rate=0.1),
        )


def test_an_impossible_timeout_is_refused():
    with pytest.raises(InvalidStrategyArgument, match=r"timeout = 0"):
        fedbuff().start(three_nodes(), INITIAL, 1, timeout=0)


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({}, "is empty"),
        ({"mask": Array(np.zeros(2, bool))}, "'mask'.*dtype bool"),
        ({"z": Array(np.zeros(2, complex))}, "'z'.*dtype complex128"),
        ({"w": Array(np.array([1.0, np.nan]))}, "'w'.*NaN"),
        ({"w": Array(np.array([1e300]))}, "'w'.*beyond float32"),
        ({"w": Array("float32", (1,), "xgboost", b"tree")}, "'w'.*no NumPy array"),
        ({"w": Array(np.zeros((1,) * 9))}, "9 dimensions"),
        ({f"w{i}": Array(np.zeros(1)) for i in range(5000)}, "5000 arrays"),
    ],
)
def test_arrays_that_cannot_be_averaged_are_refused_before_a_message_is_sent(arrays, sentence):
    grid = three_nodes()
    with pytest.raises(UnusableArrays, match=sentence + r".*FLN-1621"):
        fedbuff().start(grid, ArrayRecord(arrays), 1)
    assert grid.sent == []


def test_no_rounds_train_nothing_but_evaluate_what_is_given():
    grid = three_nodes()
    result = fedbuff().start(
        grid, INITIAL, 0, evaluate_fn=lambda number, _: MetricRecord({"round": number})
    )
    assert result.evaluate_metrics_serverapp == {0: MetricRecord({"round": 0})}
    assert grid.sent == []


@BOTH
def test_the_server_evaluates_every_round_and_may_leave_one_out(make):
    def evaluate(number, arrays):
        value = float(arrays.to_numpy_ndarrays()[0][0])
        return None if number == 2 else MetricRecord({"value": value})

    result = make().start(three_nodes(), INITIAL, 3, evaluate_fn=evaluate)
    assert list(result.evaluate_metrics_serverapp) == [0, 1, 3]
    assert result.evaluate_metrics_serverapp[1]["value"] == 1.0


@BOTH
def test_nodes_evaluate_every_other_round_and_the_last(make):
    strategy = make(fraction_evaluate=1.0, evaluate_every=2)
    grid = three_nodes()
    config = ConfigRecord({"batches": 4})
    result = strategy.start(grid, INITIAL, 5, evaluate_config=config)
    assert list(result.evaluate_metrics_clientapp) == [2, 4, 5]
    asked = [m for m in grid.sent if m.metadata.message_type == "evaluate"]
    assert [dict(m.content["config"]) for m in asked[::3]] == [
        {"batches": 4, "server-round": n} for n in (2, 4, 5)
    ]
    assert dict(config) == {"batches": 4}


def test_a_fraction_of_the_nodes_evaluates():
    strategy = fedavg(fraction_evaluate=0.5, min_evaluate_nodes=1)
    grid = InProcessGrid([stepping(1.0)] * 4)
    strategy.start(grid, INITIAL, 1)
    assert [m.metadata.message_type for m in grid.sent].count("evaluate") == 2


def test_with_too_few_nodes_online_evaluation_is_skipped_and_training_goes_on():
    result = fedbuff(fraction_evaluate=1.0, min_evaluate_nodes=4).start(three_nodes(), INITIAL, 3)
    assert result.evaluate_metrics_clientapp == {}
    assert len(result.train_metrics_clientapp) == 3


def slow_to_evaluate(looks: int):
    """Trains at once; answers its first evaluation at the given look for the answer."""
    asked = iter(range(1, looks))

    def answer(message):
        if message.metadata.message_type == "evaluate" and next(asked, None) is not None:
            return silent(message)
        return stepping(1.0)(message)

    return answer


def test_fedbuff_goes_on_training_while_nodes_evaluate():
    grid = InProcessGrid([stepping(1.0), stepping(1.0), slow_to_evaluate(6)])
    result = fedbuff(fraction_evaluate=1.0, min_evaluate_nodes=3).start(grid, INITIAL, 20)
    rounds = list(result.evaluate_metrics_clientapp)
    assert rounds[0] == 1
    assert rounds[1] > 2  # while round 1 was evaluated, others were trained and not evaluated
    assert rounds[-1] == 20


def test_an_evaluation_without_an_answer_ends_with_those_there_are():
    def deaf_to_questions(message):
        if message.metadata.message_type == "evaluate":
            return silent(message)
        return stepping(1.0)(message)

    grid = InProcessGrid([stepping(1.0), deaf_to_questions])
    strategy = fedavg(fraction_evaluate=1.0)
    result = strategy.start(grid, INITIAL, 1, timeout=0.2)
    assert result.evaluate_metrics_clientapp == {1: MetricRecord({"value": 1.0})}


def test_a_round_is_not_evaluated_by_nodes_that_still_train():
    straggler = Node(stepping(1.0), looks=10**6)
    grid = InProcessGrid([stepping(1.0), stepping(1.0), straggler])
    strategy = fedavg(over_commitment=1.5, fraction_evaluate=1.0)
    result = strategy.start(grid, INITIAL, 2)
    assert list(result.evaluate_metrics_clientapp) == [1, 2]
    assert [m.metadata.message_type for m in straggler.received] == ["train"]


def test_metrics_are_put_together_as_the_app_asks():
    def highest(contents, weighted_by_key):
        return MetricRecord({"count": len(contents), "by": len(weighted_by_key)})

    grid = InProcessGrid([stepping(1.0), stepping(3.0)])
    strategy = fedavg(
        train_metrics_aggr_fn=highest,
        evaluate_metrics_aggr_fn=highest,
        fraction_evaluate=1.0,
    )
    result = strategy.start(grid, INITIAL, 1)
    assert dict(result.train_metrics_clientapp[1]) == {"count": 2, "by": len("num-examples")}
    assert dict(result.evaluate_metrics_clientapp[1]) == {"count": 2, "by": len("num-examples")}


def test_records_travel_under_the_names_the_app_chose():
    grid = three_nodes()
    fedbuff(arrayrecord_key="model", configrecord_key="how").start(grid, INITIAL, 1)
    assert {tuple(message.content) for message in grid.sent} == {("model", "how")}
    assert {m.metadata.ttl for m in grid.sent} == {3600.0}


def test_uniform_selection_is_drawn_from_the_seed():
    def order(seed):
        grid = InProcessGrid([stepping(1.0)] * 20)
        fedbuff(buffer_size=1, concurrency=1, seed=seed).start(grid, INITIAL, 8)
        return [message.metadata.dst_node_id for message in grid.sent]

    assert order(1) == order(1) != order(2)
    assert len(set(order(1))) > 4


def test_the_log_reads_as_that_of_flowers_own_strategies(caplog):
    caplog.set_level("INFO", "flwr")
    fedbuff().start(three_nodes(), INITIAL, 2)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "Starting FedBuff strategy:"
    assert "\t│\t├── buffer_size: 2" in lines
    assert "[ROUND 2/2]" in lines
    assert any(line.startswith("aggregate_train: 2 updates, staleness") for line in lines)
    assert any(line.startswith("Tasks: ") and "4 succeeded" in line for line in lines)
    assert "Final results:" in lines


def test_a_server_app_with_it_loads_no_training_framework_and_no_database():
    script = (
        "import sys, server.flower.strategies\n"
        "print([m for m in ('torch', 'tensorflow', 'keras', 'psycopg2') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


class TestClientAppFleet(FleetContract):
    @pytest.fixture
    def rig(self):
        grid = InProcessGrid([stepping(1.0)] * CLIENTS)
        layout, weights = ArrayLayout.of(INITIAL)
        job = fedbuff(weighting="examples")._job(num_rounds=1, timeout=60.0)
        versions = ArrayVersions(layout, StoredVersion(1, weights, {}))
        fleet = ClientAppFleet(
            nodes_of(grid), layout, versions, contents, "num-examples", poll_s=0.001
        )
        fleet.open(OpenJob("j-1", 1, job, layout, b"", b"", b""))
        fleet.set_model(1, b"", 0)
        return Rig(fleet)


def contents(version, arrays):
    return RecordDict({"arrays": arrays, "config": ConfigRecord()})


class Rig:
    quiet_s = 0.05

    def __init__(self, fleet):
        self.fleet = fleet

    def train(self):
        """Nodes train by themselves."""


def test_sent_arrays_are_what_the_next_version_is_counted_from():
    layout, weights = ArrayLayout.of(ArrayRecord([np.array([1, 2], np.int32), np.zeros((), "f2")]))
    arrays = layout.arrays(weights + np.float32(0.6))
    assert [a.numpy().tolist() for a in record_of(arrays).values()] == [[2, 3], 0.60009765625]
    assert (layout.parameter_count, layout.array_bytes) == (3, 10)
