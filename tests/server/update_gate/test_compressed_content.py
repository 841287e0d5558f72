"""The content gate and the sums on compressed updates: what is in them, and what is refused."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runtime.compression import UpdateCodec, compress
from device_runtime.encoded_tensors import all_decoded
from device_runtime.protocol import device_pb2 as pb
from device_runtime.sparse_positions import encode_gaps
from device_runtime.update_codec import encode_compressed_update, encode_update
from modeling.zoo import get_model
from server.aggregation.mean import MeanAggregator, add_encoded
from server.coordination.tasks import Release, UpdateReference
from server.update_gate import content
from server.update_gate.content import ContentGate, GatedUpdate
from server.update_gate.envelope import max_payload_bytes
from server.update_gate.rejections import Rejection, RejectionReason
from tests.server.update_examples import (
    FEDAVG,
    MODEL,
    make_delta,
    make_envelope,
    make_job,
    make_payload,
    with_tensor,
)

BLOCKS = {
    "float16": {"name": "float16"},
    "int8": {"name": "int8"},
    "top_k": {"name": "top_k", "fraction": 0.3},
    "top_k_int8": {"name": "top_k", "fraction": 0.5, "values": "int8"},
    "top_k_float32": {"name": "top_k", "fraction": 0.5, "values": "float32"},
}
EVERY = pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
TABLE = get_model("sparse_mlp")


@pytest.fixture(autouse=True, scope="module", params=[content._MOST_DECODED, 0])
def most_decoded(request):
    """Small updates are decoded once, larger ones twice in chunks: nobody can tell which."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(content, "_MOST_DECODED", request.param)
        yield


def job(block, **settings):
    client = {"max_records": 100, "optimizer": {"learning_rate": 0.1}, "compression": block}
    return make_job(client=client, **settings)


def codec_of(block) -> UpdateCodec:
    codec = job(block).client.compression.codec
    assert codec is not None
    return codec


def payload_of(delta, block, model=MODEL) -> bytes:
    return encode_compressed_update(
        model.parameters,
        compress(delta, codec_of(block), seed=3),
        num_examples=10,
        loss_before=0.7,
        loss_after=0.5,
    )


def reason_for(payload: bytes, block, **settings) -> RejectionReason:
    result = ContentGate.of(job(block, **settings), MODEL).check(payload)
    assert isinstance(result, Rejection), result
    assert result.detail
    return result.reason


@EVERY
def test_a_compressed_update_passes_with_the_norm_of_what_is_decoded(block):
    delta = make_delta(3)
    gated = ContentGate.of(job(block), MODEL).check(payload_of(delta, block))
    assert isinstance(gated, GatedUpdate)
    expected = all_decoded(compress(delta, codec_of(block), seed=3)).astype(np.float64)
    assert gated.norm == pytest.approx(np.linalg.norm(expected), rel=1e-12)
    np.testing.assert_array_equal(all_decoded(gated.tensors), expected)


@EVERY
def test_plain_float32_is_taken_from_who_does_not_know_the_codec(block):
    assert isinstance(ContentGate.of(job(block), MODEL).check(make_payload()), GatedUpdate)


@EVERY
@pytest.mark.parametrize("strategy", [None, FEDAVG], ids=["uniform", "examples"])
def test_sums_are_those_of_the_decoded_updates(block, strategy):
    """Real sizes, several chunks a tensor; weights 1 and 10."""
    aggregator = MeanAggregator()
    opened = job(block, strategy=strategy) if strategy else job(block)
    aggregator.open("j-1", opened, TABLE)
    expected = np.zeros(TABLE.parameter_count)
    for seed in (1, 2):
        delta = make_delta(seed, TABLE)
        payload = payload_of(delta, block, TABLE)
        result = aggregator.fold(make_envelope(f"t{seed}", payload=payload), payload)
        assert isinstance(result, UpdateReference), result
        decoded = all_decoded(compress(delta, codec_of(block), seed=3))
        expected += result.weight * decoded.astype(np.float64)
    (partial,) = aggregator.reduce(Release("r1"))
    np.testing.assert_allclose(partial.total, expected, rtol=1e-6, atol=1e-5)


@EVERY
def test_a_refused_update_touches_no_sum(block):
    aggregator = MeanAggregator()
    aggregator.open("j-1", job(block, max_update_norm=0.01), MODEL)
    payload = payload_of(make_delta(1), block)
    result = aggregator.fold(make_envelope("t1", payload=payload), payload)
    assert isinstance(result, Rejection)
    assert result.reason is RejectionReason.NORM_EXCEEDED
    assert aggregator.reduce(Release("r1")) == ()


@EVERY
@pytest.mark.parametrize("model", [MODEL, get_model("tiny_mlp"), TABLE], ids=lambda m: m.name)
def test_no_codec_needs_more_bytes_than_the_envelope_gate_lets_through(block, model):
    assert len(payload_of(make_delta(1, model), block, model)) <= max_payload_bytes(model)


