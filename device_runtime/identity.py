"""Who a device is: its P-256 key, and the proofs its requests carry.

The gateway imports the ``verify_*`` half from here, so both sides sign and check the same bytes.
Freshness of ``timestamp_ms`` and genuineness of ``credential`` are the gateway's to judge.
"""

import copy
import hashlib
from functools import lru_cache
from typing import Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from device_runtime.protocol import device_pb2 as pb
from device_runtime.protocol import features_pb2 as features_pb

ENROL_CONTEXT = b"flint.device.v1/Enrol"
CHECK_IN_CONTEXT = b"flint.device.v1/CheckIn"
UPLOAD_CONTEXT = b"flint.device.v1/Upload"

_ECDSA_SHA256 = ec.ECDSA(hashes.SHA256())

FeatureRequest = (
    features_pb.GetManifestRequest | features_pb.GetFeaturesRequest | features_pb.FetchAssetRequest
)
_FEATURE_CONTEXTS: dict[type[FeatureRequest], bytes] = {
    features_pb.GetManifestRequest: b"flint.device.v1/GetManifest",
    features_pb.GetFeaturesRequest: b"flint.device.v1/GetFeatures",
    features_pb.FetchAssetRequest: b"flint.device.v1/FetchAsset",
}


class DeviceKey:
    """The device's private key. It never leaves the device."""

    def __init__(self, private_key: ec.EllipticCurvePrivateKey) -> None:
        self._private_key = private_key

    @classmethod
    def generate(cls) -> Self:
        """Draw a new P-256 key from the system's random source."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def from_pkcs8(cls, der: bytes) -> Self:
        """Load what `to_pkcs8` gave.

        Raises:
            ValueError: If the bytes are not an unencrypted PKCS#8 P-256 key.
        """
        key = serialization.load_der_private_key(der, password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
            raise ValueError("the stored device key is not a P-256 key")
        return cls(key)

    def to_pkcs8(self) -> bytes:
        """Serialise, unencrypted: the file it is kept in is readable by its owner only."""
        return self._private_key.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    @property
    def public_key_der(self) -> bytes:
        """DER SubjectPublicKeyInfo, as `EnrolRequest.public_key` carries it."""
        return self._private_key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def sign(self, message: bytes) -> bytes:
        """ECDSA P-256/SHA-256 signature of ``message``, DER."""
        return self._private_key.sign(message, _ECDSA_SHA256)


def device_id_of(public_key_der: bytes) -> str:
    """A device's name: a digest of its key, so enrolling the same key twice gives the same name."""
    return f"d-{hashlib.sha256(public_key_der).hexdigest()[:32]}"


def sign_enrol(key: DeviceKey, request: pb.EnrolRequest) -> None:
    """Set ``request.public_key`` and the proof that its private half is held."""
    request.public_key = key.public_key_der
    request.proof_of_possession = key.sign(_enrol_message(request.enrolment_token))


def sign_check_in(
    key: DeviceKey,
    request: pb.CheckInRequest,
    *,
    device_id: str,
    credential: bytes,
    timestamp_ms: int,
) -> None:
    """Set ``request.proof``; everything else in the request must be set already."""
    message = _proof_message(CHECK_IN_CONTEXT, device_id, timestamp_ms, _unsigned(request))
    request.proof.CopyFrom(_proof(key, message, device_id, credential, timestamp_ms))


def sign_upload(
    key: DeviceKey,
    request: pb.UploadRequest,
    *,
    device_id: str,
    credential: bytes,
    timestamp_ms: int,
) -> None:
    """Set ``request.proof``; task token and payload digest must be set already."""
    message = _proof_message(UPLOAD_CONTEXT, device_id, timestamp_ms, _upload_body(request))
    request.proof.CopyFrom(_proof(key, message, device_id, credential, timestamp_ms))


def sign_feature_request(
    key: DeviceKey,
    request: FeatureRequest,
    *,
    device_id: str,
    credential: bytes,
    timestamp_ms: int,
) -> None:
    """Set ``request.proof``; everything else in the request must be set already."""
    context = _FEATURE_CONTEXTS[type(request)]
    message = _proof_message(context, device_id, timestamp_ms, _unsigned(request))
    request.proof.CopyFrom(_proof(key, message, device_id, credential, timestamp_ms))


def verify_enrol(request: pb.EnrolRequest) -> bool:
    """Whether the sender holds the private half of ``request.public_key``."""
    return _is_signed(
        request.public_key, request.proof_of_possession, _enrol_message(request.enrolment_token)
    )


def verify_check_in(public_key_der: bytes, request: pb.CheckInRequest) -> bool:
    """Whether the enrolled key signed exactly this check-in."""
    proof = request.proof
    message = _proof_message(
        CHECK_IN_CONTEXT, proof.device_id, proof.timestamp_ms, _unsigned(request)
    )
    return _is_signed(public_key_der, proof.signature, message)


def verify_upload(public_key_der: bytes, request: pb.UploadRequest) -> bool:
    """Whether the enrolled key signed this task token and payload digest.

    That ``payload_sha256`` is the digest of ``payload`` is the envelope gate's to check.
    """
    proof = request.proof
    message = _proof_message(
        UPLOAD_CONTEXT, proof.device_id, proof.timestamp_ms, _upload_body(request)
    )
    return _is_signed(public_key_der, proof.signature, message)


def verify_feature_request(public_key_der: bytes, request: FeatureRequest) -> bool:
    """Whether the enrolled key signed exactly this request, and for this call."""
    proof, context = request.proof, _FEATURE_CONTEXTS[type(request)]
    message = _proof_message(context, proof.device_id, proof.timestamp_ms, _unsigned(request))
    return _is_signed(public_key_der, proof.signature, message)


def is_device_public_key(public_key_der: bytes) -> bool:
    """Whether the bytes are a P-256 SubjectPublicKeyInfo, the only kind that may enrol."""
    return _load_public_key(public_key_der) is not None


def _proof(
    key: DeviceKey, message: bytes, device_id: str, credential: bytes, timestamp_ms: int
) -> pb.DeviceProof:
    return pb.DeviceProof(
        device_id=device_id,
        timestamp_ms=timestamp_ms,
        signature=key.sign(message),
        credential=credential,
    )


def _enrol_message(enrolment_token: str) -> bytes:
    return ENROL_CONTEXT + b"\0" + enrolment_token.encode()


def _proof_message(context: bytes, device_id: str, timestamp_ms: int, body: bytes) -> bytes:
    return b"\0".join(
        (
            context,
            device_id.encode(),
            timestamp_ms.to_bytes(8, "big", signed=True) + hashlib.sha256(body).digest(),
        )
    )


def _unsigned(request: pb.CheckInRequest | FeatureRequest) -> bytes:
    unsigned = copy.copy(request)
    unsigned.ClearField("proof")
    return unsigned.SerializeToString(deterministic=True)


def _upload_body(request: pb.UploadRequest) -> bytes:
    return request.task_token + request.payload_sha256


def _is_signed(public_key_der: bytes, signature: bytes, message: bytes) -> bool:
    public_key = _load_public_key(public_key_der)
    if public_key is None:
        return False
    try:
        public_key.verify(signature, message, _ECDSA_SHA256)
    except InvalidSignature:
        return False
    return True


@lru_cache(maxsize=4096)
def _load_public_key(der: bytes) -> ec.EllipticCurvePublicKey | None:
    try:
        key = serialization.load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm):
        return None
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp256r1":
        return key
    return None
