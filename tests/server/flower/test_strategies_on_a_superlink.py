"""`examples/flower_app` as its README says: `flwr run` on a real SuperLink with real SuperNodes."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from server.operations.ports import choose_ports
from tests.server.flower.conftest import eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

APP = Path(__file__).parents[3] / "examples" / "flower_app"
BIN = Path(sys.executable).parent
NODES = 3


@dataclass
class Deployment:
    """A SuperLink without TLS and SuperNodes, all in process groups of their own."""

    folder: Path
    port: int
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PATH": f"{BIN}:{os.environ['PATH']}",  # Flower's commands start each other by name
            "FLWR_HOME": str(self.folder / "flower"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
            "COLUMNS": "300",
        }

    def start(self, name: str, *arguments: str) -> None:
        with (self.folder / f"{name}.log").open("wb") as output:
            self.started.append(
                subprocess.Popen(
                    [BIN / arguments[0], *arguments[1:]],
                    env=self.environment,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )

    def start_node(self, partition: int) -> None:
        port = choose_ports({"supernode": ("127.0.0.1", 0)})["supernode"]
        link = ["--superlink", f"127.0.0.1:{self.port}", "--insecure", "--port", str(port)]
        self.start(
            f"node-{partition}",
            "flower-supernode",
            *link,
            "--node-config",
            f"partition-id={partition}",
        )

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=1) as got:
                return got.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def flwr(self, *arguments: str) -> str:
        done = subprocess.run(
            [BIN / "flwr", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def run(self, **config: object) -> dict[str, np.ndarray]:
        """`flwr run` to the end; returns what the ServerApp saved."""
        saved = self.folder / "result.npz"
        saved.unlink(missing_ok=True)
        given = {"save-to": str(saved)} | config
        overrides = " ".join(f"{key}={json.dumps(value)}" for key, value in given.items())
        said = self.flwr("run", str(APP), "here", "--run-config", overrides, "--format", "json")
        run_id = str(json.loads(said)["run-id"])
        # To ask for a status is to start a Python process, so that is left until the app has saved.
        eventually(saved.exists, within_s=240)
        eventually(lambda: self.status(run_id).startswith("finished"), within_s=60)
        assert self.status(run_id) == "finished:completed", self.logs()
        with np.load(saved) as values:
            return dict(values)

    def status(self, run_id: str) -> str:
        runs = json.loads(self.flwr("list", "here", "--run-id", run_id, "--format", "json"))
        return runs["runs"][0]["status"]

    def logs(self) -> str:
        return (self.folder / "superlink.log").read_text()[-5000:]

    def stop(self) -> None:
        for process in self.started:
            process.send_signal(signal.SIGINT)
        for process in self.started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(15)
            # The whole group: both leave the processes of their apps behind.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    port = choose_ports({"superlink": ("127.0.0.1", 0)})["superlink"]
    made = Deployment(tmp_path_factory.mktemp("flower-app"), port)
    configuration = made.folder / "flower" / "config.toml"
    configuration.parent.mkdir()
    configuration.write_text(
        f'[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "127.0.0.1:{port}"\n'
        "insecure = true\n"
    )
    try:
        made.start(
            "superlink",
            "flower-superlink",
            "--insecure",
            "--port",
            str(port),
            "--disable-runtime-dependency-installation",
        )
        eventually(made.answers, within_s=60)
        for partition in range(NODES):
            made.start_node(partition)
        yield made
    finally:
        made.stop()


def test_fedbuff_trains_the_example_on_real_supernodes(deployment):
    saved = deployment.run(**{"num-server-rounds": 4, "buffer-size": 2, "concurrency": 3})
    assert len(saved["accuracy"]) == 5
    assert saved["accuracy"][-1] > saved["accuracy"][0] + 0.1
    assert saved["weights"].shape == (20,)
    assert saved["bias"].shape == ()
    assert saved["evaluated_rounds"].tolist() == [4]


def test_over_committed_fedavg_does_not_wait_for_the_slowest(deployment):
    saved = deployment.run(
        **{
            "strategy": "fedavg",
            "num-server-rounds": 2,
            "cohort-size": 2,
            "over-commitment": 1.5,
            "slowest-s": 500.0,
        }
    )
    assert len(saved["accuracy"]) == 3
    assert saved["accuracy"][-1] > saved["accuracy"][0] + 0.1
