import numpy as np
import pytest

from device_runtime.protocol import device_pb2 as device_pb
from device_runtime.update_codec import sha256_of
from server.coordination.selection import shuffle_seed
from server.coordination.tasks import Outcome
from server.fleet_protocol import fleet_pb2 as pb
from server.gateway.answers import Answer
from server.gateway.task_book import TaskCost
from server.update_gate.rejections import RejectionReason
from tests.server.gateway.desk import (
    ARTIFACT,
    CONTRACT,
    MANIFEST,
    Desk,
    StoredOutcomes,
    opened,
    parameters_of,
)
from tests.server.update_examples import FEDAVG, changed, make_delta, make_job, make_payload

Verdict = device_pb.UploadResponse
State = device_pb.Settlement
A, B = make_payload(make_delta(1)), make_payload(make_delta(2))


@pytest.fixture
def desk() -> Desk:
    return opened()


# -- leasing ---------------------------------------------------------------------------------------


def test_a_task_says_what_to_train_on_and_its_token_may_fetch_just_that(desk):
    task = desk.lease()
    assert (task.job_id, task.base_version) == ("j-1", 1)
    assert task.parameters_sha256 == parameters_of(1)
    assert (task.artifact_sha256, task.manifest_sha256) == (ARTIFACT, MANIFEST)
    assert task.contract_sha256 == CONTRACT
    assert task.deadline_ms == int((desk.now_s + 60) * 1000)
    claims = desk.mint.open_task(task.token)
    assert set(claims.blobs) == {parameters_of(1), ARTIFACT, MANIFEST}
    assert (claims.task_id, claims.device_id, claims.boot_id) == (task.task_id, "d1", "boot-1")


def test_the_plan_follows_job_and_base_version():
    optimizer = {
        "learning_rate": 0.5,
        "schedule": {"name": "exponential", "decay": 0.5, "every": 2},
    }
    desk = opened(
        client={"local_epochs": 3, "batch_size": 7, "max_records": 9, "optimizer": optimizer},
        seed=5,
    )
    desk.set_model(4)
    task = desk.lease()
    plan = task.plan
    assert (plan.local_epochs, plan.batch_size, plan.max_records) == (3, 7, 9)
    assert plan.learning_rate == 0.125
    assert plan.proximal_mu == 0
    assert plan.shuffle_seed == shuffle_seed(5, task.task_id)


def test_a_lease_is_told_to_the_coordinator(desk):
    task = desk.lease()
    (leased,) = desk.progress().leased
    assert (leased.task_id, leased.grant_id) == (task.task_id, "g1")
    assert (leased.client_id, leased.base_version) == ("d1", 1)


def test_no_more_tasks_are_leased_than_slots_granted(desk):
    tasks = [desk.check_in(f"d{n}").task for n in range(12)]
    assert sum(task is not None for task in tasks) == 8
    desk.grant(2)
    assert desk.check_in("d11").task is not None


def test_nothing_is_leased_beyond_capacity():
    desk = opened(capacity=3)
    tasks = [desk.check_in(f"d{n}").task for n in range(5)]
    assert sum(task is not None for task in tasks) == 3


def test_a_device_that_lost_the_answer_gets_the_same_task_and_token_again(desk):
    assert desk.lease() == desk.lease()
    assert len(desk.progress().leased) == 1


def test_a_device_that_keeps_the_tasks_update_is_told_to_upload_it_and_handed_nothing(desk):
    task = desk.lease()
    assert desk.settle(task, A).state == State.UPLOAD_AGAIN
    assert desk.check_in(pending=(task.task_id,)).task is None


def test_a_device_that_does_not_name_the_jobs_policy_is_told_it(desk):
    answer = desk.state.check_in("d1", b"", (), desk.now_s)
    assert answer.task is None
    assert answer.policy.policy_sha256 == desk.policy.sha256()
    assert answer.policy.policy_json == desk.policy.to_json()


