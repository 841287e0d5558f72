"""Stock `flower-supernode` processes that run our ClientApp on stores of their own."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from server.operations.ports import choose_ports
from server.operations.settings import ServerSettings

_COMMAND = str(Path(sys.executable).with_name("flower-supernode"))
_STOP_TIMEOUT_S = 15.0


class SuperNodes:
    """One process a store of examples; they end with the block.

    Args:
        stores: SQLite example stores.
        folder: For Flower's own files and the processes' logs.
    """

    def __init__(self, settings: ServerSettings, stores: Sequence[Path], folder: Path) -> None:
        self._settings = settings
        self._stores = stores
        self._folder = folder
        self._started: list[subprocess.Popen[bytes]] = []

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(process.pid for process in self._started)

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        wanted = {f"node {n}": ("127.0.0.1", 0) for n in range(len(self._stores))}
        ports = choose_ports(wanted)
        for number, store in enumerate(self._stores):
            self._start(number, store, ports[f"node {number}"])
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._started:
            process.send_signal(signal.SIGINT)  # it then says goodbye to SuperLink
        for process in self._started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_TIMEOUT_S)
            # The whole group: a SuperNode leaves the processes of its ClientApps behind.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._started.clear()

    def log(self) -> str:
        """What they said, for a test that failed."""
        return "\n".join(path.read_text() for path in sorted(self._folder.glob("*.log")))

    def _start(self, number: int, store: Path, port: int) -> None:
        trust = ["--root-certificates", str(self._settings.ca_certificate)]
        command = [_COMMAND, "--superlink", self._settings.superlink_address, *trust]
        command += ["--port", str(port), "--node-config", f'examples="{store}"']
        environment = {
            **os.environ,
            "FLWR_HOME": str(self._folder / "flower"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
        }
        with (self._folder / f"supernode-{number}.log").open("wb") as output:
            process = subprocess.Popen(
                command,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started.append(process)
