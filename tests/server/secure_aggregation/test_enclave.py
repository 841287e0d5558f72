"""What an enclave takes in and lets out, told by sums in float64."""

import numpy as np
import pytest

from device_runtime.compression import UpdateCodec, compress
from device_runtime.encoded_tensors import all_decoded
from device_runtime.protocol import device_pb2 as pb
from device_runtime.update_codec import encode_compressed_update, flatten, unflatten
from server.aggregation.aggregator import Envelope
from server.coordination.tasks import Release
from server.secure_aggregation.enclave import Enclave
from server.secure_aggregation.release_budget import ReleaseBudget
from server.secure_aggregation.release_rules import ReleaseRefusal, ReleaseRefused
from server.update_gate.rejections import Rejection, RejectionReason
from tests.server.secure_aggregation.secure_devices import (
    JOB_ID,
    SIZE,
    SecureWorld,
    TestAttester,
    delta,
    secure_job,
)
from tests.server.update_examples import MODEL, make_delta, make_job, make_payload


def refusal(call, *arguments):
    with pytest.raises(ReleaseRefused) as caught:
        call(*arguments)
    return caught.value.refusal


def reason(result):
    assert isinstance(result, Rejection), result
    return result.reason


@pytest.fixture
def world():
    return SecureWorld(secure_job())


def test_the_aggregate_is_the_weighted_sum_with_staleness_factors(world):
    deltas = {f"t{i}": delta(i) for i in range(5)}
    bases = {"t0": 0, "t1": 0, "t2": 1, "t3": 3, "t4": 3}
    for task, value in deltas.items():
        world.fold(task, value, base_version=bases[task])
    released = world.release("r1", 3)
    expected = sum(
        (1.0 + 3 - bases[task]) ** -0.5 * value.astype(np.float64) for task, value in deltas.items()
    )
    np.testing.assert_allclose(released.aggregate.total, expected, rtol=1e-6, atol=1e-6)
    assert released.aggregate.weight == 5.0
    assert set(released.task_ids) == set(deltas)


def test_what_comes_back_of_one_update_tells_nothing_of_its_values(world):
    reference = world.fold("t1", delta(1))
    assert reference.update_norm == 0.0
    assert np.isnan(reference.loss_before)
    assert np.isnan(reference.loss_after)
    assert reference.num_examples == 10


def test_the_content_gate_is_inside():
    world = SecureWorld(secure_job(robustness={"max_update_norm": 1.0}))
    assert reason(world.fold("t1", np.full(SIZE, 9.0))) is RejectionReason.NORM_EXCEEDED
    assert reason(world.fold("t2", np.full(SIZE, np.nan))) is RejectionReason.NOT_FINITE
    assert reason(world.fold("t3", delta(1), examples=10**9)) is RejectionReason.TOO_MANY_EXAMPLES


def test_below_the_threshold_of_distinct_devices_nothing_leaves(world):
    for task in ("t1", "t2", "t3", "t4"):
        world.fold(task, delta(1), device="d1" if task in {"t1", "t2"} else "d2")
    prepare = world.enclave.prepare
    assert refusal(prepare, JOB_ID, "r1", 0, world.budget) is ReleaseRefusal.TOO_FEW_DEVICES
    world.fold("t5", delta(2))
    assert len(world.release("r2", 0).task_ids) == 5


def test_an_update_counts_once_however_often_it_comes(world):
    envelope, payload = world.sealed("t1", delta(1))
    first = world.enclave.fold(envelope, payload)
    assert world.enclave.fold(envelope, payload) == first
    assert world.enclave.fold(*world.sealed("t1", delta(1))) == first
    for i in range(2, 5):
        world.fold(f"t{i}", np.zeros(SIZE))
    np.testing.assert_allclose(world.release("r1", 0).aggregate.total, delta(1), rtol=1e-6)
    assert reason(world.enclave.fold(envelope, payload)) is RejectionReason.ALREADY_RELEASED
    world.enclave.commit("r1")
    assert reason(world.enclave.fold(envelope, payload)) is RejectionReason.ALREADY_RELEASED


@pytest.mark.parametrize(
    "change",
    [
        {"task_id": "other"},
        {"client_id": "other"},
        {"base_version": 1},
    ],
)
def test_an_update_opens_only_as_what_it_was_sealed_for(world, change):
    envelope, payload = world.sealed("t1", delta(1))
    fields = {
        "task_id": envelope.task_id,
        "client_id": envelope.client_id,
        "base_version": 0,
        "payload_sha256": b"",
    }
    moved = Envelope(**(fields | change))
    assert reason(world.enclave.fold(moved, payload)) is RejectionReason.NOT_OPENED