def test_with_no_job_open_devices_are_only_told_when_to_come_back():
    answer = Desk().check_in()
    assert answer.task is None
    assert answer.policy is None
    assert answer.come_back_after_s > 0


def test_unpinned_tasks_train_on_the_newest_version_at_lease_time(desk):
    desk.set_model(2)
    assert desk.lease().base_version == 2


def test_pinned_tasks_train_on_their_version():
    desk = Desk()
    desk.open(make_job(strategy=FEDAVG))
    desk.set_model(1)
    desk.grant(3, "round", pinned_to=1)
    desk.set_model(2, oldest_live=1)
    assert desk.lease().base_version == 1


def test_a_client_takes_part_once_in_a_round():
    desk = Desk()
    desk.open(make_job(strategy=FEDAVG))
    desk.set_model(1)
    desk.grant(3, "round", pinned_to=1)
    desk.upload(desk.lease(), A)
    assert desk.check_in().task is None
    desk.grant(3, "more of it", pinned_to=1)
    assert desk.check_in().task is None
    assert desk.check_in("d2").task is not None
    desk.cancel("round")
    desk.cancel("more of it")
    desk.grant(3, "next", pinned_to=1)
    assert desk.check_in().task is not None


def test_a_client_of_an_asynchronous_job_takes_part_again_and_again(desk):
    for seed in range(3):
        desk.upload(desk.lease(), make_payload(make_delta(seed)))
    assert len(desk.progress().completed) == 3


# -- uploads ---------------------------------------------------------------------------------------


def test_an_accepted_update_is_counted_and_held(desk):
    task = desk.lease()
    response = desk.upload(task, A)
    assert response.verdict == Verdict.ACCEPTED
    assert desk.settle(task, A).state == State.HELD
    (completed,) = desk.progress().completed
    assert (completed.task_id, completed.grant_id) == (task.task_id, "g1")
    assert (completed.num_examples, completed.weight) == (10, 1.0)
    assert completed.payload_sha256 == sha256_of(A)
    assert (completed.train_s, completed.bytes_down, completed.bytes_up) == (2.0, 7, len(A))


def test_the_same_upload_twice_gets_the_first_answer_and_counts_once(desk):
    task = desk.lease()
    assert desk.upload(task, A).verdict == Verdict.ACCEPTED
    assert desk.upload(task, A).verdict == Verdict.ACCEPTED
    _, partial = desk.release()
    assert partial.buckets[0].weight == 1.0
    assert desk.upload(task, A).verdict == Verdict.ACCEPTED
    desk.commit()
    assert desk.upload(task, A).verdict == Verdict.COMMITTED
    assert desk.release("r2")[1].buckets == []


@pytest.mark.parametrize("when", ["held", "frozen", "committed", "rejected"])
def test_another_digest_for_an_answered_task_is_refused(desk, when):
    task = desk.lease()
    first = changed(A, num_examples=10**9) if when == "rejected" else A
    desk.upload(task, first)
    if when in {"frozen", "committed"}:
        desk.release()
    if when == "committed":
        desk.commit()
    response = desk.upload(task, B)
    assert response.verdict == Verdict.REJECTED
    assert response.reason_code == RejectionReason.ANSWERED_WITH_OTHER_DIGEST
    assert desk.counted[("refused", "answered_with_other_digest")] == 1


def test_a_refused_update_ends_its_task_with_the_number_and_repeats_say_the_same(desk):
    task = desk.lease()
    bad = changed(A, num_examples=10**9)
    for _ in range(2):
        response = desk.upload(task, bad)
        assert response.verdict == Verdict.REJECTED
        assert response.reason_code == RejectionReason.TOO_MANY_EXAMPLES
    (ended,) = desk.progress().ended
    assert (ended.outcome, ended.reason) == ("rejected", "too_many_examples")
    assert ended.reason_code == 2108
    assert ended.payload_sha256 == sha256_of(bad)
    assert desk.counted == {("rejected", "too_many_examples"): 1}
    assert desk.settle(task, bad).state == State.DROPPED


