"""Updates for an enclave: it is verified first, then they are sealed to its key."""

import secrets
from dataclasses import dataclass

from device_runtime.attestation import (
    NONCE_BYTES,
    AttestationRefused,
    AttestationTrust,
    ExpectedEnclave,
    verify_evidence,
)
from device_runtime.gateway_client import GatewayClient, GatewayRefused
from device_runtime.masking import SEED_BYTES, mask
from device_runtime.protocol import device_pb2 as pb
from device_runtime.release_policy import InvalidReleasePolicy, ReleasePolicy
from device_runtime.sealing import enclave_key_sha256, seal
from device_runtime.task_fault import TaskFault
from device_runtime.update_codec import decode_update


@dataclass(frozen=True, slots=True)
class VerifiedEnclave:
    """An enclave that proved to be what the job and the app demand.

    Attributes:
        enclave_key: Serialised ``EnclaveKey``, bound to the job and to this boot.
        policy: What it lets out.
    """

    enclave_key: bytes
    policy: ReleasePolicy


def verify_enclave(
    gateway: GatewayClient,
    task_token: bytes,
    job_id: str,
    demands: pb.SecureAggregation,
    trust: AttestationTrust | None,
    now_s: float,
) -> VerifiedEnclave:
    """Have the enclave of a leased task prove itself.

    Args:
        gateway: Hands the question on.
        task_token: Of the task.
        job_id: Of the task.
        demands: Of the task.
        trust: What the app pins; None: it trusts no enclave.
        now_s: Seconds since the epoch.

    Raises:
        TaskFault: With the reason why not; ``attestation_...``.
        GatewayBusy: Ask again later.
    """
    _require_trust(trust)
    nonce = secrets.token_bytes(NONCE_BYTES)
    try:
        evidence = gateway.attest(pb.AttestRequest(task_token=task_token, nonce=nonce))
    except GatewayRefused as error:
        raise TaskFault("attestation_unavailable", str(error)) from error
    return verify_given(evidence, nonce, job_id, demands, trust, now_s)


def verify_given(
    evidence: pb.Evidence,
    nonce: bytes,
    job_id: str,
    demands: pb.SecureAggregation,
    trust: AttestationTrust | None,
    now_s: float,
) -> VerifiedEnclave:
    """Hold evidence that was made for ``nonce`` against what task and app demand.

    Raises:
        TaskFault: With the reason why not; ``attestation_...``.
    """
    trust = _require_trust(trust)
    try:
        policy = ReleasePolicy.from_json(demands.release_policy_json)
    except InvalidReleasePolicy as error:
        raise TaskFault("attestation_release_policy", f"the release policy: {error}") from error
    expected = ExpectedEnclave(
        job_id=job_id,
        nonce=nonce,
        release_policy_sha256=policy.sha256(),
        allowed_measurements=tuple(demands.allowed_measurements),
    )
    try:
        verify_evidence(evidence, expected, trust, now_s)
    except AttestationRefused as refused:
        reason = f"attestation_{refused.refusal.name.lower()}"
        raise TaskFault(reason, str(refused)) from refused
    return VerifiedEnclave(evidence.enclave_key, policy)


def _require_trust(trust: AttestationTrust | None) -> AttestationTrust:
    if trust is None:
        raise TaskFault(
            "attestation_no_trust", "this app pins no root of trust, so no enclave can be verified"
        )
    return trust


def seal_update(
    enclave: VerifiedEnclave,
    sealed_for: pb.SealedFor,
    app_id: str,
    update: bytes,
    *,
    never_sent: bool = False,
) -> bytes:
    """The payload of an upload; every call gives another.

    Args:
        enclave: Whom it is for.
        sealed_for: What it is bound to.
        app_id: Host app of this device.
        update: A serialised ``Update``.
        never_sent: Whether it is sealed for the first time.
    """
    content = pb.SealedContent(app_id=app_id, never_sent=never_sent)
    masked = b""
    if enclave.policy.mode == "masked":
        read = decode_update(update)
        content.pad_seed = secrets.token_bytes(SEED_BYTES)
        delta = [tensor.array() for tensor in read.tensors]
        masked = mask(delta, content.pad_seed, enclave.policy).astype("<u4").tobytes()
        content.update = pb.Update(
            num_examples=read.num_examples,
            loss_before=read.loss_before,
            loss_after=read.loss_after,
        ).SerializeToString()
    else:
        content.update = update
    return pb.SealedUpdate(
        enclave_key_sha256=enclave_key_sha256(enclave.enclave_key),
        sealed=seal(enclave.enclave_key, sealed_for, content.SerializeToString()),
        masked=masked,
    ).SerializeToString()
