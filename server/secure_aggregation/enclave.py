"""The enclave: the one place where plaintext updates exist, and what it lets out of there.

It is an `Aggregator` like any other to the gateway. Of a job without ``privacy.secure_aggregation``
it sums plain updates; of one with it, it takes sealed updates only, and `reduce` is `prepare` and
`release` instead: an aggregate leaves if its policy is kept to, once for each version.

Keys are made when a job is opened and live in this process's memory alone, so a restarted enclave
has another key, and devices verify it anew.
"""

import logging
import threading
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from google.protobuf.message import DecodeError

from device_runtime.protocol import device_pb2 as device_pb
from device_runtime.release_policy import ReleasePolicy
from device_runtime.sealing import NotOpened, enclave_key_sha256, open_sealed
from modeling.spec import ModelSpec
from server.aggregation.aggregator import Envelope, PartialSum
from server.aggregation.mean import MeanAggregator
from server.coordination.tasks import Release, UpdateReference
from server.job import Job
from server.secure_aggregation.release_budget import STATE_BYTES, ReleaseBudget
from server.secure_aggregation.release_rules import (
    Contribution,
    ReleaseRefusal,
    ReleaseRefused,
    host_app_factors,
)
from server.secure_aggregation.sums import Aggregate, Held, Noise, PadSums, Sums, UpdateSums
from server.strategies import Strategy, make_strategy
from server.update_gate.rejections import Rejection, RejectionReason

log = logging.getLogger(__name__)

NONCE_BYTES = 32
_LONGEST_ID = 200


class Attester(Protocol):
    """Who vouches for this process: see `server.secure_aggregation.attesters`."""

    @property
    def provider(self) -> str:
        """Name of the kind of evidence."""
        ...

    def document(self, nonce: bytes, user_data: bytes) -> bytes:
        """Evidence of what this process is, bound to both."""
        ...


@dataclass(frozen=True, slots=True)
class ReleasedAggregate:
    """What is let out.

    Attributes:
        version: Newest model version at the time; staleness is reckoned from it.
    """

    version: int
    task_ids: tuple[str, ...]
    aggregate: Aggregate


@dataclass(slots=True)
class _Frozen:
    """An aggregate between `Enclave.prepare` and its commit.

    Attributes:
        release_ids: Under which it was asked for; a coordinator that is new asks under another.
        is_out: It was let out.
    """

    released: ReleasedAggregate
    next_budget: ReleaseBudget
    release_ids: set[str]
    is_out: bool = False


@dataclass(slots=True)
class _SecureJob:
    """One job with ``privacy.secure_aggregation``.

    Attributes:
        enclave_key: Serialised ``EnclaveKey`` of ``private_key``.
        first_base_version: Updates of older ones may be in an aggregate that an earlier boot let
            out, so none is taken.
        abandoned_budget: Of an aggregate that was frozen, and forgotten before it was let out.
        released: Task ids frozen in an aggregate, by base version; they are not taken again.
    """

    job_id: str
    policy: ReleasePolicy
    strategy: Strategy
    codec: str
    private_key: X25519PrivateKey
    enclave_key: bytes
    sums: Sums
    budget: ReleaseBudget | None = None
    first_base_version: int = 0
    held: dict[str, Held] = field(default_factory=dict)
    frozen: _Frozen | None = None
    abandoned_budget: ReleaseBudget | None = None
    released: dict[int, set[str]] = field(default_factory=dict)

    def forget_frozen(self) -> None:
        """What was frozen is not fetched any more; the catalog may have its budget stored."""
        if self.frozen is not None and not self.frozen.is_out:
            self.abandoned_budget = self.frozen.next_budget
        self.frozen = None


