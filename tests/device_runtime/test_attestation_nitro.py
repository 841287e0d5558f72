"""Documents of AWS Nitro's form, made by a test CA: each field, certificate and byte in turn."""

import base64
import datetime as dt

import cbor2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from device_runtime.attestation import (
    AttestationRefusal,
    AttestationRefused,
    InvalidAttestationTrust,
)
from device_runtime.attestation_nitro import NitroVerifier, registers_measurement
from tests.device_runtime.attested_enclaves import NONCE
from tests.device_runtime.nitro_ca import (
    ES384,
    NOW_S,
    REGISTERS,
    NitroCa,
    cose,
    encode_payload,
    issue,
    make_ca,
    shared_ca,
)

USER_DATA = bytes(range(32))
MALFORMED = AttestationRefusal.MALFORMED_DOCUMENT
BAD_CHAIN = AttestationRefusal.BAD_CERTIFICATE_CHAIN
BAD_SIGNATURE = AttestationRefusal.BAD_SIGNATURE
WRONG_ALGORITHM = AttestationRefusal.WRONG_ALGORITHM


def verifier(ca: NitroCa | None = None) -> NitroVerifier:
    return NitroVerifier(((ca or shared_ca()).root.certificate,))


def refusal(document: bytes, ca: NitroCa | None = None, now_s: float = NOW_S) -> AttestationRefusal:
    with pytest.raises(AttestationRefused) as refused:
        verifier(ca).verify(document, now_s)
    assert refused.value.detail
    return refused.value.refusal


def document(**fields: object) -> bytes:
    return shared_ca().document(NONCE, USER_DATA, **fields)


def test_the_claims_are_what_the_hypervisor_signed():
    claims = verifier().verify(document(), NOW_S)
    assert (claims.nonce, claims.user_data, claims.issued_at_s) == (NONCE, USER_DATA, NOW_S)
    assert claims.measurement == registers_measurement(REGISTERS)


def test_a_tagged_document_with_a_payload_of_definite_length_is_accepted_too():
    ca = shared_ca()
    payload = cbor2.dumps(ca.payload(NONCE, USER_DATA))
    assert verifier().verify(b"\xd2" + ca.sign(payload), NOW_S).nonce == NONCE


def test_absent_and_null_optional_fields_are_alike():
    ca = shared_ca()
    fields = ca.payload(NONCE, USER_DATA)
    for name in ("nonce", "user_data", "public_key"):
        without = {key: value for key, value in fields.items() if key != name}
        null = fields | {name: None}
        claims = [
            verifier().verify(ca.sign(encode_payload(payload)), NOW_S)
            for payload in (without, null)
        ]
        assert claims[0] == claims[1]


FIELD_CASES = {
    "module_id": ("", 7, None, b"i-1"),
    "digest": (None, 7, "SHA256", "sha384", "SHA512"),
    "timestamp": (0, -1, None, "now", True, 1 << 48, 1.5),
    "pcrs": ({}, None, [], {-1: bytes(48)}, {32: bytes(48)}, {"0": bytes(48)}, {True: bytes(48)}),
    "certificate": (b"", None, "text", bytes(1025)),
    "cabundle": ([], None, b"", [b""], ["text"], [bytes(1025)], [b"x"] * 9),
    "public_key": (b"", bytes(1025), "text"),
    "user_data": (bytes(513), "text", 7),
    "nonce": (bytes(513), "text", [b"a"]),
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in FIELD_CASES.items() for value in values]
)
def test_a_field_not_as_aws_documents_it_is_refused(name, value):
    wanted = WRONG_ALGORITHM if name == "digest" else MALFORMED
    assert refusal(document(**{name: value})) is wanted


@pytest.mark.parametrize("size", [0, 32, 47, 49, 64])
def test_a_register_that_is_no_sha384_is_refused(size):
    assert refusal(document(pcrs=REGISTERS | {7: bytes(size)})) is MALFORMED


@pytest.mark.parametrize("name", ["module_id", "digest", "timestamp", "pcrs", "certificate"])
def test_a_document_without_a_required_field_is_refused(name):
    ca = shared_ca()
    fields = {key: value for key, value in ca.payload(NONCE, USER_DATA).items() if key != name}
    assert refusal(ca.sign(encode_payload(fields))) is MALFORMED


