"""Strategies with a ``start`` of their own, FLINT's for example: rounds and metrics as they say."""

from pathlib import Path

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAvg, Strategy

from simulation.flower.strategy_hooks import strategy_hooks
from tests.simulation.flower.conftest import ALWAYS, seen

FLINT_APP = Path(__file__).parents[3] / "examples" / "flower_app"


@pytest.mark.parametrize("strategy", ["fedbuff", "fedavg"])
def test_rows_are_the_rounds_that_the_strategy_reports(worlds, tmp_path, strategy):
    saved = tmp_path / "result.npz"
    overrides = (f'strategy="{strategy}"', "num-server-rounds=6", f'save-to="{saved}"')
    trial = worlds.run(FLINT_APP, [[ALWAYS]] * 20, overrides, per_example_s=0.5)
    reported = np.load(saved)
    rows = trial.trajectory.to_pylist()
    assert [row["version"] for row in rows] == list(range(7))
    assert trial.aggregations == 6
    assert (trial.metric_name, trial.metric_source) == ("accuracy", "server")
    assert [row["metric"] for row in rows] == reported["accuracy"].tolist()
    # Replies to training that arrive, also those that come too late for their round.
    arrived = sum(row["updates"] for row in rows)
    assert 24 <= arrived <= trial.trajectory["succeeded"][-1].as_py()
    times_s = [row["virtual_s"] for row in rows]
    assert times_s == sorted(set(times_s))
    for name, array in trial.arrays.items():
        np.testing.assert_array_equal(array, reported[name])


def test_progress_is_told_after_each_round_of_an_asynchronous_strategy(worlds):
    from simulation.flower.trial import run_flower_trial

    told = []
    dry_run = worlds.dry_run(FLINT_APP, [[ALWAYS]] * 20, ("num-server-rounds=5",))
    run_flower_trial(dry_run, 0, told.append)
    assert [progress.version for progress in told] == [1, 2, 3, 4, 5]
    assert all(progress.updates > 0 for progress in told)


def test_rounds_of_a_strategy_that_the_app_derives_within_are_seen(worlds, write_app):
    app = write_app(
        """
        class Twice(FedAvg):
            def start(self, grid, initial_arrays, rounds, evaluate_fn=None):
                for _ in range(2):
                    result = super().start(
                        grid, initial_arrays, num_rounds=rounds, evaluate_fn=evaluate_fn
                    )
                return result

        strategy = Twice(fraction_evaluate=0.0, weighted_by_key="num-examples")
        measured = []

        def measure(server_round, arrays):
            measured.append(len(measured) / 10)
            return MetricRecord({"score": measured[-1]})

        strategy.start(grid, ArrayRecord([np.zeros(2)]), 1, measure)
        see(measured=measured)
    """,
        """
        answer = metrics(**{"num-examples": 10})
        answer["arrays"] = msg.content["arrays"]
        return Message(answer, reply_to=msg)
    """,
    )
    trial = worlds.run(app, [[ALWAYS]] * 3)
    assert seen(app)["measured"] == [0.0, 0.1, 0.2, 0.3]
    # The second run of `start` measures what the first made once more.
    assert trial.trajectory["metric"].to_pylist() == [0.0, 0.2, 0.3]
    assert trial.trajectory["updates"].to_pylist() == [0, 3, 3]


def test_every_start_is_put_back():
    class Derived(FedAvg):
        def start(self, *args, **kwargs):
            return super().start(*args, **kwargs)

    before = Strategy.start, Derived.start, vars(FedAvg).get("start")
    with strategy_hooks():
        assert Strategy.start is not before[0]
        assert Derived.start is not before[1]
    assert (Strategy.start, Derived.start, vars(FedAvg).get("start")) == before
    assert "__init_subclass__" not in vars(Strategy)
