"""A real deployment whose processes may be killed: server, devices, and who is who among them."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from feature_catalog.failpoints import FAILPOINT_VARIABLE
from feature_catalog.postmaster import postmaster_pid
from flint.demo.data import generate_demo_data
from flint.deployment import Deployment
from flint.fleet import LocalFleet, dataset_folder, fill_stores
from modeling.zoo import get_model
from server.job import Job
from server.operations.ports import choose_ports
from server.operations.supervisor import read_status

MODEL = "sparse_mlp"
BUFFER = 8
STRATEGIES: dict[str, dict[str, Any]] = {
    "fedbuff": {"name": "fedbuff", "buffer_size": BUFFER, "concurrency": 12},
    "fedavg": {
        "name": "fedavg",
        "cohort_size": BUFFER,
        "over_commitment": 1.25,
        "round_deadline_s": 30,
    },
}
_START_S = 120.0
_CHECK_INS_PER_S = 60.0


class KillableServer:
    """`flint up` as an operator runs it, in a data directory of its own, on ports that stay.

    Attributes:
        failpoint_file: Arms a failpoint in whatever process passes it next.
    """

    def __init__(
        self, home: Path, *, gateways: int = 1, check_ins_per_s: float = _CHECK_INS_PER_S
    ) -> None:
        self.home = home
        self.failpoint_file = home / "failpoint"
        names = ("gateway", "coordinator", "superlink", "gateway-metrics", "coordinator-metrics")
        ports = choose_ports(dict.fromkeys(names, ("127.0.0.1", 0)))
        self._command = [sys.executable, "-m", "flint", "up", "--home", str(home), "--quiet"]
        self._command += ["--check-ins-per-s", str(check_ins_per_s)]
        if gateways > 1:
            self._command += ["--gateways", str(gateways)]
        for name, port in ports.items():
            self._command += [f"--{name}-port", str(port)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, or start it again, and wait until all of it serves."""
        environment = os.environ | {FAILPOINT_VARIABLE: str(self.failpoint_file)}
        (self.home / "logs").mkdir(parents=True, exist_ok=True)
        with (self.home / "logs" / "up.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, env=environment, process_group=0
            )
        process = self._process
        wait_for(lambda: self.is_ready or process.poll() is not None, _START_S)
        if process.poll() is not None:
            said = (self.home / "logs" / "up.log").read_text()[-2000:]
            raise SystemExit(f"flint up ended with {process.returncode}: {said}")

    def stop(self) -> None:
        """As Ctrl-C does."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)

    def collect(self) -> None:
        """Wait for a supervisor that was killed."""
        if self._process is not None:
            self._process.wait(30)

    @property
    def is_ready(self) -> bool:
        """Whether every process serves."""
        return read_status(self.home).ready

    @property
    def ended(self) -> bool:
        """Whether the supervisor has ended."""
        return self._process is not None and self._process.poll() is not None

    def pids(self, role: str) -> list[int]:
        """Live processes of a role: a supervised one, ``supervisor``, ``guardian``, ``postgres``.

        Of Postgres only the postmaster is named; its children end by themselves with it.
        """
        if role == "supervisor":
            return [self._process.pid] if self._process and not self.ended else []
        if role == "postgres":
            pid = postmaster_pid(self.home / "postgres" / "pgdata")
            return [] if pid is None else [pid]
        if role == "guardian":
            return [p.pid for p in self.processes() if "server.operations.guardian" in p.cmdline()]
        found = [p.pid for p in read_status(self.home).processes if p.name.startswith(role)]
        return [pid for pid in found if pid is not None]

    def processes(self) -> list[psutil.Process]:
        """Everything alive that belongs to this data directory: by command line or folder."""
        home, found = str(self.home), []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                    continue
                command = process.cmdline()
                is_here = process.cwd().startswith(home) or home in " ".join(command)
                if "server.operations.guardian" in command:
                    # Nothing of the directory is in its command line, but it holds its lock.
                    is_here = any(file.path.startswith(home) for file in process.open_files())
                if is_here:
                    found.append(process)
        return found

    def kill_everything(self) -> None:
        """SIGKILL to all of it, devices too, within a millisecond or so, as a power cut would."""
        for process in self.processes():
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)


@dataclass(frozen=True)
class KillableWorld:
    """Server, catalog and devices."""

    server: KillableServer
    deployment: Deployment
    fleet: LocalFleet


@contextmanager
def bare_server(
    *, gateways: int = 1, check_ins_per_s: float = _CHECK_INS_PER_S
) -> Iterator[KillableServer]:
    """A server that serves, in a directory that goes with the block, as all its processes do."""
    with tempfile.TemporaryDirectory(prefix="flint-kills-") as folder:
        root = Path(folder)
        root.chmod(0o755)  # as root Postgres has a user of its own
        home = root / "home"
        home.mkdir()
        server = KillableServer(home, gateways=gateways, check_ins_per_s=check_ins_per_s)
        try:
            server.start()
            yield server
            server.stop()
        finally:
            server.kill_everything()


@contextmanager
def killable_world(
    devices: int,
    processes: int,
    *,
    seed: int = 3,
    gateways: int = 1,
    check_ins_per_s: float = _CHECK_INS_PER_S,
) -> Iterator[KillableWorld]:
    """A server, a data set, and device processes that train on it, until the block ends."""
    with bare_server(gateways=gateways, check_ins_per_s=check_ins_per_s) as server:
        deployment = Deployment.attach(server.home)
        data = generate_demo_data(server.home.parent, training_clients=devices, seed=seed)
        row = deployment.datasets.add(data.path, data.roles, get_model(MODEL))
        dataset = deployment.datasets.open(f"{row.name}@{row.version}")
        folder = dataset_folder(deployment.settings, dataset)
        fill_stores(dataset, folder, devices, lambda _: None)
        with LocalFleet(deployment, folder, devices, processes=processes) as fleet:
            fleet.wait_until_enrolled()
            yield KillableWorld(server, deployment, fleet)


def small_job(
    name: str,
    strategy: str | Mapping[str, Any],
    aggregations: int | None,
    max_hours: float = 0.1,
) -> Job:
    """A job of some seconds, or of ``max_hours``; a strategy's name or its block."""
    return Job.model_validate(
        {
            "name": name,
            "model": MODEL,
            "client": {"optimizer": {"learning_rate": 0.5}, "task_timeout_s": 30},
            "strategy": STRATEGIES[strategy] if isinstance(strategy, str) else dict(strategy),
            "stop": {"max_aggregations": aggregations, "max_hours": max_hours},
        }
    )


def wait_for(condition: Callable[[], bool], timeout_s: float, every_s: float = 0.05) -> bool:
    """Wait until something is so; returns whether it is."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(every_s)
    return True