@pytest.mark.parametrize(
    ("upload", "reason"),
    [
        ({"contract": b"x" * 32}, RejectionReason.CONTRACT_MISMATCH),
        ({"contract": b""}, RejectionReason.CONTRACT_MISMATCH),
        ({"digest": b"x" * 32}, RejectionReason.DIGEST_MISMATCH),
        ({"digest": b"short"}, RejectionReason.DIGEST_MISMATCH),
        ({"payload": A + b"\0" * 2000}, RejectionReason.TOO_LARGE),
    ],
)
def test_bytes_that_are_not_what_they_claim_end_the_task(desk, upload, reason):
    response = desk.upload(desk.lease(), **({"payload": A} | upload))
    assert response.reason_code == reason
    assert [ended.reason_code for ended in desk.progress().ended] == [reason]
    assert desk.aggregator.held() == ()


def test_someone_elses_token_is_refused_and_its_lessee_may_still_answer(desk):
    task = desk.lease("d1")
    response = desk.upload(task, B, device_id="thief")
    assert response.reason_code == RejectionReason.WRONG_CLIENT
    progress = desk.progress()
    assert [(r.reason_code, r.count) for r in progress.refusals] == [(2002, 1)]
    assert not progress.ended
    assert desk.upload(task, A).verdict == Verdict.ACCEPTED


def test_a_forged_token_is_refused(desk):
    task = desk.lease()
    task.token = task.token[:40] + b"x" + task.token[41:]
    assert desk.upload(task, A).reason_code == RejectionReason.UNKNOWN_TASK


def test_refusals_are_told_to_the_coordinator_as_counts(desk):
    task = desk.lease()
    for _ in range(3):
        desk.upload(task, A, device_id="thief")
    assert [(r.reason_code, r.count) for r in desk.progress().refusals] == [(2002, 3)]


# -- ends without an update ------------------------------------------------------------------------


def test_a_task_without_an_answer_ends_as_interrupted_at_its_deadline(desk):
    task = desk.lease()
    desk.progress()
    desk.now_s += 59.9
    desk.state.expire(desk.now_s)
    assert not desk.progress().ended
    desk.now_s += 0.2
    desk.state.expire(desk.now_s)
    (ended,) = desk.progress().ended
    assert (ended.outcome, ended.reason) == ("interrupted", "deadline")
    response = desk.upload(task, A)
    assert (response.verdict, response.reason) == (Verdict.STALE, "deadline")
    assert desk.aggregator.held() == ()
    assert not desk.progress().ended
    assert desk.settle(task, A).state == State.DROPPED


def test_what_a_device_reports_ends_its_task_once(desk):
    task = desk.lease()
    claims = desk.mint.open_task(task.token)
    for reason in ("battery", "network"):
        desk.state.end_task(claims, Outcome.INTERRUPTED, reason, TaskCost(1.0), desk.now_s)
    (ended,) = desk.progress().ended
    assert (ended.outcome, ended.reason, ended.train_s) == ("interrupted", "battery", 1.0)
    assert desk.lease().task_id != task.task_id


def test_a_cancelled_slot_is_not_leased_and_with_running_too_late_answers_are_over_committed(desk):
    task, other = desk.lease("d1"), desk.lease("d2")
    desk.cancel(running_too=False)
    assert desk.check_in("d3").task is None
    assert desk.upload(task, A).verdict == Verdict.ACCEPTED
    desk.cancel(running_too=True)
    response = desk.upload(other, B, device_id="d2")
    assert (response.verdict, response.reason) == (Verdict.OVER_COMMITTED, "round_closed")
    (ended,) = desk.progress().ended
    assert (ended.outcome, ended.reason) == ("over_committed", "round_closed")


