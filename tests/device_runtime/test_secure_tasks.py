"""Tasks whose updates are sealed: the enclave is verified first, and again after a restart."""

import hashlib
import time

import grpc
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from device_runtime.attestation_software import sign_document
from device_runtime.masking import from_fixed_point, pad
from device_runtime.protocol import device_pb2 as pb
from device_runtime.release_policy import ReleasePolicy
from device_runtime.sealing import NotOpened, enclave_key_sha256, open_sealed
from device_runtime.update_codec import decode_update
from tests.device_runtime.attested_enclaves import SOFTWARE_ROOT, trust

MEASUREMENT = hashlib.sha256(b"the enclave").digest()
POLICY = ReleasePolicy(mode="enclave", release_threshold=20, max_share_per_device=0.5)
MASKED = ReleasePolicy(
    mode="masked",
    release_threshold=20,
    max_share_per_device=0.5,
    clip_value=1.0,
    max_updates=100,
)
Outcome = pb.ReportOutcomeRequest


class EnclaveBoot:
    """One boot of an enclave with a software root, as the gateway reaches it."""

    def __init__(self, boot_id="boot-1", policy=POLICY, job_id="j-1", measurement=MEASUREMENT):
        self.private_key = X25519PrivateKey.generate()
        self.measurement = measurement
        self.key = pb.EnclaveKey(
            public_key=self.private_key.public_key().public_bytes_raw(),
            job_id=job_id,
            boot_id=boot_id,
            release_policy_sha256=policy.sha256(),
        ).SerializeToString(deterministic=True)
        self.asked: list[pb.AttestRequest] = []

    def attest(self, request):
        self.asked.append(request)
        document = sign_document(
            SOFTWARE_ROOT,
            measurement=self.measurement,
            nonce=request.nonce,
            user_data=enclave_key_sha256(self.key),
            issued_at_s=time.time(),
        )
        return pb.Evidence(provider="software_root", document=document, enclave_key=self.key)

    def open(self, upload, **changed):
        message = pb.SealedUpdate.FromString(upload.payload)
        assert message.enclave_key_sha256 == enclave_key_sha256(self.key)
        sealed_for = {
            "task_id": "t-1",
            "job_id": "j-1",
            "device_id": upload.proof.device_id,
            "base_version": 3,
            "codec": "",
        } | changed
        content = open_sealed(
            self.private_key, self.key, pb.SealedFor(**sealed_for), message.sealed
        )
        return pb.SealedContent.FromString(content)


@pytest.fixture
def make_secure_task(make_task):
    def make(policy=POLICY, allowed=(MEASUREMENT,), **more):
        task = make_task(**more)
        task.secure_aggregation.release_policy_json = policy.to_json()
        task.secure_aggregation.allowed_measurements.extend(allowed)
        return task

    return make


@pytest.fixture
def boot(gateway):
    enclave = EnclaveBoot()
    gateway.evidence = enclave.attest
    return enclave


@pytest.fixture
def start_secure_device(start_device):
    return lambda: start_device(trust=trust())


def failed_with(gateway, device):
    device.step_until(lambda: gateway.reports)
    (report,) = gateway.reports
    assert report.outcome == Outcome.FAILED
    assert gateway.uploads == []
    return report.reason


def test_an_update_is_sealed_for_its_task_alone(
    gateway, boot, make_secure_task, start_secure_device, tiny
):
    gateway.tasks.append(make_secure_task())
    start_secure_device().step_until(lambda: gateway.uploads)
    (upload,) = gateway.uploads
    content = boot.open(upload)
    update = decode_update(content.update)
    assert [tensor.name for tensor in update.tensors] == [p.name for p in tiny.parameters]
    assert content.app_id == "com.example"
    for other in ({"task_id": "t-2"}, {"base_version": 4}, {"job_id": "j"}, {"codec": "int8"}):
        with pytest.raises(NotOpened):
            boot.open(upload, **other)
    delta = update.tensors[0].array().tobytes()
    assert delta not in upload.payload
    assert content.never_sent
    # Before it downloads anything, and once more before it seals.
    assert len({request.nonce for request in boot.asked}) == len(boot.asked) == 2


def test_a_masked_update_is_fixed_point_under_a_pad(
    gateway, make_secure_task, start_secure_device, start_device, make_task
):
    boot = EnclaveBoot(policy=MASKED)
    gateway.evidence = boot.attest
    gateway.tasks.append(make_secure_task(MASKED))
    start_secure_device().step_until(lambda: gateway.uploads)
    (upload,) = gateway.uploads
    content = boot.open(upload)
    assert decode_update(content.update).tensors == ()
    masked = np.frombuffer(pb.SealedUpdate.FromString(upload.payload).masked, "<u4")
    values = from_fixed_point(masked - pad(content.pad_seed, masked.size), MASKED)
    assert 0 < np.abs(values).max() < 1, "an update's values, not noise"
    assert np.abs(values - np.round(values * MASKED.scale) / MASKED.scale).max() == 0


