"""Whatever devices, coordinator and network do, every task ends once and every update counts once.

A random driver leases, uploads (honest, hostile, repeated, other bytes), reports, lets time pass,
releases, commits, drops, breaks the connection and changes the epoch. Beside it stands an
independent ledger, fed only by what a coordinator would see, and the sum of what it was told.
"""

from collections import defaultdict

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from device_runtime.protocol import device_pb2 as device_pb
from server.coordination.tasks import Outcome, Release
from server.fleet_protocol import fleet_pb2 as pb
from server.gateway.task_book import TaskCost
from tests.server.gateway.desk import Desk
from tests.server.update_examples import changed, make_delta, make_payload

DEVICES = [f"d{n}" for n in range(6)]
HONEST = [make_payload(make_delta(seed)) for seed in range(4)]
FLAT = [np.concatenate([a.ravel() for a in make_delta(seed)]).astype(float) for seed in range(4)]
BAD = changed(HONEST[0], num_examples=-1)
Verdict = device_pb.UploadResponse


def attached(fates: "Fates") -> bool:
    return fates.attached


class Fates(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.desk = Desk()
        self.desk.open()
        self.version = self.oldest_live = 0
        self.desk.set_model(0)
        self.attached = True
        self.grants = self.releases = 0
        self.open_grants: list[str] = []
        self.grant(4)
        self.tasks: dict[str, tuple[device_pb.Task, str]] = {}
        self.sent: dict[str, int] = {}
        self.answers: dict[tuple[str, bytes], int] = {}
        # What the coordinator knows.
        self.seen: set[int] = set()
        self.leased: set[str] = set()
        self.completed: set[str] = set()
        self.ended: dict[str, list[str]] = defaultdict(list)
        self.partials: dict[str, list[pb.Bucket]] = {}
        self.committed: dict[str, str] = {}
        self.newest_commits: list[str] = []

    # -- the coordinator ---------------------------------------------------------------------------

    def hear(self, message: pb.GatewayMessage, *, delivered: bool = True) -> None:
        # A stream is ordered and reliable while it lives: what is lost ends it.
        self.attached = self.attached and delivered
        if not self.attached:
            return
        if message.WhichOneof("body") == "partial":
            self.partials[message.partial.release_id] = list(message.partial.buckets)
            return
        progress = message.progress
        if message.sequence in self.seen:
            return
        self.seen.add(message.sequence)
        self.leased |= {leased.task_id for leased in progress.leased}
        self.completed |= {completed.task_id for completed in progress.completed}
        for ended in progress.ended:
            self.ended[ended.task_id].append(ended.outcome)
        self.desk.order(acknowledge=pb.Acknowledge(progress_sequence=message.sequence))

    @precondition(attached)
    @rule(count=st.integers(1, 4))
    def grant(self, count):
        self.grants += 1
        self.open_grants.append(f"g{self.grants}")
        self.desk.grant(count, f"g{self.grants}")

    @precondition(lambda self: self.attached and self.open_grants)
    @rule(data=st.data(), running_too=st.booleans())
    def cancel(self, data, running_too):
        self.desk.cancel(data.draw(st.sampled_from(self.open_grants)), running_too)

    @precondition(attached)
    @rule(behind=st.integers(1, 5))
    def new_version(self, behind):
        self.version += 1
        self.oldest_live = max(self.oldest_live, self.version - behind)
        self.desk.set_model(self.version, self.oldest_live)

    @precondition(attached)
    @rule(data=st.data())
    def drop(self, data):
        base_version = data.draw(st.integers(self.oldest_live, self.version))
        self.desk.order(
            drop=pb.Drop(base_version=base_version, outcome="failed", reason="round_abandoned")
        )

    @precondition(attached)
    @rule(delivered=st.booleans())
    def hear_progress(self, delivered):
        message = self.desk.state.take_progress()
        if message is not None:
            self.hear(message, delivered=delivered)

    @precondition(attached)
    @rule(delivered=st.booleans())
    def release(self, delivered):
        self.releases += 1
        release_id = f"r{self.releases}"
        for message in self.desk.order(release=pb.Release(release_id=release_id)):
            self.hear(message, delivered=delivered)

    @precondition(lambda self: self.attached and self.partials)
    @rule(data=st.data())
    def repeat_release(self, data):
        release_id = data.draw(st.sampled_from(sorted(self.partials)))
        first = self.partials[release_id]
        for message in self.desk.order(release=pb.Release(release_id=release_id)):
            self.hear(message)
        assert self.partials[release_id] == first

    @precondition(lambda self: self.partials)
    @rule(data=st.data(), told=st.booleans())
    def commit(self, data, told):
        """Store a version; the gateway may be told, or only hear of it at the next `Open`."""
        self._store(data.draw(st.sampled_from(sorted(self.partials))), told=told)

    def _store(self, release_id: str, *, told: bool) -> None:
        for bucket in self.partials.pop(release_id):
            expected = sum(FLAT[self.sent[task_id]] for task_id in bucket.task_ids)
            np.testing.assert_allclose(
                np.frombuffer(bucket.sum, "<f4"), expected, rtol=1e-4, atol=1e-4
            )
            assert bucket.weight == len(bucket.task_ids)
            for task_id in bucket.task_ids:
                assert task_id not in self.committed, "counted twice"
                self.committed[task_id] = release_id
        self.newest_commits.append(release_id)
        if told and self.attached:
            self.desk.commit(release_id)

    @precondition(attached)
    @rule(told=st.booleans())
    def aggregate(self, told):
        """The usual way of a release."""
        self.release(delivered=True)
        self._store(f"r{self.releases}", told=told)

    @rule(new_epoch=st.sampled_from([False, False, True]))
    def reconnect(self, new_epoch):
        self.desk.state.detach()
        self.attached = True
        if new_epoch:
            self.desk.epoch += 1
            self.desk.sequence = 0
            self.partials.clear()  # a coordinator that is gone takes what it did not store along
            self.open_grants.clear()
        for message in self.reopen():
            self.hear(message)
        self.desk.set_model(self.version, self.oldest_live)
        self.grant(4)

    def reopen(self):
        return self.desk.open(
            committed_releases=tuple(self.newest_commits), undecided_releases=tuple(self.partials)
        )

    # -- devices -----------------------------------------------------------------------------------

    @rule(device=st.sampled_from(DEVICES))
    def check_in(self, device):
        task = self.desk.check_in(device).task
        if task is not None:
            self.tasks[task.task_id] = (task, device)

    @rule(device=st.sampled_from(DEVICES), number=st.integers(0, 3))
    def work(self, device, number):
        """The usual way of a task."""
        task = self.desk.check_in(device).task
        if task is not None:
            self.tasks[task.task_id] = (task, device)
            response = self.desk.upload(task, HONEST[number], device_id=device)
            assert response.verdict == Verdict.ACCEPTED
            self.sent[task.task_id] = number
            self.answers[(task.task_id, HONEST[number])] = response.verdict

    @precondition(lambda self: self.tasks)
    @rule(data=st.data(), kind=st.sampled_from(["honest", "honest", "bad", "stolen"]))
    def upload(self, data, kind):
        task, device = self.tasks[data.draw(st.sampled_from(sorted(self.tasks)))]
        number = data.draw(st.integers(0, 3))
        payload = BAD if kind == "bad" else HONEST[number]
        sender = "thief" if kind == "stolen" else device
        response = self.desk.upload(task, payload, device_id=sender)
        if kind == "stolen":
            assert response.reason_code == 2002
            return
        if response.verdict == Verdict.ACCEPTED:
            assert self.sent.setdefault(task.task_id, number) == number, "two updates for one task"
        before = self.answers.setdefault((task.task_id, payload), response.verdict)
        if before != response.verdict:  # held may become committed or be dropped; nothing else
            assert before == Verdict.ACCEPTED
            self.answers[(task.task_id, payload)] = response.verdict

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def report(self, data):
        task, _ = self.tasks[data.draw(st.sampled_from(sorted(self.tasks)))]
        claims = self.desk.mint.open_task(task.token)
        self.desk.state.end_task(
            claims, Outcome.INTERRUPTED, "battery", TaskCost(), self.desk.now_s
        )

    @rule(seconds=st.floats(0.1, 25))
    def time_passes(self, seconds):
        self.desk.now_s += seconds
        self.desk.state.expire(self.desk.now_s)

    # -- what always holds -------------------------------------------------------------------------

    @invariant()
    def no_task_ends_twice(self):
        for task_id, outcomes in self.ended.items():
            assert len(outcomes) == 1, (task_id, outcomes)
            assert task_id not in self.committed, "counted and ended"

    @invariant()
    def what_is_counted_was_sent_and_the_gauges_agree(self):
        counts = self.desk.state.counts()
        held = {reference.task_id for reference in self.desk.aggregator.held()}
        assert held <= set(self.sent)
        assert counts.held >= len(held)
        assert not held & set(self.committed), "committed and still in a bucket"

    def teardown(self) -> None:
        """Bring everything to its end: each task then has exactly one."""
        self.desk.now_s += 1000
        self.desk.state.expire(self.desk.now_s)
        self.attached = True
        for message in self.reopen():
            self.hear(message)
        self.partials.clear()
        for message in self.desk.order(release=pb.Release(release_id="last")):
            self.hear(message)
        counted = set(self.committed) | {
            task_id
            for release_id in [*self.partials, *self.desk.aggregator.frozen()]
            for bucket in self.desk.aggregator.reduce(Release(release_id))
            for task_id in bucket.task_ids
        }
        assert self.leased == set(self.tasks)
        for task_id in self.tasks:
            ends = len(self.ended.get(task_id, [])) + (task_id in counted)
            assert ends == 1, (task_id, self.ended.get(task_id), task_id in counted)
        assert self.completed >= set(self.committed)


TestFates = Fates.TestCase
TestFates.settings = settings(max_examples=60, stateful_step_count=50)
