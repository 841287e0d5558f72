"""An enclave in a process of its own: its gateway's half.

To the gateway it is an `Aggregator`; a release goes through the catalog's budget on its way.
"""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import grpc
import numpy as np

from device_runtime.protocol import device_pb2 as device_pb
from device_runtime.release_policy import ReleasePolicy
from feature_catalog.release_budgets import ReleaseBudgets, StoredBudget
from modeling.spec import ModelSpec
from server.aggregation.aggregator import Envelope, PartialSum
from server.aggregation.process import AggregatorLost, RemoteAggregator
from server.coordination.tasks import Release, UpdateReference
from server.job import Job
from server.secure_aggregation import enclave_pb2 as pb
from server.secure_aggregation import enclave_pb2_grpc
from server.secure_aggregation.masked_sums import MaskedSums, SumsDisagree
from server.secure_aggregation.release_budget import ReleaseBudget
from server.secure_aggregation.release_rules import ReleaseRefusal, ReleaseRefused
from server.secure_aggregation.service import REFUSAL_KEY, budget_message, budget_of
from server.update_gate.rejections import Rejection

log = logging.getLogger(__name__)

_Reply = TypeVar("_Reply")

CountBytes = Callable[[str, int], None]
"""Told of bytes that went into (``"in"``) or came out of (``"out"``) the enclave."""