def test_an_enclave_that_was_restarted_is_verified_and_sealed_to_again(
    gateway, boot, make_secure_task, start_secure_device
):
    gateway.tasks.append(make_secure_task())
    gateway.errors["Upload"].append(grpc.StatusCode.UNAVAILABLE)
    device = start_secure_device()
    device.step_until(lambda: device.counts["trained"])
    after = EnclaveBoot("boot-2")
    gateway.evidence = after.attest
    gateway.verdicts.append(
        pb.UploadResponse(verdict=pb.UploadResponse.RETRY_LATER, reason_code=2202)
    )
    device.step_until(lambda: len(gateway.uploads) == 2)
    first, second = gateway.uploads
    assert first.payload_sha256 != second.payload_sha256
    assert boot.open(first).update == after.open(second).update
    assert boot.open(first).never_sent
    assert not after.open(second).never_sent
    device.step_until(lambda: device.counts["accepted"] == 1)
    assert len(device.store.pending()) == 1


def test_an_enclave_restarted_during_training_is_sealed_to_at_once(
    gateway, boot, make_secure_task, start_secure_device
):
    gateway.tasks.append(make_secure_task())
    device = start_secure_device()
    device.step_until(lambda: boot.asked)
    after = EnclaveBoot("boot-2")
    gateway.evidence = after.attest
    device.step_until(lambda: gateway.uploads)
    assert after.open(gateway.uploads[0]).never_sent


def test_a_restarted_enclave_that_is_another_program_gets_nothing(
    gateway, boot, make_secure_task, start_secure_device
):
    gateway.tasks.append(make_secure_task())
    gateway.errors["Upload"].append(grpc.StatusCode.UNAVAILABLE)
    device = start_secure_device()
    device.step_until(lambda: device.counts["trained"])
    other = EnclaveBoot("boot-2", measurement=hashlib.sha256(b"another").digest())
    gateway.evidence = other.attest
    gateway.verdicts.append(
        pb.UploadResponse(verdict=pb.UploadResponse.RETRY_LATER, reason_code=2202)
    )
    device.step_until(lambda: gateway.reports)
    assert gateway.reports[0].reason == "attestation_measurement_not_allowed"
    assert device.store.pending() == []
    assert len(gateway.uploads) == 1, "the one that nobody could open any more"


def test_the_device_sends_the_same_bytes_while_the_enclave_lives(
    gateway, boot, make_secure_task, start_secure_device
):
    gateway.tasks.append(make_secure_task())
    device = start_secure_device()
    device.step_until(lambda: gateway.uploads)
    gateway.settlements["t-1"] = pb.Settlement.UPLOAD_AGAIN
    device.step_until(lambda: len(gateway.uploads) == 2)
    assert gateway.uploads[0].payload == gateway.uploads[1].payload
    assert len(boot.asked) == 2


@pytest.mark.parametrize(
    ("evidence", "reason"),
    [
        (EnclaveBoot(measurement=bytes(32)).attest, "attestation_measurement_not_allowed"),
        (EnclaveBoot(job_id="j-2").attest, "attestation_wrong_job"),
        (EnclaveBoot(policy=MASKED).attest, "attestation_wrong_release_policy"),
        (lambda _: pb.Evidence(), "attestation_unknown_provider"),
        (None, "attestation_unavailable"),
    ],
)
def test_a_failed_verification_fails_the_task_and_nothing_else(
    gateway, make_secure_task, start_secure_device, evidence, reason
):
    gateway.evidence = evidence
    gateway.tasks.append(make_secure_task())
    device = start_secure_device()
    assert failed_with(gateway, device) == reason
    boot = EnclaveBoot()
    gateway.evidence = boot.attest
    gateway.tasks.append(make_secure_task())
    device.step_until(lambda: gateway.uploads)


def test_an_app_that_pins_nothing_declines_secure_tasks(
    gateway, boot, make_secure_task, start_device
):
    gateway.tasks.append(make_secure_task())
    assert failed_with(gateway, start_device()) == "attestation_no_trust"
    assert boot.asked == []


def test_a_release_policy_that_is_not_understood_is_not_agreed_to(
    gateway, boot, make_secure_task, start_secure_device
):
    task = make_secure_task()
    text = task.secure_aggregation.release_policy_json
    task.secure_aggregation.release_policy_json = text.replace("{", '{"let_out_singles":true,', 1)
    gateway.tasks.append(task)
    assert failed_with(gateway, start_secure_device()) == "attestation_release_policy"
