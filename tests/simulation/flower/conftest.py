"""Small worlds whose every duration can be computed by hand, and Flower apps to run in them."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from simulation.environment import parse_environment
from simulation.flower.app_folder import read_flower_app
from simulation.flower.recorded_run import prepare_flower_run
from simulation.flower.trial import FlowerDryRun, FlowerTrial, run_flower_trial
from simulation.inputs import FileInputs

QUICKSTART = Path(__file__).parent / "apps" / "quickstart_numpy"
ALWAYS = (0.0, 1e9)
Span = tuple[float, float]

PYPROJECT = """
[project]
name = "{name}"
version = "1.0.0"

[tool.flwr.app]
publisher = "flint-tests"

[tool.flwr.app.components]
serverapp = "{name}.server_app:app"
clientapp = "{name}.client_app:app"

[tool.flwr.app.config]
rounds = 2
"""

SERVER = """
import json
import time
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()
begun = time.time()


def see(**what):
    Path(__file__).with_name("seen.json").write_text(json.dumps(what))


def ask(node, ttl=None, kind="train", **config):
    return Message(RecordDict({"config": ConfigRecord(config)}), node, kind, ttl=ttl)


def codes(replies):
    return [reply.error.code if reply.has_error() else 0 for reply in replies]


@app.main()
def main(grid, context):
"""

CLIENT = """
import time

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


def metrics(**values):
    return RecordDict({"metrics": MetricRecord(values)})


@app.train()
@app.evaluate()
@app.query()
def answer(msg, context):
"""

TEN_EXAMPLES = 'return Message(metrics(**{"num-examples": 10}), reply_to=msg)'


@dataclass
class Worlds:
    """Environments in a folder: one device model, one link."""

    folder: Path

    def environment(
        self,
        spans: Sequence[Sequence[Span]],
        *,
        per_example_s: float = 0.1,
        kbps: float = 1e6,
        repeat_every_s: float | None = None,
        hazard_per_hour: float = 0.0,
        clients: int | None = None,
    ) -> str:
        """Text of an environment of one device a list of windows."""
        rows = [(str(i), *span) for i, windows in enumerate(spans) for span in windows]
        client, start, end = zip(*rows, strict=True)
        sessions = pa.table({"client_id": client, "start_s": start, "end_s": end})
        profiles = pa.table({"device_model": ["phone"], "per_example_s": [per_example_s]})
        shares = pa.table({"device_model": ["phone"], "share": [1.0]})
        for name, table in (
            ("sessions", sessions),
            ("profiles", profiles),
            ("shares", shares),
            ("links", pa.table({"kbps": [kbps]})),
        ):
            pq.write_table(table, self.folder / f"{name}.parquet")
        repeat = f", repeat_every_s: {repeat_every_s}" if repeat_every_s else ""
        return (
            f"population: {{clients: {clients or len(spans)}, resample: {{availability: true}}}}\n"
            f"availability: {{source: sessions.parquet{repeat}}}\n"
            "device_profiles: profiles.parquet\n"
            "device_population: shares.parquet\n"
            "bandwidth: links.parquet\n"
            f"dropout: {{hazard_per_hour: {hazard_per_hour}}}\n"
        )

    def dry_run(
        self,
        app: Path,
        spans: Sequence[Sequence[Span]],
        overrides: Sequence[str] = (),
        *,
        seed: int = 0,
        local_epochs: int = 1,
        **world: Any,
    ) -> FlowerDryRun:
        environment = parse_environment(self.environment(spans, **world))
        resolver = FileInputs(self.folder)
        read = read_flower_app(app, overrides)
        return prepare_flower_run(read, environment, resolver, seed, local_epochs)

    def run(
        self,
        app: Path,
        spans: Sequence[Sequence[Span]],
        overrides: Sequence[str] = (),
        *,
        trial: int = 0,
        **world: Any,
    ) -> FlowerTrial:
        return run_flower_trial(self.dry_run(app, spans, overrides, **world), trial)


@pytest.fixture
def worlds(tmp_path) -> Worlds:
    folder = tmp_path / "world"
    folder.mkdir()
    return Worlds(folder)


@pytest.fixture
def write_app(tmp_path) -> Callable[..., Path]:
    """Writes an app from the bodies of its main and of its one client function."""

    def write(server: str, client: str = TEN_EXAMPLES, name: str = "small_app") -> Path:
        folder = tmp_path / name
        package = folder / name
        package.mkdir(parents=True, exist_ok=True)
        (folder / "pyproject.toml").write_text(PYPROJECT.format(name=name))
        (package / "__init__.py").write_text("")
        (package / "server_app.py").write_text(SERVER + _indented(server))
        (package / "client_app.py").write_text(CLIENT + _indented(client))
        return folder

    return write


def seen(app: Path) -> dict[str, Any]:
    """What the app's main told with ``see``."""
    found: dict[str, Any] = json.loads(next(app.rglob("seen.json")).read_text())
    return found


def outcomes(trial: FlowerTrial) -> list[tuple[str, str]]:
    """Outcome and reason of each task, in order of their start."""
    tasks = trial.tasks
    return list(zip(tasks["outcome"].to_pylist(), tasks["reason"].to_pylist(), strict=True))


def _indented(body: str) -> str:
    lines = body.strip("\n").splitlines()
    margin = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    return "".join(f"    {line[margin:]}\n" for line in lines)


def final_arrays(trial: FlowerTrial) -> list[np.ndarray]:
    return [np.asarray(array) for array in trial.arrays.values()]
