"""The coordinator's end of flint.fleet.v1 against gateways that speak it over real gRPC."""

import queue
import time

import grpc
import numpy as np
import pytest

from modeling.spec import Dense, ModelSpec
from server.coordination.events import (
    TaskCompleted,
    TaskEnded,
    TasksLost,
    TaskStarted,
    UpdatesRefused,
)
from server.coordination.fleet import OpenJob
from server.coordination.tasks import Grant, Outcome, Release
from server.fleet_protocol import fleet_pb2 as pb
from server.fleet_protocol import fleet_pb2_grpc
from server.fleet_protocol.endpoint import serve_gateways
from server.fleet_protocol.gateway_fleet import GatewayFleet
from server.job import Job
from server.operations.settings import ServerSettings
from tests.ports import free_port

JOB = Job.model_validate(
    {
        "name": "test",
        "model": "linear",
        "client": {"optimizer": {"learning_rate": 0.1}},
        "strategy": {"name": "fedbuff", "buffer_size": 2, "concurrency": 4},
        "stop": {"max_aggregations": 1},
    }
)
SPEC = ModelSpec("linear", (Dense("d", 2, 1, "none"),), None, (1,), "binary_cross_entropy", "auprc")
OPENED = OpenJob("j-1", 3, JOB, SPEC, b"a", b"m", b"c")
DEADLINE_S = 10.0


class Gateway:
    """A gateway that says what the test tells it to."""

    def __init__(self, address, gateway_id="gw", boot_id="boot-1"):
        self.outgoing, self.sequence = queue.Queue(), 0
        self.channel = grpc.insecure_channel(address)
        self.send(hello=pb.Hello(gateway_id=gateway_id, boot_id=boot_id, capacity=100))
        stream = fleet_pb2_grpc.FleetLinkStub(self.channel).Attach(iter(self.outgoing.get, None))
        self.incoming = iter(stream)

    def send(self, **body):
        self.outgoing.put(pb.GatewayMessage(job_id="j-1", epoch=3, sequence=self.sequence, **body))

    def progress(self, **kinds):
        self.sequence += 1
        self.send(progress=pb.Progress(**kinds))

    def expect(self, body):
        for message in self.incoming:
            if message.WhichOneof("body") == body:
                return getattr(message, body)
        raise AssertionError(f"stream ended before {body}")

    def leave(self):
        self.outgoing.put(None)
        self.channel.close()


@pytest.fixture
def address():
    return f"127.0.0.1:{free_port()}"


@pytest.fixture
def fleet(address, tmp_path):
    fleet = GatewayFleet(lost_after_s=1.0)
    settings = ServerSettings(tmp_path, "", "", "", address, "", 0, 0, insecure=True)
    server = serve_gateways(fleet, settings)
    yield fleet
    server.stop(0)


def wait_for(fleet, kind):
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        event = fleet.next_event(0.05)
        if isinstance(event, kind):
            return event
    raise AssertionError(f"no {kind.__name__} within {DEADLINE_S} s")


def until(condition):
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def leased(task_id, grant_id="g1", base=0):
    return pb.Leased(task_id=task_id, grant_id=grant_id, client_id="d", base_version=base)


def completed(task_id, base=0):
    return pb.Completed(
        task_id=task_id, grant_id="g1", client_id="d", base_version=base, num_examples=5, weight=1
    )


def attach(fleet, address, **names):
    gateway = Gateway(address, **names)
    gateway.expect("open")
    gateway.progress(snapshot=True)
    return gateway


def heard(fleet, *gateways):
    """All that the gateways said has been handled, and what followed from it stored."""
    until(lambda: fleet.next_event(0.01) is None and len(fleet._handed_out) == len(gateways))
    fleet.acknowledge()
    return [gateway.expect("acknowledge").progress_sequence for gateway in gateways]


def test_slots_granted_before_any_gateway_attached_are_placed_after_its_snapshot(fleet, address):
    fleet.open(OPENED)
    fleet.set_model(0, b"d0", 0)
    fleet.grant(Grant("g1", 4, None, 60))
    gateway = Gateway(address)
    assert gateway.expect("open").contract_sha256 == b"c"
    gateway.progress(snapshot=True)
    assert gateway.expect("set_model").parameters_sha256 == b"d0"
    grant = gateway.expect("grant")
    assert (grant.count, grant.pinned) == (4, False)


def test_a_progress_message_sent_twice_is_one_event(fleet, address):
    fleet.open(OPENED)
    gateway = attach(fleet, address)
    gateway.progress(leased=[leased("t1")])
    gateway.send(progress=pb.Progress(leased=[leased("t1")]))
    gateway.progress(refusals=[pb.Refusal(reason_code=2001, count=2)])
    assert wait_for(fleet, TaskStarted).task_id == "t1"
    assert isinstance(fleet.next_event(DEADLINE_S), UpdatesRefused)