def test_a_codec_that_is_not_the_jobs_does_not_open(world):
    result = world.enclave.fold(*world.sealed("t1", delta(1), codec="int8"))
    assert reason(result) is RejectionReason.NOT_OPENED


def test_plain_and_malformed_updates_are_refused(world):
    envelope, payload = world.sealed("t1", delta(1))
    fold = world.enclave.fold
    assert reason(fold(envelope, b"\xff\xff")) is RejectionReason.NOT_SEALED
    assert reason(fold(envelope, b"")) is RejectionReason.NOT_SEALED
    other = pb.SealedUpdate.FromString(payload)
    other.enclave_key_sha256 = bytes(32)
    assert reason(fold(envelope, other.SerializeToString())) is RejectionReason.OTHER_ENCLAVE_KEY
    cut = pb.SealedUpdate.FromString(payload)
    cut.sealed = cut.sealed[:20]
    assert reason(fold(envelope, cut.SerializeToString())) is RejectionReason.NOT_OPENED
    assert reason(world.fold("t1", delta(1), app="")) is RejectionReason.UNKNOWN_HOST_APP


def test_a_new_boot_has_another_key(world):
    envelope, payload = world.sealed("t1", delta(1))
    again = SecureWorld(world.job)
    assert reason(again.enclave.fold(envelope, payload)) is RejectionReason.OTHER_ENCLAVE_KEY
    assert again.enclave.boot_id != world.enclave.boot_id


# -- the budget ------------------------------------------------------------------------------------


def filled(world, names="abcd", base_version=0):
    for name in names:
        world.fold(name, delta(ord(name)), base_version=base_version)
    return world


def test_nothing_is_taken_before_the_budget_is_told():
    enclave = Enclave(TestAttester())
    enclave.open(JOB_ID, secure_job(), MODEL)
    other = SecureWorld(secure_job(), enclave=enclave)
    fresh = Enclave(TestAttester())
    fresh.open(JOB_ID, secure_job(), MODEL)
    other.enclave = fresh
    assert reason(other.fold("t1", delta(1))) is RejectionReason.UNKNOWN_TASK
    assert refusal(fresh.prepare, JOB_ID, "r", 0, other.budget) is ReleaseRefusal.NO_BUDGET


def test_one_release_a_version(world):
    filled(world).release("r1", 0)
    world.enclave.commit("r1")
    filled(world, "efgh", base_version=1)
    prepare = world.enclave.prepare
    assert refusal(prepare, JOB_ID, "r2", 0, world.budget) is ReleaseRefusal.VERSION_RELEASED
    assert len(world.release("r3", 1).task_ids) == 4


def test_what_is_let_out_waits_for_the_catalog(world):
    before = filled(world).budget
    following = world.enclave.prepare(JOB_ID, "r1", 0, before)
    release = world.enclave.release
    assert refusal(release, JOB_ID, "r1", before) is ReleaseRefusal.WRONG_RECEIPT
    assert refusal(release, JOB_ID, "r2", following) is ReleaseRefusal.NOT_PREPARED
    assert len(release(JOB_ID, "r1", following).task_ids) == 4


def test_a_new_coordinator_gets_the_same_aggregate_and_nothing_beside_it(world):
    first = filled(world).release("r1", 0)
    world.enclave.thaw("r1")
    filled(world, "efgh")
    again = world.release("r2", 0)
    assert set(again.task_ids) == set(first.task_ids)
    np.testing.assert_array_equal(again.aggregate.total, first.aggregate.total)
    world.enclave.commit("r2")
    assert set(world.release("r3", 1).task_ids) == set("efgh")


def test_prepared_and_stored_but_never_fetched_is_fetched_by_whoever_asks_next(world):
    following = filled(world).enclave.prepare(JOB_ID, "r1", 0, world.budget)
    world.budget = following  # the catalog has it; the gateway died before it fetched
    assert set(world.release("r2", 0).task_ids) == set("abcd")


def test_prepared_and_not_stored_is_prepared_anew(world):
    filled(world).enclave.prepare(JOB_ID, "r1", 0, world.budget)
    assert set(world.release("r2", 0).task_ids) == set("abcd")


def test_a_restarted_enclave_releases_no_version_twice_and_takes_no_update_twice(world):
    filled(world).release("r1", 0)
    again = SecureWorld(world.job, budget=world.budget)
    assert reason(again.fold("a", delta(1))) is RejectionReason.VERSION_RELEASED
    filled(again, "efgh", base_version=1)
    prepare = again.enclave.prepare
    assert refusal(prepare, JOB_ID, "r2", 0, again.budget) is ReleaseRefusal.VERSION_RELEASED
    assert len(again.release("r3", 1).task_ids) == 4


