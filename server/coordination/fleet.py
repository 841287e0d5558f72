"""The `Fleet`: everything the coordinator can ask of the devices, whatever clock they live on."""

from dataclasses import dataclass
from typing import Protocol

from server.aggregation.aggregator import PartialSum
from server.coordination.events import Event
from server.coordination.tasks import Grant, Outcome, Release
from server.job import Job
from server.update_gate.content import WireModel


@dataclass(frozen=True, slots=True)
class OpenJob:
    """What a fleet needs to start, or take up again, a job.

    Attributes:
        epoch: Incarnation of the coordinator; a fleet ignores messages of an older one.
        model: Of a fleet of devices a `ModelSpec`.
        contract_sha256: Digest of what job, model and artefact agree on; devices echo it.
        committed_releases: Releases that are part of the newest stored versions, so a fleet that
            still holds their partials may forget them.
        feature_hash_seed: Of the feature hash, where devices join the features of a service.
    """

    job_id: str
    epoch: int
    job: Job
    model: WireModel
    artifact_sha256: bytes
    manifest_sha256: bytes
    contract_sha256: bytes
    committed_releases: tuple[str, ...] = ()
    feature_hash_seed: int = 0


@dataclass(frozen=True, slots=True)
class Released:
    """What a release gave.

    Attributes:
        release_ids: One per part of the fleet that answered; they are stored with the version, and
            only these may later be named as committed: a part that did not answer was not counted.
        sums: One per base version and part of the fleet; one per part where an enclave sums.
        kept: Why enclaves let nothing out; their updates stay held.
    """

    release_ids: tuple[str, ...]
    sums: tuple[PartialSum, ...]
    kept: tuple[str, ...] = ()


class Fleet(Protocol):
    """Devices as the coordinator sees them.

    Implementations: gateways, Flower's grid, their composite, and the virtual fleet; one contract
    test (``tests/server/coordination/fleet_contract.py``) states what each must do. A task's start
    and its update are events that can be had before any release gives a sum that holds the update.
    """

    def now_s(self) -> float:
        """Seconds on the fleet's clock; wall clock or virtual."""
        ...

    def open(self, job: OpenJob) -> None:
        """Start or resume a job."""
        ...

    def set_model(self, version: int, parameters_sha256: bytes, oldest_live_version: int) -> None:
        """Announce the newest version; updates of base versions before the oldest live are late."""
        ...

    def grant(self, grant: Grant) -> None:
        """Allow ``grant.count`` more tasks to start as clients check in."""
        ...

    def cancel(self, grant_id: str, *, running_too: bool) -> None:
        """Take back the slots not started; with ``running_too`` late answers are over-committed."""
        ...

    def next_event(self, timeout_s: float | None) -> Event | None:
        """Wait for the next event, at most ``timeout_s``; None when nothing happened."""
        ...

    def release(self, release: Release) -> Released:
        """Freeze whole buckets and return their sums; idempotent for one release id."""
        ...

    def commit(self, release_id: str) -> None:
        """The release is part of a stored version: forget its partials, settle its devices."""
        ...

    def drop(self, base_version: int, outcome: Outcome, reason: str) -> None:
        """Forget a bucket; its updates end with ``outcome`` and are settled as dropped."""
        ...

    def close(self, reason: str) -> None:
        """End the job at this fleet: nothing more is leased or accepted."""
        ...
