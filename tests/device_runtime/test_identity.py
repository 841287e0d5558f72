"""Proofs hold for exactly what was signed, by exactly the key that signed it."""

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from device_runtime import identity
from device_runtime.identity import DeviceKey
from device_runtime.protocol import device_pb2 as pb

KEY = DeviceKey.generate()


def check_in() -> pb.CheckInRequest:
    request = pb.CheckInRequest(
        runtime_version=1,
        satisfied_policy_sha256=b"p" * 32,
        pending=[pb.PendingUpdate(task_id="t", payload_sha256=b"d" * 32, task_token=b"k")],
    )
    identity.sign_check_in(KEY, request, device_id="d-1", credential=b"c", timestamp_ms=17)
    return request


def upload() -> pb.UploadRequest:
    request = pb.UploadRequest(
        task_token=b"token", payload_sha256=b"d" * 32, payload=b"update", contract_sha256=b"c"
    )
    identity.sign_upload(KEY, request, device_id="d-1", credential=b"c", timestamp_ms=17)
    return request


def enrol() -> pb.EnrolRequest:
    request = pb.EnrolRequest(enrolment_token="token", app_id="app")
    identity.sign_enrol(KEY, request)
    return request


def test_what_was_signed_verifies_also_after_the_wire():
    public_key = KEY.public_key_der
    sent = pb.CheckInRequest.FromString(check_in().SerializeToString())
    assert identity.verify_check_in(public_key, sent)
    assert identity.verify_upload(
        public_key, pb.UploadRequest.FromString(upload().SerializeToString())
    )
    assert identity.verify_enrol(enrol())


def test_a_stored_key_signs_as_before():
    again = DeviceKey.from_pkcs8(KEY.to_pkcs8())
    assert again.public_key_der == KEY.public_key_der


def test_the_message_is_what_the_protocol_says():
    """Signed with the bytes of the comment in device.proto, written out here once more."""
    import hashlib

    request = pb.CheckInRequest(runtime_version=3)
    body = request.SerializeToString(deterministic=True)
    message = (
        b"flint.device.v1/CheckIn\0d-9\0"
        + (1234).to_bytes(8, "big")
        + hashlib.sha256(body).digest()
    )
    private_key = ec.generate_private_key(ec.SECP256R1())
    request.proof.device_id, request.proof.timestamp_ms = "d-9", 1234
    request.proof.signature = private_key.sign(message, ec.ECDSA(hashes.SHA256()))
    public_key = private_key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert identity.verify_check_in(public_key, request)


CHECK_IN_CHANGES = {
    "runtime": lambda r: setattr(r, "runtime_version", 2),
    "policy": lambda r: setattr(r, "satisfied_policy_sha256", b"q" * 32),
    "no policy": lambda r: r.ClearField("satisfied_policy_sha256"),
    "pending task": lambda r: setattr(r.pending[0], "task_id", "u"),
    "pending digest": lambda r: setattr(r.pending[0], "payload_sha256", b"e" * 32),
    "pending token": lambda r: setattr(r.pending[0], "task_token", b"l"),
    "pending added": lambda r: r.pending.add(task_id="t2"),
    "pending removed": lambda r: r.ClearField("pending"),
    "device": lambda r: setattr(r.proof, "device_id", "d-2"),
    "time": lambda r: setattr(r.proof, "timestamp_ms", 18),
    "negative time": lambda r: setattr(r.proof, "timestamp_ms", -17),
    "no proof": lambda r: r.ClearField("proof"),
    "no signature": lambda r: r.proof.ClearField("signature"),
}


@pytest.mark.parametrize("change", CHECK_IN_CHANGES.values(), ids=CHECK_IN_CHANGES)
def test_a_check_in_with_any_field_changed_does_not_verify(change):
    request = check_in()
    change(request)
    assert not identity.verify_check_in(KEY.public_key_der, request)


UPLOAD_CHANGES = {
    "token": lambda r: setattr(r, "task_token", b"tokem"),
    "digest": lambda r: setattr(r, "payload_sha256", b"e" * 32),
    "boundary": lambda r: (
        setattr(r, "task_token", b"tokend"),
        setattr(r, "payload_sha256", b"d" * 31 + b"e"),
    ),
    "device": lambda r: setattr(r.proof, "device_id", "d-2"),
    "time": lambda r: setattr(r.proof, "timestamp_ms", 16),
}


@pytest.mark.parametrize("change", UPLOAD_CHANGES.values(), ids=UPLOAD_CHANGES)
def test_an_upload_with_any_signed_field_changed_does_not_verify(change):
    request = upload()
    change(request)
    assert not identity.verify_upload(KEY.public_key_der, request)


def test_a_proof_of_one_kind_is_none_of_another():
    request = pb.UploadRequest(task_token=check_in().SerializeToString())
    request.proof.CopyFrom(check_in().proof)
    assert not identity.verify_upload(KEY.public_key_der, request)


def test_another_key_does_not_verify():
    other = DeviceKey.generate().public_key_der
    assert not identity.verify_check_in(other, check_in())
    assert not identity.verify_upload(other, upload())
    request = enrol()
    request.public_key = other
    assert not identity.verify_enrol(request)


def test_another_enrolment_token_does_not_verify():
    request = enrol()
    request.enrolment_token = "other"
    assert not identity.verify_enrol(request)


@given(st.binary(max_size=200), st.binary(max_size=100))
def test_hostile_keys_and_signatures_are_only_ever_refused(public_key, signature):
    request = check_in()
    request.proof.signature = signature
    assert not identity.verify_check_in(public_key, request)
    assert not identity.verify_check_in(KEY.public_key_der, request)


@pytest.mark.parametrize(
    "private_key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["P-384", "Ed25519", "RSA"],
)
def test_only_p256_keys_may_enrol(private_key):
    der = private_key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert not identity.is_device_public_key(der)
    assert identity.is_device_public_key(KEY.public_key_der)
