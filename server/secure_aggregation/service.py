"""An enclave in a process of its own: the inner half, on the socket its gateway calls."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import grpc
import numpy as np

from server.aggregation.service import serve
from server.secure_aggregation import enclave_pb2 as pb
from server.secure_aggregation import enclave_pb2_grpc
from server.secure_aggregation.enclave import Enclave
from server.secure_aggregation.release_budget import ReleaseBudget
from server.secure_aggregation.release_rules import ReleaseRefused

log = logging.getLogger(__name__)

REFUSAL_KEY = "flint-release-refusal"
"""Trailing metadata of a refused call: its number."""

_Reply = TypeVar("_Reply")


class EnclaveService(enclave_pb2_grpc.EnclaveServicer):
    """Serves what only an enclave does; `AggregationService` serves the rest."""

    def __init__(self, enclave: Enclave) -> None:
        self._enclave = enclave

    def add_to(self, server: grpc.Server) -> None:
        """Register with a server that has not started."""
        enclave_pb2_grpc.add_EnclaveServicer_to_server(self, server)

    def Attest(  # noqa: N802 - gRPC's names
        self, request: pb.AttestRequest, context: grpc.ServicerContext
    ) -> pb.AttestReply:
        """Prove what this is."""
        evidence = _answered(context, lambda: self._enclave.attest(request.job_id, request.nonce))
        return pb.AttestReply(evidence=evidence.SerializeToString())

    def Begin(  # noqa: N802
        self, request: pb.BeginRequest, context: grpc.ServicerContext
    ) -> pb.BeginReply:
        """Be told a job's budget."""
        _answered(context, lambda: self._enclave.begin(request.job_id, budget_of(request.budget)))
        return pb.BeginReply()

    def Prepare(  # noqa: N802
        self, request: pb.PrepareRequest, context: grpc.ServicerContext
    ) -> pb.PrepareReply:
        """Freeze the aggregate."""
        budget = budget_of(request.budget)
        following = _answered(
            context,
            lambda: self._enclave.prepare(
                request.job_id, request.release_id, request.version, budget
            ),
        )
        return pb.PrepareReply(next=budget_message(following))

    def Release(  # noqa: N802
        self, request: pb.ReleaseRequest, context: grpc.ServicerContext
    ) -> pb.ReleaseReply:
        """Let the aggregate out."""
        receipt = budget_of(request.receipt)
        released = _answered(
            context,
            lambda: self._enclave.release(request.job_id, request.release_id, receipt),
        )
        aggregate = released.aggregate
        reply = pb.ReleaseReply(
            version=released.version,
            weight=aggregate.weight,
            task_ids=released.task_ids,
            total=np.ascontiguousarray(
                aggregate.total, aggregate.total.dtype.newbyteorder("<")
            ).tobytes(),
        )
        for base_version, factor in aggregate.bucket_factors.items():
            reply.factors.add(base_version=base_version, factor=factor)
        log.info(
            "released an aggregate of %d updates for version %d",
            len(released.task_ids),
            released.version,
        )
        return reply


def budget_message(budget: ReleaseBudget) -> pb.Budget:
    """A budget, on the wire."""
    return pb.Budget(version=budget.version, state=budget.state)


def budget_of(message: pb.Budget) -> ReleaseBudget:
    """Inverse of `budget_message`."""
    return ReleaseBudget(message.version, message.state)


def serve_enclave_until(stop: threading.Event, enclave: Enclave, socket_path: Path) -> None:
    """Serve until ``stop`` is set, then finish what is running and remove the socket.

    Raises:
        SocketInUse, SocketPathTooLong: See `server.aggregation.service.serve`.
    """
    server = serve(enclave, socket_path, EnclaveService(enclave))
    log.info("enclave %s listens on %s", enclave.boot_id[:8], socket_path)
    stop.wait()
    server.stop(grace=2.0).wait()
    socket_path.unlink(missing_ok=True)
    log.info("enclave stopped; its keys are gone")


def _answered(context: grpc.ServicerContext, call: Callable[[], _Reply]) -> _Reply:
    try:
        return call()
    except ReleaseRefused as refused:
        log.warning("%s", refused)
        context.set_trailing_metadata(((REFUSAL_KEY, str(int(refused.refusal))),))
        context.abort(grpc.StatusCode.ABORTED, refused.detail)
