"""What an app pins is read in full or refused, with the place and the mend."""

import json

import pytest

from device_runtime.attestation import AttestationTrust, InvalidAttestationTrust
from tests.device_runtime.attested_enclaves import root_hex, trust
from tests.device_runtime.nitro_ca import shared_ca

SOFTWARE = {"software_root": {"public_keys": [root_hex()]}}


def pinned(**changed: object) -> str:
    return json.dumps({"providers": SOFTWARE} | changed)


def test_what_is_written_is_read_back():
    written = trust(measurements=(bytes(32), bytes(range(32))), max_age_s=60.5)
    assert AttestationTrust.from_json(written.to_json()) == written


def test_a_file_is_read_with_five_minutes_and_no_list_of_its_own_by_default(tmp_path):
    path = tmp_path / "trust.json"
    path.write_text(pinned())
    read = AttestationTrust.read(path)
    assert (read.max_age_s, read.measurements) == (300.0, None)
    assert read.verifier("software_root").provider == "software_root"
    assert read.verifier("aws_nitro") is None


PEM = shared_ca().root.pem
REFUSED = {
    "not JSON": "{",
    "no text": b"\xff\xfe\xff",
    "a list": "[]",
    "nested too deep": "[" * 50_000,
    "unknown key": pinned(measurement=[]),
    "key twice": '{"max_age_s": 1, "max_age_s": 2, "providers": {}}',
    "no providers": "{}",
    "no provider": pinned(providers={}),
    "providers in a list": pinned(providers=["software_root"]),
    "options in a list": pinned(providers={"software_root": [root_hex()]}),
    "unknown provider": pinned(providers={"azure": {}}),
    "no roots": pinned(providers={"software_root": {}}),
    "empty roots": pinned(providers={"software_root": {"public_keys": []}}),
    "17 roots": pinned(providers={"software_root": {"public_keys": [root_hex()] * 17}}),
    "more than roots": pinned(providers={"software_root": {"public_keys": [root_hex()], "a": 1}}),
    "half a key": pinned(providers={"software_root": {"public_keys": [root_hex()[:62]]}}),
    "a key that is none": pinned(providers={"software_root": {"public_keys": ["z" * 64]}}),
    "a number as key": pinned(providers={"software_root": {"public_keys": [7]}}),
    "no certificates": pinned(providers={"aws_nitro": {"root_certificates": []}}),
    "no certificate": pinned(providers={"aws_nitro": {"root_certificates": ["PEM"]}}),
    "half a certificate": pinned(providers={"aws_nitro": {"root_certificates": [PEM[:200]]}}),
    "a number as certificate": pinned(providers={"aws_nitro": {"root_certificates": [7]}}),
    "9 certificates": pinned(providers={"aws_nitro": {"root_certificates": [PEM] * 9}}),
    "a certificate that is no root": pinned(
        providers={"aws_nitro": {"root_certificates": [shared_ca().issuers[0].pem]}}
    ),
    "empty measurements": pinned(measurements=[]),
    "short measurement": pinned(measurements=["00" * 31]),
    "measurement of a number": pinned(measurements=[7]),
    "measurement that is none": pinned(measurements=["zz" * 32]),
    "measurements in an object": pinned(measurements={}),
    "257 measurements": pinned(measurements=["00" * 32] * 257),
    "no age": pinned(max_age_s=0),
    "negative age": pinned(max_age_s=-1),
    "age beyond a day": pinned(max_age_s=86401),
    "age of no number": pinned(max_age_s="300"),
    "age true": pinned(max_age_s=True),
    "age NaN": '{"providers": {}, "max_age_s": NaN}',
    "age infinite": pinned(max_age_s=float("inf")),
    "a long number": '{"max_age_s": ' + "9" * 5000 + "}",
    "beyond 64 KiB": pinned() + " " * 65536,
}


@pytest.mark.parametrize("case", REFUSED)
def test_anything_else_is_refused_in_one_sentence(case):
    with pytest.raises(InvalidAttestationTrust) as refused:
        AttestationTrust.from_json(REFUSED[case])
    assert str(refused.value).endswith("[FLN-1416]")
    assert "\n" not in refused.value.sentence


def test_a_refusal_names_the_file_and_the_place(tmp_path):
    path = tmp_path / "trust.json"
    path.write_text(pinned(providers={"software_root": {"public_keys": [root_hex(), "12"]}}))
    with pytest.raises(InvalidAttestationTrust, match=r"trust\.json: .*public_keys\[1\]"):
        AttestationTrust.read(path)


def test_a_file_that_is_not_there_or_too_large_is_refused(tmp_path):
    with pytest.raises(InvalidAttestationTrust, match="No such file"):
        AttestationTrust.read(tmp_path / "trust.json")
    large = tmp_path / "large.json"
    large.write_text(" " * 100_000)
    with pytest.raises(InvalidAttestationTrust, match="larger than 65536 bytes"):
        AttestationTrust.read(large)


def test_an_unknown_provider_is_refused_with_the_known_ones():
    with pytest.raises(InvalidAttestationTrust, match="Known: aws_nitro, software_root"):
        AttestationTrust.from_json(REFUSED["unknown provider"])
