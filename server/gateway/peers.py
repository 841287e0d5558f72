"""The gateway processes of one deployment, to each other: flint.peer.v1 over Unix sockets.

Each process listens at ``<home>/run/gateways/<boot id>.sock``, in a folder only the server's user
may enter. The name says which process it is, and the kernel refuses connections to the socket of a
process that has ended: no registry, no time-out tells the dead from the slow.
"""

import logging
import socket
import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

import grpc

from device_runtime.errors import FlintError
from device_runtime.protocol import device_pb2 as pb
from server.gateway import peers_pb2, peers_pb2_grpc
from server.gateway.device_calls import DeviceCalls
from server.gateway.pending_updates import PendingUpdates

log = logging.getLogger(__name__)

_THREADS = 32
_LONGEST_SOCKET_PATH = 107
_Answer = TypeVar("_Answer")


class SocketPathTooLong(FlintError):
    """The data directory's path leaves no room for the sockets gateways speak over."""

    code = "FLN-1288"


class PeerGone(Exception):
    """The asked process has ended; nothing it had not answered is counted."""


class PeerSilent(Exception):
    """The asked process is there and gave no answer in time, or is just ending."""


class LocalCalls(DeviceCalls, Protocol):
    """What a gateway process answers out of its own state."""

    @property
    def pending(self) -> PendingUpdates:
        """Updates that devices keep."""
        ...


TakeUpload = Callable[[pb.UploadRequest, grpc.ServicerContext], pb.UploadResponse]


class PeerService(peers_pb2_grpc.GatewayPeerServicer):
    """Answers other gateways. What belongs to this one ends here: no call travels in a circle."""

    def __init__(self, local: LocalCalls, take_orphan: TakeUpload) -> None:
        """Assemble.

        Args:
            local: Answers out of this process's state.
            take_orphan: Takes an update whose own process has ended.
        """
        self._local = local
        self._take_orphan = take_orphan

    def CheckIn(  # noqa: N802
        self, request: pb.CheckInRequest, context: grpc.ServicerContext
    ) -> pb.CheckInResponse:
        """See the proto file; so for every call."""
        return self._local.CheckIn(request, context)

    def Upload(  # noqa: N802
        self, request: pb.UploadRequest, context: grpc.ServicerContext
    ) -> pb.UploadResponse:
        """The device's signature is checked here, not where it came in."""
        if self._local.pending.is_leased_here(request.task_token):
            return self._local.Upload(request, context)
        return self._take_orphan(request, context)

    def ReportOutcome(  # noqa: N802
        self, request: pb.ReportOutcomeRequest, context: grpc.ServicerContext
    ) -> pb.ReportOutcomeResponse:
        """End a task."""
        return self._local.ReportOutcome(request, context)

    def Attest(  # noqa: N802
        self, request: pb.AttestRequest, context: grpc.ServicerContext
    ) -> pb.Evidence:
        """Have this process's enclave prove itself."""
        return self._local.Attest(request, context)

    def Settle(  # noqa: N802
        self,
        request: peers_pb2.SettleRequest,
        context: grpc.ServicerContext,  # noqa: ARG002
    ) -> pb.Settlement:
        """Say what became of an update."""
        return self._local.pending.settle_here(request.device_id, request.update)


def serve_peers(
    local: LocalCalls, take_orphan: TakeUpload, folder: Path, boot_id: str
) -> Callable[[], None]:
    """Listen for other gateways; returns what stops that. Sockets of ended processes are removed.

    Raises:
        SocketPathTooLong: If the folder's path is too long for a socket.
    """
    path = peer_socket(folder, boot_id)
    if len(str(path)) > _LONGEST_SOCKET_PATH:
        raise SocketPathTooLong(
            f"{path} is longer than the {_LONGEST_SOCKET_PATH} characters of a socket's path; "
            "several gateways need a data directory with a shorter one (FLINT_HOME)"
        )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    for left_behind in folder.glob("*.sock"):
        if not _listens(left_behind):
            left_behind.unlink(missing_ok=True)
    server = grpc.server(
        ThreadPoolExecutor(_THREADS, thread_name_prefix="peer"),
        options=[("grpc.max_receive_message_length", -1)],
    )
    peers_pb2_grpc.add_GatewayPeerServicer_to_server(PeerService(local, take_orphan), server)
    server.add_insecure_port(f"unix:{path}")
    server.start()

    def stop() -> None:
        server.stop(1.0).wait()
        path.unlink(missing_ok=True)

    return stop


def peer_socket(folder: Path, boot_id: str) -> Path:
    """Where a gateway process listens for others."""
    return folder / f"{boot_id[:16]}.sock"


class Peers:
    """Calls of other gateway processes, each on one channel that is kept."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._channels: dict[str, grpc.Channel] = {}

    def call(
        self,
        boot_id: str,
        method: Callable[[peers_pb2_grpc.GatewayPeerStub], _Answer],
    ) -> _Answer:
        """Ask one process.

        Args:
            boot_id: Which.
            method: Makes the call, with a time limit, on a stub.

        Raises:
            PeerGone: If that process has ended.
            PeerSilent: If it may be there and gives no answer.
            grpc.RpcError: If it refuses, as it would refuse the device.
        """
        path = peer_socket(self._folder, boot_id)
        try:
            return method(peers_pb2_grpc.GatewayPeerStub(self._channel(boot_id, path)))
        except grpc.RpcError as error:
            if error.code() not in _NO_ANSWER:
                raise
            if _listens(path):
                log.warning("gateway %s gives no answer: %s", boot_id[:8], error.details())
                raise PeerSilent from error
            self._forget(boot_id)
            raise PeerGone from error

    def close(self) -> None:
        """Hang up everywhere."""
        with self._lock:
            channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.close()

    def _channel(self, boot_id: str, path: Path) -> grpc.Channel:
        with self._lock:
            channel = self._channels.get(boot_id)
            if channel is None:
                if not _listens(path):  # also keeps made-up boot ids from leaving channels behind
                    raise PeerGone
                channel = grpc.insecure_channel(
                    f"unix:{path}",
                    [
                        ("grpc.max_receive_message_length", -1),
                        ("grpc.max_send_message_length", -1),
                        ("grpc.use_local_subchannel_pool", 1),
                        ("grpc.initial_reconnect_backoff_ms", 100),
                        ("grpc.max_reconnect_backoff_ms", 500),
                    ],
                )
                self._channels[boot_id] = channel
            return channel

    def _forget(self, boot_id: str) -> None:
        with self._lock:
            channel = self._channels.pop(boot_id, None)
        if channel is not None:
            channel.close()


_NO_ANSWER = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
    }
)


def _listens(path: Path) -> bool:
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            return False
    except OSError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:  # a full queue of connections: somebody is there
            return True
    return True