def test_an_unknown_field_is_refused():
    assert refusal(document(more=1)) is MALFORMED


def test_a_repeated_field_is_refused():
    ca = shared_ca()
    payload = encode_payload(ca.payload(NONCE, USER_DATA))
    repeated = payload[:-1] + cbor2.dumps("nonce") + cbor2.dumps(bytes(32)) + b"\xff"
    assert refusal(ca.sign(repeated)) is MALFORMED


ALTERED = {
    "module_id": "i-1",
    "timestamp": int(NOW_S * 1000) + 1,
    "pcrs": REGISTERS | {1: bytes([9]) * 48},
    "public_key": b"key",
    "user_data": bytes(32),
    "nonce": bytes(32),
}


@pytest.mark.parametrize("name", ALTERED)
def test_a_field_altered_after_signing_breaks_the_signature(name):
    ca = shared_ca()
    payload = encode_payload(ca.payload(NONCE, USER_DATA))
    altered = encode_payload(ca.payload(NONCE, USER_DATA, {name: ALTERED[name]}))
    assert refusal(cose(ES384, altered, ca.signature(payload))) is BAD_SIGNATURE


@pytest.mark.parametrize("index", [0, 1, 2])
def test_an_enclave_in_debug_mode_is_refused(index):
    zeroed = document(pcrs=REGISTERS | {index: bytes(48)})
    assert refusal(zeroed) is AttestationRefusal.DEBUG_MODE


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_measured_register_that_is_missing_is_refused(index):
    pcrs = {key: value for key, value in REGISTERS.items() if key != index}
    assert refusal(document(pcrs=pcrs)) is AttestationRefusal.MISSING_REGISTER


@pytest.mark.parametrize("index", [0, 1, 2])
def test_each_measured_register_changes_the_measurement(index):
    other = REGISTERS | {index: bytes([9]) * 48}
    claims = verifier().verify(document(pcrs=other), NOW_S)
    assert claims.measurement != registers_measurement(REGISTERS)


ENVELOPES = {
    "nothing": b"",
    "no CBOR": b"\xff",
    "a number": cbor2.dumps(7),
    "three parts": cbor2.dumps([ES384, {}, b"payload"]),
    "five parts": cbor2.dumps([ES384, {}, b"payload", bytes(96), 1]),
    "another tag": cbor2.dumps(cbor2.CBORTag(17, [ES384, {}, b"payload", bytes(96)])),
    "unprotected header": cose(ES384, b"payload", bytes(96), {4: b"key"}),
    "unprotected list": cose(ES384, b"payload", bytes(96), []),
    "protected map": cose({1: -35}, b"payload", bytes(96)),
    "no protected header": cose(b"", b"payload", bytes(96)),
    "two protected headers": cose(cbor2.dumps({1: -35, 4: b"k"}), b"payload", bytes(96)),
    "algorithm by name": cose(cbor2.dumps({1: "ES384"}), b"payload", bytes(96)),
    "no payload": cose(ES384, b"", bytes(96)),
    "payload of text": cose(ES384, "payload", bytes(96)),
    "payload beyond 16 KiB": cose(ES384, bytes(16385), bytes(96)),
    "trailing byte": shared_ca().document(NONCE, USER_DATA) + b"\0",
    "cut short": shared_ca().document(NONCE, USER_DATA)[:-1],
}


@pytest.mark.parametrize("case", ENVELOPES)
def test_an_envelope_of_another_form_is_refused(case):
    assert refusal(ENVELOPES[case]) is MALFORMED


PAYLOADS = {
    "a date": cbor2.dumps(cbor2.CBORTag(0, "2026-01-01T00:00:00Z")),
    "a pattern": cbor2.dumps(cbor2.CBORTag(35, "(a+)+$")),
    "a big number": b"\xc2\x59\x10\x00" + bytes(4096),
    "shared values": b"\xd8\x1c\x81\xd8\x1d\x00",
    "deep arrays": b"\x81" * 8000 + b"\x00",
    "many items": b"\x98\xff" + b"\x00" * 255,
    "a huge claim": b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
    "a huge string": b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff",
    "a string in parts": b"\x5f\x41a\x41b\xff",
    "text that is no UTF-8": b"\x62\xc3\x28",
    "half a map": b"\xbf\x61a\xff",
    "a float": cbor2.dumps(1.5),
}


