"""What `fuzz_parsers` runs of attestation: evidence, documents, keys, and what an app pins."""

from collections.abc import Callable

import cbor2
from google.protobuf.message import DecodeError
from mutated_inputs import NoMessage, Target

from device_runtime.attestation import AttestationRefused, AttestationTrust, InvalidAttestationTrust
from device_runtime.bounded_cbor import UnfitCbor, decode_cbor
from device_runtime.nitro_document import read_document
from device_runtime.protocol import device_pb2 as pb
from server.secure_aggregation.attesters.nitro import NitroAttester, SecurityModuleFault
from tests.device_runtime.attested_enclaves import (
    NITRO,
    NONCE,
    SOFTWARE,
    SOFTWARE_ROOT,
    enclave_key,
    root_hex,
    trust,
    verify,
)
from tests.device_runtime.nitro_ca import (
    ES384,
    REGISTERS,
    FakeSecurityModule,
    cose,
    encode_payload,
    shared_ca,
)


def _evidence(good: pb.Evidence) -> Callable[[bytes], object]:
    """Evidence as it comes, serialised: nothing but what was attested may be accepted."""
    pinned = trust()

    def parse(data: bytes) -> object:
        try:
            evidence = pb.Evidence.FromString(data)
        except DecodeError:
            raise NoMessage from None
        key = verify(evidence, pinned=pinned)
        assert (evidence.document, evidence.enclave_key) == (good.document, good.enclave_key)
        return key

    return parse


def _document(good: pb.Evidence) -> Callable[[bytes], object]:
    """A document beside the good key."""
    pinned = trust()

    def parse(document: bytes) -> object:
        evidence = pb.Evidence(
            provider=good.provider, document=document, enclave_key=good.enclave_key
        )
        key = verify(evidence, pinned=pinned)
        assert document == good.document
        return key

    return parse


def _signed_claims(claims: bytes) -> object:
    """Claims that the trusted software root has signed, whatever they are."""
    signature = SOFTWARE_ROOT.sign(b"flint.attestation.software_root.v1\0" + claims)
    document = bytes.fromhex(root_hex()) + signature + claims
    evidence = pb.Evidence(provider="software_root", document=document, enclave_key=enclave_key())
    return verify(evidence, pinned=_PINNED)


def _signed_payload(payload: bytes) -> object:
    """A payload that a trusted enclave's certificate has signed, whatever it is."""
    evidence = pb.Evidence(
        provider="aws_nitro", document=shared_ca().sign(payload), enclave_key=enclave_key()
    )
    return verify(evidence, pinned=_PINNED)


def _attested_key(key: bytes) -> object:
    """A key that a trusted software root vouches for, whatever it is."""
    return verify(SOFTWARE.evidence(key), pinned=_PINNED)


def _certificates(der: bytes) -> object:
    """One certificate of the path altered, by turns the enclave's and one above it."""
    ca = shared_ca()
    place = len(der) % 4
    bundle = ca.bundle
    fields: dict[str, object] = {"certificate": der}
    if place:
        bundle[place] = der
        fields = {"cabundle": bundle}
    payload = encode_payload(ca.payload(NONCE, bytes(32), fields))
    evidence = pb.Evidence(
        provider="aws_nitro",
        document=cose(ES384, payload, bytes(96)),
        enclave_key=enclave_key(),
    )
    key = verify(evidence, pinned=_PINNED)
    raise AssertionError(f"accepted {key}")


def _answer(answer: bytes) -> object:
    attester = NitroAttester(FakeSecurityModule())
    attester._module = lambda _: answer
    return attester.document(NONCE, bytes(32))


_PINNED = trust()
_SOFTWARE = SOFTWARE.evidence()
_NITRO = NITRO.evidence()
_PAYLOAD = encode_payload(shared_ca().payload(NONCE, bytes(32)))
_OTHER_PAYLOAD = cbor2.dumps(shared_ca().payload(NONCE, bytes(32), {"pcrs": {0: bytes(48)}}))

TARGETS: dict[str, Target] = {
    "evidence_software_root": Target(
        _evidence(_SOFTWARE), (_SOFTWARE.SerializeToString(),), (AttestationRefused, NoMessage)
    ),
    "evidence_aws_nitro": Target(
        _evidence(_NITRO), (_NITRO.SerializeToString(),), (AttestationRefused, NoMessage)
    ),
    "software_document": Target(_document(_SOFTWARE), (_SOFTWARE.document,), (AttestationRefused,)),
    "software_claims_signed": Target(
        _signed_claims, (_SOFTWARE.document[96:],), (AttestationRefused,)
    ),
    "nitro_document": Target(_document(_NITRO), (_NITRO.document,), (AttestationRefused,)),
    "nitro_document_form": Target(
        read_document,
        (_NITRO.document, cose(ES384, _OTHER_PAYLOAD, bytes(96))),
        (AttestationRefused,),
    ),
    "nitro_payload_signed": Target(
        _signed_payload, (_PAYLOAD, _OTHER_PAYLOAD), (AttestationRefused,)
    ),
    "nitro_certificate": Target(
        _certificates,
        (shared_ca().leaf.der, *shared_ca().bundle),
        (AttestationRefused,),
    ),
    "enclave_key_attested": Target(_attested_key, (enclave_key(),), (AttestationRefused,)),
    "cbor": Target(
        lambda data: decode_cbor(data, most_items=160, most_depth=2),
        (_PAYLOAD, _OTHER_PAYLOAD, cbor2.dumps({1: -35})),
        (UnfitCbor,),
    ),
    "trust_file": Target(
        AttestationTrust.from_json,
        (
            _PINNED.to_json().encode(),
            trust(
                measurements=(bytes(32),),
                providers={"software_root": {"public_keys": [root_hex()]}},
            )
            .to_json()
            .encode(),
        ),
        (InvalidAttestationTrust,),
    ),
    "security_module_answer": Target(
        _answer,
        (
            cbor2.dumps({"Attestation": {"document": _NITRO.document}}),
            cbor2.dumps({"DescribePCR": {"lock": True, "data": REGISTERS[0]}}),
            cbor2.dumps({"Error": "InternalError"}),
        ),
        (SecurityModuleFault,),
    ),
}
"""What is fuzzed, by name. Another parser is another entry."""
