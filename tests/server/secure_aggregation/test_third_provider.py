"""The provider of docs/attestation.md, installed as a package, vouches for an enclave."""

import hashlib
import re
import time
import tomllib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from device_runtime.attestation import (
    AttestationRefusal,
    AttestationRefused,
    AttestationTrust,
    InvalidAttestationTrust,
    verify_evidence,
)
from device_runtime.protocol import device_pb2 as pb
from server.secure_aggregation.attesters import load_attester
from server.secure_aggregation.attesters.attester import AttesterSettings
from tests.device_runtime.attested_enclaves import NONCE, enclave_key, expected_enclave

DOCUMENT = (Path(__file__).parents[3] / "docs" / "attestation.md").read_text()
SEED = bytes(range(32))
PUBLIC_KEY = Ed25519PrivateKey.from_private_bytes(SEED).public_key().public_bytes_raw().hex()
MEASURED = hashlib.sha256(b"measured").digest()


def block(language: str) -> str:
    """The last block of code in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE)[-1]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The document's package, on the path as pip would have put it there."""
    groups = tomllib.loads(block("toml"))["project"]["entry-points"]
    info = tmp_path / "acme_attestation-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-attestation\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{name} = {place}\n" for name, place in entries.items())
            for group, entries in groups.items()
        )
    )
    (tmp_path / "acme_attestation.py").write_text(block("python"))
    monkeypatch.syspath_prepend(tmp_path)


@pytest.fixture
def trust(installed):
    return AttestationTrust.from_json(
        '{"providers": {"acme": {"public_key": "' + PUBLIC_KEY + '"}}}'
    )


@pytest.fixture
def evidence(installed, tmp_path):
    settings = AttesterSettings(MEASURED, tmp_path, {"seed": SEED.hex()})
    attester = load_attester("acme", settings)
    key = enclave_key()
    document = attester.document(NONCE, hashlib.sha256(key).digest())
    return pb.Evidence(provider=attester.provider, document=document, enclave_key=key)


EXPECTED = expected_enclave(allowed_measurements=(MEASURED,))


def test_its_enclave_is_accepted_by_an_app_that_pins_it(trust, evidence):
    assert verify_evidence(evidence, EXPECTED, trust, time.time()).boot_id == "boot-1"


@pytest.mark.parametrize(
    ("byte", "wanted"),
    [(0, AttestationRefusal.BAD_SIGNATURE), (-1, AttestationRefusal.BAD_SIGNATURE)],
)
def test_its_document_altered_is_refused(trust, evidence, byte, wanted):
    altered = bytearray(evidence.document)
    altered[byte] ^= 1
    evidence.document = bytes(altered)
    with pytest.raises(AttestationRefused) as refused:
        verify_evidence(evidence, EXPECTED, trust, time.time())
    assert refused.value.refusal is wanted


def test_flints_own_checks_hold_for_it_too(trust, evidence):
    with pytest.raises(AttestationRefused) as refused:
        verify_evidence(evidence, expected_enclave(), trust, time.time())
    assert refused.value.refusal is AttestationRefusal.MEASUREMENT_NOT_ALLOWED


def test_its_options_are_its_own_to_refuse(installed):
    with pytest.raises(InvalidAttestationTrust, match=r"providers\.acme must hold public_key"):
        AttestationTrust.from_json('{"providers": {"acme": {"more": 1}}}')


def test_a_package_cannot_take_the_name_of_a_built_in_provider(installed, tmp_path):
    entries = tmp_path / "acme_attestation-1.0.dist-info" / "entry_points.txt"
    entries.write_text(entries.read_text().replace("acme =", "software_root ="))
    with pytest.raises(InvalidAttestationTrust, match="public_keys"):
        AttestationTrust.from_json('{"providers": {"software_root": {"public_key": "00"}}}')


def test_a_verifier_installed_under_another_name_is_refused(installed, tmp_path):
    entries = tmp_path / "acme_attestation-1.0.dist-info" / "entry_points.txt"
    entries.write_text(entries.read_text().replace("acme =", "azure ="))
    options = '{"public_key": "' + PUBLIC_KEY + '"}'
    with pytest.raises(InvalidAttestationTrust, match="installed as 'azure' is one of 'acme'"):
        AttestationTrust.from_json('{"providers": {"azure": ' + options + "}}")
