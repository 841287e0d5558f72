"""Whatever bits flip: evidence is never accepted, and never leads to another error."""

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runtime.attestation import AttestationRefused, AttestationTrust, InvalidAttestationTrust
from device_runtime.bounded_cbor import UnfitCbor, decode_cbor, encode_cbor
from device_runtime.protocol import device_pb2 as pb
from tests.device_runtime.attested_enclaves import PROVIDERS, trust, verify
from tests.device_runtime.nitro_ca import encode_payload

flips = st.lists(st.integers(0, 10**9), min_size=1, max_size=4, unique=True)
parts = st.sampled_from(["document", "enclave_key", "provider"])
providers = st.sampled_from(PROVIDERS)
GOOD = {provider.name: provider.evidence() for provider in PROVIDERS}
PINNED = trust()


def flipped(data: bytes, positions: list[int]) -> bytes:
    """``data`` with the bits at ``positions`` flipped, counted around its end."""
    altered = bytearray(data)
    for bit in {position % (8 * len(data)) for position in positions}:
        altered[bit // 8] ^= 1 << bit % 8
    return bytes(altered)


@settings(max_examples=150)
@given(providers, parts, flips)
def test_evidence_with_flipped_bits_is_refused(provider, part, positions):
    evidence = pb.Evidence()
    evidence.CopyFrom(GOOD[provider.name])
    if part == "provider":
        name = flipped(evidence.provider.encode(), [p - p % 8 for p in positions])
        evidence.provider = name.decode("ascii", "replace")
    else:
        setattr(evidence, part, flipped(getattr(evidence, part), positions))
    with pytest.raises(AttestationRefused):
        verify(evidence, pinned=PINNED)


@settings(max_examples=150)
@given(providers, flips)
def test_serialised_evidence_with_flipped_bits_is_refused_or_says_the_same(provider, positions):
    """Protobuf has several spellings of one message: what counts is that no other is accepted."""
    data = flipped(GOOD[provider.name].SerializeToString(), positions)
    try:
        evidence = pb.Evidence.FromString(data)
    except Exception:
        return  # gRPC hands no such message on
    try:
        verify(evidence, pinned=PINNED)
    except AttestationRefused:
        return
    assert [evidence.provider, evidence.document, evidence.enclave_key] == [
        GOOD[provider.name].provider,
        GOOD[provider.name].document,
        GOOD[provider.name].enclave_key,
    ]


@settings(max_examples=150)
@given(providers, st.binary(max_size=300))
def test_any_bytes_as_a_document_are_refused(provider, document):
    evidence = pb.Evidence(provider=provider.name, document=document)
    with pytest.raises(AttestationRefused):
        verify(evidence, pinned=PINNED)


@settings(max_examples=200)
@given(flips)
def test_a_trust_file_with_flipped_bits_is_read_or_refused(positions):
    data = flipped(PINNED.to_json().encode(), positions)
    try:
        read = AttestationTrust.from_json(data)
    except InvalidAttestationTrust as refused:
        said = refused.sentence
    else:
        said = read.to_json()
        assert AttestationTrust.from_json(said) == read
    assert said


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.binary(max_size=40)
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.integers(0, 40) | st.text(max_size=5), inner, max_size=5)
    ),
    max_leaves=8,
)


@settings(max_examples=60)
@given(plain)
def test_plain_cbor_is_decoded_as_the_library_does(value):
    data = encode_cbor(value)
    assert decode_cbor(data, most_items=400, most_depth=20) == cbor2.loads(data) == value


@settings(max_examples=40)
@given(st.dictionaries(st.text(max_size=5), plain, max_size=3))
def test_a_map_of_indefinite_length_is_decoded_as_one_of_definite(value):
    assert decode_cbor(encode_payload(value), most_items=400, most_depth=20) == value


@settings(max_examples=500)
@given(st.binary(max_size=64))
def test_any_bytes_are_decoded_as_the_library_does_or_refused(data):
    try:
        value = decode_cbor(data, most_items=20, most_depth=3)
    except UnfitCbor:
        return
    assert encode_cbor(value) == encode_cbor(cbor2.loads(data))


@given(st.integers(1, 30), st.integers(1, 30))
def test_depth_and_number_of_items_are_bounded(depth, most_depth):
    data = b"\x81" * depth + b"\x00"
    if depth <= most_depth:
        decode_cbor(data, most_items=depth + 1, most_depth=most_depth)
        with pytest.raises(UnfitCbor, match="items"):
            decode_cbor(data, most_items=depth, most_depth=most_depth)
    else:
        with pytest.raises(UnfitCbor, match="containers"):
            decode_cbor(data, most_items=100, most_depth=most_depth)