class Enclave:
    """Opens, gates and sums sealed updates. Safe for several threads.

    Attributes:
        boot_id: Of this process; its keys are bound to it.
        counts: Events since the start, for metrics.
    """

    def __init__(self, attester: Attester, noise: Noise | None = None) -> None:
        """Begin with no job.

        Args:
            attester: Vouches for this process.
            noise: Added to every aggregate before it is let out.
        """
        self.boot_id = uuid.uuid4().hex
        self.counts: Counter[str] = Counter()
        self._attester = attester
        self._noise = noise
        self._lock = threading.Lock()
        self._plain = MeanAggregator()
        self._secure: _SecureJob | None = None

    # -- what any aggregator does ----------------------------------------------------------------

    def open(self, job_id: str, job: Job, model: ModelSpec) -> None:
        """Start a job, forgetting any other and its key."""
        with self._lock:
            if self._secure is not None and self._secure.job_id == job_id:
                return
            policy = job.release_policy()
            if policy is None:
                self._secure = None
                self._plain.open(job_id, job, model)
                return
            self._plain.forget()
            self._secure = self._begin(job_id, job, model, policy)

    def forget(self) -> None:
        """Forget what is held: the gateway that sent it is gone. The key goes on."""
        with self._lock:
            self._plain.forget()
            if self._secure is not None:
                self._secure.sums.clear()
                self._secure.held.clear()
                self._secure.forget_frozen()

    def fold(self, envelope: Envelope, payload: bytes) -> UpdateReference | Rejection:
        """Open, gate and add a sealed update. What comes back says nothing of its content."""
        secure = self._secure
        if secure is None:
            return self._plain.fold(envelope, payload)
        opened = self._opened(secure, envelope, payload)
        if isinstance(opened, Rejection):
            with self._lock:
                self.counts[f"refused_{opened.reason.name.lower()}"] += 1
            return opened
        with self._lock:
            return self._fold(secure, envelope, opened)

    def reduce(self, release: Release) -> Sequence[PartialSum]:
        """Of a job without secure aggregation; of others see `prepare` and `release`."""
        if self._secure is not None:
            raise ReleaseRefused(
                ReleaseRefusal.NOT_PREPARED, "a secure job's aggregates are prepared, then released"
            )
        return self._plain.reduce(release)

    def commit(self, release_id: str) -> None:
        """An aggregate is part of a stored version."""
        with self._lock:
            secure = self._secure
            if secure is None:
                self._plain.commit(release_id)
            elif secure.frozen is not None and release_id in secure.frozen.release_ids:
                secure.frozen = None

    def thaw(self, release_id: str) -> None:
        """Of what was let out nothing goes back: it is let out again, as it is, when asked for."""
        if self._secure is None:
            self._plain.thaw(release_id)

    def drop(self, base_version: int) -> tuple[str, ...]:
        """Forget a bucket; returns the task ids that were in it."""
        with self._lock:
            secure = self._secure
            if secure is None:
                return self._plain.drop(base_version)
            secure.sums.drop(base_version)
            dropped = tuple(
                task_id
                for task_id, held in secure.held.items()
                if held.reference.base_version == base_version
            )
            for task_id in dropped:
                del secure.held[task_id]
            return dropped

    def held(self) -> tuple[UpdateReference, ...]:
        """References of everything folded and not frozen."""
        with self._lock:
            if self._secure is None:
                return self._plain.held()
            return tuple(held.reference for held in self._secure.held.values())

    def frozen(self) -> tuple[str, ...]:
        """Ids under which an aggregate was let out and not committed."""
        with self._lock:
            if self._secure is None:
                return self._plain.frozen()
            frozen = self._secure.frozen
            return () if frozen is None else tuple(frozen.release_ids)

    # -- what only an enclave does ---------------------------------------------------------------

    def attest(self, job_id: str, nonce: bytes) -> device_pb.Evidence:
        """Prove to one device what this is, and name the job's key.

        Raises:
            ReleaseRefused: If the job is not open, or the nonce is none.
        """
        secure = self._job(job_id)
        if len(nonce) != NONCE_BYTES:
            raise ReleaseRefused(
                ReleaseRefusal.MALFORMED_REQUEST,
                f"the nonce has {len(nonce)} bytes, not {NONCE_BYTES}",
            )
        key = secure.enclave_key
        return device_pb.Evidence(
            provider=self._attester.provider,
            document=self._attester.document(nonce, enclave_key_sha256(key)),
            enclave_key=key,
        )

    def begin(self, job_id: str, budget: ReleaseBudget) -> None:
        """Tell the job's budget; before it, no update is taken.

        Said again it must be what is known: the catalog does not go back.

        Raises:
            ReleaseRefused: ``BUDGET_ROLLED_BACK`` if it is not, ``UNKNOWN_JOB``.
        """
        with self._lock:
            secure = self._job(job_id)
            if len(budget.state) != STATE_BYTES:
                raise ReleaseRefused(
                    ReleaseRefusal.MALFORMED_REQUEST, f"a budget's state has {STATE_BYTES} bytes"
                )
            if secure.budget is None:
                secure.budget = budget
                secure.first_base_version = budget.version + 1
            else:
                self._require_known(secure, budget)

    def prepare(
        self, job_id: str, release_id: str, version: int, budget: ReleaseBudget
    ) -> ReleaseBudget:
        """Freeze what is held, if it may be let out; returns the budget to be stored first.

        What was let out and never committed is let out again, and nothing else: two aggregates
        that share updates would tell the rest.

        Args:
            job_id: Of the open job.
            release_id: Under which it is asked for.
            version: Newest model version.
            budget: As the catalog has it.

        Raises:
            ReleaseRefused: With the reason.
        """
        with self._lock:
            secure = self._job(job_id)
            known = self._require_known(secure, budget)
            frozen = secure.frozen
            if frozen is not None and (frozen.is_out or budget == frozen.next_budget):
                frozen.release_ids.add(release_id)
                return frozen.next_budget
            if version <= known.version:
                raise ReleaseRefused(
                    ReleaseRefusal.VERSION_RELEASED,
                    f"an aggregate was released for version {known.version} already; this is "
                    f"version {version}",
                )
            next_budget = known.after(version, release_id, self.boot_id)
            if frozen is None:
                frozen = secure.frozen = self._freeze(secure, release_id, version, next_budget)
            else:
                # Asked for and not fetched: the same, for whoever asks now.
                frozen.release_ids.add(release_id)
                frozen.next_budget = next_budget
                frozen.released = replace(frozen.released, version=version)
            return next_budget

    def release(self, job_id: str, release_id: str, receipt: ReleaseBudget) -> ReleasedAggregate:
        """Let out what `prepare` froze.

        Args:
            job_id: Of the open job.
            release_id: As prepared.
            receipt: The budget as the catalog has it now.

        Raises:
            ReleaseRefused: ``NOT_PREPARED``, ``WRONG_RECEIPT``, ``UNKNOWN_JOB``.
        """
        with self._lock:
            secure = self._job(job_id)
            frozen = secure.frozen
            if frozen is None or release_id not in frozen.release_ids:
                raise ReleaseRefused(
                    ReleaseRefusal.NOT_PREPARED, "no aggregate is prepared under this release id"
                )
            if receipt != frozen.next_budget:
                raise ReleaseRefused(
                    ReleaseRefusal.WRONG_RECEIPT,
                    f"the catalog's state is not the one this release leads to (version "
                    f"{receipt.version}, state {receipt.state.hex()[:16]}...)",
                )
            if not frozen.is_out:
                frozen.is_out = True
                secure.budget = receipt
                self._forget_old(secure)
                self.counts["released"] += 1
            return frozen.released

    # -- under the lock ------------------------------------------------------------------------

    def _begin(self, job_id: str, job: Job, model: ModelSpec, policy: ReleasePolicy) -> _SecureJob:
        private_key = X25519PrivateKey.generate()
        key = device_pb.EnclaveKey(
            public_key=private_key.public_key().public_bytes_raw(),
            job_id=job_id,
            boot_id=self.boot_id,
            release_policy_sha256=policy.sha256(),
        )
        sums: Sums
        if policy.mode == "masked":
            sums = PadSums(job, model, policy)
        else:
            sums = UpdateSums(job_id, job, model, self._noise)
        codec = job.client.compression.codec
        return _SecureJob(
            job_id,
            policy,
            make_strategy(job.strategy),
            "" if codec is None else codec.name,
            private_key,
            key.SerializeToString(deterministic=True),
            sums,
        )

    def _opened(
        self, secure: _SecureJob, envelope: Envelope, payload: bytes
    ) -> device_pb.SealedContent | Rejection:
        """The content of a sealed update; needs no lock, for it changes nothing."""
        message = device_pb.SealedUpdate()
        try:
            message.ParseFromString(payload)
        except DecodeError:
            return Rejection(RejectionReason.NOT_SEALED, "bytes are not a SealedUpdate message")
        if not message.sealed:
            return Rejection(RejectionReason.NOT_SEALED, "the message holds nothing sealed")
        if message.enclave_key_sha256 != enclave_key_sha256(secure.enclave_key):
            return Rejection(
                RejectionReason.OTHER_ENCLAVE_KEY,
                "it is sealed to another key than this boot's for this job",
            )
        # A device that does not know the job's codec sends, and binds to, plain float32.
        for codec in dict.fromkeys((secure.codec, "")):
            sealed_for = device_pb.SealedFor(
                task_id=envelope.task_id,
                job_id=secure.job_id,
                device_id=envelope.client_id,
                base_version=envelope.base_version,
                codec=codec,
            )
            try:
                content = open_sealed(
                    secure.private_key, secure.enclave_key, sealed_for, message.sealed
                )
                return device_pb.SealedContent.FromString(content)
            except NotOpened:
                continue
            except DecodeError:
                return Rejection(
                    RejectionReason.MALFORMED_CONTENT, "what was sealed is not a SealedContent"
                )
        return Rejection(
            RejectionReason.NOT_OPENED,
            "it was sealed for another task, job, device, version or codec, or altered",
        )

    def _fold(
        self, secure: _SecureJob, envelope: Envelope, content: device_pb.SealedContent
    ) -> UpdateReference | Rejection:
        if self._secure is not secure or secure.budget is None:
            return Rejection(RejectionReason.UNKNOWN_TASK, "the job is not open here")
        task_id, base_version = envelope.task_id, envelope.base_version
        known = secure.held.get(task_id)
        if known is not None:
            return known.reference
        if task_id in secure.released.get(base_version, ()):
            return Rejection(
                RejectionReason.ALREADY_RELEASED, "the update is in an aggregate that was released"
            )
        if base_version < secure.first_base_version:
            return Rejection(
                RejectionReason.VERSION_RELEASED,
                f"the update is of version {base_version}; those before version "
                f"{secure.first_base_version} may be in an aggregate that was released",
            )
        if not content.app_id or len(content.app_id) > _LONGEST_ID:
            return Rejection(RejectionReason.UNKNOWN_HOST_APP, "the update names no host app")
        folded = secure.sums.fold(envelope, content)
        if isinstance(folded, Rejection):
            self.counts[f"refused_{folded.reason.name.lower()}"] += 1
            return folded
        self.counts["folded"] += 1
        # What a single update was like stays inside.
        nan = float("nan")
        told = replace(folded, update_norm=0.0, loss_before=nan, loss_after=nan)
        secure.held[task_id] = Held(told, content.app_id)
        return told

    def _freeze(
        self, secure: _SecureJob, release_id: str, version: int, next_budget: ReleaseBudget
    ) -> _Frozen:
        try:
            factors = host_app_factors(
                [
                    Contribution(h.reference.client_id, h.host_app, h.reference.weight)
                    for h in secure.held.values()
                ],
                secure.policy,
            )
        except ReleaseRefused as refused:
            self.counts[f"kept_{refused.refusal.name.lower()}"] += 1
            raise
        strategy = secure.strategy
        aggregate = secure.sums.take(
            factors, lambda base_version: strategy.base_weight(version - base_version)
        )
        task_ids = tuple(secure.held)
        for task_id, held in secure.held.items():
            secure.released.setdefault(held.reference.base_version, set()).add(task_id)
        secure.held.clear()
        return _Frozen(ReleasedAggregate(version, task_ids, aggregate), next_budget, {release_id})

    def _forget_old(self, secure: _SecureJob) -> None:
        """Task ids of versions no longer live: updates of those are not taken any more at all."""
        if secure.budget is None:
            return
        oldest = secure.strategy.oldest_live_version(secure.budget.version + 1)
        secure.first_base_version = max(secure.first_base_version, oldest)
        for base_version in [b for b in secure.released if b < oldest]:
            del secure.released[base_version]

    def _require_known(self, secure: _SecureJob, budget: ReleaseBudget) -> ReleaseBudget:
        if secure.budget is None:
            raise ReleaseRefused(ReleaseRefusal.NO_BUDGET, "the job's budget was not told yet")
        if budget == secure.abandoned_budget:
            secure.budget, secure.abandoned_budget = budget, None
        if budget == secure.budget:
            return budget
        if secure.frozen is not None and budget == secure.frozen.next_budget:
            return secure.budget  # stored, and its aggregate not fetched yet
        raise ReleaseRefused(
            ReleaseRefusal.BUDGET_ROLLED_BACK,
            f"the catalog's budget (version {budget.version}, state {budget.state.hex()[:16]}...) "
            f"is not this enclave's (version {secure.budget.version}, state "
            f"{secure.budget.state.hex()[:16]}...)",
        )

    def _job(self, job_id: str) -> _SecureJob:
        secure = self._secure
        if secure is None or secure.job_id != job_id:
            raise ReleaseRefused(
                ReleaseRefusal.UNKNOWN_JOB, f"job {job_id[:64]!r} is not open here as a secure one"
            )
        return secure
