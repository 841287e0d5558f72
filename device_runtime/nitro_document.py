"""The form of AWS Nitro's attestation documents: COSE_Sign1 around a CBOR map, taken apart.

Nothing here says that a document is true (`attestation_nitro` does). Form and limits are those of
"Nitro Enclaves Attestation Process", sections 2.2 and 3.2.2. Real documents come without the COSE
tag, with a map of indefinite length as payload, and with null for optional fields without value.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from device_runtime.attestation_provider import AttestationRefusal, AttestationRefused
from device_runtime.bounded_cbor import UnfitCbor, decode_cbor

REGISTER_BYTES = 48
"""SHA-384, the only digest Nitro has."""
MOST_CERTIFICATES = 8
"""Of a bundle. AWS's have four: root, region, zone, instance."""
SIGNATURE_BYTES = 96

_ES384 = -35
_COSE_SIGN1_TAG = 0xD2  # tag 18, in one byte
_MOST_ITEMS = 160  # 9 fields, 32 registers and 8 certificates, with keys and containers: 93
_CERTIFICATE_BYTES = 1024
_PUBLIC_KEY_BYTES = 1024
_DATA_BYTES = 512
_PAYLOAD_BYTES = 16384
_LATEST_MS = 1 << 48
_REQUIRED = frozenset({"module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle"})
_OPTIONAL = frozenset({"public_key", "user_data", "nonce"})


@dataclass(frozen=True, slots=True)
class NitroDocument:
    """What a document holds, unverified.

    Attributes:
        protected: COSE's protected header, as it was signed.
        payload: The map the other fields are of, as it was signed.
        signature: ``r || s``, 96 bytes.
        registers: PCRs by index, 48 bytes each.
        certificate: Of the signing key, DER.
        bundle: Certificates from the root to the issuer of ``certificate``, DER.
        user_data: Empty where there is none; so is ``nonce``.
        issued_at_ms: Milliseconds since 1970.
    """

    protected: bytes
    payload: bytes
    signature: bytes
    registers: dict[int, bytes]
    certificate: bytes
    bundle: list[bytes]
    user_data: bytes
    nonce: bytes
    issued_at_ms: int


def read_document(document: bytes) -> NitroDocument:
    """Take a document apart.

    Raises:
        AttestationRefused: MALFORMED_DOCUMENT or WRONG_ALGORITHM.
    """
    protected, payload, signature = _open_cose(document)
    fields = _read_fields(payload)
    return NitroDocument(
        protected=protected,
        payload=payload,
        signature=signature,
        registers=_registers(fields["pcrs"]),
        certificate=_certificate(fields, "certificate"),
        bundle=_bundle(fields["cabundle"]),
        user_data=_optional_bytes(fields, "user_data"),
        nonce=_optional_bytes(fields, "nonce"),
        issued_at_ms=_issued_at_ms(fields["timestamp"]),
    )


def _open_cose(document: bytes) -> tuple[bytes, bytes, bytes]:
    """Protected header, payload and signature of a COSE_Sign1 (section 3.1)."""
    if document[:1] == bytes([_COSE_SIGN1_TAG]):
        document = document[1:]
    message = _decode(document, "the COSE message")
    if not isinstance(message, list) or len(message) != 4 or message[1] != {}:
        _malformed("is no COSE_Sign1: an array of four with an empty unprotected header")
    protected = _bytes("protected header", message[0], 1, 16)
    payload = _bytes("payload", message[2], 1, _PAYLOAD_BYTES)
    signature = message[3]
    header = _decode(protected, "the protected header")
    if not isinstance(header, dict) or list(header) != [1] or type(header[1]) is not int:
        _malformed(f"has the protected header {header!r:.80}, not an algorithm alone")
    if header[1] != _ES384 or not isinstance(signature, bytes) or len(signature) != SIGNATURE_BYTES:
        raise AttestationRefused(
            AttestationRefusal.WRONG_ALGORITHM,
            f"the document is signed by COSE algorithm {header[1]}, not by {_ES384} (ES384) in "
            f"{SIGNATURE_BYTES} bytes",
        )
    return protected, payload, signature


def _read_fields(payload: bytes) -> Mapping[str, object]:
    fields = _decode(payload, "the payload")
    if not isinstance(fields, dict) or not _REQUIRED <= set(fields) <= _REQUIRED | _OPTIONAL:
        _malformed(f"must have the fields {', '.join(sorted(_REQUIRED))}, and no unknown one")
    module_id, digest = fields["module_id"], fields["digest"]
    if not isinstance(module_id, str) or not module_id:
        _malformed(f"has the module_id {module_id!r:.80}")
    if digest != "SHA384":
        raise AttestationRefused(
            AttestationRefusal.WRONG_ALGORITHM,
            f"the document's registers are of digest {digest!r:.80}, not 'SHA384'",
        )
    if fields.get("public_key") is not None:
        _bytes("public_key", fields["public_key"], 1, _PUBLIC_KEY_BYTES)
    return fields


def _issued_at_ms(timestamp: object) -> int:
    if isinstance(timestamp, bool) or not isinstance(timestamp, int):
        _malformed(f"has the timestamp {timestamp!r:.80}")
    if not 0 < timestamp < _LATEST_MS:
        _malformed(f"has the timestamp {timestamp}")
    return timestamp


def _registers(pcrs: object) -> dict[int, bytes]:
    if not isinstance(pcrs, dict) or not 0 < len(pcrs) <= 32:
        _malformed("must have 1 to 32 registers in pcrs")
    registers = {}
    for index, register in pcrs.items():
        if type(index) is not int or not 0 <= index < 32:
            _malformed(f"has a register of index {index!r:.80}")
        registers[index] = _bytes(f"pcrs[{index}]", register, REGISTER_BYTES, REGISTER_BYTES)
    return registers


def _bundle(bundle: object) -> list[bytes]:
    if not isinstance(bundle, list) or not 0 < len(bundle) <= MOST_CERTIFICATES:
        _malformed(f"must have 1 to {MOST_CERTIFICATES} certificates in its cabundle")
    return [
        _bytes(f"cabundle[{place}]", der, 1, _CERTIFICATE_BYTES) for place, der in enumerate(bundle)
    ]


def _certificate(fields: Mapping[str, object], name: str) -> bytes:
    return _bytes(name, fields[name], 1, _CERTIFICATE_BYTES)


def _optional_bytes(fields: Mapping[str, object], name: str) -> bytes:
    value = fields.get(name)
    return b"" if value is None else _bytes(name, value, 0, _DATA_BYTES)


def _bytes(name: str, value: object, least: int, most: int) -> bytes:
    if not isinstance(value, bytes) or not least <= len(value) <= most:
        seen = f"{len(value)} bytes" if isinstance(value, bytes) else type(value).__name__
        wanted = f"{least}" if least == most else f"{least} to {most}"
        _malformed(f"has {seen} as {name}, not {wanted} bytes")
    return value


def _decode(data: bytes, what: str) -> object:
    try:
        return decode_cbor(data, most_items=_MOST_ITEMS, most_depth=2)
    except UnfitCbor as error:
        _malformed(f"cannot be read: {what}: {error!s:.200}")


def _malformed(what: str) -> NoReturn:
    raise AttestationRefused(AttestationRefusal.MALFORMED_DOCUMENT, f"the Nitro document {what}")