def test_a_restarted_enclave_takes_what_was_never_sent_before(world):
    """Devices that were still training when it died: no earlier boot can have their updates."""
    filled(world).release("r1", 0)
    again = SecureWorld(world.job, budget=world.budget)
    again.fold("x", delta(1), base_version=0, never_sent=True)
    filled(again, "efg", base_version=1)
    assert set(again.release("r2", 1).task_ids) == set("xefg")
    envelope, payload = again.sealed("x", delta(1), base_version=0, never_sent=True)
    assert reason(again.enclave.fold(envelope, payload)) is RejectionReason.ALREADY_RELEASED


def test_a_budget_that_went_back_is_refused(world):
    unspent = world.budget
    filled(world).release("r1", 0)
    filled(world, "efgh", base_version=1)
    prepare = world.enclave.prepare
    assert refusal(prepare, JOB_ID, "r2", 1, unspent) is ReleaseRefusal.BUDGET_ROLLED_BACK
    assert refusal(world.enclave.begin, JOB_ID, unspent) is ReleaseRefusal.BUDGET_ROLLED_BACK


@pytest.mark.parametrize("field", ["version", "state"])
def test_every_altered_field_of_a_budget_is_refused(world, field):
    filled(world).release("r1", 0)
    good = world.budget
    flipped = bytes([good.state[0] ^ 1]) + good.state[1:]
    altered = (
        ReleaseBudget(good.version + 1, good.state)
        if field == "version"
        else ReleaseBudget(good.version, flipped)
    )
    filled(world, "efgh", base_version=1)
    prepare = world.enclave.prepare
    assert refusal(prepare, JOB_ID, "r2", 1, altered) is ReleaseRefusal.BUDGET_ROLLED_BACK


def test_malformed_requests_are_refused(world):
    enclave = world.enclave
    assert refusal(enclave.attest, JOB_ID, b"short") is ReleaseRefusal.MALFORMED_REQUEST
    assert refusal(enclave.attest, "other", bytes(32)) is ReleaseRefusal.UNKNOWN_JOB
    short = ReleaseBudget(0, b"short")
    assert refusal(enclave.begin, JOB_ID, short) is ReleaseRefusal.MALFORMED_REQUEST
    assert refusal(enclave.reduce, Release("r1")) is ReleaseRefusal.NOT_PREPARED


def test_a_gateway_that_begins_anew_finds_empty_sums_and_the_same_key(world):
    key = world.verified.enclave_key
    filled(world)
    world.enclave.forget()
    world.enclave.open(JOB_ID, world.job, MODEL)
    world.enclave.begin(JOB_ID, world.budget)
    assert world.enclave.held() == ()
    assert world.verified.enclave_key == key
    assert set(filled(world).release("r1", 0).task_ids) == set("abcd")


def test_a_gateway_that_died_between_store_and_fetch_loses_that_buffer_only(world):
    world.budget = filled(world).enclave.prepare(JOB_ID, "r1", 0, world.budget)
    world.enclave.forget()
    world.enclave.begin(JOB_ID, world.budget)
    assert reason(world.fold("a", delta(1))) is RejectionReason.ALREADY_RELEASED
    assert len(filled(world, "efgh", base_version=1).release("r2", 1).task_ids) == 4


# -- noise, plain jobs -----------------------------------------------------------------------------


def test_noise_is_added_inside():
    noise = np.random.default_rng(5).normal(size=SIZE).astype(np.float32)
    world = SecureWorld(secure_job(), noise=lambda size: noise[:size])
    for name in "abcd":
        world.fold(name, np.zeros(SIZE))
    np.testing.assert_array_equal(world.release("r1", 0).aggregate.total, noise)


def test_longer_updates_are_clipped_inside():
    world = SecureWorld(secure_job(), clip_norm=2.0)
    values = [delta(number) * scale for number, scale in enumerate((0.01, 1.0, 50.0, 3.0))]
    for number, value in enumerate(values):
        world.fold(f"t{number}", value)
    norms = [np.linalg.norm(value.astype(np.float64)) for value in values]
    assert norms[0] < 2.0 < norms[2]
    expected = sum(v * min(1.0, 2.0 / n) for v, n in zip(values, norms, strict=True))
    released = world.release("r1", 0)
    np.testing.assert_allclose(released.aggregate.total, expected, rtol=1e-5, atol=1e-6)
    assert released.aggregate.weight == 4.0


