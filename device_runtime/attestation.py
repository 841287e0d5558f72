"""A device verifies an enclave before it seals anything for it.

`verify_evidence` holds evidence against what the task said and what the app pins, in an order in
which nothing is parsed before its size is known, and nothing is believed before its signature is
verified. The first thing that does not fit ends it with a numbered reason: the task fails with it,
and nothing else does.
"""

import hashlib
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from google.protobuf.message import DecodeError

from device_runtime.attestation_provider import (
    AttestationRefusal,
    AttestationRefused,
    AttestedClaims,
    InvalidAttestationTrust,
    Verifier,
)
from device_runtime.attestation_trust import AttestationTrust
from device_runtime.protocol import device_pb2 as pb

__all__ = [
    "NONCE_BYTES",
    "AttestationRefusal",
    "AttestationRefused",
    "AttestationTrust",
    "AttestedClaims",
    "ExpectedEnclave",
    "InvalidAttestationTrust",
    "Verifier",
    "verify_evidence",
]

NONCE_BYTES = 32
MOST_CLOCK_SKEW_S = 60.0
"""How far ahead of the device's clock a provider's may be."""

_MOST_PROVIDER_CHARACTERS = 64
_MOST_DOCUMENT_BYTES = 20 * 1024  # a Nitro security module gives at most 12 KiB
_MOST_KEY_BYTES = 1024
_MOST_BOOT_ID_CHARACTERS = 128
_PUBLIC_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class ExpectedEnclave:
    """What the evidence must be about.

    Attributes:
        job_id: The leased task's.
        nonce: The 32 bytes the device drew for this one request.
        release_policy_sha256: SHA-256 of the task's release policy, as the device read it.
        allowed_measurements: The job's list, SHA-256 each; an empty one allows nothing.
    """

    job_id: str
    nonce: bytes
    release_policy_sha256: bytes
    allowed_measurements: tuple[bytes, ...]


def verify_evidence(
    evidence: pb.Evidence, expected: ExpectedEnclave, trust: AttestationTrust, now_s: float
) -> pb.EnclaveKey:
    """Return the enclave's key, if the evidence proves it to be the key of an allowed enclave.

    Args:
        now_s: Seconds since 1970, by the clock the device goes by.

    Raises:
        AttestationRefused: If anything does not fit; never another exception, whatever the bytes.
    """
    _require_small(evidence)
    claims = _verify_document(evidence, trust, now_s)
    if len(expected.nonce) != NONCE_BYTES or claims.nonce != expected.nonce:
        raise AttestationRefused(
            AttestationRefusal.WRONG_NONCE,
            f"the document is for nonce {_shown(claims.nonce)}, this device sent "
            f"{_shown(expected.nonce)}",
        )
    _require_fresh(claims.issued_at_s, now_s, trust.max_age_s)
    _require_allowed(claims.measurement, expected, trust)
    digest = hashlib.sha256(evidence.enclave_key).digest()
    if claims.user_data != digest:
        raise AttestationRefused(
            AttestationRefusal.KEY_NOT_BOUND,
            f"the document is for the enclave key of SHA-256 {_shown(claims.user_data)}, the key "
            f"beside it has {_shown(digest)}",
        )
    return _read_key(evidence.enclave_key, expected)


def _require_small(evidence: pb.Evidence) -> None:
    for what, size, most in (
        ("the provider's name", len(evidence.provider), _MOST_PROVIDER_CHARACTERS),
        ("the document", len(evidence.document), _MOST_DOCUMENT_BYTES),
        ("the enclave key", len(evidence.enclave_key), _MOST_KEY_BYTES),
    ):
        if size > most:
            raise AttestationRefused(
                AttestationRefusal.TOO_LARGE, f"{what} is {size} long; at most {most} is read"
            )


