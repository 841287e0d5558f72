"""The runner against a real gRPC gateway whose answers are scripted."""

import time
from dataclasses import replace

import grpc
import numpy as np
import pytest

from device_runtime.engine import LiteRtEngine
from device_runtime.pacing import Pacing
from device_runtime.participation import ParticipationPolicy, UserSettings
from device_runtime.protocol import device_pb2 as pb
from device_runtime.request_signer import EnrolmentRefused, NotEnrolled
from device_runtime.training import train
from device_runtime.training_plan import TrainingPlan
from tests.device_runtime.conftest import READY

Outcome = pb.ReportOutcomeRequest
Verdict = pb.UploadResponse


def test_a_device_enrols_learns_the_policy_and_checks_in_again_with_its_digest(
    gateway, start_device
):
    device = start_device()
    wait_s = device.step_until_idle()
    assert len(gateway.enrolments) == 1
    assert [c.satisfied_policy_sha256 for c in gateway.check_ins] == [b"", gateway.policy.sha256()]
    assert wait_s == gateway.come_back_after_s


def test_a_leased_task_comes_back_as_the_update_the_engine_gives(
    gateway, start_device, make_task, artifacts, tiny
):
    task = make_task()
    gateway.tasks.append(task)
    device = start_device(records=50)
    device.step_until(lambda: gateway.uploads)

    artifact = artifacts("tiny_mlp")
    expected = train(
        LiteRtEngine(artifact.model_bytes, artifact.manifest),
        TrainingPlan.from_message(task.plan),
        tiny.initial_parameters(seed=1),
        *device.examples.load(100),
    )
    (update,) = gateway.updates()
    assert [t.name for t in update.tensors] == [p.name for p in tiny.parameters]
    for tensor, delta in zip(update.tensors, expected.delta, strict=True):
        np.testing.assert_array_equal(tensor.array(), delta)
    assert update.num_examples == 50
    assert (update.loss_before, update.loss_after) == (expected.loss_before, expected.loss_after)
    (upload,) = gateway.uploads
    assert (upload.task_token, upload.contract_sha256) == (task.token, task.contract_sha256)
    assert upload.cost.bytes_up == len(upload.payload)
    assert upload.cost.bytes_down == sum(map(len, gateway.blobs.values()))
    assert upload.cost.train_s > 0


def test_a_device_that_is_held_back_counts_the_reason_and_comes_when_told(gateway, start_device):
    gateway.held_back_code, gateway.come_back_after_s = 1292, 3600.0
    device = start_device()
    device.step_until(lambda: device.counts["held_back_1292"] == 2)
    assert device.counts["check_ins"] == 2
    assert device.runner.step() == 3600.0


def test_the_records_of_a_plan_are_the_newest(gateway, start_device, make_task):
    gateway.tasks.append(make_task(max_records=30))
    device = start_device(records=50)
    device.step_until(lambda: gateway.uploads)
    assert gateway.updates()[0].num_examples == 30


def test_a_second_task_fetches_nothing_again(gateway, start_device, make_task):
    gateway.tasks.extend([make_task("t-1"), make_task("t-2")])
    device = start_device()
    device.step_until(lambda: len(gateway.uploads) == 2)
    assert len(gateway.fetches) == 3
    assert gateway.uploads[1].cost.bytes_down == 0


def test_a_fetch_that_breaks_off_goes_on_where_it_stopped(
    gateway, start_device, make_task, artifacts
):
    sparse_artifact = artifacts("sparse_mlp").model_bytes
    gateway.tasks.append(make_task())
    digest = gateway.put(sparse_artifact)
    gateway.tasks[0].artifact_sha256 = digest
    gateway.break_fetch_after = 3
    device = start_device()
    device.step_until(lambda: gateway.reports)
    offsets = [fetch.offset for fetch in gateway.fetches if fetch.blob_sha256 == digest]
    assert offsets == [0, 3 * 64 * 1024]
    assert device.counts["busy"] == 1