def test_a_dropped_version_leaves_the_aggregate(world):
    filled(world, "abc")
    filled(world, "defg", base_version=1)
    assert set(world.enclave.drop(0)) == set("abc")
    released = world.release("r1", 1)
    assert set(released.task_ids) == set("defg")
    expected = sum(delta(ord(name)).astype(np.float64) for name in "defg")
    np.testing.assert_allclose(released.aggregate.total, expected, rtol=1e-5, atol=1e-6)


def test_a_job_without_secure_aggregation_is_summed_as_ever():
    enclave = Enclave(TestAttester())
    enclave.open("j-plain", make_job(), MODEL)
    enclave.fold(Envelope("t1", "d1", 0, b""), make_payload())
    (partial,) = enclave.reduce(Release("r1"))
    np.testing.assert_allclose(partial.total, 1.0 * flatten(make_delta()), rtol=1e-6)
    assert refusal(enclave.attest, "j-plain", bytes(32)) is ReleaseRefusal.UNKNOWN_JOB


@pytest.mark.parametrize("codec", ["int8", "float16"])
def test_a_compressed_update_is_opened_and_decoded_inside(codec):
    job = secure_job()
    job = type(job).model_validate(
        job.model_dump()
        | {"client": {"optimizer": {"learning_rate": 0.1}, "compression": {"name": codec}}}
    )
    world = SecureWorld(job)
    expected = np.zeros(SIZE)
    for number in range(4):
        tensors = compress(
            unflatten(MODEL.parameters, delta(number)), UpdateCodec(codec), seed=number
        )
        update = encode_compressed_update(
            MODEL.parameters, tensors, num_examples=10, loss_before=0.7, loss_after=0.6
        )
        expected += all_decoded(tensors)
        world.enclave.fold(*world.sealed_update(f"t{number}", update, codec=codec))
    released = world.release("r1", 0)
    np.testing.assert_allclose(released.aggregate.total, expected, rtol=1e-5, atol=1e-6)


# -- found by review -------------------------------------------------------------------------------


def test_sums_of_a_host_app_whose_updates_were_dropped_are_gone():
    world = SecureWorld(secure_job(robustness={"max_share_per_host_app": 0.6}))
    for name in "abcd":
        world.fold(name, delta(ord(name)), app="mail", base_version=1)
        world.fold(name.upper(), delta(ord(name)), app="maps", base_version=1)
    world.fold("z", delta(9), app="notes", base_version=0)
    assert world.enclave.drop(0) == ("z",)
    released = world.release("r1", 1)
    assert len(released.task_ids) == 8
    expected = 2 * sum(delta(ord(name)).astype(np.float64) for name in "abcd")
    np.testing.assert_allclose(released.aggregate.total, expected, rtol=1e-5, atol=1e-6)
    world.enclave.commit("r1")
    world.fold("y", delta(8), app="notes", base_version=2)
    prepare = world.enclave.prepare
    assert refusal(prepare, JOB_ID, "r2", 2, world.budget) is ReleaseRefusal.TOO_FEW_DEVICES


def test_a_share_is_of_what_an_update_weighs_in_the_sum():
    """Nineteen updates that are stale and weigh nothing hide nobody."""
    strategy = {
        "name": "fedbuff",
        "buffer_size": 4,
        "concurrency": 30,
        "max_staleness": 20,
        "staleness_weight": {"name": "polynomial", "exponent": 20},
    }
    world = SecureWorld(secure_job(strategy=strategy))
    for number in range(19):
        world.fold(f"t{number}", delta(number), base_version=0)
    world.fold("fresh", delta(99), base_version=9)
    prepare = world.enclave.prepare
    assert refusal(prepare, JOB_ID, "r1", 9, world.budget) is ReleaseRefusal.DEVICE_SHARE


def test_a_version_older_than_what_is_held_is_refused(world):
    filled(world, base_version=3)
    prepare = world.enclave.prepare
    assert refusal(prepare, JOB_ID, "r1", 2, world.budget) is ReleaseRefusal.MALFORMED_REQUEST
    assert len(world.release("r2", 3).task_ids) == 4


def test_an_aggregate_of_a_version_that_is_dropped_is_not_let_out_again(world):
    """Its round was passed over: the next round's aggregate is of the next round."""
    first = filled(world).release("r1", 0)
    assert set(world.enclave.drop(0)) == set(first.task_ids)
    filled(world, "efgh", base_version=1)
    assert set(world.release("r2", 1).task_ids) == set("efgh")


def test_a_refusal_says_no_value_of_the_update():
    world = SecureWorld(secure_job(robustness={"max_update_norm": 1.0}))
    refused = world.fold("t1", np.full(SIZE, 9.0))
    assert not any(digit in refused.detail for digit in "0123456789")