@pytest.mark.parametrize("case", PAYLOADS)
def test_cbor_that_no_document_holds_is_refused_unbuilt(case):
    assert refusal(shared_ca().sign(PAYLOADS[case])) is MALFORMED


@pytest.mark.parametrize("algorithm", [-7, -36, -8, 0])
def test_another_algorithm_is_refused_though_its_signature_were_good(algorithm):
    protected = cbor2.dumps({1: algorithm})
    ca = shared_ca()
    assert refusal(ca.sign(encode_payload(ca.payload(NONCE, USER_DATA)), protected)) is (
        WRONG_ALGORITHM
    )


@pytest.mark.parametrize("signature", [b"", bytes(64), bytes(95), bytes(97), "text"], ids=repr)
def test_a_signature_of_another_size_is_refused(signature):
    payload = encode_payload(shared_ca().payload(NONCE, USER_DATA))
    assert refusal(cose(ES384, payload, signature)) is WRONG_ALGORITHM


@pytest.mark.parametrize("part", [slice(0, 48), slice(48, 96)], ids=["r", "s"])
@pytest.mark.parametrize("value", [bytes(48), b"\xff" * 48, b"\1" * 48], ids=["0", "max", "other"])
def test_a_signature_of_other_numbers_is_refused(part, value):
    ca = shared_ca()
    payload = encode_payload(ca.payload(NONCE, USER_DATA))
    signature = bytearray(ca.signature(payload))
    signature[part] = value
    assert refusal(cose(ES384, payload, bytes(signature))) is BAD_SIGNATURE


def test_a_document_of_another_root_is_refused():
    other = make_ca()
    assert refusal(other.document(NONCE, USER_DATA)) is AttestationRefusal.UNTRUSTED_ROOT


def test_a_chain_of_another_root_below_the_trusted_root_is_refused():
    other, trusted = make_ca(), shared_ca()
    bundle = [trusted.root.der, *other.bundle[1:]]
    assert refusal(other.document(NONCE, USER_DATA, cabundle=bundle)) is BAD_CHAIN


BUNDLES = {
    "one left out": lambda bundle: [*bundle[:2], bundle[3]],
    "another order": lambda bundle: [bundle[0], bundle[2], bundle[1], bundle[3]],
    "one twice": lambda bundle: [*bundle, bundle[3]],
    "root twice": lambda bundle: [bundle[0], *bundle],
    "root alone": lambda bundle: bundle[:1],
    "one that is none": lambda bundle: [*bundle[:3], b"certificate"],
    "one cut short": lambda bundle: [*bundle[:3], bundle[3][:-1]],
    "one prolonged": lambda bundle: [*bundle[:3], bundle[3] + b"\0"],
}


@pytest.mark.parametrize("case", BUNDLES)
def test_a_bundle_that_is_not_the_chain_in_its_order_is_refused(case):
    assert refusal(document(cabundle=BUNDLES[case](shared_ca().bundle))) is BAD_CHAIN


def test_the_root_not_at_the_beginning_is_untrusted():
    bundle = shared_ca().bundle
    assert refusal(document(cabundle=bundle[::-1])) is AttestationRefusal.UNTRUSTED_ROOT


@pytest.mark.parametrize("place", [1, 2, 3])
@pytest.mark.parametrize("byte", [100, 300, -20])
def test_a_certificate_altered_anywhere_is_refused(place, byte):
    bundle = shared_ca().bundle
    altered = bytearray(bundle[place])
    altered[byte] ^= 1
    bundle[place] = bytes(altered)
    assert refusal(document(cabundle=bundle)) in (
        BAD_CHAIN,
        AttestationRefusal.CERTIFICATE_NOT_VALID_NOW,
    )


