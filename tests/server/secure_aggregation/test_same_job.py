"""One job, plain and secure, on the same clients and seeds: the same model comes out."""

from dataclasses import replace

import numpy as np
import pytest

from device_runtime.protocol import device_pb2 as pb
from device_runtime.secure_updates import VerifiedEnclave, seal_update
from device_runtime.update_codec import encode_update, sha256_of, unflatten
from server.aggregation.aggregator import Envelope, PartialSum
from server.coordination.fleet import Released
from server.coordination.job_runner import JobRunner, OpenJob
from server.coordination.versions import StoredVersion
from server.job import Job
from server.secure_aggregation.enclave import Enclave
from server.secure_aggregation.masked_sums import MaskedSums
from server.secure_aggregation.release_budget import ReleaseBudget
from server.secure_aggregation.release_rules import ReleaseRefused
from server.secure_aggregation.service import EnclaveService, budget_message
from tests.server.coordination.local_fleet import MODEL, SIZE, LocalFleet, MemoryVersions, Watcher
from tests.server.secure_aggregation.secure_devices import MEASUREMENT, TestAttester

JOB_ID = "j-1"
FEDBUFF = {"name": "fedbuff", "buffer_size": 4, "concurrency": 6, "max_staleness": 5}
FEDAVG = {"name": "fedavg", "cohort_size": 5, "min_updates": 4, "round_deadline_s": 40}


def make_job(strategy, mode=None, threshold=3, **more):
    privacy = {}
    if mode is not None:
        privacy["secure_aggregation"] = {
            "mode": mode,
            "release_threshold": threshold,
            "allowed_measurements": [MEASUREMENT],
            "clip_value": 2.0,
        }
    return Job.model_validate(
        {
            "name": "test",
            "model": "linear",
            "client": {"optimizer": {"learning_rate": 0.1}},
            "strategy": strategy,
            "stop": {"max_aggregations": 12},
            "privacy": privacy,
        }
        | more
    )


class EnclosedFleet(LocalFleet):
    """The same clients, whose updates go through an enclave before they are summed."""

    def open(self, job):
        super().open(job)
        self.policy = job.job.release_policy()
        self.enclave = Enclave(TestAttester())
        self.enclave.open(JOB_ID, job.job, MODEL)
        self.budget = ReleaseBudget.unspent(JOB_ID, 0)
        self.enclave.begin(JOB_ID, self.budget)
        self.masked = MaskedSums(SIZE, self.policy) if self.policy.mode == "masked" else None
        self.client_of = {}

    def check_in(self, client):
        started = super().check_in(client)
        if started is not None:
            self.client_of[started.task_id] = started.client_id
        return started

    def release(self, release):
        evidence = self.enclave.attest(JOB_ID, bytes(32))
        verified = VerifiedEnclave(evidence.enclave_key, self.policy)
        for task_id, base, weight, delta in self.held:
            self.fold(verified, task_id, base, weight, delta)
        self.held = []
        try:
            self.budget = self.enclave.prepare(
                JOB_ID, release.release_id, self.version, self.budget
            )
        except ReleaseRefused as refused:
            return Released((release.release_id,), (), (str(refused),))
        if self.masked is not None:
            self.masked.freeze()
        released = self.enclave.release(JOB_ID, release.release_id, self.budget)
        if self.masked is None:
            total, weight = released.aggregate.total, released.aggregate.weight
            partial = PartialSum(released.version, total, weight, released.task_ids)
        else:
            from server.secure_aggregation import enclave_pb2

            request = enclave_pb2.ReleaseRequest(
                job_id=JOB_ID,
                release_id=release.release_id,
                receipt=budget_message(self.budget),
            )
            partial = self.masked.released(EnclaveService(self.enclave).Release(request, None))
        return Released((release.release_id,), (partial,))

    def fold(self, verified, task_id, base, weight, delta):
        device_id = self.client_of[task_id]
        update = encode_update(
            MODEL.parameters,
            unflatten(MODEL.parameters, delta.astype(np.float32)),
            num_examples=max(1, int(weight)),
            loss_before=0.0,
            loss_after=0.0,
        )
        sealed_for = pb.SealedFor(
            task_id=task_id, job_id=JOB_ID, device_id=device_id, base_version=base
        )
        payload = seal_update(verified, sealed_for, "app", update)
        envelope = Envelope(task_id, device_id, base, sha256_of(payload))
        if self.masked is not None:
            parted = self.masked.part(payload)
            self.masked.add(task_id, base, parted.values)
            payload = parted.sealed
        self.enclave.fold(envelope, payload)

    def commit(self, release_id):
        self.enclave.commit(release_id)
        if self.masked is not None:
            self.masked.commit()

    def drop(self, base_version, outcome, reason):
        super().drop(base_version, outcome, reason)
        self.enclave.drop(base_version)
        if self.masked is not None:
            self.masked.drop(base_version)