def test_an_update_is_kept_until_it_is_settled_as_committed(gateway, start_device, make_task):
    gateway.tasks.append(make_task())
    device = start_device()
    device.step_until(lambda: gateway.uploads)
    assert [u.answered for u in device.store.pending()] == [True]

    gateway.settlements["t-1"] = pb.Settlement.HELD
    device.step_until(lambda: gateway.check_ins[-1].pending)
    assert gateway.check_ins[-1].pending[0].payload_sha256 == gateway.uploads[0].payload_sha256
    assert len(device.store.pending()) == 1

    gateway.settlements["t-1"] = pb.Settlement.COMMITTED
    device.step_until(lambda: not device.store.pending())
    assert list((device.store._folder / "updates").iterdir()) == []
    assert device.store.participations() == [("t-1", "j-1", "committed")]


def test_an_update_settled_as_dropped_is_forgotten(gateway, start_device, make_task):
    gateway.tasks.append(make_task())
    gateway.settlements["t-1"] = pb.Settlement.DROPPED
    device = start_device()
    device.step_until(lambda: device.counts["dropped"])
    assert device.store.pending() == []


def test_asked_to_upload_again_the_device_sends_the_same_bytes(gateway, start_device, make_task):
    gateway.tasks.append(make_task())
    device = start_device()
    device.step_until(lambda: gateway.uploads)
    gateway.settlements["t-1"] = pb.Settlement.UPLOAD_AGAIN
    device.step_until(lambda: len(gateway.uploads) == 2)
    first, second = gateway.uploads
    assert second.payload == first.payload
    assert second.task_token == first.task_token


def test_a_task_leased_together_with_upload_again_is_trained_after_the_upload(
    gateway, start_device, make_task
):
    gateway.tasks.append(make_task("t-1"))
    device = start_device()
    device.step_until(lambda: gateway.uploads)
    gateway.settlements["t-1"] = pb.Settlement.UPLOAD_AGAIN
    gateway.tasks.append(make_task("t-2"))
    device.step_until(lambda: len(gateway.uploads) == 3)
    tokens = [upload.task_token for upload in gateway.uploads]
    assert tokens == [b"token of t-1", b"token of t-1", b"token of t-2"]


@pytest.mark.parametrize(
    ("verdict", "outcome"),
    [
        (Verdict.COMMITTED, "committed"),
        (Verdict.STALE, "stale"),
        (Verdict.OVER_COMMITTED, "over_committed"),
        (Verdict.REJECTED, "rejected"),
    ],
)
def test_a_final_verdict_ends_the_update(gateway, start_device, make_task, verdict, outcome):
    gateway.tasks.append(make_task())
    gateway.verdicts.append(pb.UploadResponse(verdict=verdict, come_back_after_s=9))
    device = start_device()
    device.step_until(lambda: gateway.uploads)
    assert device.waits[-1] == 9
    assert device.store.pending() == []
    assert device.store.participations() == [("t-1", "j-1", outcome)]


def test_a_verdict_this_runtime_does_not_know_keeps_the_update_until_it_is_settled(
    gateway, start_device, make_task
):
    gateway.tasks.append(make_task())
    gateway.verdicts.append(pb.UploadResponse(verdict=99, come_back_after_s=9))
    device = start_device()
    device.step_until(lambda: gateway.uploads)
    assert [u.answered for u in device.store.pending()] == [True]


def test_a_busy_gateway_gets_the_update_later(gateway, start_device, make_task):
    gateway.tasks.append(make_task())
    gateway.verdicts.append(pb.UploadResponse(verdict=Verdict.RETRY_LATER, come_back_after_s=40))
    device = start_device()
    device.step_until(lambda: gateway.uploads)
    assert device.waits[-1] == 40
    device.step_until(lambda: len(gateway.uploads) == 2)
    assert device.counts["accepted"] == 1


def test_waits_for_a_gateway_that_is_away_double_and_then_stay(gateway, start_device):
    device = start_device(pacing=Pacing(backoff_s=1, max_backoff_s=8))
    gateway.errors["Enrol"].extend([grpc.StatusCode.UNAVAILABLE] * 8)
    for _ in range(8):
        device.waits.append(device.runner.step())
    for wait_s, middle_s in zip(device.waits, [1, 2, 4, 8, 8, 8, 8, 8], strict=True):
        assert 0.5 * middle_s <= wait_s <= 1.5 * middle_s
    assert len(set(device.waits)) == 8
    assert device.runner.step() == 0


