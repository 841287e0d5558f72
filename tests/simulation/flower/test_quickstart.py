"""An unmodified quickstart-like app: the same model as without a clock, plus what it costs."""

import os
import subprocess
import sys
from collections.abc import Iterable

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from simulation.flower.app_folder import imported, read_flower_app
from simulation.flower.trial import _task_identity
from simulation.trajectory import events_sha256, trajectory_sha256
from tests.simulation.flower.conftest import ALWAYS, QUICKSTART, final_arrays

EXACT = ("shuffle=false", "num-server-rounds=4", "server-evaluation=true")


class PlainGrid(Grid):
    """No time, no links: every message is answered at once by its client, in order."""

    def __init__(self, client_app, clients: int, run_config) -> None:
        self._app = client_app
        self._contexts = {
            node: Context(
                1,
                node,
                {"partition-id": node - 2, "num-partitions": clients},
                RecordDict(),
                run_config,
            )
            for node in range(2, clients + 2)
        }

    def set_run(self, run: Run) -> None: ...

    @property
    def run(self) -> Run:
        return Run.create_empty(1)

    def create_message(self, content, message_type, dst_node_id, group_id, ttl=None) -> Message:
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        return list(self._contexts)

    def push_messages(self, messages):
        raise NotImplementedError

    def pull_messages(self, message_ids):
        raise NotImplementedError

    def send_and_receive(self, messages, *, timeout=None):
        replies = []
        for number, message in enumerate(messages):
            message.metadata.__dict__["_message_id"] = f"message {number}"
            replies.append(self._app(message, self._contexts[message.metadata.dst_node_id]))
        return replies


def plain_result(clients: int, overrides, monkeypatch):
    """Result of the app's strategy on a `PlainGrid`."""
    from flwr.serverapp.strategy import Strategy

    kept = []
    start = Strategy.start
    monkeypatch.setattr(
        Strategy, "start", lambda self, *a, **k: kept.append(start(self, *a, **k)) or kept[-1]
    )
    app = read_flower_app(QUICKSTART, overrides)
    with _task_identity(1), imported(app) as loaded:
        grid = PlainGrid(loaded.client, clients, app.run_config)
        context = Context(1, TaskIdentity.node_id, {}, RecordDict(), app.run_config)
        loaded.server(grid, context)
    monkeypatch.undo()
    return kept[-1]


@pytest.mark.parametrize("strategy", ["fedavg", "fedadam", "fedprox"])
def test_with_everyone_always_online_the_model_is_that_of_a_plain_loop(
    worlds, strategy, monkeypatch
):
    overrides = (*EXACT, f"strategy='{strategy}'")
    expected = plain_result(12, overrides, monkeypatch)
    trial = worlds.run(QUICKSTART, [[ALWAYS]] * 12, overrides)
    for found, wanted in zip(final_arrays(trial), expected.arrays.to_numpy_ndarrays(), strict=True):
        assert np.allclose(found, wanted, rtol=0, atol=1e-12)
        assert np.abs(wanted).max() > 0.05
    rows = trial.trajectory.to_pylist()
    assert [row["updates"] for row in rows] == [0, 12, 12, 12, 12]
    for row in rows:
        measured = expected.evaluate_metrics_serverapp[row["version"]]
        assert row["metric"] == pytest.approx(measured["closeness"])
        assert row["loss"] == pytest.approx(measured["mse"])
    for row in rows[1:]:
        trained = expected.train_metrics_clientapp[row["version"]]
        assert row["train_loss"] == pytest.approx(trained["train_loss"])
    assert (trial.metric_name, trial.metric_source) == ("closeness", "server")


def test_without_server_evaluation_the_metric_is_the_clients(worlds, monkeypatch):
    overrides = ("shuffle=false",)
    expected = plain_result(5, overrides, monkeypatch)
    trial = worlds.run(QUICKSTART, [[ALWAYS]] * 5, overrides)
    assert (trial.metric_name, trial.metric_source) == ("eval_acc", "clients")
    for row in trial.trajectory.to_pylist()[1:]:
        measured = expected.evaluate_metrics_clientapp[row["version"]]
        assert row["metric"] == pytest.approx(measured["eval_acc"])
        assert row["loss"] == pytest.approx(measured["eval_loss"])


def test_a_slow_round_is_cut_at_the_strategys_timeout(worlds):
    spans = [[ALWAYS]] * 20  # 5 to 24 examples at 10 s: 50 to 240 s
    trial = worlds.run(
        QUICKSTART, spans, ("timeout=120.0", "fraction-evaluate=0.0"), per_example_s=10.0
    )
    rows = trial.trajectory.to_pylist()
    assert [row["virtual_s"] for row in rows] == [0, 120, 240, 360]
    assert all(0 < row["updates"] < 20 for row in rows[1:])
    assert rows[1]["in_flight"] > 0


def test_the_same_seed_is_the_same_run_to_the_bit(worlds):
    spans = [[(start, start + 40.0)] for start in np.linspace(0, 90, 30).tolist()]
    world = {"per_example_s": 0.3, "repeat_every_s": 130.0, "hazard_per_hour": 30.0}

    def digests(**seeds):
        trial = worlds.run(QUICKSTART, spans, ("fraction-train=0.5",), **world, **seeds)
        learnt = [array.tobytes() for array in final_arrays(trial)]
        return (
            trajectory_sha256(trial.trajectory),
            events_sha256(trial.trajectory, trial.tasks),
            learnt,
        )

    first = digests(seed=5)
    assert digests(seed=5) == first
    assert digests(seed=6)[1] != first[1]
    assert digests(seed=5, trial=1)[1] != first[1]


SCRIPT = """
import logging, sys
from pathlib import Path
logging.disable()
from simulation.trajectory import trajectory_sha256
from tests.simulation.flower.conftest import QUICKSTART, Worlds
worlds = Worlds(Path(sys.argv[1]))
trial = worlds.run(QUICKSTART, [[(0, 1e6)]] * 8, ("fraction-train=0.5",))
print(trajectory_sha256(trial.trajectory))
"""


def test_processes_agree_whatever_order_their_sets_have(worlds):
    found = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT, str(worlds.folder)],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(found) == 1
    assert len(found.pop().strip()) == 64


def test_a_thousand_nodes_train_for_three_rounds(worlds):
    trial = worlds.run(QUICKSTART, [[ALWAYS]] * 1000, ("fraction-evaluate=0.1",))
    assert trial.trajectory["updates"].to_pylist() == [0, 1000, 1000, 1000]
    assert len(trial.tasks) == 3300
    assert trial.trajectory["metric"].to_pylist()[-1] > 0.9


def test_a_population_larger_than_the_trace_gives_each_client_a_partition(worlds):
    trial = worlds.run(QUICKSTART, [[ALWAYS]] * 3, clients=30)
    assert sorted(set(trial.tasks["client"].to_pylist())) == list(range(30))
    first = {row["client"]: row["examples"] for row in trial.tasks.to_pylist()}
    assert [first[client] for client in range(30)] == [5 + client % 20 for client in range(30)]


def test_nothing_of_a_run_stays_in_the_process(worlds):
    import random
    import time

    before = set(sys.modules), list(sys.path), time.sleep, time.time, random.getstate()
    run_id = TaskIdentity._run_id
    worlds.run(QUICKSTART, [[ALWAYS]] * 3)
    assert (list(sys.path), time.sleep, time.time, random.getstate()) == before[1:]
    assert not [name for name in set(sys.modules) - before[0] if name.startswith("quickstart")]
    assert TaskIdentity._run_id == run_id
