"""Documents of a software root: each part altered in turn is refused."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from device_runtime.attestation import AttestationRefusal, AttestationRefused
from device_runtime.attestation_software import SoftwareRootVerifier
from tests.device_runtime.attested_enclaves import (
    NONCE,
    SOFTWARE_MEASUREMENT,
    SOFTWARE_ROOT,
    root_hex,
    software_document,
)
from tests.device_runtime.nitro_ca import NOW_S

CONTEXT = b"flint.attestation.software_root.v1\0"


@pytest.fixture
def verifier():
    return SoftwareRootVerifier((bytes.fromhex(root_hex()),))


def refusal(verifier, document: bytes) -> AttestationRefusal:
    with pytest.raises(AttestationRefused) as refused:
        verifier.verify(document, NOW_S)
    return refused.value.refusal


def signed(claims: bytes) -> bytes:
    """Any claims under the trusted root's good signature."""
    return bytes.fromhex(root_hex()) + SOFTWARE_ROOT.sign(CONTEXT + claims) + claims


def claims_of(document: bytes) -> dict[str, object]:
    return json.loads(document[96:])


def canonical(claims: dict[str, object]) -> bytes:
    return json.dumps(claims, sort_keys=True, separators=(",", ":")).encode()


def test_the_claims_are_what_was_signed(verifier):
    claims = verifier.verify(software_document(), NOW_S)
    assert claims.measurement == SOFTWARE_MEASUREMENT
    assert claims.nonce == NONCE
    assert claims.issued_at_s == NOW_S


def test_every_document_says_that_it_gives_no_confidentiality():
    said = claims_of(software_document())["confidentiality"]
    assert said == "none from root on the host"


def test_a_document_by_another_root_is_refused(verifier):
    document = software_document(root=Ed25519PrivateKey.generate())
    assert refusal(verifier, document) is AttestationRefusal.UNTRUSTED_ROOT


def test_a_document_signed_by_another_root_in_a_trusted_ones_name_is_refused(verifier):
    document = software_document(root=Ed25519PrivateKey.generate())
    assert refusal(verifier, bytes.fromhex(root_hex()) + document[32:]) is (
        AttestationRefusal.BAD_SIGNATURE
    )


def test_the_same_signature_without_its_context_is_refused(verifier):
    claims = software_document()[96:]
    document = bytes.fromhex(root_hex()) + SOFTWARE_ROOT.sign(claims) + claims
    assert refusal(verifier, document) is AttestationRefusal.BAD_SIGNATURE


CLAIM_CASES = {
    "confidentiality": "full",
    "issued_at_ms": 1,
    "measurement": "00" * 32,
    "nonce": "00" * 32,
    "provider": "aws_nitro",
    "user_data": "00" * 32,
}


@pytest.mark.parametrize("name", CLAIM_CASES)
def test_a_claim_altered_after_signing_breaks_the_signature(verifier, name):
    document = software_document()
    altered = claims_of(document) | {name: CLAIM_CASES[name]}
    assert refusal(verifier, document[:96] + canonical(altered)) is AttestationRefusal.BAD_SIGNATURE


@pytest.mark.parametrize(
    "changed",
    [
        {"confidentiality": "full"},
        {"provider": "aws_nitro"},
        {"issued_at_ms": 0},
        {"issued_at_ms": -1},
        {"issued_at_ms": True},
        {"issued_at_ms": 1.5},
        {"issued_at_ms": 10**30},
        {"measurement": "00" * 31},
        {"measurement": "zz" * 32},
        {"measurement": 7},
        {"nonce": None},
        {"nonce": "AA" * 32},
        {"nonce": "0 " * 16},
        {"user_data": "00" * 513},
        {"more": 1},
    ],
    ids=str,
)
def test_even_a_trusted_root_cannot_sign_claims_of_another_form(verifier, changed):
    claims = claims_of(software_document()) | changed
    assert refusal(verifier, signed(canonical(claims))) is AttestationRefusal.MALFORMED_DOCUMENT


@pytest.mark.parametrize(
    "claims",
    [b"{}", b"[]", b"null", b"{", b"\xff\xfe", b"[" * 4000, b"9" * 4000],
    ids=["empty", "list", "null", "open", "no text", "deep", "long number"],
)
def test_claims_that_are_no_object_are_refused(verifier, claims):
    assert refusal(verifier, signed(claims)) is AttestationRefusal.MALFORMED_DOCUMENT


def test_claims_in_another_spelling_are_refused(verifier):
    claims = software_document()[96:]
    for other in (claims + b" ", claims.replace(b",", b", "), claims.replace(b"{", b'{"more":1,')):
        assert refusal(verifier, signed(other)) is AttestationRefusal.MALFORMED_DOCUMENT


@pytest.mark.parametrize("size", [0, 31, 32, 95, 96, 96 + 4097])
def test_a_document_of_an_impossible_size_is_refused(verifier, size):
    document = (bytes.fromhex(root_hex()) + bytes(10_000))[:size]
    assert refusal(verifier, document) is AttestationRefusal.MALFORMED_DOCUMENT