@pytest.mark.parametrize("tag", [0x03, 0x02, 0x30, 0x05], ids=["bits", "number", "list", "null"])
def test_a_name_that_is_no_text_is_refused(tag):
    bundle = shared_ca().bundle
    name = b"\x0c\x08instance"
    assert name in bundle[3]
    bundle[3] = bundle[3].replace(name, bytes([tag]) + name[1:])
    assert refusal(document(cabundle=bundle)) is BAD_CHAIN


VERSION_3 = bytes.fromhex("a003020102")
VERSION_11 = bytes.fromhex("a00302010a")


def test_a_certificate_of_an_impossible_version_is_refused():
    bundle = shared_ca().bundle
    bundle[3] = bundle[3].replace(VERSION_3, VERSION_11, 1)
    assert refusal(document(cabundle=bundle)) is BAD_CHAIN


def test_a_root_of_an_impossible_version_is_not_pinned():
    der = shared_ca().root.der.replace(VERSION_3, VERSION_11, 1)
    encoded = base64.encodebytes(der).decode()
    pem = f"-----BEGIN CERTIFICATE-----\n{encoded}-----END CERTIFICATE-----\n"
    with pytest.raises(InvalidAttestationTrust, match=r"root_certificates\[0\] is no self-signed"):
        NitroVerifier.from_options({"root_certificates": [pem]})


LEAVES = {
    "a CA": {"ca": True},
    "for certificates too": {"ca": False, "may_sign": True},
}


@pytest.mark.parametrize("case", LEAVES)
def test_a_certificate_for_other_use_is_refused(case):
    ca = make_ca(**LEAVES[case])
    assert refusal(ca.document(NONCE, USER_DATA), ca) is BAD_CHAIN


def test_a_key_of_another_curve_is_refused():
    ca = make_ca(curve=ec.SECP256R1())
    assert refusal(ca.document(NONCE, USER_DATA), ca) is WRONG_ALGORITHM


ISSUERS = {
    "no CA": {"ca": False},
    "may not sign": {"may_sign": False},
}


@pytest.mark.parametrize("case", ISSUERS)
def test_an_issuer_that_may_not_issue_is_refused(case):
    ca = shared_ca()
    stray = issue("stray", ca.root, **ISSUERS[case])
    chain = NitroCa(ca.root, (stray,), issue("enclave", stray, ca=False))
    assert refusal(chain.document(NONCE, USER_DATA)) is BAD_CHAIN


def test_a_chain_longer_than_its_issuer_allows_is_refused():
    ca = shared_ca()
    instance = ca.issuers[-1]  # path length 0: it issues enclaves' certificates alone
    deeper = issue("deeper", instance)
    chain = NitroCa(ca.root, (*ca.issuers, deeper), issue("enclave", deeper, ca=False))
    assert refusal(chain.document(NONCE, USER_DATA)) is BAD_CHAIN


@pytest.mark.parametrize("lives_s", [(-7200.0, -3600.0), (3600.0, 7200.0)], ids=["over", "not yet"])
def test_an_enclaves_certificate_not_valid_now_is_refused(lives_s):
    ca = make_ca(lives_s=lives_s)
    assert refusal(ca.document(NONCE, USER_DATA), ca) is (
        AttestationRefusal.CERTIFICATE_NOT_VALID_NOW
    )


def test_an_issuers_certificate_not_valid_now_is_refused():
    ca = shared_ca()
    region = issue("region", ca.root, path_length=2, lives_s=(-7200.0, -3600.0))
    chain = NitroCa(ca.root, (region,), issue("enclave", region, ca=False))
    assert refusal(chain.document(NONCE, USER_DATA)) is AttestationRefusal.CERTIFICATE_NOT_VALID_NOW


def test_a_trusted_root_that_has_ended_vouches_for_nothing():
    end = shared_ca().root.certificate.not_valid_after_utc + dt.timedelta(seconds=1)
    assert refusal(document(), now_s=end.timestamp()) is (
        AttestationRefusal.CERTIFICATE_NOT_VALID_NOW
    )


def test_registers_that_are_not_there_have_no_measurement():
    with pytest.raises(ValueError, match="PCR1 has 0 bytes"):
        registers_measurement({0: bytes(48), 2: bytes(48)})
