"""Each attester makes documents that the devices' verifier of the same provider accepts."""

import hashlib
import logging
import stat
from pathlib import Path

import cbor2
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from device_runtime.attestation import AttestationRefused, AttestationTrust, verify_evidence
from device_runtime.protocol import device_pb2 as pb
from server.secure_aggregation.attesters import UnknownAttester, load_attester
from server.secure_aggregation.attesters.attester import AttesterSettings
from server.secure_aggregation.attesters.nitro import (
    NitroAttester,
    NoSecurityModule,
    SecurityModuleFault,
    open_security_module,
)
from server.secure_aggregation.attesters.software import (
    SoftwareAttester,
    SoftwareRoot,
    UnusableSoftwareRoot,
)
from tests.device_runtime.attested_enclaves import (
    NITRO_MEASUREMENT,
    NONCE,
    enclave_key,
    expected_enclave,
)
from tests.device_runtime.nitro_ca import NOW_S, REGISTERS, FakeSecurityModule, shared_ca

MEASURED = hashlib.sha256(b"measured").digest()


class AttesterContract:
    """What holds for every attester: ``attester`` and the ``trust`` of an app that pins it."""

    def evidence(self, attester) -> pb.Evidence:
        key = enclave_key()
        return pb.Evidence(
            provider=attester.provider,
            document=attester.document(NONCE, hashlib.sha256(key).digest()),
            enclave_key=key,
        )

    def test_a_device_accepts_its_enclave(self, attester, trust):
        expected = expected_enclave(allowed_measurements=(attester.measurement,))
        key = verify_evidence(self.evidence(attester), expected, trust, NOW_S)
        assert key.job_id == "job-1"

    def test_a_device_refuses_it_where_another_measurement_is_allowed(self, attester, trust):
        expected = expected_enclave(allowed_measurements=(bytes(32),))
        with pytest.raises(AttestationRefused, match="FLN-2311"):
            verify_evidence(self.evidence(attester), expected, trust, NOW_S)

    def test_each_request_gets_a_document_of_its_own(self, attester):
        assert attester.document(NONCE, bytes(32)) != attester.document(bytes(32), bytes(32))


class TestSoftwareRoot(AttesterContract):
    @pytest.fixture
    def root(self, tmp_path):
        return SoftwareRoot.load_or_create(tmp_path / "root.key")

    @pytest.fixture
    def attester(self, root):
        return SoftwareAttester(root, MEASURED, clock=lambda: NOW_S)

    @pytest.fixture
    def trust(self, root):
        return AttestationTrust({"software_root": {"public_keys": [root.public_key.hex()]}})

    def test_the_log_says_that_it_gives_no_confidentiality(self, root, caplog):
        with caplog.at_level(logging.WARNING):
            SoftwareAttester(root, MEASURED)
        assert "confidentiality: none from root on the host" in caplog.text
        assert root.public_key.hex() in caplog.text


def test_a_software_root_is_made_once_for_its_owner_alone(tmp_path):
    path = tmp_path / "secrets" / "root.key"
    made = SoftwareRoot.load_or_create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["root.key"]
    assert SoftwareRoot.load_or_create(path).public_key == made.public_key


def test_a_software_root_that_others_may_read_is_refused(tmp_path):
    path = tmp_path / "root.key"
    SoftwareRoot.load_or_create(path)
    path.chmod(0o640)
    with pytest.raises(UnusableSoftwareRoot, match="mode 0640"):
        SoftwareRoot.load_or_create(path)


def p256_pem() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


@pytest.mark.parametrize("content", [b"", b"no key", p256_pem()], ids=["empty", "none", "P-256"])
def test_a_file_that_is_no_ed25519_key_is_refused(tmp_path, content):
    path = tmp_path / "root.key"
    path.touch(mode=0o600)
    path.write_bytes(content)
    with pytest.raises(UnusableSoftwareRoot, match=r"root\.key is no"):
        SoftwareRoot.load_or_create(path)


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UnusableSoftwareRoot, match="FLN-1813"):
        SoftwareRoot.load_or_create(tmp_path / "file" / "root.key")


class TestNitro(AttesterContract):
    @pytest.fixture
    def attester(self):
        return NitroAttester(FakeSecurityModule())

    @pytest.fixture
    def trust(self):
        return AttestationTrust({"aws_nitro": {"root_certificates": [shared_ca().root.pem]}})

    def test_its_measurement_is_of_the_registers_that_the_module_tells(self, attester):
        assert attester.measurement == NITRO_MEASUREMENT


def test_the_requests_are_those_of_the_security_modules_interface():
    module = FakeSecurityModule()
    NitroAttester(module).document(NONCE, bytes(32))
    assert module.requests == [
        {"DescribePCR": {"index": 0}},
        {"DescribePCR": {"index": 1}},
        {"DescribePCR": {"index": 2}},
        {"Attestation": {"user_data": bytes(32), "nonce": NONCE, "public_key": None}},
    ]


def test_a_module_without_the_measured_registers_is_refused():
    registers = {index: value for index, value in REGISTERS.items() if index != 1}
    with pytest.raises(SecurityModuleFault, match="refused DescribePCR: InvalidArgument"):
        NitroAttester(FakeSecurityModule(registers=registers))


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\xff",
        cbor2.dumps([]),
        cbor2.dumps({"Error": "InternalError"}),
        cbor2.dumps({"Attestation": []}),
        cbor2.dumps({"Attestation": {}}),
        cbor2.dumps({"Attestation": {"document": b""}}),
        cbor2.dumps({"Attestation": {"document": "text"}}),
        cbor2.dumps({"GetRandom": {"random": b"1"}}),
    ],
    ids=repr,
)
def test_an_answer_that_is_no_document_is_said(answer):
    module = FakeSecurityModule()
    attester = NitroAttester(module)
    attester._module = lambda request: answer
    with pytest.raises(SecurityModuleFault, match="FLN-1812"):
        attester.document(NONCE, bytes(32))


def test_a_request_beyond_the_modules_limit_is_not_sent():
    module = FakeSecurityModule()
    attester = NitroAttester(module)
    module.requests.clear()
    with pytest.raises(SecurityModuleFault, match="at most 4096"):
        attester.document(NONCE, bytes(5000))
    assert module.requests == []


def test_outside_of_an_enclave_there_is_no_security_module(tmp_path):
    with pytest.raises(NoSecurityModule, match="inside AWS Nitro Enclaves only"):
        open_security_module(tmp_path / "nsm")


def test_a_file_that_is_no_security_module_takes_no_request(tmp_path):
    (tmp_path / "nsm").touch()
    with pytest.raises(SecurityModuleFault, match="took no request"):
        NitroAttester(open_security_module(tmp_path / "nsm"))


def test_attesters_are_found_by_their_providers_name(tmp_path):
    settings = AttesterSettings(MEASURED, tmp_path, {})
    attester = load_attester("software_root", settings)
    assert (attester.provider, attester.measurement) == ("software_root", MEASURED)
    assert (tmp_path / "software_root.key").is_file()
    if not Path("/dev/nsm").exists():
        with pytest.raises(NoSecurityModule):
            load_attester("aws_nitro", settings)
    with pytest.raises(UnknownAttester, match="Known: aws_nitro, software_root"):
        load_attester("azure", settings)