def sparse(positions, values, *, gaps: bytes | None = None, dtype: str = "float16", **tensor):
    """An update whose first tensor, of 6 values, is this; the others carry nothing."""
    nothing = {"data": b"", "gaps": b"", "dtype": "float16"}
    payload = payload_of([np.zeros(p.shape, np.float32) for p in MODEL.parameters], BLOCKS["top_k"])
    encoded = encode_gaps(np.array(positions, np.int64)) if gaps is None else gaps
    data = np.array(values, dtype).tobytes()
    fields = nothing | {"data": data, "gaps": encoded, "dtype": dtype} | tensor
    return with_tensor(payload, **fields)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        pytest.param(sparse([6], [1.0]), RejectionReason.BAD_POSITIONS, id="beyond"),
        pytest.param(sparse([2**34], [1.0]), RejectionReason.BAD_POSITIONS, id="far-beyond"),
        pytest.param(sparse([1], [1.0, 1.0]), RejectionReason.BAD_POSITIONS, id="fewer"),
        pytest.param(sparse([1, 2], [1.0]), RejectionReason.BAD_POSITIONS, id="more"),
        pytest.param(sparse([], [1.0], gaps=b"\x80"), RejectionReason.BAD_POSITIONS, id="cut-off"),
        pytest.param(
            sparse([], [1.0], gaps=b"\x80" * 9 + b"\0"), RejectionReason.BAD_POSITIONS, id="long"
        ),
        pytest.param(sparse([0, 1], [1.0, math.nan]), RejectionReason.NOT_FINITE, id="nan"),
        pytest.param(sparse([0], [math.inf]), RejectionReason.NOT_FINITE, id="infinite"),
        pytest.param(
            sparse(range(5), np.ones(5)), RejectionReason.WRONG_ENCODING, id="more-than-asked"
        ),
        pytest.param(sparse(range(7), np.ones(7)), RejectionReason.MALFORMED, id="more-than-all"),
        pytest.param(sparse([0], [1.0], data=b"123"), RejectionReason.MALFORMED, id="half-a-value"),
        pytest.param(
            sparse([0], [1.0], shape=(2**31, 2**31)), RejectionReason.WRONG_SHAPE, id="shape"
        ),
        pytest.param(
            sparse([0], [1], dtype="int8"), RejectionReason.WRONG_DTYPE, id="other-values"
        ),
        pytest.param(sparse([0], [1], dtype="float64"), RejectionReason.WRONG_DTYPE, id="float64"),
        pytest.param(
            payload_of(make_delta(), BLOCKS["float16"]), RejectionReason.WRONG_ENCODING, id="dense"
        ),
    ],
)
def test_a_hostile_sparse_update_is_refused_with_its_number(payload, reason):
    assert reason_for(payload, BLOCKS["top_k"]) is reason


INT8 = payload_of(make_delta(), BLOCKS["int8"])


def scaled(*scales: float) -> bytes:
    return with_tensor(INT8, scales=np.array(scales, "<f4").tobytes())


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        pytest.param(scaled(math.nan), RejectionReason.BAD_SCALES, id="nan"),
        pytest.param(scaled(math.inf), RejectionReason.BAD_SCALES, id="infinite"),
        pytest.param(scaled(-1.0), RejectionReason.BAD_SCALES, id="negative"),
        pytest.param(scaled(), RejectionReason.BAD_SCALES, id="none"),
        pytest.param(scaled(1.0, 1.0), RejectionReason.BAD_SCALES, id="two"),
        pytest.param(with_tensor(INT8, scales=b"123"), RejectionReason.BAD_SCALES, id="cut-off"),
        pytest.param(scaled(3e38), RejectionReason.NOT_FINITE, id="product-overflows"),
        pytest.param(scaled(1e36), RejectionReason.NORM_EXCEEDED, id="would-overflow-a-sum"),
        pytest.param(with_tensor(INT8, data=b"12345"), RejectionReason.MALFORMED, id="short"),
        pytest.param(
            with_tensor(INT8, gaps=b"\0" * 6), RejectionReason.WRONG_ENCODING, id="sparse"
        ),
        pytest.param(
            payload_of(make_delta(), BLOCKS["float16"]), RejectionReason.WRONG_DTYPE, id="float16"
        ),
    ],
)
def test_a_hostile_int8_update_is_refused_with_its_number(payload, reason):
    assert reason_for(payload, BLOCKS["int8"]) is reason


@EVERY
def test_a_job_that_asks_for_no_codec_takes_none(block):
    reason = reason_for(payload_of(make_delta(), block), {"name": "none"})
    assert reason in {RejectionReason.WRONG_DTYPE, RejectionReason.WRONG_ENCODING}


@given(
    st.sampled_from(sorted(BLOCKS)),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 7)), min_size=1, max_size=12),
)
@settings(max_examples=300)
def test_damaged_updates_are_refused_or_finite_and_within_the_norm(name, flips):
    damaged = bytearray(payload_of(make_delta(), BLOCKS[name]))
    for position, bit in flips:
        damaged[position % len(damaged)] ^= 1 << bit
    gated = ContentGate.of(job(BLOCKS[name], max_update_norm=50.0), MODEL).check(bytes(damaged))
    if isinstance(gated, GatedUpdate):
        total = np.zeros(MODEL.parameter_count, np.float32)
        add_encoded(total, gated.tensors, 1.0, np.empty(256, np.float32))
        assert np.linalg.norm(total.astype(np.float64)) == pytest.approx(gated.norm, rel=1e-5)
        assert gated.norm <= 50.0


def test_tensors_may_each_be_plain():
    """A device sends float32 where it will."""
    mixed = pb.Update.FromString(payload_of(make_delta(1), BLOCKS["int8"]))
    plain = pb.Update.FromString(
        encode_update(MODEL.parameters, make_delta(2), num_examples=1, loss_before=1, loss_after=1)
    )
    mixed.delta.tensors[1].CopyFrom(plain.delta.tensors[1])
    result = ContentGate.of(job(BLOCKS["int8"]), MODEL).check(mixed.SerializeToString())
    assert isinstance(result, GatedUpdate)
