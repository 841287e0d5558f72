"""An `Aggregator` in a process of its own: the server half."""

import logging
import os
import socket
import stat
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import grpc

from device_runtime.errors import FlintError
from modeling.spec import ModelSpec
from server.aggregation import aggregation_pb2 as pb
from server.aggregation import aggregation_pb2_grpc
from server.aggregation.aggregator import Aggregator
from server.aggregation.messages import (
    CHANNEL_OPTIONS,
    envelope_of,
    fold_reply,
    partial_message,
    reference_message,
    socket_address,
)
from server.coordination.tasks import Release
from server.job import Job

log = logging.getLogger(__name__)

_THREADS = 16


class SocketInUse(FlintError):
    """Another aggregator listens on this socket already, or a file lies in its place."""

    code = "FLN-1263"


class AggregationService(aggregation_pb2_grpc.AggregationServicer):
    """Serves one `Aggregator` to one gateway."""

    def __init__(self, aggregator: Aggregator) -> None:
        self._aggregator = aggregator
        self._lock = threading.Lock()
        self._boot_id = uuid.uuid4().hex

    def Hello(  # noqa: N802 - gRPC's names
        self,
        request: pb.HelloRequest,  # noqa: ARG002
        context: grpc.ServicerContext,  # noqa: ARG002
    ) -> pb.HelloReply:
        """Begin anew with whoever calls, and say under which boot id.

        A gateway that was started again knows nothing of the updates in the sums, so they go, and
        their devices are asked for them again.
        """
        with self._lock:
            self._boot_id = uuid.uuid4().hex
            self._aggregator.forget()
            return pb.HelloReply(boot_id=self._boot_id)

    def Open(self, request: pb.OpenRequest, context: grpc.ServicerContext) -> pb.Done:  # noqa: N802
        """Start a job."""
        self._check_boot(request.boot_id, context)
        self._aggregator.open(
            request.job_id,
            Job.model_validate_json(request.job_json),
            ModelSpec.from_json(request.model_spec_json),
        )
        log.info("job %s opened", request.job_id)
        return pb.Done()

    def Fold(  # noqa: N802
        self, request: pb.FoldRequest, context: grpc.ServicerContext
    ) -> pb.FoldReply:
        """Gate and fold one update."""
        self._check_boot(request.boot_id, context)
        return fold_reply(self._aggregator.fold(envelope_of(request), request.payload))

    def Reduce(  # noqa: N802
        self, request: pb.ReduceRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.PartialSum]:
        """Freeze buckets and send their sums, one message a base version."""
        self._check_boot(request.boot_id, context)
        release = Release(request.release_id, tuple(request.base_versions))
        for partial in self._aggregator.reduce(release):
            yield partial_message(partial)

    def Commit(  # noqa: N802
        self, request: pb.ReleaseRequest, context: grpc.ServicerContext
    ) -> pb.Done:
        """Forget a frozen release."""
        self._check_boot(request.boot_id, context)
        self._aggregator.commit(request.release_id)
        return pb.Done()

    def Thaw(  # noqa: N802
        self, request: pb.ReleaseRequest, context: grpc.ServicerContext
    ) -> pb.Done:
        """Return a frozen release to its buckets."""
        self._check_boot(request.boot_id, context)
        self._aggregator.thaw(request.release_id)
        return pb.Done()

    def Drop(  # noqa: N802
        self, request: pb.DropRequest, context: grpc.ServicerContext
    ) -> pb.DropReply:
        """Forget a bucket."""
        self._check_boot(request.boot_id, context)
        return pb.DropReply(task_ids=self._aggregator.drop(request.base_version))

    def Held(  # noqa: N802
        self, request: pb.StateRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.Reference]:
        """Name everything folded and not frozen."""
        self._check_boot(request.boot_id, context)
        for reference in self._aggregator.held():
            yield reference_message(reference)

    def Frozen(  # noqa: N802
        self, request: pb.StateRequest, context: grpc.ServicerContext
    ) -> pb.FrozenReply:
        """Name the releases frozen and not committed."""
        self._check_boot(request.boot_id, context)
        return pb.FrozenReply(release_ids=self._aggregator.frozen())

    def _check_boot(self, boot_id: str, context: grpc.ServicerContext) -> None:
        if boot_id != self._boot_id:
            context.abort(
                grpc.StatusCode.FAILED_PRECONDITION, "this aggregator has begun anew since"
            )


class _AddsItself(Protocol):
    """A further service on the same socket."""

    def add_to(self, server: grpc.Server) -> None:
        """Register with a server that has not started."""
        ...


def serve(
    aggregator: Aggregator, socket_path: Path, beside: _AddsItself | None = None
) -> grpc.Server:
    """Start serving on a unix socket that only this user can reach.

    Raises:
        SocketInUse: If another process listens there.
        SocketPathTooLong: If the path cannot be a socket's.
    """
    address = socket_address(socket_path)
    socket_path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    _remove_stale(socket_path)
    server = grpc.server(
        ThreadPoolExecutor(_THREADS, thread_name_prefix="aggregation"), options=CHANNEL_OPTIONS
    )
    aggregation_pb2_grpc.add_AggregationServicer_to_server(AggregationService(aggregator), server)
    if beside is not None:
        beside.add_to(server)
    credentials = grpc.local_server_credentials(grpc.LocalConnectionType.UDS)
    before = os.umask(0o177)
    try:
        server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise SocketInUse(
            f"the aggregator cannot listen on {socket_path}; check that the folder is writable "
            "and that no other aggregator runs there"
        ) from error
    finally:
        os.umask(before)
    server.start()
    return server


def serve_until(stop: threading.Event, aggregator: Aggregator, socket_path: Path) -> None:
    """Serve until ``stop`` is set, then finish what is running and remove the socket."""
    server = serve(aggregator, socket_path)
    log.info("aggregator listens on %s", socket_path)
    stop.wait()
    server.stop(grace=2.0).wait()
    socket_path.unlink(missing_ok=True)
    log.info("aggregator stopped")


def _remove_stale(socket_path: Path) -> None:
    """Remove a socket that a killed process left behind; nothing else."""
    try:
        mode = socket_path.stat().st_mode
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        if stat.S_ISSOCK(mode) and probe.connect_ex(str(socket_path)) != 0:
            socket_path.unlink(missing_ok=True)
            return
    raise SocketInUse(
        f"{socket_path} is in use by another aggregator or is no socket; stop that process, or "
        "give another --socket"
    )