def test_a_gateway_keeps_what_it_said_until_all_that_followed_from_it_is_stored(fleet, address):
    fleet.open(OPENED)
    gateway = attach(fleet, address)
    heard(fleet, gateway)
    gateway.progress(ended=[pb.Ended(task_id="t1", outcome="failed", reason="nan")])
    assert wait_for(fleet, TaskEnded).task_id == "t1"
    fleet.acknowledge()  # the progress message is not handed out to its end yet
    assert heard(fleet, gateway) == [gateway.sequence]


def test_what_was_not_acknowledged_on_one_connection_is_on_the_next(fleet, address):
    fleet.open(OPENED)
    gateway = attach(fleet, address)
    heard(fleet, gateway)
    gateway.progress(ended=[pb.Ended(task_id="t1", outcome="failed", reason="nan")])
    told = gateway.sequence
    wait_for(fleet, TaskEnded)
    gateway.leave()
    until(lambda: fleet.gateways() == 0 and fleet.next_event(0.0) is None)
    fleet.acknowledge()
    back = Gateway(address)
    back.expect("open")
    back.sequence = told
    back.send(progress=pb.Progress(ended=[pb.Ended(task_id="t1", outcome="failed")]))
    assert back.expect("acknowledge").progress_sequence == told
    assert fleet.next_event(0.0) is None


def test_two_gateways_share_a_grant_and_nothing_is_lost(fleet, address):
    fleet.open(OPENED)
    first = attach(fleet, address, gateway_id="a", boot_id="a1")
    second = attach(fleet, address, gateway_id="b", boot_id="b1")
    heard(fleet, first, second)
    fleet.grant(Grant("g1", 7, None, 60))
    assert first.expect("grant").count + second.expect("grant").count == 7


def test_partials_of_all_gateways_are_released_together(fleet, address):
    fleet.open(OPENED)
    gateways = [attach(fleet, address, gateway_id=n, boot_id=n) for n in "ab"]
    for i, gateway in enumerate(gateways):
        gateway.progress(completed=[completed(f"t{i}")])
    for _ in gateways:
        wait_for(fleet, TaskCompleted)
    for i, gateway in enumerate(gateways):
        gateway.send(
            partial=pb.Partial(
                release_id=f"r1/{'ab'[i]}",
                buckets=[
                    pb.Bucket(sum=np.full(3, i + 1, "<f4").tobytes(), weight=1, task_ids=[f"t{i}"])
                ],
            )
        )
    released = fleet.release(Release("r1"))
    assert sorted(released.release_ids) == ["r1/a", "r1/b"]
    np.testing.assert_array_equal(sum(s.total for s in released.sums), [3, 3, 3])


def test_a_gateway_with_a_new_boot_loses_its_tasks_and_its_slots_are_placed_again(fleet, address):
    fleet.open(OPENED)
    gateway = attach(fleet, address, boot_id="one")
    heard(fleet, gateway)
    fleet.grant(Grant("g1", 5, None, 60))
    gateway.expect("grant")
    gateway.progress(leased=[leased("t1"), leased("t2")])
    gateway.progress(completed=[completed("t2")])
    wait_for(fleet, TaskCompleted)
    reborn = attach(fleet, address, boot_id="two")
    assert wait_for(fleet, TasksLost).task_ids == ("t1", "t2")
    assert reborn.expect("grant").count == 3


def test_a_gateway_that_stays_away_is_lost_but_the_release_goes_on(fleet, address):
    fleet.open(OPENED)
    gateway = attach(fleet, address)
    gateway.progress(completed=[completed("t1")])
    wait_for(fleet, TaskCompleted)
    gateway.leave()
    until(lambda: fleet.gateways() == 0)
    released = fleet.release(Release("r1"))
    assert released.release_ids == ()
    assert wait_for(fleet, TasksLost).task_ids == ("t1",)


def test_a_gateway_that_never_gives_its_partial_does_not_hold_up_the_job(fleet, address):
    fleet._answer_within_s = 0.2
    fleet.open(OPENED)
    gateway = attach(fleet, address)
    gateway.progress(completed=[completed("t1")])
    wait_for(fleet, TaskCompleted)
    assert fleet.release(Release("r1")).release_ids == ()
    assert wait_for(fleet, TasksLost).task_ids == ("t1",)


def test_a_gateway_that_comes_back_during_a_release_is_asked_again(fleet, address):
    fleet.open(OPENED)
    gateway = attach(fleet, address)
    gateway.progress(completed=[completed("t1")])
    wait_for(fleet, TaskCompleted)
    gateway.leave()
    until(lambda: fleet.gateways() == 0)
    back = Gateway(address)
    back.sequence = gateway.sequence
    back.expect("open")
    back.progress(snapshot=True, completed=[completed("t1")])
    back.send(
        partial=pb.Partial(
            release_id="r1/boot-1",
            buckets=[pb.Bucket(sum=bytes(12), weight=1, task_ids=["t1"])],
        )
    )
    assert fleet.release(Release("r1")).release_ids == ("r1/boot-1",)