def test_waits_start_small_again_after_an_answer(gateway, start_device):
    device = start_device()
    device.step_until_idle()
    gateway.errors["CheckIn"].extend([grpc.StatusCode.UNAVAILABLE] * 3)
    waits = [device.runner.step() for _ in range(4)]
    assert waits[2] >= 2
    gateway.errors["CheckIn"].append(grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert device.runner.step() <= 1.5


def test_a_permanent_refusal_is_not_repeated_for_hours(gateway, start_device):
    device = start_device()
    device.runner.step()
    gateway.errors["CheckIn"].append(grpc.StatusCode.PERMISSION_DENIED)
    wait_s = device.runner.step()
    assert 3 * 3600 <= wait_s <= 5 * 3600


def test_a_token_that_is_not_taken_ends_with_the_mend(gateway, start_device):
    with pytest.raises(EnrolmentRefused, match=r"flint device enrol-token.*FLN-1414"):
        start_device(token="some other token").runner.step()


def test_a_device_without_enrolment_or_token_says_so(gateway, start_device):
    with pytest.raises(NotEnrolled, match="FLN-1409"):
        start_device(token=None).runner.step()


def test_a_server_that_forgot_the_device_is_enrolled_with_once_more(gateway, start_device):
    device = start_device()
    device.step_until_idle()
    gateway.public_keys.clear()
    device.step_until(lambda: len(gateway.enrolments) == 2)
    device.step_until(lambda: device.counts["check_ins"] == 3)
    assert gateway.enrolments[0].public_key == gateway.enrolments[1].public_key


def test_a_server_that_stays_unconvinced_is_left_alone_for_hours(gateway, start_device):
    device = start_device()
    device.step_until_idle()
    gateway.errors["CheckIn"].extend([grpc.StatusCode.UNAUTHENTICATED] * 5)
    device.step_until(lambda: device.waits and device.waits[-1] > 3600)
    assert len(gateway.enrolments) == 2


def test_the_key_and_credential_outlive_the_process(gateway, start_device):
    device = start_device()
    device.step_until_idle()
    device.store.close()
    start_device(token=None).step_until_idle()
    assert len(gateway.enrolments) == 1
    # The policy is remembered too: one check-in suffices.
    assert gateway.check_ins[-1].satisfied_policy_sha256 == gateway.policy.sha256()
    assert len(gateway.check_ins) == 3


def test_proofs_carry_the_server_clock(gateway, start_device):
    gateway.clock_ahead_ms = 3_600_000
    device = start_device()
    device.step_until_idle()
    ahead_ms = gateway.check_ins[-1].proof.timestamp_ms - time.time() * 1000
    assert abs(ahead_ms - 3_600_000) < 10_000


def test_an_update_not_yet_answered_is_uploaded_first_by_the_next_process(
    gateway, start_device, make_task
):
    gateway.tasks.append(make_task())
    gateway.errors["Upload"].append(grpc.StatusCode.UNAVAILABLE)
    device = start_device()
    device.step_until(lambda: device.counts["busy"])
    check_ins = len(gateway.check_ins)
    device.store.close()
    start_device().step_until(lambda: gateway.uploads)
    assert len(gateway.check_ins) == check_ins
    assert gateway.updates()[0].num_examples == 50


def test_bytes_torn_on_disk_are_not_uploaded(gateway, start_device, make_task):
    gateway.tasks.append(make_task())
    gateway.errors["Upload"].append(grpc.StatusCode.UNAVAILABLE)
    device = start_device()
    device.step_until(lambda: device.counts["busy"])
    (path,) = (device.store._folder / "updates").iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    device.step_until_idle()
    assert gateway.uploads == []
    assert device.store.pending() == []


# The user's settings and the job's criteria.


@pytest.mark.parametrize(
    "settings",
    [
        UserSettings(opted_out=True),
        UserSettings(allowed_hours="04:00-05:00"),
        UserSettings(min_battery=0.95),
    ],
)
def test_a_users_no_keeps_the_device_from_even_checking_in(gateway, start_device, settings):
    device = start_device()
    device.store.save_settings(settings)
    device.step_until(lambda: gateway.enrolments)
    for _ in range(5):
        assert 600 <= device.runner.step() <= 1200
    assert gateway.check_ins == []


def test_opting_out_deletes_kept_updates(gateway, start_device, make_task):
    gateway.tasks.append(make_task())
    device = start_device()
    device.step_until(lambda: gateway.uploads)
    device.store.save_settings(UserSettings(opted_out=True))
    device.runner.step()
    assert device.store.pending() == []


def test_a_device_that_does_not_satisfy_the_policy_does_not_claim_to(gateway, start_device):
    gateway.policy = ParticipationPolicy(min_battery=0.95)
    device = start_device()
    assert device.step_until_idle() >= 600
    assert [c.satisfied_policy_sha256 for c in gateway.check_ins] == [b""]
    device.state.state = replace(READY, battery=1.0)
    device.step_until_idle()
    assert gateway.check_ins[-1].satisfied_policy_sha256 == gateway.policy.sha256()


def test_a_policy_with_an_unknown_criterion_is_never_claimed_satisfied(gateway, start_device):
    gateway.policy = NewerPolicy()
    device = start_device()
    assert device.step_until_idle() > 3600
    assert [c.satisfied_policy_sha256 for c in gateway.check_ins] == [b""]


class NewerPolicy:
    def to_json(self) -> str:
        return '{"phase_of_the_moon": "full"}'

    def sha256(self) -> bytes:
        import hashlib

        return hashlib.sha256(self.to_json().encode()).digest()


def test_a_policy_that_changes_every_time_does_not_make_the_device_race(gateway, start_device):
    days = iter(range(1, 100))

    def change(_):
        gateway.policy = ParticipationPolicy(min_account_age_days=-next(days))

    gateway.on_check_in = change
    device = start_device()
    device.state.state = replace(READY, account_age_days=1)
    device.step_until_idle()
    assert len(gateway.check_ins) == 2


def test_hours_between_participations_are_counted_from_the_devices_own_history(
    gateway, start_device, make_task
):
    gateway.policy = ParticipationPolicy(min_hours_between_participations=12)
    gateway.tasks.extend([make_task("t-1"), make_task("t-2")])
    device = start_device()
    device.step_until(lambda: gateway.uploads)
    device.state.state = replace(READY, local_time=local_now(hours=11))
    device.step_until_idle()
    assert gateway.check_ins[-1].satisfied_policy_sha256 == b""
    device.state.state = replace(READY, local_time=local_now(hours=13))
    device.step_until(lambda: len(gateway.uploads) == 2)


def local_now(hours: float = 0):
    from datetime import datetime, timedelta

    return datetime.now().astimezone() + timedelta(hours=hours)


def test_a_device_without_records_does_not_ask_for_work(gateway, start_device):
    device = start_device(records=0)
    device.step_until(lambda: gateway.enrolments)
    assert device.runner.step() >= 600
    assert gateway.check_ins == []


def test_training_stops_between_slices_when_the_battery_drains(gateway, start_device, make_task):
    gateway.policy = ParticipationPolicy(min_battery=0.5)
    gateway.tasks.append(make_task(local_epochs=50))
    device = start_device(pacing=Pacing(slice_s=0))
    device.step_until(lambda: device.runner.has_task)
    device.runner.step()
    for _ in range(3):
        device.runner.step()
    device.state.state = replace(READY, battery=0.2)
    device.step_until(lambda: gateway.reports)
    (report,) = gateway.reports
    assert (report.outcome, report.reason) == (Outcome.INTERRUPTED, "battery")
    assert report.task_token == b"token of t-1"
    assert report.cost.train_s > 0
    assert gateway.uploads == []


def test_opting_out_during_training_interrupts_it(gateway, start_device, make_task):
    gateway.tasks.append(make_task(local_epochs=50))
    device = start_device(pacing=Pacing(slice_s=0))
    device.step_until(lambda: device.runner.has_task)
    for _ in range(3):
        device.runner.step()
    device.store.save_settings(UserSettings(opted_out=True))
    device.step_until(lambda: gateway.reports)
    assert gateway.reports[0].reason == "opted_out"


def test_a_no_before_the_first_slice_declines_the_task(gateway, start_device, make_task):
    gateway.policy = ParticipationPolicy(wifi=True)
    gateway.tasks.append(make_task())
    device = start_device()
    device.step_until(lambda: device.runner.has_task)
    device.state.state = replace(READY, unmetered_network=False)
    device.step_until(lambda: gateway.reports)
    assert (gateway.reports[0].outcome, gateway.reports[0].reason) == (Outcome.DECLINED, "network")


def test_an_update_waits_for_an_unmetered_network(gateway, start_device, make_task):
    gateway.policy = ParticipationPolicy(wifi=True)
    gateway.tasks.append(make_task())
    device = start_device()
    device.step_until(lambda: device.counts["trained"])
    device.state.state = replace(READY, unmetered_network=False)
    assert device.runner.step() >= 600
    assert gateway.uploads == []
    device.state.state = READY
    device.step_until(lambda: gateway.uploads)


def test_a_task_past_its_deadline_is_given_up(gateway, start_device, make_task):
    gateway.tasks.append(make_task(deadline_ms=1))
    device = start_device()
    device.step_until(lambda: gateway.reports)
    assert gateway.reports[0].reason == "deadline"


# Tasks that cannot be done.


def test_records_of_another_model_fail_the_task_not_the_device(gateway, start_device, make_task):
    gateway.tasks.extend([make_task("t-1"), make_task("t-2")])
    device = start_device()
    device.examples.fill(np.zeros((3, 64), np.int32), np.zeros((3, 1), np.float32))
    device.step_until(lambda: gateway.reports)
    assert (gateway.reports[0].outcome, gateway.reports[0].reason) == (
        Outcome.FAILED,
        "unsuitable_examples",
    )
    device.step_until(lambda: len(gateway.reports) == 2)


def test_devices_that_fail_every_task_ask_less_and_less_often(gateway, start_device, make_task):
    gateway.come_back_after_s = 0.1
    gateway.tasks.extend(make_task(f"t-{n}", batch_size=7) for n in range(8))
    device = start_device()
    device.step_until(lambda: len(gateway.reports) == 8)
    assert {report.reason for report in gateway.reports} == {"invalid_plan"}
    assert max(device.waits) > 30


def test_a_parameters_blob_of_another_model_fails_the_task(gateway, start_device, make_task):
    task = make_task()
    task.parameters_sha256 = gateway.put(b"\x0a\x00")
    gateway.tasks.append(task)
    start_device().step_until(lambda: gateway.reports)
    assert gateway.reports[0].reason == "invalid_parameters"


def test_a_blob_that_is_not_what_its_digest_says_fails_the_task(gateway, start_device, make_task):
    task = make_task()
    gateway.blobs[task.manifest_sha256] = b"{}"
    gateway.tasks.append(task)
    start_device().step_until(lambda: gateway.reports)
    assert gateway.reports[0].reason == "blob_mismatch"


def test_training_that_diverges_is_reported_not_uploaded(gateway, start_device, make_task):
    gateway.tasks.append(make_task(learning_rate=1e30))
    start_device().step_until(lambda: gateway.reports)
    assert gateway.reports[0].reason == "not_finite"
    assert gateway.uploads == []


def test_a_lease_the_gateway_no_longer_knows_is_left(gateway, start_device, make_task):
    gateway.tasks.append(make_task())
    gateway.errors["FetchBlob"].append(grpc.StatusCode.FAILED_PRECONDITION)
    device = start_device()
    device.step_until(lambda: device.counts["refused"])
    assert device.waits[-1] <= 3
    assert not device.runner.has_task
    assert gateway.reports == []


def test_a_report_that_is_not_answered_is_sent_again(gateway, start_device, make_task):
    gateway.tasks.append(make_task(batch_size=7))
    gateway.errors["ReportOutcome"].append(grpc.StatusCode.UNAVAILABLE)
    device = start_device()
    device.step_until(lambda: gateway.reports)
    assert device.counts["busy"] == 1
