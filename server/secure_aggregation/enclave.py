"""The enclave: the one place where plaintext updates exist, and what it lets out of there.

It is an `Aggregator` like any other to the gateway. Of a job without ``privacy.secure_aggregation``
it sums plain updates; of one with it, it takes sealed updates only, and `reduce` is `prepare` and
`release` instead: an aggregate leaves if its policy is kept to, once for each version.

Keys are made when a job is opened and live in this process's memory alone, so a restarted enclave
has another key, and devices verify it anew.
"""

import threading
import uuid
from collections.abc import Sequence

from device_runtime.protocol import device_pb2 as device_pb
from device_runtime.sealing import enclave_key_sha256
from modeling.spec import ModelSpec
from server.aggregation.aggregator import Envelope, PartialSum
from server.aggregation.mean import MeanAggregator
from server.coordination.tasks import Release, UpdateReference
from server.job import Job
from server.secure_aggregation.attesters import Attester
from server.secure_aggregation.release_budget import ReleaseBudget
from server.secure_aggregation.release_rules import ReleaseRefusal, ReleaseRefused
from server.secure_aggregation.secure_job import ReleasedAggregate, SecureJob
from server.secure_aggregation.sums import Noise
from server.update_gate.rejections import Rejection, RejectionReason

NONCE_BYTES = 32


class Enclave:
    """Opens, gates and sums sealed updates. Safe for several threads.

    Attributes:
        boot_id: Of this process; its keys are bound to it.
    """

    def __init__(
        self, attester: Attester, noise: Noise | None = None, clip_norm: float | None = None
    ) -> None:
        """Begin with no job.

        Args:
            attester: Vouches for this process.
            noise: Added to every aggregate before it is let out.
            clip_norm: Longer updates are scaled down to this L2 norm before they are added; with
                ``noise`` the two halves of differential privacy, which no job asks for yet.
        """
        self.boot_id = uuid.uuid4().hex
        self._attester = attester
        self._noise = noise
        self._clip_norm = clip_norm
        self._lock = threading.Lock()
        self._plain = MeanAggregator()
        self._secure: SecureJob | None = None

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
            self._secure = SecureJob(
                job_id, job, model, policy, self.boot_id, self._noise, self._clip_norm
            )

    def forget(self) -> None:
        """Forget what is held: the gateway that sent it is gone. A secure job's key goes on."""
        with self._lock:
            self._plain.forget()
            if self._secure is not None:
                self._secure.forget()

    def fold(self, envelope: Envelope, payload: bytes) -> UpdateReference | Rejection:
        """Open, gate and add a sealed update."""
        secure = self._secure
        if secure is None:
            return self._plain.fold(envelope, payload)
        opened = secure.opened(envelope, payload)
        with self._lock:
            if self._secure is not secure:
                return Rejection(RejectionReason.UNKNOWN_TASK, "the job ended meanwhile")
            if isinstance(opened, Rejection):
                return opened
            return secure.fold(envelope, opened)

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
            if self._secure is None:
                self._plain.commit(release_id)
            else:
                self._secure.commit(release_id)

    def thaw(self, release_id: str) -> None:
        """Of what was let out nothing goes back: it is let out again, as it is, when asked for."""
        with self._lock:
            if self._secure is None:
                self._plain.thaw(release_id)

    def drop(self, base_version: int) -> tuple[str, ...]:
        """Forget a bucket; returns the task ids that were in it."""
        with self._lock:
            return (self._secure or self._plain).drop(base_version)

    def held(self) -> tuple[UpdateReference, ...]:
        """References of everything folded and not frozen."""
        with self._lock:
            return (self._secure or self._plain).held()

    def frozen(self) -> tuple[str, ...]:
        """Ids of aggregates frozen and not committed."""
        with self._lock:
            return (self._secure or self._plain).frozen()

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
        document = self._attester.document(nonce, enclave_key_sha256(secure.enclave_key))
        return device_pb.Evidence(
            provider=self._attester.provider, document=document, enclave_key=secure.enclave_key
        )

    def begin(self, job_id: str, budget: ReleaseBudget) -> None:
        """See `SecureJob.begin`."""
        with self._lock:
            self._job(job_id).begin(budget)

    def prepare(
        self, job_id: str, release_id: str, version: int, budget: ReleaseBudget
    ) -> ReleaseBudget:
        """See `SecureJob.prepare`."""
        with self._lock:
            return self._job(job_id).prepare(release_id, version, budget)

    def release(self, job_id: str, release_id: str, receipt: ReleaseBudget) -> ReleasedAggregate:
        """See `SecureJob.release`."""
        with self._lock:
            return self._job(job_id).release(release_id, receipt)

    def _job(self, job_id: str) -> SecureJob:
        secure = self._secure
        if secure is None or secure.job_id != job_id:
            raise ReleaseRefused(
                ReleaseRefusal.UNKNOWN_JOB, f"job {job_id[:64]!r} is not open here as a secure one"
            )
        return secure
