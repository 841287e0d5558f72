import numpy as np
import pytest

from device_runtime.manifest import InputSpec
from device_runtime.update_codec import encode_update, sha256_of
from modeling.spec import Dense, ModelSpec
from server.gateway.tokens import TaskClaims
from server.update_gate.envelope import (
    UploadEnvelope,
    check_bytes,
    check_lessee,
    check_other_digest,
    max_payload_bytes,
)
from server.update_gate.rejections import Rejection, RejectionReason
from tests.server.update_examples import MODEL, make_payload

CLAIMS = TaskClaims("t-1", "j-1", "g-1", 0, "d-1", "boot", 0, ())
PAYLOAD = make_payload()
CONTRACT = b"c" * 32


def reason(result: object) -> RejectionReason:
    assert isinstance(result, Rejection), result
    assert result.detail
    return result.reason


def check(payload=PAYLOAD, digest=None, contract=CONTRACT, max_bytes=10_000):
    upload = UploadEnvelope(sha256_of(payload) if digest is None else digest, contract, payload)
    return check_bytes(upload, contract_sha256=CONTRACT, max_bytes=max_bytes)


def test_the_lessees_own_genuine_token_passes():
    assert check_lessee(CLAIMS, "d-1") is CLAIMS
    assert check() is None


def test_each_fault_has_its_number():
    assert reason(check_lessee(None, "d-1")) is RejectionReason.UNKNOWN_TASK
    assert reason(check_lessee(CLAIMS, "d-2")) is RejectionReason.WRONG_CLIENT
    assert reason(check(contract=b"")) is RejectionReason.CONTRACT_MISMATCH
    assert reason(check(max_bytes=len(PAYLOAD) - 1)) is RejectionReason.TOO_LARGE
    assert reason(check(digest=b"")) is RejectionReason.DIGEST_MISMATCH
    assert reason(check(digest=b"x" * 32)) is RejectionReason.DIGEST_MISMATCH
    other = check_other_digest(b"a" * 32, b"b" * 32)
    assert reason(other) is RejectionReason.ANSWERED_WITH_OTHER_DIGEST
    assert check_other_digest(b"a" * 32, b"a" * 32) is None


@pytest.mark.parametrize("width", [1, 7, 300])
def test_every_honest_update_fits_and_one_with_another_layer_does_not(width):
    name = "a layer with quite a long name of its own, and a slash/"
    layers = tuple(Dense(f"{name}{n}", width, width, "relu") for n in range(4))
    model = ModelSpec(
        "m", layers, InputSpec("x", (width,), "float32"), (1,), "binary_cross_entropy", "auprc"
    )
    delta = [np.full(p.shape, -1.5, np.float32) for p in model.parameters]
    payload = encode_update(
        model.parameters, delta, num_examples=2**62, loss_before=1.5, loss_after=2.5
    )
    assert len(payload) <= max_payload_bytes(model)
    assert max_payload_bytes(model) < 4 * model.parameter_count + 8 * 250
    assert len(PAYLOAD) <= max_payload_bytes(MODEL)
