"""An `Aggregator` in a process of its own: the client half, over a unix socket."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import grpc

from device_runtime.errors import FlintError
from modeling.spec import ModelSpec
from server.aggregation import aggregation_pb2 as pb
from server.aggregation import aggregation_pb2_grpc
from server.aggregation.aggregator import Envelope, PartialSum
from server.aggregation.messages import (
    CHANNEL_OPTIONS,
    fold_request,
    fold_result,
    partials_of,
    reference_of,
    socket_address,
)
from server.coordination.tasks import Release, UpdateReference
from server.job import Job
from server.update_gate.rejections import Rejection

_Reply = TypeVar("_Reply")

_GONE = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,  # no process, or it ended during the call
        grpc.StatusCode.DEADLINE_EXCEEDED,  # none appeared while connecting
        grpc.StatusCode.FAILED_PRECONDITION,  # another boot than ours
    }
)


class AggregatorLost(FlintError):
    """The aggregator's process ended, and with it every sum it held."""

    code = "FLN-1261"


def aggregator_socket(home: Path, number: int = 0) -> Path:
    """Where the aggregator of a deployment's gateway listens, by the gateway's number."""
    return home / "run" / f"aggregator{number or ''}.sock"


class RemoteAggregator:
    """The `Aggregator` interface, carried to ``python -m server.aggregation``.

    It begins with empty sums and belongs to one boot of that process: when the process ends, or
    another caller begins, its sums are gone, every later call raises `AggregatorLost`, and the
    caller must give up its own state too (the gateway ends and is started anew, with a boot id that
    makes devices upload again).
    """

    started_with = "`python -m server.aggregation --socket PATH`"

    def __init__(self, socket_path: Path, *, connect_timeout_s: float = 30.0) -> None:
        """Connect, waiting until the process listens.

        Raises:
            AggregatorLost: If nothing listens within ``connect_timeout_s``.
            SocketPathTooLong: If nothing ever could.
        """
        self._socket_path = socket_path
        self._channel = grpc.secure_channel(
            socket_address(socket_path),
            grpc.local_channel_credentials(grpc.LocalConnectionType.UDS),
            options=(
                *CHANNEL_OPTIONS,
                ("grpc.initial_reconnect_backoff_ms", 50),
                ("grpc.max_reconnect_backoff_ms", 200),
            ),
        )
        self._stub = aggregation_pb2_grpc.AggregationStub(self._channel)
        reply = self._call(
            lambda: self._stub.Hello(
                pb.HelloRequest(), wait_for_ready=True, timeout=connect_timeout_s
            )
        )
        self._boot_id: str = reply.boot_id

    def close(self) -> None:
        """Close the connection; the process and its sums go on."""
        self._channel.close()

    def open(self, job_id: str, job: Job, model: ModelSpec) -> None:
        """See `Aggregator.open`."""
        request = pb.OpenRequest(
            boot_id=self._boot_id,
            job_id=job_id,
            job_json=job.to_json(),
            model_spec_json=model.to_json(),
        )
        self._call(lambda: self._stub.Open(request))

    def forget(self) -> None:
        """See `Aggregator.forget`."""
        reply = self._call(lambda: self._stub.Hello(pb.HelloRequest()))
        self._boot_id = reply.boot_id

    def fold(self, envelope: Envelope, payload: bytes) -> UpdateReference | Rejection:
        """See `Aggregator.fold`."""
        request = fold_request(self._boot_id, envelope, payload)
        return fold_result(self._call(lambda: self._stub.Fold(request)))

    def reduce(self, release: Release) -> Sequence[PartialSum]:
        """See `Aggregator.reduce`."""
        request = pb.ReduceRequest(
            boot_id=self._boot_id,
            release_id=release.release_id,
            base_versions=release.base_versions,
        )
        return self._call(lambda: partials_of(self._stub.Reduce(request)))

    def commit(self, release_id: str) -> None:
        """See `Aggregator.commit`."""
        request = pb.ReleaseRequest(boot_id=self._boot_id, release_id=release_id)
        self._call(lambda: self._stub.Commit(request))

    def thaw(self, release_id: str) -> None:
        """See `Aggregator.thaw`."""
        request = pb.ReleaseRequest(boot_id=self._boot_id, release_id=release_id)
        self._call(lambda: self._stub.Thaw(request))

    def drop(self, base_version: int) -> tuple[str, ...]:
        """See `Aggregator.drop`."""
        request = pb.DropRequest(boot_id=self._boot_id, base_version=base_version)
        return tuple(self._call(lambda: self._stub.Drop(request)).task_ids)

    def held(self) -> tuple[UpdateReference, ...]:
        """See `Aggregator.held`."""
        request = pb.StateRequest(boot_id=self._boot_id)
        return self._call(lambda: tuple(reference_of(m) for m in self._stub.Held(request)))

    def frozen(self) -> tuple[str, ...]:
        """See `Aggregator.frozen`."""
        request = pb.StateRequest(boot_id=self._boot_id)
        return tuple(self._call(lambda: self._stub.Frozen(request)).release_ids)

    def _call(self, call: Callable[[], _Reply]) -> _Reply:
        try:
            return call()
        except grpc.RpcError as error:
            if not isinstance(error, grpc.Call) or error.code() not in _GONE:
                raise
            raise AggregatorLost(
                f"the aggregator behind {self._socket_path} is gone, and its sums with it "
                f"({error.details()}); start it with {self.started_with}, then start the gateway "
                "again"
            ) from error
