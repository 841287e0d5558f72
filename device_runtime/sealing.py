"""Sealing to an enclave's key: HPKE (RFC 9180), base mode, single shot.

DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-128-GCM. What a message is for (task, job, device, base
version, codec) and the key's own binding are HPKE's ``info``: with any of them altered it does not
open. A message is 48 bytes longer than its content.
"""

import hashlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from device_runtime.protocol import device_pb2 as pb

SEALED_EXTRA_BYTES = 48
"""Of a sealed message: the sender's ephemeral key and the tag."""

_SUITE = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_128_GCM)
_LABEL = b"flint.sealed-update.v1\x00"


class NotOpened(Exception):
    """A sealed message that was meant for something else, or altered."""


def enclave_key_sha256(enclave_key: bytes) -> bytes:
    """Digest by which sealed updates name a serialised ``EnclaveKey``."""
    return hashlib.sha256(enclave_key).digest()


def seal(enclave_key: bytes, sealed_for: pb.SealedFor, content: bytes) -> bytes:
    """Seal ``content``; every call gives other bytes.

    Args:
        enclave_key: A serialised ``EnclaveKey`` that was verified.
        sealed_for: What the message is bound to.
        content: A serialised ``SealedContent``.

    Raises:
        ValueError: If the key is not one of X25519.
    """
    public_key = X25519PublicKey.from_public_bytes(pb.EnclaveKey.FromString(enclave_key).public_key)
    return _SUITE.encrypt(content, public_key, _info(enclave_key, sealed_for))


def open_sealed(
    private_key: X25519PrivateKey, enclave_key: bytes, sealed_for: pb.SealedFor, sealed: bytes
) -> bytes:
    """Inverse of `seal`, inside the enclave.

    Raises:
        NotOpened: If it was sealed for something else, or altered.
    """
    try:
        return _SUITE.decrypt(sealed, private_key, _info(enclave_key, sealed_for))
    except (InvalidTag, ValueError) as error:
        raise NotOpened("it was sealed for something else, or altered on its way") from error


def _info(enclave_key: bytes, sealed_for: pb.SealedFor) -> bytes:
    return (
        _LABEL + enclave_key_sha256(enclave_key) + sealed_for.SerializeToString(deterministic=True)
    )