class QuantisedFleet(LocalFleet):
    """Plain sums of updates that were brought to a policy's fixed point, in float64."""

    policy = None

    def release(self, release):
        self.held = [
            (task_id, base, weight, self.quantised(delta.astype(np.float32)))
            for task_id, base, weight, delta in self.held
        ]
        return super().release(release)

    def quantised(self, delta):
        scale, most = self.policy.scale, self.policy.most_steps
        return np.clip(np.rint(delta.astype(np.float64) * scale), -most, most) / scale


def initial():
    return StoredVersion(0, np.zeros(SIZE, np.float32), {})


def run(job, fleet_type, durations_s, **options):
    store = MemoryVersions(initial())
    fleet = fleet_type(store, durations_s)
    watcher = Watcher()
    runner = JobRunner(
        OpenJob(JOB_ID, 1, job, MODEL, b"", b"", b""),
        fleet,
        store,
        watcher,
        evaluate=None,
        stop_requested=lambda: None,
        poll_s=None,
        **options,
    )
    runner.run()
    return store, watcher, fleet


DURATIONS = [5.0, 9.0, 12.0, 21.0, 33.0, 7.0, 8.0, 15.0]


@pytest.mark.parametrize("strategy", [FEDBUFF, FEDAVG], ids=["fedbuff", "fedavg"])
def test_enclave_mode_gives_the_weights_of_the_plain_job(strategy):
    plain, plain_seen, _ = run(make_job(strategy), LocalFleet, DURATIONS)
    secure, seen, _ = run(make_job(strategy, "enclave"), EnclosedFleet, DURATIONS)
    assert len(plain.versions) == len(secure.versions) == 13
    for one, other in zip(plain.versions, secure.versions, strict=True):
        np.testing.assert_allclose(other.weights, one.weights, atol=1e-6, rtol=1e-6)
    staleness = [[sorted(a.staleness) for a in s.aggregations] for s in (seen, plain_seen)]
    assert staleness[0] == staleness[1]


def test_masked_mode_gives_the_weights_of_the_plain_job_in_fixed_point():
    strategy = FEDAVG | {"weighting": "uniform"}
    job = make_job(strategy, "masked")
    oracle = type("Oracle", (QuantisedFleet,), {"policy": job.release_policy()})
    plain, _, _ = run(make_job(strategy), oracle, DURATIONS)
    secure, _, _ = run(job, EnclosedFleet, DURATIONS)
    for one, other in zip(plain.versions, secure.versions, strict=True):
        np.testing.assert_array_equal(other.weights, one.weights)


def test_a_kept_aggregate_waits_for_more_devices():
    """Two clients fill a buffer of four again and again; the enclave wants three devices."""
    job = make_job(FEDBUFF | {"concurrency": 2})
    secure = make_job(FEDBUFF | {"concurrency": 2}, "enclave")
    durations_s = [5.0, 5.0, 400.0]
    plain, _, _ = run(job, LocalFleet, durations_s[:2])
    assert len(plain.versions) == 13
    store, watcher, fleet = run(
        replace_stop(secure, max_aggregations=1, max_hours=2.0), EnclosedFleet, durations_s
    )
    assert len(store.versions) == 2
    assert fleet.now_s() >= 400.0, "the third device had to come first"
    assert watcher.aggregations[0].updates > 4


def test_a_round_whose_aggregate_is_kept_is_abandoned_at_its_deadline():
    """Two of the three devices fail every time: no round has enough of them."""
    job = make_job(
        {"name": "fedavg", "cohort_size": 3, "min_updates": 3, "round_deadline_s": 30}, "enclave"
    )
    store, watcher, _ = run(
        replace_stop(job, max_aggregations=2, max_hours=0.1), EnclosedFleet, [5.0, 5.0]
    )
    assert [v.number for v in store.versions] == [0], "the model is as it was"
    reasons = {r.reason for r in store.results}
    assert "round_abandoned" in reasons
    assert watcher.aggregations == []


def replace_stop(job, **stop):
    return Job.model_validate(job.model_dump() | {"stop": stop})


def test_a_version_that_was_released_and_lost_is_passed_over():
    """As after everything was killed between the release and the version's row."""
    job = make_job(FEDBUFF, "enclave")
    store = MemoryVersions(replace(initial(), weights=np.ones(SIZE, np.float32)))
    runner = JobRunner(
        OpenJob(JOB_ID, 2, job, MODEL, b"", b"", b""),
        EnclosedFleet(store, DURATIONS),
        store,
        Watcher(),
        evaluate=None,
        stop_requested=lambda: None,
        poll_s=None,
        released_version=lambda: 0,
    )
    runner.take_up()
    assert [v.number for v in store.versions] == [0, 1]
    np.testing.assert_array_equal(store.versions[1].weights, store.versions[0].weights)
    assert store.versions[1].release_ids == ()
