"""What an attestation provider implements, and the numbered reasons for which evidence is refused.

A provider is somebody who vouches for enclaves: a software root, AWS Nitro, or one an app brings
along (`docs/attestation.md`). Its `Verifier` reads documents of one form and knows whom to trust;
everything that is the same for all of them is checked once, in `attestation.verify_evidence`.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from device_runtime.errors import FlintError

MEASUREMENT_BYTES = 32
"""A measurement is a SHA-256, whatever a provider measures."""


class AttestationRefusal(IntEnum):
    """Numbered reasons; each has a page in docs/errors (``FLN-<number>``)."""

    TOO_LARGE = 2301
    UNKNOWN_PROVIDER = 2302
    MALFORMED_DOCUMENT = 2303
    UNTRUSTED_ROOT = 2304
    BAD_SIGNATURE = 2305
    BAD_CERTIFICATE_CHAIN = 2306
    CERTIFICATE_NOT_VALID_NOW = 2307
    WRONG_NONCE = 2308
    STALE = 2309
    FROM_THE_FUTURE = 2310
    MEASUREMENT_NOT_ALLOWED = 2311
    MEASUREMENT_NOT_PINNED = 2312
    KEY_NOT_BOUND = 2313
    MALFORMED_KEY = 2314
    WRONG_JOB = 2315
    WRONG_RELEASE_POLICY = 2316
    BAD_PUBLIC_KEY = 2317
    NO_BOOT_ID = 2318
    DEBUG_MODE = 2319
    MISSING_REGISTER = 2320
    WRONG_ALGORITHM = 2321
    PROVIDER_FAULT = 2322


class AttestationRefused(Exception):
    """Evidence that does not prove what it should: nothing may be sealed for this enclave.

    Attributes:
        refusal: Why, by number.
        detail: One sentence with the value seen and the value wanted.
    """

    def __init__(self, refusal: AttestationRefusal, detail: str) -> None:
        super().__init__(refusal, detail)
        self.refusal = refusal
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.detail} [FLN-{int(self.refusal)}]"


class InvalidAttestationTrust(FlintError):
    """What an app would pin cannot be read, or would trust nobody, or more than it says."""

    code = "FLN-1416"


@dataclass(frozen=True, slots=True)
class AttestedClaims:
    """What a document says, once its provider's signature over it has been verified.

    Attributes:
        measurement: Identity of what runs in the enclave, SHA-256.
        user_data: What the enclave had signed along: SHA-256 of its serialised `EnclaveKey`.
        nonce: What the device had sent, byte for byte; empty where there is none.
        issued_at_s: When the document was made, seconds since 1970, by the provider's clock.
    """

    measurement: bytes
    user_data: bytes
    nonce: bytes
    issued_at_s: float


class Verifier(Protocol):
    """Reads one provider's documents, for the roots an app trusts."""

    @property
    def provider(self) -> str:
        """The name `Evidence.provider` has for it."""
        ...

    def verify(self, document: bytes, now_s: float) -> AttestedClaims:
        """Return what the document says, if a trusted root vouches for it.

        Nonce, age, measurement and user data are compared by the caller. ``document`` is bounded
        by the caller and otherwise untrusted.

        Args:
            now_s: Seconds since 1970, for the validity of certificates.

        Raises:
            AttestationRefused: If not. Nothing else may be raised for any bytes.
        """
        ...
