"""What a phone would accept: an enclave of a deployed server, verified with a device's own code."""

import secrets
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from device_runtime.attestation import (
    NONCE_BYTES,
    AttestationRefused,
    AttestationTrust,
    ExpectedEnclave,
    verify_evidence,
)
from device_runtime.attestation_software import CONFIDENTIALITY
from device_runtime.attestation_software import PROVIDER as SOFTWARE_ROOT
from device_runtime.errors import FlintError
from device_runtime.gateway_client import GatewayClient, GatewayError, open_channel
from device_runtime.protocol import device_pb2 as pb
from server.job_file import load_job


class EnclaveNotAccepted(FlintError):
    """No phone would seal an update to what answered."""

    code = "FLN-1818"


@dataclass(frozen=True, slots=True)
class DeployedEnclave:
    """An enclave that a phone would accept.

    Attributes:
        measurement: Hexadecimal; on the job's allow-list.
        boot_id: Of the process; another one after a restart.
        public_key: X25519, hexadecimal.
        confidentiality: What the provider says of it.
    """

    server: str
    job_id: str
    provider: str
    measurement: str
    boot_id: str
    public_key: str
    release_policy: str
    document_age_s: float
    confidentiality: str

    def rows(self) -> list[tuple[str, str]]:
        """For people."""
        return [(name.replace("_", " "), str(value)) for name, value in asdict(self).items()]

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {"accepted": True} | asdict(self)


def verify_deployed(
    server: str, job_file: Path, trust_file: Path, ca_certificate: Path | None, job_id: str
) -> DeployedEnclave:
    """Have a server's enclave prove itself, and hold it against job file and trust.

    Args:
        server: ``HOST:PORT`` of a gateway.
        job_file: With ``privacy.secure_aggregation``.
        trust_file: What the app pins.
        ca_certificate: To trust the gateway by; None speaks without TLS.
        job_id: Which job's key; empty for the one that runs.

    Raises:
        EnclaveNotAccepted: If a phone would not accept it, or there is none.
        FlintError: If a file cannot be read.
    """
    job = load_job(job_file)
    secure, policy = job.privacy.secure_aggregation, job.release_policy()
    if secure is None or policy is None:
        raise EnclaveNotAccepted(
            f"{job_file} has no privacy.secure_aggregation: phones would send its updates unsealed"
        )
    trust = AttestationTrust.read(trust_file)
    nonce = secrets.token_bytes(NONCE_BYTES)
    with open_channel(server, ca_certificate) as channel:
        try:
            evidence = GatewayClient(channel).attest(pb.AttestRequest(nonce=nonce, job_id=job_id))
        except GatewayError as error:
            raise EnclaveNotAccepted(
                f"{server} gives no evidence of an enclave: {error.detail or error.status}"
            ) from error
    try:
        told_job_id = job_id or pb.EnclaveKey.FromString(evidence.enclave_key).job_id
    except DecodeError as error:
        raise EnclaveNotAccepted(f"{server} names a key that is no message") from error
    expected = ExpectedEnclave(
        job_id=told_job_id,
        nonce=nonce,
        release_policy_sha256=policy.sha256(),
        allowed_measurements=tuple(bytes.fromhex(m) for m in secure.allowed_measurements),
    )
    now_s = time.time()
    try:
        key = verify_evidence(evidence, expected, trust, now_s)
    except AttestationRefused as refused:
        raise EnclaveNotAccepted(f"a phone would refuse the enclave of {server}: {refused}") from (
            refused
        )
    verifier = trust.verifier(evidence.provider)
    if verifier is None:
        raise EnclaveNotAccepted(f"{trust_file} does not trust provider {evidence.provider!r}")
    claims = verifier.verify(evidence.document, now_s)
    return DeployedEnclave(
        server=server,
        job_id=key.job_id,
        provider=evidence.provider,
        measurement=claims.measurement.hex(),
        boot_id=key.boot_id,
        public_key=key.public_key.hex(),
        release_policy=policy.to_json(),
        document_age_s=round(now_s - claims.issued_at_s, 3),
        confidentiality=(
            CONFIDENTIALITY if evidence.provider == SOFTWARE_ROOT else "as the provider promises"
        ),
    )
