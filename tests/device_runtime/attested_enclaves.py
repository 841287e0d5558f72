"""Evidence of enclaves, made of parts that a test may change one by one."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from device_runtime.attestation import AttestationTrust, ExpectedEnclave, verify_evidence
from device_runtime.attestation_nitro import registers_measurement
from device_runtime.attestation_software import sign_document
from device_runtime.protocol import device_pb2 as pb
from tests.device_runtime.nitro_ca import NOW_S, REGISTERS, shared_ca

NONCE = bytes(range(32))
POLICY_SHA256 = hashlib.sha256(b"policy").digest()
SOFTWARE_ROOT = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
SOFTWARE_MEASUREMENT = hashlib.sha256(b"software enclave").digest()
NITRO_MEASUREMENT = registers_measurement(REGISTERS)
X25519 = X25519PrivateKey.from_private_bytes(bytes(range(1, 33))).public_key()


def enclave_key(**changed: object) -> bytes:
    """A serialised EnclaveKey that fits `expected_enclave`, but for what is ``changed``."""
    fields = {
        "public_key": X25519.public_bytes(Encoding.Raw, PublicFormat.Raw),
        "job_id": "job-1",
        "boot_id": "boot-1",
        "release_policy_sha256": POLICY_SHA256,
    } | changed
    return pb.EnclaveKey(**fields).SerializeToString(deterministic=True)


def expected_enclave(**changed: object) -> ExpectedEnclave:
    expected = ExpectedEnclave(
        job_id="job-1",
        nonce=NONCE,
        release_policy_sha256=POLICY_SHA256,
        allowed_measurements=(SOFTWARE_MEASUREMENT, NITRO_MEASUREMENT),
    )
    return replace(expected, **changed)


def root_hex(root: Ed25519PrivateKey = SOFTWARE_ROOT) -> str:
    return root.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def trust(**changed: object) -> AttestationTrust:
    settings = {
        "providers": {
            "software_root": {"public_keys": [root_hex()]},
            "aws_nitro": {"root_certificates": [shared_ca().root.pem]},
        }
    } | changed
    return AttestationTrust(**settings)


def software_document(key: bytes | None = None, **changed: object) -> bytes:
    key = enclave_key() if key is None else key
    claims = {
        "measurement": SOFTWARE_MEASUREMENT,
        "nonce": NONCE,
        "user_data": hashlib.sha256(key).digest(),
        "issued_at_s": NOW_S,
    } | changed
    root = claims.pop("root", SOFTWARE_ROOT)
    return sign_document(root, **claims)


def nitro_document(key: bytes | None = None, **fields: object) -> bytes:
    key = enclave_key() if key is None else key
    nonce = fields.pop("nonce", NONCE)
    user_data = fields.pop("user_data", hashlib.sha256(key).digest())
    return shared_ca().document(nonce, user_data, **fields)


@dataclass(frozen=True)
class Provider:
    """One provider, for tests that hold for all of them."""

    name: str
    document: Callable[..., bytes]
    measurement: bytes

    def evidence(self, key: bytes | None = None, **changed: object) -> pb.Evidence:
        """Evidence that is accepted, but for what is changed of the document's claims."""
        key = enclave_key() if key is None else key
        return pb.Evidence(
            provider=self.name, document=self.document(key, **changed), enclave_key=key
        )


SOFTWARE = Provider("software_root", software_document, SOFTWARE_MEASUREMENT)
NITRO = Provider("aws_nitro", nitro_document, NITRO_MEASUREMENT)
PROVIDERS = (SOFTWARE, NITRO)


def verify(
    evidence: pb.Evidence,
    expected: ExpectedEnclave | None = None,
    pinned: AttestationTrust | None = None,
    now_s: float = NOW_S,
) -> pb.EnclaveKey:
    return verify_evidence(evidence, expected or expected_enclave(), pinned or trust(), now_s)