def test_an_update_of_a_version_no_longer_live_is_stale(desk):
    task = desk.lease()
    desk.set_model(5, oldest_live=3)
    response = desk.upload(task, A)
    assert (response.verdict, response.reason) == (Verdict.STALE, "base_version")
    (ended,) = desk.progress().ended
    assert (ended.outcome, ended.reason, ended.reason_code) == ("stale", "base_version", 0)


def test_a_device_whose_task_is_late_already_is_handed_another_at_its_next_check_in(desk):
    late = desk.lease()
    desk.cancel()
    desk.grant(1, "g2")
    assert desk.settle(late, A).state == State.DROPPED
    assert desk.lease().task_id != late.task_id


def test_held_updates_of_versions_no_longer_live_are_dropped(desk):
    task = desk.lease()
    desk.upload(task, A)
    desk.set_model(5, oldest_live=3)
    assert desk.aggregator.held() == ()
    assert [(e.outcome, e.reason) for e in desk.progress().ended] == [("stale", "base_version")]
    assert desk.settle(task, A).state == State.DROPPED


def test_a_dropped_bucket_ends_its_updates_with_the_outcome_given(desk):
    task = desk.lease()
    desk.upload(task, A)
    desk.order(drop=pb.Drop(base_version=1, outcome="failed", reason="round_abandoned"))
    (ended,) = desk.progress().ended
    assert (ended.outcome, ended.reason) == ("failed", "round_abandoned")
    assert desk.upload(task, A).verdict == Verdict.STALE
    assert desk.counted == {("failed", "round_abandoned"): 1}


# -- releases, commits, coordinators that come back ------------------------------------------------


def test_every_update_in_a_sum_is_reported_before_it(desk):
    desk.progress()
    desk.upload(desk.lease(), A)
    (progress,), partial = desk.release()
    assert [c.task_id for c in progress.completed] == list(partial.buckets[0].task_ids)
    np.testing.assert_allclose(
        np.frombuffer(partial.buckets[0].sum, "<f4"),
        np.concatenate([a.ravel() for a in make_delta(1)]),
        rtol=1e-6,
    )


def test_the_same_release_gives_the_same_partial(desk):
    desk.upload(desk.lease(), A)
    _, first = desk.release()
    desk.upload(desk.lease(), B)
    _, again = desk.release()
    assert first == again


def test_a_commit_settles_the_devices(desk):
    task = desk.lease()
    desk.upload(task, A)
    desk.release()
    assert desk.settle(task, A).state == State.HELD
    desk.commit()
    assert desk.settle(task, A).state == State.COMMITTED
    assert desk.settle(task, B).state == State.COMMITTED, "the task is settled, whatever it sent"
    assert desk.counted == {("succeeded", "aggregated"): 1}
    assert desk.aggregator.frozen() == ()


def test_an_undecided_release_stays_frozen_over_a_broken_connection(desk):
    desk.upload(desk.lease(), A)
    _, first = desk.release("r1")
    desk.open(undecided_releases=("r1",))
    assert desk.aggregator.held() == ()
    _, again = desk.release()
    assert first == again
    desk.commit()
    assert desk.counted == {("succeeded", "aggregated"): 1}


def test_a_release_that_went_on_without_this_gateway_is_thawed_in_the_same_epoch(desk):
    task = desk.lease()
    desk.upload(task, A)
    desk.release("r1")
    desk.open()
    _, partial = desk.release("r2")
    assert list(partial.buckets[0].task_ids) == [task.task_id]


def test_a_new_epoch_thaws_what_was_not_committed_and_commits_what_was(desk):
    done, lost = desk.lease("d1"), desk.lease("d2")
    desk.upload(done, A)
    desk.release("r1")
    desk.upload(lost, B, device_id="d2")
    desk.release("r2")
    desk.epoch, desk.sequence = 2, 0
    *_, snapshot = desk.open(committed_releases=("r1",))
    assert snapshot.epoch == 2
    assert snapshot.progress.snapshot
    assert [c.task_id for c in snapshot.progress.completed] == [lost.task_id]
    assert desk.settle(done, A).state == State.COMMITTED
    assert desk.settle(lost, B).state == State.HELD
    _, partial = desk.release("r3")
    assert list(partial.buckets[0].task_ids) == [lost.task_id]


