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
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""Of gRPC, which Ray's servers speak: HTTP/2's preface and empty settings (RFC 9113, 3.4)."""
_FRAME_BYTES, _KIND_AT, _SETTINGS = 9, 3, 4
"""The answer begins with the head of a frame of settings."""
_IS_NODE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Ray's word, which its processes inherit, for whether a machine is a node others may reach."""


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
            only_here = _loopback_only() if address == "local" else contextlib.nullcontext()
            with only_here, _handlers_kept(), warnings.catch_warnings():
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
    """Find out in seconds that nobody is there, or somebody else; Ray takes minutes.

    Raises:
        OSError: If nobody listens at an address of host and port, or not as Ray's servers do.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return
    with socket.create_connection((host.strip("[]"), int(port)), timeout=_LISTENS_S) as there:
        if os.environ.get("RAY_USE_TLS", "0") != "0":
            return
        there.sendall(_GREETING)
        try:
            said = there.recv(_FRAME_BYTES, socket.MSG_WAITALL)
        except TimeoutError:
            said = b""
    if len(said) < _FRAME_BYTES or said[_KIND_AT] != _SETTINGS:
        raise OSError("what listens there does not answer as Ray does")


def _short_folder() -> Path | None:
    folder = Path("/tmp")  # noqa: S108 - a folder of our own is made in it
    return folder if folder.is_dir() else None


@contextlib.contextmanager
def _loopback_only() -> Iterator[None]:
    """Start a cluster that only this machine reaches: whoever reaches Ray's ports runs code.

    Ray opens them to every network the machine is in, and replaces a loopback address it is given,
    but for machines that it takes for nobody's node, which macOS and Windows always are.
    """
    from ray._private import ray_constants

    before, is_node = os.environ.get(_IS_NODE), ray_constants.ENABLE_RAY_CLUSTER
    os.environ[_IS_NODE], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = is_node
        if before is None:
            del os.environ[_IS_NODE]
        else:
            os.environ[_IS_NODE] = before


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself; how a run ends on it is for the command to say."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # not in the main thread: Ray took nothing
            signal.signal(signal.SIGTERM, before)
