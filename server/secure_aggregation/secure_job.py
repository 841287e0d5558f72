"""One job with ``privacy.secure_aggregation`` inside the enclave: its key, sums and budget."""

from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from google.protobuf.message import DecodeError

from device_runtime.protocol import device_pb2 as device_pb
from device_runtime.release_policy import ReleasePolicy
from device_runtime.sealing import NotOpened, enclave_key_sha256, open_sealed
from modeling.spec import ModelSpec
from server.aggregation.aggregator import Envelope
from server.coordination.tasks import UpdateReference
from server.job import Job
from server.secure_aggregation.release_budget import STATE_BYTES, ReleaseBudget
from server.secure_aggregation.release_rules import (
    Contribution,
    ReleaseRefusal,
    ReleaseRefused,
    host_app_factors,
)
from server.secure_aggregation.sums import (
    Aggregate,
    Held,
    Noise,
    PadSums,
    Sums,
    UpdateSums,
)
from server.strategies import make_strategy
from server.update_gate.rejections import Rejection, RejectionReason

_LONGEST_ID = 200


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
    """An aggregate from the moment it is prepared until it is committed.

    Attributes:
        next_budget: What the catalog has to store before it is let out.
        release_ids: Under which it was asked for; a new coordinator asks under another.
        is_out: It was let out.
    """

    released: ReleasedAggregate
    next_budget: ReleaseBudget
    release_ids: set[str]
    is_out: bool = False


