"""What a device accepts of an enclave, and that anything else is refused with its own number."""

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from device_runtime.attestation import (
    AttestationRefusal,
    AttestationRefused,
    AttestedClaims,
    verify_evidence,
)
from device_runtime.protocol import device_pb2 as pb
from tests.device_runtime.attested_enclaves import (
    NITRO,
    NONCE,
    PROVIDERS,
    SOFTWARE,
    enclave_key,
    expected_enclave,
    root_hex,
    software_document,
    trust,
    verify,
)
from tests.device_runtime.nitro_ca import NOW_S

OTHER = hashlib.sha256(b"other").digest()


def refusal(*args, **kwargs) -> AttestationRefusal:
    with pytest.raises(AttestationRefused) as refused:
        verify(*args, **kwargs)
    assert refused.value.detail
    return refused.value.refusal


@pytest.fixture(params=PROVIDERS, ids=lambda provider: provider.name)
def provider(request):
    return request.param


def test_the_key_of_an_allowed_enclave_is_returned(provider):
    assert verify(provider.evidence()) == pb.EnclaveKey.FromString(enclave_key())


def test_an_enclave_that_both_job_and_app_list_is_accepted(provider):
    verify(provider.evidence(), pinned=trust(measurements=(OTHER, provider.measurement)))


KEY_CASES = {
    "job": ({"job_id": "job-2"}, AttestationRefusal.WRONG_JOB),
    "no job": ({"job_id": ""}, AttestationRefusal.WRONG_JOB),
    "policy": ({"release_policy_sha256": OTHER}, AttestationRefusal.WRONG_RELEASE_POLICY),
    "no policy": ({"release_policy_sha256": b""}, AttestationRefusal.WRONG_RELEASE_POLICY),
    "no boot": ({"boot_id": ""}, AttestationRefusal.NO_BOOT_ID),
    "long boot": ({"boot_id": "b" * 129}, AttestationRefusal.NO_BOOT_ID),
    "no public key": ({"public_key": b""}, AttestationRefusal.BAD_PUBLIC_KEY),
    "short public key": ({"public_key": bytes(31)}, AttestationRefusal.BAD_PUBLIC_KEY),
    "long public key": ({"public_key": bytes(33)}, AttestationRefusal.BAD_PUBLIC_KEY),
    "public key 0": ({"public_key": bytes(32)}, AttestationRefusal.BAD_PUBLIC_KEY),
    "public key 1": ({"public_key": b"\1" + bytes(31)}, AttestationRefusal.BAD_PUBLIC_KEY),
    "public key of order 8": (
        {
            "public_key": bytes.fromhex(
                "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"
            )
        },
        AttestationRefusal.BAD_PUBLIC_KEY,
    ),
    "public key p": (
        {"public_key": ((1 << 255) - 19).to_bytes(32, "little")},
        AttestationRefusal.BAD_PUBLIC_KEY,
    ),
}


@pytest.mark.parametrize("case", KEY_CASES)
def test_an_attested_key_that_is_not_this_jobs_is_refused(provider, case):
    changed, wanted = KEY_CASES[case]
    assert refusal(provider.evidence(enclave_key(**changed))) is wanted


@pytest.mark.parametrize("serialised", [b"\xff", b"\x0a\x20", b"\x0a\xff\xff\xff\xff\x0f"])
def test_an_attested_key_that_is_no_message_is_refused(provider, serialised):
    assert refusal(provider.evidence(serialised)) is AttestationRefusal.MALFORMED_KEY


def test_an_attested_key_of_no_bytes_is_for_no_job(provider):
    assert refusal(provider.evidence(b"")) is AttestationRefusal.WRONG_JOB


@pytest.mark.parametrize("part", ["public_key", "job_id", "boot_id", "release_policy_sha256"])
def test_another_key_beside_the_document_is_refused(provider, part):
    other = {"public_key": OTHER, "job_id": "job-2", "boot_id": "boot-2"}
    evidence = provider.evidence()
    evidence.enclave_key = enclave_key(**{part: other.get(part, OTHER)})
    assert refusal(evidence) is AttestationRefusal.KEY_NOT_BOUND


@pytest.mark.parametrize("user_data", [b"", OTHER, hashlib.sha256(enclave_key()).digest()[:31]])
def test_a_document_that_vouches_for_another_key_is_refused(provider, user_data):
    assert refusal(provider.evidence(user_data=user_data)) is AttestationRefusal.KEY_NOT_BOUND


@pytest.mark.parametrize("nonce", [b"", bytes(32), NONCE[:31], NONCE + b"\0", NONCE[::-1]])
def test_a_document_for_another_nonce_is_refused(provider, nonce):
    assert refusal(provider.evidence(nonce=nonce)) is AttestationRefusal.WRONG_NONCE


