"""Masked mode: the host's sum of padded updates less the enclave's pads is exact."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runtime.masking import from_fixed_point, mask, pad, to_fixed_point
from device_runtime.protocol import device_pb2 as pb
from device_runtime.release_policy import InvalidReleasePolicy, ReleasePolicy
from server.secure_aggregation.masked_sums import MaskedSums, SumsDisagree
from server.secure_aggregation.service import EnclaveService, budget_message, budget_of
from server.update_gate.rejections import Rejection, RejectionReason
from tests.server.secure_aggregation.secure_devices import JOB_ID, SIZE, SecureWorld, secure_job


def policy(**changed):
    fields = {
        "mode": "masked",
        "release_threshold": 2,
        "max_share_per_device": 1.0,
        "clip_value": 1.0,
        "max_updates": 100,
        "staleness_steps": 64,
    }
    return ReleasePolicy(**(fields | changed))


class Host:
    """A gateway's half in this process, on an enclave's servicer."""

    def __init__(self, world):
        self.world = world
        self.sums = MaskedSums(SIZE, world.policy)
        self.service = EnclaveService(world.enclave)

    def fold(self, task, values, **more):
        envelope, payload = self.world.sealed(task, values, **more)
        parted = self.sums.part(payload)
        folded = self.world.enclave.fold(envelope, parted.sealed)
        if not isinstance(folded, Rejection):
            self.sums.add(task, envelope.base_version, parted.values)
        return folded

    def release(self, release_id, version):
        from server.secure_aggregation import enclave_pb2 as enclave_pb

        world = self.world
        prepared = self.service.Prepare(
            enclave_pb.PrepareRequest(
                job_id=JOB_ID,
                release_id=release_id,
                version=version,
                budget=budget_message(world.budget),
            ),
            None,
        )
        world.budget = budget_of(prepared.next)
        self.sums.freeze()
        reply = self.service.Release(
            enclave_pb.ReleaseRequest(job_id=JOB_ID, release_id=release_id, receipt=prepared.next),
            None,
        )
        return self.sums.released(reply)


@pytest.fixture
def host():
    return Host(SecureWorld(secure_job("masked")))


def quantised(values, rules):
    """Independent of the code: nearest multiple of 1 / scale, within the clip value, in float64."""
    steps = np.round(np.asarray(values, np.float64) * rules.scale)
    most = np.floor(rules.clip_value * rules.scale)
    return np.clip(steps, -most, most) / rules.scale


def test_the_sum_is_exact_in_fixed_point(host):
    rules = host.world.policy
    values = {f"t{i}": np.random.default_rng(i).normal(0, 0.1, SIZE) for i in range(5)}
    for task, value in values.items():
        host.fold(task, value)
    partial = host.release("r1", 0)
    expected = sum(quantised(np.float32(value), rules) for value in values.values())
    np.testing.assert_array_equal(partial.total, expected.astype(np.float32))
    assert partial.weight == 5.0


def test_staleness_factors_are_multiples_of_a_64th(host):
    rules = host.world.policy
    values = {"a": np.full(SIZE, 0.25), "b": np.full(SIZE, 0.5), "c": np.full(SIZE, -0.125)}
    for base_version, (task, value) in enumerate(values.items()):
        host.fold(task, value, base_version=base_version)
    partial = host.release("r1", 2)
    factors = [round(64 * 3**-0.5) / 64, round(64 * 2**-0.5) / 64, 1.0]
    expected = sum(f * quantised(v, rules) for f, v in zip(factors, values.values(), strict=True))
    np.testing.assert_array_equal(partial.total, expected.astype(np.float32))


@settings(max_examples=60)
@given(
    st.integers(2, 2**13),
    st.integers(1, 2**9),
    st.floats(1e-4, 1e4),
    st.sampled_from([1.0, -1.0]),
)
def test_the_fullest_aggregate_of_the_largest_values_does_not_wrap(most, steps, clip, sign):
    rules = policy(max_updates=most, staleness_steps=steps, clip_value=clip)
    largest = to_fixed_point(np.full(3, sign * 1e30, np.float32), rules)
    total = largest * np.uint32(steps) * np.uint32(most)
    exact = int(largest.view(np.int32)[0]) * steps * most
    assert -(2**31) < exact < 2**31
    assert total.view(np.int32)[0] == exact
    np.testing.assert_allclose(from_fixed_point(total, rules), sign * clip * most, rtol=0.6)


def test_a_policy_that_leaves_few_bits_for_an_update_is_refused():
    with pytest.raises(InvalidReleasePolicy, match="leaves 31 steps"):
        policy(max_updates=2**20, staleness_steps=64, clip_value=31 / 32)


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16))
def test_pads_are_of_their_seed_alone(seed, other):
    assert (pad(seed, 100) == pad(seed, 100)).all()
    np.testing.assert_array_equal(pad(seed, 1000)[:100], pad(seed, 100))
    if seed != other:
        assert (pad(seed, 100) != pad(other, 100)).any()


def test_a_pad_is_the_standards_key_stream():
    # NIST SP 800-38A, F.5.1 has another counter; this is AES-128 of the zero block under a zero
    # key, FIPS 197's own known answer.
    assert pad(bytes(16), 4).astype("<u4").tobytes().hex() == "66e94bd4ef8a2c3b884cfa59ca342b2e"


def test_a_masked_update_looks_like_noise():
    rules = policy()
    masked = mask([np.zeros(100_000, np.float32)], b"0123456789abcdef", rules)
    assert abs(masked.astype(np.float64).mean() / 2**32 - 0.5) < 0.01
    ones = np.unpackbits(masked.view(np.uint8)).mean()
    assert abs(ones - 0.5) < 0.005


def test_what_goes_into_the_enclave_does_not_grow_with_the_model(host):
    _, payload = host.world.sealed("t1", np.zeros(SIZE))
    parted = host.sums.part(payload)
    assert len(parted.sealed) < 200
    assert not pb.SealedUpdate.FromString(parted.sealed).masked


def test_wrong_sizes_seeds_and_full_aggregates_are_refused(host):
    _, payload = host.world.sealed("t1", np.zeros(SIZE))
    message = pb.SealedUpdate.FromString(payload)
    message.masked = message.masked[:-4]
    refused = host.sums.part(message.SerializeToString())
    assert refused.reason is RejectionReason.WRONG_MASKED_SIZE
    assert host.sums.part(b"\xff\xff").reason is RejectionReason.NOT_SEALED
    most = host.world.policy.max_updates
    for number in range(most):
        assert not isinstance(host.fold(f"t{number}", np.zeros(SIZE)), Rejection)
    assert host.fold("more", np.zeros(SIZE)).reason is RejectionReason.AGGREGATE_FULL


def test_an_update_in_the_clear_is_refused(host):
    """As an old runtime, or one that does not mask, would send it."""
    from device_runtime.secure_updates import VerifiedEnclave, seal_update

    enclave_mode = SecureWorld(secure_job("enclave"))
    plain = VerifiedEnclave(host.world.verified.enclave_key, enclave_mode.policy)
    envelope, _ = host.world.sealed("t1", np.zeros(SIZE))
    sealed_for = pb.SealedFor(task_id="t1", job_id=JOB_ID, device_id=envelope.client_id)
    update = pb.Update(num_examples=10)
    update.delta.tensors.add(name="x", dtype="float32", shape=[1], data=bytes(4))
    payload = seal_update(plain, sealed_for, "app", update.SerializeToString())
    folded = host.world.enclave.fold(envelope, payload)
    assert folded.reason is RejectionReason.MALFORMED_CONTENT


def test_sums_of_other_updates_are_not_unmasked(host):
    for task in ("a", "b", "c"):
        host.fold(task, np.zeros(SIZE))
    host.sums.add("d", 0, np.zeros(SIZE, np.uint32))
    with pytest.raises(SumsDisagree):
        host.release("r1", 0)


def test_a_repeated_upload_is_summed_once(host):
    envelope, payload = host.world.sealed("a", np.full(SIZE, 0.5))
    for _ in range(2):
        parted = host.sums.part(payload)
        host.world.enclave.fold(envelope, parted.sealed)
        host.sums.add("a", 0, parted.values)
    for task in ("b", "c"):
        host.fold(task, np.zeros(SIZE))
    np.testing.assert_array_equal(host.release("r1", 0).total, np.full(SIZE, 0.5, np.float32))