def test_orders_of_an_older_epoch_another_job_or_heard_before_are_ignored(desk):
    desk.epoch, desk.sequence = 2, 0
    desk.open()
    desk.set_model(1)
    desk.grant(1, "g2")
    desk.sequence = 1
    desk.grant(5, "g2")
    desk.epoch, desk.sequence = 1, 50
    desk.grant(5)
    assert desk.open() == []
    desk.epoch, desk.job_id = 2, "j-0"
    desk.grant(5)
    tasks = [desk.check_in(f"d{n}").task for n in range(5)]
    assert sum(task is not None for task in tasks) == 1


def test_slots_not_leased_are_void_from_open_on_and_while_the_coordinator_is_away(desk):
    running = desk.lease()
    desk.state.detach()
    assert desk.check_in("d2").task is None
    assert desk.upload(running, A).verdict == Verdict.ACCEPTED
    desk.open()
    assert desk.check_in("d2").task is None
    desk.grant(1)
    assert desk.check_in("d2").task is not None


def test_what_is_not_acknowledged_is_told_again_in_order_and_then_a_snapshot(desk):
    first, second = desk.lease("d1"), desk.lease("d2")
    told = desk.state.take_progress()
    desk.upload(first, A)
    desk.state.take_progress()
    desk.upload(second, changed(B, num_examples=0), device_id="d2")
    desk.order(acknowledge=pb.Acknowledge(progress_sequence=told.sequence))
    messages = desk.open()
    assert [m.sequence for m in messages] == [told.sequence + n for n in (1, 2, 3)]
    assert [c.task_id for c in messages[0].progress.completed] == [first.task_id]
    assert [e.task_id for e in messages[1].progress.ended] == [second.task_id]
    snapshot = messages[2].progress
    assert snapshot.snapshot
    assert [c.task_id for c in snapshot.completed] == [first.task_id]
    assert not snapshot.leased
    again = [m.sequence for m in desk.open()]
    assert again == [told.sequence + n for n in (1, 2, 4)], "a snapshot is made anew"


def test_frozen_updates_are_in_the_snapshot_until_they_are_committed(desk):
    task = desk.lease()
    desk.upload(task, A)
    desk.release()
    snapshot = desk.open(undecided_releases=("r1",))[-1].progress
    assert [c.task_id for c in snapshot.completed] == [task.task_id]
    desk.commit()
    assert not desk.open()[-1].progress.completed


# -- the end of a job ------------------------------------------------------------------------------


def test_with_its_job_a_task_is_over(desk):
    running, folded = desk.lease("d1"), desk.lease("d2")
    desk.upload(folded, B, device_id="d2")
    desk.order(close=pb.Close(reason="target reached"))
    assert desk.check_in().task is None
    response = desk.upload(running, A)
    assert (response.verdict, response.reason) == (Verdict.OVER_COMMITTED, "job_ended")
    assert desk.counted == {("over_committed", "job_ended"): 2}
    assert desk.settle(folded, B).state == State.DROPPED


def test_after_another_job_was_opened_stored_outcomes_tell_what_became_of_an_update(desk):
    committed, not_used = desk.lease("d1"), desk.lease("d2")
    desk.upload(committed, A)
    desk.upload(not_used, B, device_id="d2")
    desk.release()
    desk.outcomes.answers[committed.task_id] = Answer(
        Outcome.SUCCEEDED, "aggregated", payload_sha256=sha256_of(A)
    )
    desk.job_id, desk.sequence = "j-2", 0
    desk.open()
    assert desk.settle(committed, A).state == State.COMMITTED
    assert desk.upload(committed, A).verdict == Verdict.COMMITTED
    assert desk.upload(committed, B).reason_code == RejectionReason.ANSWERED_WITH_OTHER_DIGEST
    assert desk.settle(not_used, B).state == State.DROPPED
    assert desk.upload(not_used, B, device_id="d2").verdict == Verdict.OVER_COMMITTED
    assert desk.aggregator.held() == ()