class RemoteEnclave(RemoteAggregator):
    """The `Aggregator` interface, carried to ``python -m server.secure_aggregation``.

    In masked mode the padded updates are summed here, and only what is sealed goes on.
    """

    started_with = "`flint up --aggregator enclave`, or `flint enclave up`"

    def __init__(
        self,
        socket_path: Path,
        budgets: ReleaseBudgets,
        slot: int,
        *,
        count_bytes: CountBytes = lambda *_: None,
        connect_timeout_s: float = 30.0,
    ) -> None:
        """Connect, waiting until the process listens.

        Args:
            socket_path: Where it does.
            budgets: The catalog's.
            slot: Which of the deployment's enclaves this is.
            count_bytes: Told of traffic.
            connect_timeout_s: Longest wait.

        Raises:
            AggregatorLost, SocketPathTooLong: See `RemoteAggregator`.
        """
        super().__init__(socket_path, connect_timeout_s=connect_timeout_s)
        self._enclave = enclave_pb2_grpc.EnclaveStub(self._channel)
        self._budgets = budgets
        self._slot = slot
        self._count_bytes = count_bytes
        self._job_id = ""
        self._policy: ReleasePolicy | None = None
        self._masked: MaskedSums | None = None
        self._frozen_under: set[str] = set()

    def open(self, job_id: str, job: Job, model: ModelSpec) -> None:
        """See `Aggregator.open`; the enclave is told what it has released."""
        super().open(job_id, job, model)
        policy = job.release_policy()
        if job_id != self._job_id:
            masks = policy is not None and policy.mode == "masked"
            self._frozen_under.clear()
            self._masked = MaskedSums(model.parameter_count, policy) if masks and policy else None
        self._job_id, self._policy = job_id, policy
        if policy is not None:
            budget = self._known_budget()
            self._ask(
                lambda: self._enclave.Begin(
                    pb.BeginRequest(job_id=job_id, budget=budget_message(budget))
                )
            )

    def forget(self) -> None:
        """See `Aggregator.forget`."""
        super().forget()
        self._masked = None
        self._job_id = ""

    def attest(self, job_id: str, nonce: bytes) -> device_pb.Evidence:
        """Evidence for one device.

        Raises:
            ReleaseRefused: If the job is not open there, or the nonce is none.
            AggregatorLost: If the process is gone.
        """
        request = pb.AttestRequest(job_id=job_id, nonce=nonce)
        reply = self._ask(lambda: self._enclave.Attest(request))
        return device_pb.Evidence.FromString(reply.evidence)

    def fold(self, envelope: Envelope, payload: bytes) -> UpdateReference | Rejection:
        """See `Aggregator.fold`."""
        masked = self._masked
        if masked is None:
            self._count_bytes("in", len(payload))
            return super().fold(envelope, payload)
        parted = masked.part(payload)
        if isinstance(parted, Rejection):
            return parted
        self._count_bytes("in", len(parted.sealed))
        folded = super().fold(envelope, parted.sealed)
        if not isinstance(folded, Rejection):
            masked.add(envelope.task_id, envelope.base_version, parted.values)
        return folded

    def reduce(self, release: Release) -> Sequence[PartialSum]:
        """See `Aggregator.reduce`; of a secure job one sum, staleness factors applied.

        Raises:
            ReleaseRefused: If the enclave keeps the aggregate; its updates stay where they are.
            AggregatorLost: If the process is gone.
        """
        if self._policy is None:
            return super().reduce(release)
        job_id = self._job_id
        budget = self._known_budget()
        prepared = self._ask(
            lambda: self._enclave.Prepare(
                pb.PrepareRequest(
                    job_id=job_id,
                    release_id=release.release_id,
                    version=release.version,
                    budget=budget_message(budget),
                )
            )
        )
        if self._masked is not None:
            self._masked.freeze()  # what comes from now on is of the next aggregate
        self._frozen_under.add(release.release_id)
        receipt = budget_of(prepared.next)
        self._advance(budget, receipt, release.release_id)
        reply = self._ask(
            lambda: self._enclave.Release(
                pb.ReleaseRequest(
                    job_id=job_id, release_id=release.release_id, receipt=budget_message(receipt)
                )
            )
        )
        self._count_bytes("out", len(reply.total))
        if self._masked is not None:
            try:
                return (self._masked.released(reply),)
            except SumsDisagree as error:
                # Nothing can be told of either: gateway and sums begin anew.
                raise AggregatorLost(f"{error}; the gateway begins anew") from error
        return (
            PartialSum(
                reply.version,
                np.frombuffer(reply.total, "<f4"),
                reply.weight,
                tuple(reply.task_ids),
            ),
        )

    def commit(self, release_id: str) -> None:
        """See `Aggregator.commit`."""
        super().commit(release_id)
        if release_id in self._frozen_under:
            self._frozen_under.clear()
            if self._masked is not None:
                self._masked.commit()

    def drop(self, base_version: int) -> tuple[str, ...]:
        """See `Aggregator.drop`."""
        dropped = super().drop(base_version)
        if self._masked is not None:
            self._masked.drop(base_version)
        return dropped

    def _known_budget(self) -> ReleaseBudget:
        stored = self._budgets.find(self._job_id, self._slot)
        if stored is None:
            return ReleaseBudget.unspent(self._job_id, self._slot)
        return ReleaseBudget(stored.version, stored.state)

    def _advance(self, before: ReleaseBudget, after: ReleaseBudget, release_id: str) -> None:
        if before == after:
            return  # stored already: what was prepared then is fetched now
        unspent = before == ReleaseBudget.unspent(self._job_id, self._slot)
        taken = self._budgets.advance(
            self._job_id,
            self._slot,
            None if unspent else StoredBudget(before.version, before.state),
            StoredBudget(after.version, after.state),
            release_id,
        )
        if not taken:
            raise ReleaseRefused(
                ReleaseRefusal.BUDGET_TAKEN,
                f"another enclave has released for slot {self._slot} of job {self._job_id} "
                "meanwhile; only one may run for each gateway",
            )

    def _ask(self, call: Callable[[], _Reply]) -> _Reply:
        try:
            return self._call(call)
        except grpc.RpcError as error:
            if not isinstance(error, grpc.Call):
                raise
            for key, value in error.trailing_metadata() or ():
                if key == REFUSAL_KEY:
                    raise ReleaseRefused(
                        ReleaseRefusal(int(value)), error.details() or ""
                    ) from error
            raise