class SecureJob:
    """Takes sealed updates, and lets out aggregates that keep to the job's release policy.

    Not safe for several threads but for `opened`; its owner holds a lock.

    Attributes:
        enclave_key: Serialised ``EnclaveKey`` that devices seal to.
    """

    def __init__(
        self,
        job_id: str,
        job: Job,
        model: ModelSpec,
        policy: ReleasePolicy,
        boot_id: str,
        noise: Noise | None,
        clip_norm: float | None,
    ) -> None:
        """Make the job's key; it is in this process's memory alone.

        Args:
            policy: Of the job.
            boot_id: Of the enclave.
            noise: Added to every aggregate before it is let out.
            clip_norm: Longer updates are scaled down to it before they are added.
        """
        self.job_id = job_id
        self._policy = policy
        self._boot_id = boot_id
        self._strategy = make_strategy(job.strategy)
        codec = job.client.compression.codec
        # A device that does not know the job's codec sends, and binds to, plain float32.
        self._codecs = ("",) if codec is None else (codec.name, "")
        self._private_key = X25519PrivateKey.generate()
        self.enclave_key = device_pb.EnclaveKey(
            public_key=self._private_key.public_key().public_bytes_raw(),
            job_id=job_id,
            boot_id=boot_id,
            release_policy_sha256=policy.sha256(),
        ).SerializeToString(deterministic=True)
        self._sums: Sums
        if policy.mode == "masked":
            self._sums = PadSums(job, model, policy)
        else:
            self._sums = UpdateSums(job_id, job, model, noise, clip_norm)
        self._budget: ReleaseBudget | None = None
        # Of an aggregate that was frozen, and forgotten before it was let out.
        self._abandoned_budget: ReleaseBudget | None = None
        self._oldest_live = 0
        # Older ones may be in an aggregate of an earlier boot, unless they were never sent before.
        self._first_of_boot = 0
        self._held: dict[str, Held] = {}
        self._frozen: _Frozen | None = None
        self._newest_base = 0  # of the updates in it
        # Task ids frozen in an aggregate, by base version: never taken again.
        self._used: dict[int, set[str]] = {}

    # -- updates ---------------------------------------------------------------------------------

    def opened(self, envelope: Envelope, payload: bytes) -> device_pb.SealedContent | Rejection:
        """The content of a sealed update. Changes nothing, so it needs no lock."""
        message = device_pb.SealedUpdate()
        try:
            message.ParseFromString(payload)
        except DecodeError:
            return Rejection(RejectionReason.NOT_SEALED, "bytes are not a SealedUpdate message")
        if not message.sealed:
            return Rejection(RejectionReason.NOT_SEALED, "the message holds nothing sealed")
        if message.enclave_key_sha256 != enclave_key_sha256(self.enclave_key):
            return Rejection(
                RejectionReason.OTHER_ENCLAVE_KEY,
                "it is sealed to another key than this boot's for this job",
            )
        for codec in self._codecs:
            sealed_for = device_pb.SealedFor(
                task_id=envelope.task_id,
                job_id=self.job_id,
                device_id=envelope.client_id,
                base_version=envelope.base_version,
                codec=codec,
            )
            try:
                content = open_sealed(
                    self._private_key, self.enclave_key, sealed_for, message.sealed
                )
            except NotOpened:
                continue
            return _content(content)
        return Rejection(
            RejectionReason.NOT_OPENED,
            "it was sealed for another task, job, device, version or codec, or altered",
        )

    def fold(
        self, envelope: Envelope, content: device_pb.SealedContent
    ) -> UpdateReference | Rejection:
        """Gate and add an opened update, once. What comes back says nothing of its values."""
        known = self._held.get(envelope.task_id)
        if known is not None:
            return known.reference
        refused = self._not_taken(envelope, content)
        if refused is not None:
            return refused
        folded = self._sums.fold(envelope, content)
        if isinstance(folded, Rejection):
            # Its sentence has values of the update in it; its number has to do outside.
            return Rejection(folded.reason, "refused inside the enclave, where its values stay")
        nan = float("nan")
        told = replace(folded, update_norm=0.0, loss_before=nan, loss_after=nan)
        self._held[envelope.task_id] = Held(told, content.app_id)
        return told

    def drop(self, base_version: int) -> tuple[str, ...]:
        """Forget a bucket, and an aggregate of nothing newer; returns the task ids in them."""
        frozen = self._forget_frozen_up_to(base_version)
        self._sums.drop(base_version)
        dropped = tuple(
            task_id
            for task_id, held in self._held.items()
            if held.reference.base_version == base_version
        )
        for task_id in dropped:
            del self._held[task_id]
        return (*dropped, *frozen)

    def held(self) -> tuple[UpdateReference, ...]:
        """References of what is folded and not frozen, in order of arrival."""
        return tuple(held.reference for held in self._held.values())

    def forget(self) -> None:
        """Forget what is held and frozen; key, budget and what was used go on."""
        self._sums.clear()
        self._held.clear()
        self._forget_frozen()

    # -- aggregates ------------------------------------------------------------------------------

    def begin(self, budget: ReleaseBudget) -> None:
        """Be told the budget; before that, no update is taken.

        Updates that an earlier boot may have let out are refused from then on: those of released
        versions that were sent before. Said again, the budget must be the known one: the catalog
        does not go back.

        Raises:
            ReleaseRefused: ``BUDGET_ROLLED_BACK``, ``MALFORMED_REQUEST``.
        """
        if len(budget.state) != STATE_BYTES:
            raise ReleaseRefused(
                ReleaseRefusal.MALFORMED_REQUEST,
                f"a budget's state has {STATE_BYTES} bytes, this one {len(budget.state)}",
            )
        if self._budget is None:
            self._budget = budget
            self._first_of_boot = budget.version + 1
        else:
            self._require_known(budget)

    def prepare(self, release_id: str, version: int, budget: ReleaseBudget) -> ReleaseBudget:
        """Freeze what is held, if it may be let out; returns the budget to be stored first.

        What was let out and never committed is let out again, and nothing beside it: two
        aggregates that share updates would tell those they do not share.

        Args:
            release_id: Under which it is asked for.
            version: Newest model version.
            budget: As the catalog has it.

        Raises:
            ReleaseRefused: With the reason.
        """
        known = self._require_known(budget)
        frozen = self._frozen
        if frozen is not None and (frozen.is_out or budget == frozen.next_budget):
            frozen.release_ids.add(release_id)
            return frozen.next_budget
        if version <= known.version:
            raise ReleaseRefused(
                ReleaseRefusal.VERSION_RELEASED,
                f"an aggregate was released for version {known.version} already; this is "
                f"version {version}",
            )
        next_budget = known.after(version, release_id, self._boot_id)
        newest = max((h.reference.base_version for h in self._held.values()), default=0)
        if newest > version:
            raise ReleaseRefused(
                ReleaseRefusal.MALFORMED_REQUEST,
                f"the newest version is said to be {version}, and updates of {newest} are held",
            )
        if frozen is None:
            self._frozen = self._freeze(release_id, version, next_budget)
        else:
            # Prepared, and never fetched: the same, for whoever asks now.
            frozen.release_ids.add(release_id)
            frozen.next_budget = next_budget
        return next_budget

    def release(self, release_id: str, receipt: ReleaseBudget) -> ReleasedAggregate:
        """Let out what `prepare` froze.

        Args:
            release_id: As prepared.
            receipt: The budget as the catalog has it now.

        Raises:
            ReleaseRefused: ``NOT_PREPARED``, ``WRONG_RECEIPT``.
        """
        frozen = self._frozen
        if frozen is None or release_id not in frozen.release_ids:
            raise ReleaseRefused(
                ReleaseRefusal.NOT_PREPARED, "no aggregate is prepared under this release id"
            )
        if receipt != frozen.next_budget:
            raise ReleaseRefused(
                ReleaseRefusal.WRONG_RECEIPT,
                "the catalog's budget is not the one this release leads to (version "
                f"{receipt.version}, state {receipt.state.hex()[:16]}...)",
            )
        if not frozen.is_out:
            frozen.is_out = True
            self._budget = receipt
            self._forget_old(receipt.version + 1)
        return frozen.released

    def commit(self, release_id: str) -> None:
        """An aggregate is part of a stored version; unknown ids are ignored."""
        if self._frozen is not None and release_id in self._frozen.release_ids:
            self._frozen = None

    def frozen(self) -> tuple[str, ...]:
        """Ids under which an aggregate was prepared and not committed."""
        return () if self._frozen is None else tuple(self._frozen.release_ids)

    def _not_taken(self, envelope: Envelope, content: device_pb.SealedContent) -> Rejection | None:
        if self._budget is None:
            return Rejection(RejectionReason.UNKNOWN_TASK, "the job's budget was not told yet")
        base_version = envelope.base_version
        if envelope.task_id in self._used.get(base_version, ()):
            return Rejection(
                RejectionReason.ALREADY_RELEASED, "the update is in an aggregate that was frozen"
            )
        first = self._oldest_live
        if not content.never_sent:
            first = max(first, self._first_of_boot)
        if base_version < first:
            return Rejection(
                RejectionReason.VERSION_RELEASED,
                f"the update is of version {base_version}; those before version {first} may be in "
                "an aggregate that was released",
            )
        if not content.app_id or len(content.app_id) > _LONGEST_ID:
            return Rejection(RejectionReason.UNKNOWN_HOST_APP, "the update names no host app")
        return None

    def _freeze(self, release_id: str, version: int, next_budget: ReleaseBudget) -> _Frozen:
        strategy = self._strategy

        def staleness_of(base_version: int) -> float:
            return strategy.base_weight(version - base_version)

        # What counts is what an update weighs in the sum: a stale one may weigh next to nothing.
        factors = self._sums.factors(staleness_of)
        app_factors = host_app_factors(
            [
                Contribution(
                    held.reference.client_id,
                    held.host_app,
                    held.reference.weight * factors[held.reference.base_version],
                )
                for held in self._held.values()
            ],
            self._policy,
        )
        held, self._held = self._held, {}
        for task_id, each in held.items():
            self._used.setdefault(each.reference.base_version, set()).add(task_id)
        try:
            aggregate = self._sums.take(app_factors, staleness_of)
        except BaseException:
            self._sums.clear()
            raise
        task_ids = tuple(held)
        self._newest_base = max(each.reference.base_version for each in held.values())
        return _Frozen(ReleasedAggregate(version, task_ids, aggregate), next_budget, {release_id})

    def _forget_frozen(self) -> None:
        if self._frozen is not None and not self._frozen.is_out:
            self._abandoned_budget = self._frozen.next_budget
        self._frozen = None

    def _forget_frozen_up_to(self, base_version: int) -> tuple[str, ...]:
        """Whoever drops a version will not use an aggregate of it any more."""
        if self._frozen is None or self._newest_base > base_version:
            return ()
        task_ids = self._frozen.released.task_ids
        self._forget_frozen()
        return task_ids

    def _forget_old(self, version: int) -> None:
        """Task ids of versions no longer live: of those, updates are not taken at all."""
        oldest = self._strategy.oldest_live_version(version)
        self._oldest_live = max(self._oldest_live, oldest)
        self._used = {b: task_ids for b, task_ids in self._used.items() if b >= oldest}

    def _require_known(self, budget: ReleaseBudget) -> ReleaseBudget:
        if self._budget is None:
            raise ReleaseRefused(ReleaseRefusal.NO_BUDGET, "the job's budget was not told yet")
        if budget == self._abandoned_budget:
            self._budget, self._abandoned_budget = budget, None
        if budget == self._budget:
            return budget
        if self._frozen is not None and budget == self._frozen.next_budget:
            return self._budget  # stored, and its aggregate not fetched yet
        raise ReleaseRefused(
            ReleaseRefusal.BUDGET_ROLLED_BACK,
            f"the catalog's budget (version {budget.version}, state {budget.state.hex()[:16]}...) "
            f"is not this enclave's (version {self._budget.version}, state "
            f"{self._budget.state.hex()[:16]}...)",
        )


def _content(serialised: bytes) -> device_pb.SealedContent | Rejection:
    try:
        return device_pb.SealedContent.FromString(serialised)
    except DecodeError:
        return Rejection(
            RejectionReason.MALFORMED_CONTENT, "what was sealed is not a SealedContent message"
        )
