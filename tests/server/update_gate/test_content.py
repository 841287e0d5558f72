import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_runtime.encoded_tensors import decoded
from device_runtime.protocol import device_pb2 as pb
from server.update_gate.content import SUMMABLE_NORM, ContentGate, GatedUpdate, sum_of_squares
from server.update_gate.rejections import Rejection, RejectionReason
from tests.server.update_examples import (
    MODEL,
    changed,
    make_delta,
    make_job,
    make_payload,
    with_tensor,
)

HONEST = make_payload()
KERNEL = MODEL.parameters[0]


def gate(**job) -> ContentGate:
    return ContentGate.of(make_job(**job), MODEL)


def reason_for(payload: bytes, **job) -> RejectionReason:
    result = gate(**job).check(payload)
    assert isinstance(result, Rejection), result
    assert result.detail
    return result.reason


def filled(value: float) -> bytes:
    array = np.zeros(KERNEL.shape, np.float32)
    array.flat[0] = value
    return with_tensor(HONEST, array=array)


def test_an_honest_update_passes_with_its_values_norm_and_losses():
    delta = make_delta(3)
    gated = gate(max_update_norm=100.0).check(make_payload(delta, num_examples=7))
    assert isinstance(gated, GatedUpdate)
    assert gated.num_examples == 7
    assert (gated.loss_before, gated.loss_after) == (0.7, 0.5)
    for tensor, expected in zip(gated.tensors, delta, strict=True):
        np.testing.assert_array_equal(decoded(tensor), expected.ravel())
    flat = np.concatenate([d.ravel() for d in delta]).astype(np.float64)
    assert gated.norm == pytest.approx(np.linalg.norm(flat), rel=1e-14)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        pytest.param(HONEST[:-1], RejectionReason.MALFORMED, id="truncated"),
        pytest.param(HONEST[: len(HONEST) // 2], RejectionReason.MALFORMED, id="half"),
        pytest.param(b"\xff" * 50, RejectionReason.MALFORMED, id="noise"),
        pytest.param(b"", RejectionReason.WRONG_NAMES, id="empty"),
        pytest.param(
            with_tensor(HONEST, data=b"\0" * 23), RejectionReason.MALFORMED, id="bytes-short"
        ),
        pytest.param(
            with_tensor(HONEST, shape=(2, 3) + (1,) * 20), RejectionReason.MALFORMED, id="rank-22"
        ),
        pytest.param(with_tensor(HONEST, name="other"), RejectionReason.WRONG_NAMES, id="name"),
        pytest.param(with_tensor(HONEST, name=""), RejectionReason.WRONG_NAMES, id="no-name"),
        pytest.param(
            with_tensor(HONEST, array=np.zeros((1,), np.float32)),
            RejectionReason.WRONG_SHAPE,
            id="shape-1-no-silent-broadcast",
        ),
        pytest.param(
            with_tensor(HONEST, shape=(3, 2)), RejectionReason.WRONG_SHAPE, id="transposed"
        ),
        pytest.param(with_tensor(HONEST, shape=(6,)), RejectionReason.WRONG_SHAPE, id="rank-1"),
        pytest.param(
            with_tensor(HONEST, shape=(2, 3, 1)), RejectionReason.WRONG_SHAPE, id="rank-3"
        ),
        pytest.param(
            with_tensor(HONEST, array=np.zeros((0,), np.float32)),
            RejectionReason.WRONG_SHAPE,
            id="no-values",
        ),
        pytest.param(
            with_tensor(HONEST, array=np.zeros(KERNEL.shape, np.float64)),
            RejectionReason.WRONG_DTYPE,
            id="float64",
        ),
        pytest.param(
            with_tensor(HONEST, array=np.zeros(KERNEL.shape, np.int32)),
            RejectionReason.WRONG_DTYPE,
            id="int32",
        ),
        pytest.param(
            with_tensor(HONEST, dtype="object"), RejectionReason.WRONG_DTYPE, id="unknown-dtype"
        ),
        pytest.param(filled(math.nan), RejectionReason.NOT_FINITE, id="nan"),
        pytest.param(filled(math.inf), RejectionReason.NOT_FINITE, id="inf"),
        pytest.param(filled(-math.inf), RejectionReason.NOT_FINITE, id="minus-inf"),
        pytest.param(filled(3e38), RejectionReason.NORM_EXCEEDED, id="would-overflow-a-sum"),
        pytest.param(
            changed(HONEST, num_examples=0), RejectionReason.NON_POSITIVE_EXAMPLES, id="no-examples"
        ),
        pytest.param(
            changed(HONEST, num_examples=-90),
            RejectionReason.NON_POSITIVE_EXAMPLES,
            id="negative-examples",
        ),
        pytest.param(
            changed(HONEST, num_examples=10**9),
            RejectionReason.TOO_MANY_EXAMPLES,
            id="1e9-examples",
        ),
    ],
)
def test_a_hostile_update_is_refused_with_its_number(payload, reason):
    assert reason_for(payload) is reason


