"""The software root: an Ed25519 key vouches for an enclave, on the enclave's own word.

For development and tests. It proves that who holds the root's key vouched for this measurement and
this key, and nothing of what else can look into the process: **no confidentiality from root on the
host**. Every document says so in itself.

A document is ``root public key (32) || Ed25519 signature (64) || claims``, the signature over
``b"flint.attestation.software_root.v1" || 0x00 || claims``. The claims are canonical JSON (ASCII,
keys sorted, no white space), so that one set of claims has one form. They are parsed after the
signature was verified.
"""

import hashlib
import json
from collections.abc import Mapping

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from device_runtime.attestation_provider import (
    MEASUREMENT_BYTES,
    AttestationRefusal,
    AttestationRefused,
    AttestedClaims,
    InvalidAttestationTrust,
)

PROVIDER = "software_root"
CONFIDENTIALITY = "none from root on the host"

_CONTEXT = b"flint.attestation.software_root.v1\0"
_KEY_BYTES = 32
_HEADER_BYTES = _KEY_BYTES + 64
_MOST_CLAIMS_BYTES = 4096
_MOST_DATA_BYTES = 512  # of nonce and user data, as AWS Nitro has it
_MOST_ROOTS = 16
_LATEST_MS = 1 << 48
_CLAIMS = {"confidentiality", "issued_at_ms", "measurement", "nonce", "provider", "user_data"}


def sign_document(
    root: Ed25519PrivateKey,
    *,
    measurement: bytes,
    nonce: bytes,
    user_data: bytes,
    issued_at_s: float,
) -> bytes:
    """Return the document in which ``root`` vouches for these claims."""
    claims = _canonical(
        {
            "confidentiality": CONFIDENTIALITY,
            "issued_at_ms": int(issued_at_s * 1000),
            "measurement": measurement.hex(),
            "nonce": nonce.hex(),
            "provider": PROVIDER,
            "user_data": user_data.hex(),
        }
    )
    public_key = root.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return public_key + root.sign(_CONTEXT + claims) + claims


class SoftwareRootVerifier:
    """Trusts one or several software roots, by their public keys."""

    provider = PROVIDER

    def __init__(self, roots: tuple[bytes, ...]) -> None:
        """``roots``: Ed25519 public keys, 32 bytes each."""
        self._roots = {root: Ed25519PublicKey.from_public_bytes(root) for root in roots}

    @classmethod
    def from_options(cls, options: Mapping[str, object]) -> "SoftwareRootVerifier":
        """Read ``{"public_keys": [hex, ...]}``, the provider's part of the app's trust.

        Raises:
            InvalidAttestationTrust: If it is anything else.
        """
        keys = options.get("public_keys")
        if set(options) != {"public_keys"} or not isinstance(keys, list) or not keys:
            raise InvalidAttestationTrust(
                f"providers.{PROVIDER} must hold public_keys, a list of Ed25519 public keys in "
                f"hex, and nothing else; it holds {', '.join(sorted(options)) or 'nothing'}"
            )
        if len(keys) > _MOST_ROOTS:
            raise InvalidAttestationTrust(
                f"providers.{PROVIDER}.public_keys names {len(keys)} keys; at most {_MOST_ROOTS}"
            )
        return cls(tuple(_root(key, place) for place, key in enumerate(keys)))

    def verify(self, document: bytes, now_s: float) -> AttestedClaims:  # noqa: ARG002 - Verifier's
        """See `Verifier.verify`. A software root has no certificates, so no time matters here."""
        if not _HEADER_BYTES < len(document) <= _HEADER_BYTES + _MOST_CLAIMS_BYTES:
            raise _malformed(f"is {len(document)} bytes long")
        root = self._roots.get(document[:_KEY_BYTES])
        if root is None:
            raise AttestationRefused(
                AttestationRefusal.UNTRUSTED_ROOT,
                f"the document is by the software root {document[:_KEY_BYTES].hex()}, which is "
                f"none of the {len(self._roots)} this app trusts",
            )
        claims = document[_HEADER_BYTES:]
        try:
            root.verify(document[_KEY_BYTES:_HEADER_BYTES], _CONTEXT + claims)
        except InvalidSignature as error:
            raise AttestationRefused(
                AttestationRefusal.BAD_SIGNATURE,
                f"the signature of the software root is not over these {len(claims)} bytes of "
                f"claims (SHA-256 {hashlib.sha256(claims).hexdigest()})",
            ) from error
        return _read_claims(claims)


def _root(key: object, place: int) -> bytes:
    try:
        root = bytes.fromhex(key) if isinstance(key, str) else b""
    except ValueError:
        root = b""
    if len(root) != _KEY_BYTES:
        raise InvalidAttestationTrust(
            f"providers.{PROVIDER}.public_keys[{place}] is {key!r:.80}; an Ed25519 public key is "
            f"{_KEY_BYTES} bytes, {2 * _KEY_BYTES} hexadecimal digits"
        )
    return root


def _read_claims(claims: bytes) -> AttestedClaims:
    """Only what a trusted root signed comes here: what is wrong now, that root got wrong."""
    try:
        read = json.loads(claims)
    except (ValueError, RecursionError) as error:
        raise _malformed("does not hold JSON") from error
    if not isinstance(read, dict) or set(read) != _CLAIMS or _canonical(read) != claims:
        raise _malformed(f"must hold {', '.join(sorted(_CLAIMS))}, in canonical JSON")
    if read["provider"] != PROVIDER or read["confidentiality"] != CONFIDENTIALITY:
        raise _malformed(
            f"says provider {read['provider']!r:.80} and confidentiality "
            f"{read['confidentiality']!r:.80}, not {PROVIDER!r} and {CONFIDENTIALITY!r}"
        )
    issued_at_ms = read["issued_at_ms"]
    if type(issued_at_ms) is not int or not 0 < issued_at_ms < _LATEST_MS:
        raise _malformed(f"says issued_at_ms {issued_at_ms!r:.80}, which is no time")
    measurement = _hex(read, "measurement")
    if len(measurement) != MEASUREMENT_BYTES:
        raise _malformed(f"holds a measurement of {len(measurement)} bytes")
    return AttestedClaims(
        measurement=measurement,
        user_data=_hex(read, "user_data"),
        nonce=_hex(read, "nonce"),
        issued_at_s=issued_at_ms / 1000,
    )


def _hex(claims: Mapping[str, object], name: str) -> bytes:
    value = claims[name]
    try:
        read = bytes.fromhex(value) if isinstance(value, str) else None
    except ValueError:
        read = None
    if read is None or read.hex() != value or len(read) > _MOST_DATA_BYTES:
        raise _malformed(f"says {name} {value!r:.80}, which is not lower-case hexadecimal")
    return read


def _canonical(claims: Mapping[str, object]) -> bytes:
    return json.dumps(claims, sort_keys=True, separators=(",", ":")).encode()


def _malformed(what: str) -> AttestationRefused:
    return AttestationRefused(
        AttestationRefusal.MALFORMED_DOCUMENT, f"the software root's document {what}"
    )
