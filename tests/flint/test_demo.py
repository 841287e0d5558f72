"""The demo on real parts, small: what it prints is what an independent calculation finds."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
from ai_edge_litert.interpreter import Interpreter
from sklearn.metrics import average_precision_score

from feature_catalog.blobs import BlobStore
from feature_catalog.database import connect
from feature_catalog.datasets import DatasetCatalog
from feature_catalog.embedded import EmbeddedPostgres
from flint.demo.data import generate_demo_data
from flint.demo.homes import KEPT, demo_home
from flint.demo.jobs import STRATEGIES, DemoJob
from flint.demo.results import Measurement, StrategyRun, summary_json
from modeling.torch_models import build_torch
from modeling.zoo import SPARSE_MLP
from server.job_file import load_job
from server.operations.home_claim import running_server

CLIENTS = 20
UPDATES = 60


def processes_of(home: Path) -> list[str]:
    """Command lines of everything that still runs for a data directory."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        line = " ".join(process.info["cmdline"] or ())
        if str(home) in line and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(line)
    return found


def flint_demo(*arguments: object, home: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "flint", "demo", "--home", str(home), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "120"},
    )


@contextmanager
def catalog(home: Path) -> Iterator[DatasetCatalog]:
    """The data sets of a demo that has ended."""
    postgres = EmbeddedPostgres(home / "postgres")
    engine = connect(postgres.start())
    try:
        yield DatasetCatalog(engine, BlobStore(f"file://{home / 'blobs'}"))
    finally:
        engine.dispose()
        postgres.stop()


@pytest.mark.integration
@pytest.mark.timeout(600)
def test_a_small_demo_on_a_users_file_reports_what_its_model_files_give(tmp_path, flint_home):
    home = flint_home
    data = generate_demo_data(tmp_path / "data", training_clients=CLIENTS, seed=5)
    fields = ["--client-field", data.roles.client_field, "--label-field", data.roles.label_field]
    options = ["--max-updates", UPDATES, "--target", 0.05, "--exclude-field", "handset", "--json"]
    demo = flint_demo("--data", data.path, *fields, *options, home=home)
    printed, said = demo.communicate(timeout=580)
    assert demo.returncode == 0, said
    assert processes_of(home) == []
    assert running_server(home) is None

    (line,) = printed.splitlines()
    result = json.loads(line)
    runs = {run["strategy"]: run for run in result["runs"]}
    assert set(runs) == set(STRATEGIES)
    keys = {"metric", "strategy", "versions", "outcomes", "seconds", "model_path"}
    assert set(result) == keys | {"runs"}
    assert result["metric"]["value"] == max(run["metric"]["value"] for run in runs.values())
    assert (home / "results" / "auprc.png").read_bytes().startswith(b"\x89PNG")

    with catalog(home) as datasets:
        dataset = datasets.open("clicks")
        assert len(dataset.clients()) == CLIENTS
        x, y = dataset.heldout()
    for run in runs.values():
        assert run["devices"] == CLIENTS
        assert run["updates"] == run["outcomes"]["succeeded"] >= UPDATES
        assert 1 <= run["versions"] <= UPDATES
        assert run["updates_to_target"] == 0  # chance is above 0.05
        assert run["chance"] == pytest.approx(y.mean())
        model = Path(run["model_path"])
        for scores in (scores_of_torch(model.with_suffix(".pt"), x), scores_of_tflite(model, x)):
            value = average_precision_score(y.ravel(), scores)
            assert value == pytest.approx(run["metric"]["value"], abs=1e-6)


def scores_of_torch(path: Path, x: np.ndarray) -> np.ndarray:
    import torch

    model = build_torch(SPARSE_MLP)
    model.load_state_dict(torch.load(path, weights_only=True))
    with torch.no_grad():
        return model(torch.from_numpy(np.array(x))).numpy().ravel()