def test_a_device_that_forgot_its_nonce_accepts_nothing(provider):
    evidence = provider.evidence(nonce=b"")
    assert refusal(evidence, expected_enclave(nonce=b"")) is AttestationRefusal.WRONG_NONCE


def test_a_document_is_accepted_for_as_long_as_the_app_says(provider):
    assert verify(provider.evidence(), pinned=trust(max_age_s=120), now_s=NOW_S + 119)
    late = refusal(provider.evidence(), pinned=trust(max_age_s=120), now_s=NOW_S + 121)
    assert late is AttestationRefusal.STALE


def test_a_clock_a_minute_ahead_is_accepted_and_no_more(provider):
    assert verify(provider.evidence(), now_s=NOW_S - 59)
    early = refusal(provider.evidence(), now_s=NOW_S - 61)
    assert early is AttestationRefusal.FROM_THE_FUTURE


@pytest.mark.parametrize("allowed", [(), (OTHER,)])
def test_an_enclave_off_the_jobs_list_is_refused(provider, allowed):
    expected = expected_enclave(allowed_measurements=allowed)
    assert refusal(provider.evidence(), expected) is AttestationRefusal.MEASUREMENT_NOT_ALLOWED


def test_an_enclave_off_the_apps_own_list_is_refused_though_the_job_allows_it(provider):
    pinned = trust(measurements=(OTHER,))
    assert refusal(provider.evidence(), pinned=pinned) is AttestationRefusal.MEASUREMENT_NOT_PINNED


def test_a_provider_the_app_does_not_pin_is_refused():
    pinned = trust(providers={"software_root": {"public_keys": [root_hex()]}})
    assert refusal(NITRO.evidence(), pinned=pinned) is AttestationRefusal.UNKNOWN_PROVIDER


@pytest.mark.parametrize("name", ["", "nitro", "SOFTWARE_ROOT", "software_root "])
def test_a_provider_of_another_name_is_refused(name):
    evidence = SOFTWARE.evidence()
    evidence.provider = name
    assert refusal(evidence) is AttestationRefusal.UNKNOWN_PROVIDER


def test_one_providers_document_under_the_others_name_is_refused():
    software, nitro = SOFTWARE.evidence(), NITRO.evidence()
    software.provider, nitro.provider = nitro.provider, software.provider
    assert refusal(software) is AttestationRefusal.MALFORMED_DOCUMENT
    assert refusal(nitro) is AttestationRefusal.UNTRUSTED_ROOT


@pytest.mark.parametrize(
    ("part", "value"),
    [("provider", "p" * 65), ("document", bytes(20 * 1024 + 1)), ("enclave_key", bytes(1025))],
)
def test_evidence_larger_than_any_is_refused_unread(provider, part, value):
    evidence = provider.evidence()
    setattr(evidence, part, value)
    assert refusal(evidence) is AttestationRefusal.TOO_LARGE


def test_empty_evidence_is_refused():
    assert refusal(pb.Evidence()) is AttestationRefusal.UNKNOWN_PROVIDER


def test_a_refusal_names_the_value_seen_and_its_number(provider):
    with pytest.raises(AttestationRefused) as refused:
        verify(provider.evidence(), expected_enclave(allowed_measurements=(OTHER,)))
    assert provider.measurement.hex() in str(refused.value)
    assert str(refused.value).endswith("[FLN-2311]")


def test_a_verifier_that_fails_refuses_and_never_raises_another_error():
    class Faulty:
        provider = "software_root"

        def verify(self, document: bytes, now_s: float) -> AttestedClaims:
            raise ZeroDivisionError("oh")

    pinned = trust()
    pinned._verifiers["software_root"] = Faulty()
    assert refusal(SOFTWARE.evidence(), pinned=pinned) is AttestationRefusal.PROVIDER_FAULT


def test_a_document_of_no_time_at_all_is_stale():
    class Timeless:
        provider = "software_root"

        def verify(self, document: bytes, now_s: float) -> AttestedClaims:
            key = hashlib.sha256(enclave_key()).digest()
            return AttestedClaims(SOFTWARE.measurement, key, NONCE, float("nan"))

    pinned = trust()
    pinned._verifiers["software_root"] = Timeless()
    assert refusal(SOFTWARE.evidence(), pinned=pinned) is AttestationRefusal.STALE


def test_two_trusted_roots_are_trusted_each():
    other = Ed25519PrivateKey.generate()
    pinned = trust(providers={"software_root": {"public_keys": [root_hex(other), root_hex()]}})
    key = enclave_key()
    for root_key in (None, other):
        changed = {} if root_key is None else {"root": root_key}
        evidence = pb.Evidence(
            provider="software_root", document=software_document(key, **changed), enclave_key=key
        )
        assert verify_evidence(evidence, expected_enclave(), pinned, NOW_S).job_id == "job-1"
