"""A run's connection to a Ray cluster; Ray is imported here, when a run asks for it."""

import contextlib
import logging
import os
import shutil
import signal
import socket
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

from device_runtime.errors import FlintError

_LISTENS_S = 10.0


class RayMissing(FlintError):
    """A run asks for Ray where it is not installed."""

    code = "FLN-3060"


class ClusterUnreachable(FlintError):
    """No Ray cluster answers at the address, or not one of our version."""

    code = "FLN-3061"


class ClusterConnection:
    """Connected from construction to `close`.

    Where this process is connected already, that connection is used, and stays.

    Attributes:
        address: Of the cluster, for messages.
    """

    def __init__(self, address: str, executors: int) -> None:
        """Connect.

        Args:
            executors: Cores of a cluster that is started for this run.

        Raises:
            RayMissing: If Ray is not installed.
            ClusterUnreachable: If the cluster cannot be reached.
        """
        try:
            import ray
        except ImportError as error:
            raise RayMissing(
                "executors.kind is ray, and Ray is not installed here; pip install "
                "'flint-on-flower[cluster]', or use executors: {kind: local}"
            ) from error
        self._ray = ray
        self._folder: Path | None = None
        self._is_ours = not ray.is_initialized()
        if self._is_ours:
            self._connect(address, executors)
        self.address: str = self._address(address)

    def free_cores(self) -> tuple[float, float]:
        """Cores of the cluster, and those nobody has reserved."""
        total = self._ray.cluster_resources().get("CPU", 0.0)
        return float(total), float(self._ray.available_resources().get("CPU", 0.0))

    def close(self) -> None:
        """Disconnect; a cluster of this run's own ends with it, and leaves no file."""
        if self._is_ours:
            self._ray.shutdown()
            self._is_ours = False
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _connect(self, address: str, executors: int) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options: dict[str, object] = {"address": address}
        if address == "local":
            # Paths of its sockets must be short, whatever TMPDIR is.
            self._folder = Path(tempfile.mkdtemp(prefix="flint-ray-", dir=_short_folder()))
            options |= {"num_cpus": executors, "include_dashboard": False}
            options["_temp_dir"] = str(self._folder)
        where = os.environ.get("RAY_ADDRESS", address) if address == "auto" else address
        try:
            _require_listening(where)
            with _handlers_kept(), warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)
                self._ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, RuntimeError, ValueError, self._ray.exceptions.RayError) as error:
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
            said = " ".join(str(error).split())
            raise ClusterUnreachable(
                f"executors.address: no Ray cluster is reached at {where} ({said.rstrip('.')}); "
                "start it with ray start --head, of the Python and Ray of this installation, or "
                "name another address"
            ) from error

    def _address(self, asked: str) -> str:
        if asked.startswith("ray://"):
            return asked
        return str(self._ray.get_runtime_context().gcs_address)


def _require_listening(address: str) -> None:
    """Find out in seconds that nobody is there; Ray takes minutes.

    Raises:
        OSError: If nobody listens at an address of host and port.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_LISTENS_S).close()


def _short_folder() -> Path | None:
    folder = Path("/tmp")  # noqa: S108 - a folder of our own is made in it
    return folder if folder.is_dir() else None


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself; how a run ends on it is for the command to say."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # not in the main thread: Ray took nothing
            signal.signal(signal.SIGTERM, before)