def _verify_document(
    evidence: pb.Evidence, trust: AttestationTrust, now_s: float
) -> AttestedClaims:
    verifier = trust.verifier(evidence.provider)
    if verifier is None:
        raise AttestationRefused(
            AttestationRefusal.UNKNOWN_PROVIDER,
            f"{evidence.provider!r} vouches for the enclave; this app trusts "
            f"{', '.join(sorted(trust.providers))}",
        )
    try:
        return verifier.verify(evidence.document, now_s)
    except AttestationRefused:
        raise
    except Exception as error:  # a fault of an app's own verifier fails the task, not the device
        raise AttestationRefused(
            AttestationRefusal.PROVIDER_FAULT,
            f"the verifier of {evidence.provider} failed on the document: "
            f"{type(error).__name__}: {error!s:.200}",
        ) from error


def _require_fresh(issued_at_s: float, now_s: float, max_age_s: float) -> None:
    age_s = now_s - issued_at_s
    if age_s < -MOST_CLOCK_SKEW_S:
        raise AttestationRefused(
            AttestationRefusal.FROM_THE_FUTURE,
            f"the document was made {-age_s:.0f} s after this device's time; at most "
            f"{MOST_CLOCK_SKEW_S:.0f} s is accepted",
        )
    if not age_s <= max_age_s:  # also of no number at all
        raise AttestationRefused(
            AttestationRefusal.STALE,
            f"the document is {age_s:.0f} s old; at most {max_age_s:.0f} s is accepted",
        )


def _require_allowed(
    measurement: bytes, expected: ExpectedEnclave, trust: AttestationTrust
) -> None:
    if measurement not in expected.allowed_measurements:
        raise AttestationRefused(
            AttestationRefusal.MEASUREMENT_NOT_ALLOWED,
            f"the enclave measures {_shown(measurement)}, which is none of the "
            f"{len(expected.allowed_measurements)} the job allows",
        )
    if trust.measurements is not None and measurement not in trust.measurements:
        raise AttestationRefused(
            AttestationRefusal.MEASUREMENT_NOT_PINNED,
            f"the enclave measures {_shown(measurement)}, which the job allows, but is none of the "
            f"{len(trust.measurements)} this app pins",
        )


def _read_key(serialised: bytes, expected: ExpectedEnclave) -> pb.EnclaveKey:
    """The document vouches for these bytes; now they must say what the device expects."""
    try:
        key = pb.EnclaveKey.FromString(serialised)
    except DecodeError as error:
        raise AttestationRefused(
            AttestationRefusal.MALFORMED_KEY,
            f"the {len(serialised)} bytes of the enclave key are no EnclaveKey message",
        ) from error
    if key.job_id != expected.job_id:
        raise AttestationRefused(
            AttestationRefusal.WRONG_JOB,
            f"the enclave's key is for job {key.job_id!r:.80}, the task is of job "
            f"{expected.job_id!r:.80}",
        )
    if key.release_policy_sha256 != expected.release_policy_sha256:
        raise AttestationRefused(
            AttestationRefusal.WRONG_RELEASE_POLICY,
            f"the enclave keeps to the release policy of SHA-256 "
            f"{_shown(key.release_policy_sha256)}, the task names "
            f"{_shown(expected.release_policy_sha256)}",
        )
    if not 0 < len(key.boot_id) <= _MOST_BOOT_ID_CHARACTERS:
        raise AttestationRefused(
            AttestationRefusal.NO_BOOT_ID,
            f"the enclave's key names a boot of {len(key.boot_id)} characters, not 1 to "
            f"{_MOST_BOOT_ID_CHARACTERS}",
        )
    _require_public_key(key.public_key)
    return key


def _require_public_key(public_key: bytes) -> None:
    """32 bytes, and not one of the points with which every exchange gives zeros (RFC 7748, 6.1)."""
    if len(public_key) != _PUBLIC_KEY_BYTES:
        raise AttestationRefused(
            AttestationRefusal.BAD_PUBLIC_KEY,
            f"the enclave's public key has {len(public_key)} bytes; X25519 has {_PUBLIC_KEY_BYTES}",
        )
    try:
        X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(public_key))
    except ValueError as error:
        raise AttestationRefused(
            AttestationRefusal.BAD_PUBLIC_KEY,
            f"the enclave's public key {_shown(public_key)} is of low order: anybody could read "
            f"what is sealed for it",
        ) from error


def _shown(digest: bytes) -> str:
    return digest[:64].hex() or "(none)"