def scores_of_tflite(path: Path, x: np.ndarray) -> np.ndarray:
    infer = Interpreter(str(path)).get_signature_runner("infer")
    batch = infer.get_input_details()["x"]["shape"][0]
    padded = np.concatenate([x, np.full((-len(x) % batch, x.shape[1]), -1, np.int32)])
    parts = [next(iter(infer(x=part).values())) for part in np.split(padded, len(padded) // batch)]
    return np.concatenate(parts).ravel()[: len(x)]


@pytest.mark.integration
@pytest.mark.timeout(300)
def test_an_interrupted_demo_leaves_nothing_running(flint_home):
    home = flint_home
    demo = flint_demo("--clients", CLIENTS, "--max-updates", 1_000_000, home=home)
    assert demo.stderr is not None
    said = []
    for line in demo.stderr:
        said.append(line)
        if re.search(r"version [2-9]\b", line):  # devices are in the midst of training
            break
    else:
        pytest.fail("".join(said))
    demo.send_signal(signal.SIGINT)
    printed, rest = demo.communicate(timeout=120)
    assert demo.returncode == 130, rest
    assert printed == ""
    assert "Traceback" not in rest
    deadline_s = time.monotonic() + 10
    while processes_of(home) and time.monotonic() < deadline_s:
        time.sleep(0.1)
    assert processes_of(home) == []
    assert running_server(home) is None


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("devices", [2, 7, 200, 5_000])
def test_a_demos_job_file_is_a_job_that_its_devices_can_finish(strategy, devices, tmp_path):
    demo = DemoJob(strategy, "clicks@1", devices, max_updates=100, max_hours=1.0, seed=3)
    job = load_job(demo.write(tmp_path))
    assert job.strategy.name == strategy
    assert job.evaluation is not None
    assert job.evaluation.dataset == "clicks@1"
    at_once = demo.updates_per_version * 1.3 if strategy == "fedavg" else demo.updates_per_version
    assert at_once <= devices


def test_a_demo_on_joined_features_names_their_service_in_its_job(tmp_path):
    demo = DemoJob("fedbuff", "clicks@1", 20, 100, 1.0, seed=3, feature_service="click_features")
    assert load_job(demo.write(tmp_path)).feature_service == "click_features"
    example = Path(__file__).parents[2] / "examples" / "joined_features" / "click_job.yaml"
    assert load_job(example).feature_service == "click_features"


def run(strategy: str, *values: float) -> StrategyRun:
    measurements = tuple(
        Measurement(version, version * 10, version * 2.0, value)
        for version, value in enumerate(values)
    )
    last = measurements[-1]
    return StrategyRun(
        strategy,
        20,
        measurements,
        last.version,
        last.updates,
        {"succeeded": last.updates},
        {},
        last.elapsed_s,
        Path(f"{strategy}.tflite"),
    )


def test_the_summary_is_the_best_runs_and_tells_when_the_target_was_reached():
    runs = [run("fedbuff", 0.1, 0.4, 0.3), run("fedavg", 0.1, 0.2, 0.35)]
    summary = summary_json(runs, metric="auprc", central=0.5, chance=0.1, target=0.3)
    assert summary["strategy"] == "fedbuff"
    assert summary["metric"] == {"name": "auprc", "value": 0.4, "central": 0.5}
    assert summary["model_path"] == "fedbuff.tflite"
    first, second = summary["runs"]
    assert (first["updates_to_target"], first["seconds_to_target"]) == (10, 2.0)
    assert (second["updates_to_target"], second["seconds_to_target"]) == (20, 4.0)
    assert (first["best_version"], first["last_value"]) == (1, 0.3)


def test_a_target_never_reached_is_null():
    summary = summary_json(
        [run("fedavg", 0.1, 0.2)], metric="auprc", central=0.5, chance=0.1, target=0.9
    )
    assert summary["runs"][0]["seconds_to_target"] is None


def test_the_newest_demos_stay_and_older_ones_go(tmp_path, monkeypatch):
    monkeypatch.setenv("FLINT_HOME", str(tmp_path))
    mine = tmp_path / "demo" / "00-not-a-demo"
    mine.mkdir(parents=True)
    homes = [demo_home(None) for _ in range(KEPT + 2)]
    assert len(set(homes)) == KEPT + 2
    left = sorted(path for path in (tmp_path / "demo").iterdir())
    assert left == [mine, *homes[-KEPT:]]