# -- a gateway that was lost -----------------------------------------------------------------------


@pytest.fixture
def after_loss(desk):
    """The task of a lost gateway, and the gateway that took its place."""
    task = desk.lease()
    desk.upload(task, A)
    second = Desk("boot-2", StoredOutcomes())
    second.now_s = desk.now_s + 3600
    return task, second


def test_while_no_job_is_open_a_device_keeps_its_update(after_loss):
    task, second = after_loss
    assert second.settle(task, A).state == State.HELD
    assert second.upload(task, A).verdict == Verdict.RETRY_LATER
    second.now_s += 25 * 3600
    assert second.settle(task, A).state == State.DROPPED


def test_an_update_of_a_lost_gateway_is_asked_for_and_counted_anew(after_loss):
    task, second = after_loss
    second.open()
    assert second.upload(task, A).verdict == Verdict.RETRY_LATER, "no version is known yet"
    second.set_model(2, oldest_live=1)
    assert second.settle(task, A).state == State.UPLOAD_AGAIN
    assert second.upload(task, A).verdict == Verdict.ACCEPTED
    assert second.settle(task, A).state == State.HELD
    progress = second.progress()
    assert [c.task_id for c in progress.completed] == [task.task_id]
    assert progress.completed[0].base_version == 1
    assert not progress.leased
    assert second.upload(task, B).reason_code == RejectionReason.ANSWERED_WITH_OTHER_DIGEST


def test_a_job_opened_again_after_its_close_still_asks_for_updates(after_loss):
    task, second = after_loss
    second.open()
    second.order(close=pb.Close(reason="its coordinator died in this moment"))
    second.epoch, second.sequence = 2, 0
    second.open()
    second.set_model(2, oldest_live=1)
    assert second.upload(task, A).verdict == Verdict.ACCEPTED


def test_a_bad_update_of_a_lost_gateway_ends_as_rejected(after_loss):
    task, second = after_loss
    second.open()
    second.set_model(2, oldest_live=1)
    response = second.upload(task, changed(A, num_examples=-1))
    assert response.reason_code == RejectionReason.NON_POSITIVE_EXAMPLES
    assert [e.task_id for e in second.progress().ended] == [task.task_id]


def test_once_its_version_is_not_live_an_update_of_a_lost_gateway_is_dropped(after_loss):
    task, second = after_loss
    second.open()
    second.set_model(9, oldest_live=4)
    settlement = second.settle(task, A)
    assert (settlement.state, settlement.reason) == (State.DROPPED, "gateway_lost")
    assert second.upload(task, A).verdict == Verdict.STALE
    assert not second.progress().ended, "the coordinator has ended it itself"


def test_answers_outlive_a_gateway(after_loss):
    task, second = after_loss
    second.open()
    second.set_model(2, oldest_live=1)
    second.outcomes.answers[task.task_id] = Answer(
        Outcome.SUCCEEDED, "aggregated", payload_sha256=sha256_of(A)
    )
    assert second.upload(task, A).verdict == Verdict.COMMITTED
    response = second.upload(task, B)
    assert response.reason_code == RejectionReason.ANSWERED_WITH_OTHER_DIGEST
    assert second.settle(task, A).state == State.COMMITTED
    assert second.aggregator.held() == ()


def test_a_device_may_hand_in_an_old_update_beside_a_new_lease(after_loss):
    old, second = after_loss
    second.open()
    second.set_model(2, oldest_live=1)
    second.grant(1)
    new = second.lease()
    assert second.upload(old, A).verdict == Verdict.ACCEPTED
    assert second.lease() == new
    assert second.upload(new, B).verdict == Verdict.ACCEPTED
    assert len(second.progress().completed) == 2