def test_tensors_missing_repeated_or_in_another_order_are_refused():
    message = pb.Update.FromString(HONEST)
    del message.delta.tensors[-1]
    assert reason_for(message.SerializeToString()) is RejectionReason.WRONG_NAMES
    message = pb.Update.FromString(HONEST)
    message.delta.tensors.add().CopyFrom(message.delta.tensors[0])
    assert reason_for(message.SerializeToString()) is RejectionReason.WRONG_NAMES
    message = pb.Update.FromString(HONEST)
    first, second = message.delta.tensors[0], message.delta.tensors[1]
    first.name, second.name = second.name, first.name
    assert reason_for(message.SerializeToString()) is RejectionReason.WRONG_NAMES


def test_norm_zero_is_legal():
    zeros = [np.zeros(p.shape, np.float32) for p in MODEL.parameters]
    gated = gate(max_update_norm=1.0).check(make_payload(zeros))
    assert isinstance(gated, GatedUpdate)
    assert gated.norm == 0.0


def test_norm_is_measured_in_float64_so_a_finite_1e30_is_too_long_not_infinite():
    result = gate(max_update_norm=5.0).check(filled(1e30))
    assert isinstance(result, Rejection)
    assert result.reason is RejectionReason.NORM_EXCEEDED
    assert "1e+30" in result.detail


def test_the_norm_limit_itself_is_accepted_and_a_hair_more_is_not():
    zeros = [np.zeros(p.shape, np.float32) for p in MODEL.parameters]
    zeros[0].flat[:2] = (3.0, 4.0)
    assert isinstance(gate(max_update_norm=5.0).check(make_payload(zeros)), GatedUpdate)
    assert reason_for(make_payload(zeros), max_update_norm=4.999) is RejectionReason.NORM_EXCEEDED


def test_examples_up_to_the_limit_are_accepted():
    assert isinstance(gate().check(changed(HONEST, num_examples=100)), GatedUpdate)
    assert reason_for(changed(HONEST, num_examples=101)) is RejectionReason.TOO_MANY_EXAMPLES
    assert isinstance(
        gate(max_claimed_examples=5000).check(changed(HONEST, num_examples=5000)), GatedUpdate
    )


def test_losses_that_are_not_finite_are_ignored():
    gated = gate().check(changed(HONEST, loss_before=math.inf, loss_after=math.nan))
    assert isinstance(gated, GatedUpdate)
    assert math.isnan(gated.loss_before)
    assert math.isnan(gated.loss_after)


def test_without_a_limit_of_its_own_a_job_still_refuses_what_float32_sums_cannot_hold():
    by_examples = {"name": "fedavg", "cohort_size": 4, "weighting": "examples"}
    assert gate().max_norm == SUMMABLE_NORM
    assert gate(strategy=by_examples).max_norm == SUMMABLE_NORM / 100


@given(st.lists(st.floats(width=32), min_size=1, max_size=40), st.integers(0, 40_000))
def test_sum_of_squares_is_finite_exactly_when_all_values_are_and_then_right(values, padding):
    array = np.concatenate([np.array(values, np.float32), np.zeros(padding, np.float32)])
    squares = sum_of_squares([array[: array.size // 2], array[array.size // 2 :]])
    assert math.isfinite(squares) == all(math.isfinite(v) for v in values)
    if math.isfinite(squares):
        assert squares == pytest.approx(math.fsum(v * v for v in values), rel=1e-12)
