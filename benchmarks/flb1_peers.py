"""Drivers of FLB-1 in processes of their own: how each is started, on one core and on all."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
from flb1_turns import Spent
from peer_environment import PeerNotInstalled, peer_python

HERE = Path(__file__).parent
PEERS = ("naive", "pfl", "fedjax", "flsim", "flower")
START_S = 180.0
"""Within which a driver must be ready."""
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1") | {
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
}
ON_ALL_CORES = {
    "naive": "as many processes as cores, no exchange between them",
    "pfl": "as many processes as cores under torchrun, sums exchanged through gloo",
    "fedjax": "one process, threads as XLA will",
    "flsim": "as many processes as cores, no exchange between them",
    "flower": "as many Ray workers as cores",
}


class PeerFailed(Exception):
    """A driver that was installed does not run; says what it said last."""


class Drivers:
    """A peer's driver, or several copies of it, from which rounds can be asked.

    Args:
        python: Of the peer's environment.
        workload: Folder that `write_workload` has filled.
        cores: To be used.
    """

    def __init__(self, name: str, python: Path, workload: Path, *, cores: int) -> None:
        script = HERE / "flb1_naive.py" if name == "naive" else HERE / "peers" / f"flb1_{name}.py"
        command = [str(python), str(script), str(workload)]
        if name == "pfl" and cores > 1:
            launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(cores)]
            command[1:1] = launcher
        is_free = name == "fedjax" and cores > 1
        env = {**os.environ, **({} if is_free else _ONE_THREAD)}
        copies = cores if name in ("naive", "flsim") else 1
        self.name, self.versions = name, {}
        self._drivers: list[_Driver] = []
        try:
            self._drivers += [_Driver(name, command, env) for _ in range(copies)]
            for driver in self._drivers:
                self.versions = driver.answer()["ready"]
        except BaseException:
            self.close()
            raise

    def rounds(self, count: int) -> Spent:
        """Seconds of so many; of copies each does them, and a round's seconds are shared."""
        copies = len(self._drivers)
        for driver in self._drivers:
            driver.ask(count)
        found = [driver.answer() for driver in self._drivers]
        cpu_s, wall_s = sum(f["cpu_s"] for f in found), max(f["wall_s"] for f in found)
        return Spent(cpu_s / copies, wall_s / copies)

    def close(self) -> None:
        """End them and all that they started."""
        while self._drivers:
            self._drivers.pop().end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()


class _Driver:
    def __init__(self, name: str, command: list[str], env: dict[str, str]) -> None:
        self._name = name
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by end
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=env,
            start_new_session=True,
        )

    def ask(self, rounds: int) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # then there is no answer, which tells why
            self._process.stdin.write(f"{rounds}\n")
            self._process.stdin.flush()

    def answer(self) -> Any:  # noqa: ANN401 - JSON
        assert self._process.stdout is not None
        timer = threading.Timer(START_S, lambda: self._kill(self._tree()))
        timer.start()
        line = self._process.stdout.readline()
        while line and not line.startswith("{"):  # what it prints before it is ready
            line = self._process.stdout.readline()
        timer.cancel()
        if line:
            return json.loads(line)
        self._kill(self._tree())
        self._log.seek(0)
        said = [each.strip() for each in self._log if each.strip()]
        raise PeerFailed(f"{self._name} does not run: {said[-1] if said else 'it says nothing'}")

    def end(self) -> None:
        """Ask it to end, and kill what is left of it."""
        assert self._process.stdin is not None
        started = self._tree()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=20.0)
        self._kill(started)
        self._log.close()

    def _tree(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(self._process.pid)
            return [root, *root.children(recursive=True)]
        return []

    def _kill(self, started: list[psutil.Process]) -> None:
        for process in started:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()


def python_of(name: str, folder: Path | None) -> Path:
    """Python that a peer's driver is run with; its environment is made where it is not there yet.

    Args:
        folder: That has, or is to have, an environment for each peer.

    Raises:
        PeerNotInstalled: With what pip said.
    """
    if name == "naive":
        return Path(sys.executable)
    return peer_python(name, None if folder is None else folder / name)


__all__ = ["ON_ALL_CORES", "PEERS", "Drivers", "PeerFailed", "PeerNotInstalled", "python_of"]