def test_a_commit_a_gateway_missed_is_named_when_it_comes_back(fleet, address):
    fleet.open(OPENED)
    gateway = attach(fleet, address)
    heard(fleet, gateway)
    gateway.send(partial=pb.Partial(release_id="r1/boot-1"))
    fleet.release(Release("r1"))
    gateway.leave()
    until(lambda: fleet.gateways() == 0)
    fleet.commit("r1")
    assert Gateway(address).expect("open").committed_releases == ["r1/boot-1"]


def test_a_cancel_a_gateway_missed_is_sent_when_it_still_leases_under_that_grant(fleet, address):
    fleet.open(OPENED)
    gateway = attach(fleet, address)
    heard(fleet, gateway)
    fleet.grant(Grant("g1", 2, 0, 60))
    gateway.progress(leased=[leased("t1")])
    wait_for(fleet, TaskStarted)
    gateway.leave()
    until(lambda: fleet.gateways() == 0)
    fleet.cancel("g1", running_too=True)
    back = Gateway(address)
    back.sequence = gateway.sequence
    back.expect("open")
    back.progress(snapshot=True, leased=[leased("t1")])
    cancel = back.expect("cancel")
    assert (cancel.grant_id, cancel.running_too) == ("g1", True)


def test_a_gateway_left_out_of_a_release_is_never_told_that_it_was_committed(fleet, address):
    fleet.open(OPENED)
    gateway = attach(fleet, address)
    gateway.progress(completed=[completed("t1")])
    wait_for(fleet, TaskCompleted)
    gateway.leave()
    until(lambda: fleet.gateways() == 0)
    assert fleet.release(Release("r1")).release_ids == ()
    back = Gateway(address)
    opened = back.expect("open")
    fleet.commit("r1")
    again = Gateway(address).expect("open")
    for message in (opened, again):
        assert not message.committed_releases
        assert not message.undecided_releases


def test_a_release_is_undecided_until_it_is_committed(fleet, address):
    fleet.open(OPENED)
    gateway = attach(fleet, address)
    heard(fleet, gateway)
    gateway.send(partial=pb.Partial(release_id="r1/boot-1"))
    fleet.release(Release("r1"))
    gateway.leave()
    until(lambda: fleet.gateways() == 0)
    assert Gateway(address).expect("open").undecided_releases == ["r1/boot-1"]
    fleet.commit("r1")
    assert not Gateway(address).expect("open").undecided_releases


def test_a_drop_a_gateway_missed_is_sent_when_it_still_holds_updates_of_that_round(fleet, address):
    fleet.open(OPENED)
    gateway = attach(fleet, address)
    heard(fleet, gateway)
    fleet.grant(Grant("g1", 2, 0, 60))
    gateway.progress(leased=[leased("t1")], completed=[completed("t1")])
    wait_for(fleet, TaskCompleted)
    gateway.leave()
    until(lambda: fleet.gateways() == 0)
    fleet.cancel("g1", running_too=True)
    fleet.drop(0, Outcome.FAILED, "round_abandoned")
    back = Gateway(address)
    back.sequence = gateway.sequence
    back.expect("open")
    back.progress(snapshot=True, completed=[completed("t1")])
    drop = back.expect("drop")
    assert (drop.base_version, drop.outcome, drop.reason) == (0, "failed", "round_abandoned")


def test_a_gateway_that_was_away_when_its_job_ended_is_told(fleet, address):
    fleet.open(OPENED)
    gateway = attach(fleet, address)
    gateway.leave()
    until(lambda: fleet.gateways() == 0)
    fleet.close("over")
    assert Gateway(address).expect("close").reason == "over"


def test_a_gateway_that_falls_silent_is_lost_though_its_connection_stands(fleet, address):
    fleet._silent_after_s = 0.3
    fleet.open(OPENED)
    gateway = attach(fleet, address)
    gateway.progress(leased=[leased("t1")])
    assert wait_for(fleet, TasksLost).task_ids == ("t1",)
    for _ in gateway.incoming:  # ends, for its stream has ended
        pass


def test_messages_of_another_epoch_are_ignored(fleet, address):
    fleet.open(OPENED)
    gateway = attach(fleet, address)
    gateway.outgoing.put(
        pb.GatewayMessage(
            job_id="j-1", epoch=2, sequence=9, progress=pb.Progress(leased=[leased("old")])
        )
    )
    gateway.sequence = 9
    gateway.progress(leased=[leased("new")])
    assert wait_for(fleet, TaskStarted).task_id == "new"
