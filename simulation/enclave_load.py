"""What secure aggregation asks of an enclave: bytes a second that go in, against a budget.

FLINT (MLSys 2023, section 4.4) bounds a job by what its trusted hardware can take in: at 3.53
updates a second of 0.76 MB, 2.68 MB/s.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from device_runtime.protocol import device_pb2 as pb
from device_runtime.release_policy import ReleasePolicy
from device_runtime.secure_updates import VerifiedEnclave, seal_update

BUSIEST_SPAN_S = 600.0
_ID = "t-0123456789abcdef01234567"  # ids are of about this length
_FOLDED = ("succeeded", "rejected")


@dataclass(frozen=True, slots=True)
class SealedSize:
    """Bytes of one update of a secure job.

    Attributes:
        upload_bytes: From the device.
        enclave_bytes: Of these, what goes into the enclave.
    """

    upload_bytes: int
    enclave_bytes: int


@dataclass(frozen=True, slots=True)
class EnclaveLoad:
    """What one trial sent into the enclave.

    Attributes:
        bytes_per_update: That go into it.
        updates_per_s: Mean over the trial's virtual time.
        mb_per_s: Of them, in 10^6 bytes.
        busiest_mb_per_s: In the busiest ten minutes.
        budget_mb_per_s: The job's ``budget.enclave_mb_per_s``; None for none.
        within_budget: Whether the busiest ten minutes keep to it; None without a budget.
    """

    bytes_per_update: int
    updates_per_s: float
    mb_per_s: float
    busiest_mb_per_s: float
    budget_mb_per_s: float | None
    within_budget: bool | None

    def as_json(self) -> dict[str, Any]:
        """As it is recorded."""
        return asdict(self)


def sealed_size(update: bytes, policy: ReleasePolicy) -> SealedSize:
    """Size of an update once it is sealed: found by sealing one.

    Args:
        update: Serialised as a device would.
        policy: Of the job.
    """
    key = pb.EnclaveKey(
        public_key=X25519PrivateKey.generate().public_key().public_bytes_raw(),
        job_id=_ID,
        boot_id=_ID,
        release_policy_sha256=policy.sha256(),
    ).SerializeToString()
    sealed_for = pb.SealedFor(task_id=_ID, job_id=_ID, device_id=_ID)
    payload = seal_update(VerifiedEnclave(key, policy), sealed_for, "com.example.app", update)
    goes_in = pb.SealedUpdate.FromString(payload)
    goes_in.ClearField("masked")
    return SealedSize(len(payload), goes_in.ByteSize())


def enclave_load(
    bytes_per_update: int, tasks: pa.Table, virtual_s: float, budget_mb_per_s: float | None
) -> EnclaveLoad:
    """The load of one trial.

    Args:
        bytes_per_update: See `SealedSize`.
        tasks: Of the trial, see `simulation.task_log.TASK_SCHEMA`.
        virtual_s: How long it took on its clock.
        budget_mb_per_s: What may go in, 10^6 bytes a second.
    """
    folded = pc.is_in(tasks["outcome"], pa.array(_FOLDED))
    ended_s = np.sort(tasks.filter(folded)["ended_s"].to_numpy())
    ended_s = ended_s[np.isfinite(ended_s)]
    megabytes = bytes_per_update / 1e6
    span_s = min(BUSIEST_SPAN_S, virtual_s) or BUSIEST_SPAN_S
    later = np.searchsorted(ended_s, ended_s + span_s, side="left")
    most = int((later - np.arange(ended_s.size)).max(initial=0))
    rate = ended_s.size / virtual_s if virtual_s > 0 else 0.0
    busiest = most / span_s * megabytes
    return EnclaveLoad(
        bytes_per_update,
        rate,
        rate * megabytes,
        busiest,
        budget_mb_per_s,
        None if budget_mb_per_s is None else busiest <= budget_mb_per_s,
    )
