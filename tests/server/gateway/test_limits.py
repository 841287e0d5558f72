import threading
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_runtime.protocol import device_pb2 as pb
from server.coordination.tasks import Outcome
from server.gateway.daily_cap import DailyCap
from server.gateway.held_back import HeldBackReason
from server.gateway.known_gateways import KnownGateway, KnownGateways
from server.gateway.pace import PaceSteering
from server.gateway.population import Population
from server.gateway.rate_limits import (
    DeviceRates,
    Rate,
    RateLimits,
    TokenBuckets,
    address_of,
    keys_of_a_day,
)
from server.gateway.setbacks import Setbacks
from server.gateway.task_book import FREE
from server.gateway.upload_slots import UploadSlots
from tests.server.gateway.desk import opened
from tests.server.update_examples import make_delta, make_payload

DAY_S = 24 * 3600.0


# -- rates --------------------------------------------------------------------------------------


def test_a_bucket_gives_its_burst_at_once_and_then_its_rate():
    buckets = TokenBuckets(Rate(per_s=2.0, burst=5))
    assert [buckets.take("d", 100.0) for _ in range(5)] == [0.0] * 5
    assert buckets.take("d", 100.0) == pytest.approx(0.5)
    assert buckets.take("d", 100.25) == pytest.approx(0.25)
    assert buckets.take("d", 100.5) == 0.0
    assert buckets.take("other", 100.5) == 0.0


def test_keys_of_a_day_may_be_had_at_once_or_over_the_day_and_no_more():
    buckets = TokenBuckets(keys_of_a_day(1_000))
    assert buckets.take("d", 0.0, 600) == 0.0
    assert buckets.take("d", 0.0, 600) == pytest.approx(DAY_S * 0.2)  # then 200 more are there
    assert buckets.take("d", 0.0, 400) == 0.0
    assert buckets.take("d", 0.0) == pytest.approx(DAY_S / 1_000)
    assert buckets.take("d", DAY_S / 2, 500) == 0.0
    assert buckets.take("d", DAY_S / 2, 1) > 0
    assert buckets.take("d", 0.0, 1_001) > 0  # never more than there are
    assert buckets.take("other", 0.0, 1_000) == 0.0


@given(
    gaps=st.lists(st.floats(0, 2), min_size=1, max_size=200),
    per_s=st.floats(0.1, 20),
    burst=st.integers(1, 30),
)
def test_no_stretch_of_time_holds_more_than_burst_and_rate_allow(gaps, per_s, burst):
    buckets = TokenBuckets(Rate(per_s, burst))
    now_s, taken = 1000.0, []
    for gap_s in gaps:
        now_s += gap_s
        wait_s = buckets.take("d", now_s)
        if wait_s == 0:
            taken.append(now_s)
        else:  # what it is told is the truth
            assert 0 < wait_s <= 1 / per_s + 1e-6
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            most = burst + (taken[last] - taken[first]) * per_s
            assert last - first + 1 <= most + 1e-6


def test_a_flood_of_names_takes_bounded_memory():
    buckets = TokenBuckets(Rate(1.0, 1), most_keys=100)
    for n in range(10_000):
        assert buckets.take(f"d{n}", 0.0) == 0.0
    assert len(buckets) == 100


def test_enrolments_are_counted_by_address_and_not_those_of_this_machine():
    limits = RateLimits(DeviceRates(enrolments=Rate(1.0, 2)))
    of_one = [limits.enrol(f"ipv4:192.0.2.7:{port}", 0.0) for port in range(3)]
    assert of_one[:2] == [None, None]
    assert of_one[2].reason is HeldBackReason.ENROLMENTS_OF_ONE_ADDRESS
    assert limits.enrol("ipv4:192.0.2.8:1", 0.0) is None
    assert all(limits.enrol(f"ipv4:127.0.0.1:{port}", 0.0) is None for port in range(50))


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv6:%5B2001:db8:1:2:3::4%5D:99", "2001:db8:1:2::/64"),
        ("ipv6:[2001:db8:1:2::9]:99", "2001:db8:1:2::/64"),
        ("ipv6:%5B::ffff:192.0.2.7%5D:99", "192.0.2.7"),
        ("ipv6:%5B::1%5D:99", None),
        ("unix:", None),
        ("", None),
    ],
)
def test_addresses_are_read_as_grpc_writes_them(peer, address):
    assert address_of(peer) == address


# -- setbacks -----------------------------------------------------------------------------------


def test_a_back_off_begins_at_the_fifth_setback_and_doubles_to_its_cap():
    setbacks = Setbacks(free=5, first_s=60, longest_s=200)
    waits = []
    for n in range(9):
        setbacks.note("d")
        held = setbacks.back_off("d", now_s=1000.0 * n)
        waits.append(held.wait_s if held else 0)
    assert waits == [0, 0, 0, 0, 60, 120, 200, 200, 200]
    assert setbacks.back_off("d", 8000.0 + 199).wait_s == pytest.approx(1)
    assert setbacks.back_off("d", 8000.0 + 200) is None
    setbacks.clear("d")
    setbacks.note("d")
    assert setbacks.back_off("d", 8300.0) is None


def test_setbacks_of_a_flood_of_devices_take_bounded_memory():
    setbacks = Setbacks(most_devices=50)
    for n in range(1000):
        setbacks.note(f"d{n}")
    assert len(setbacks) == 50


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.INTERRUPTED])
def test_a_device_whose_tasks_end_badly_again_and_again_gets_none_for_a_while(outcome):
    desk = opened()
    for _ in range(5):
        desk.grant(1)
        task = desk.lease("bad")
        desk.state.end_task(desk.mint.open_task(task.token), outcome, "crash", FREE, desk.now_s)
    desk.grant(1)
    answer = desk.check_in("bad")
    assert answer.task is None
    assert answer.held_back.reason is HeldBackReason.SETBACKS_IN_A_ROW
    assert answer.come_back_after_s >= 60
    assert desk.check_in("good").task is not None
    desk.now_s += 61
    assert desk.check_in("bad").task is not None


def test_a_device_that_never_comes_back_with_its_tasks_is_backed_off_too():
    desk = opened()
    for _ in range(5):
        desk.grant(1)
        desk.lease("crashes")
        desk.now_s += 61  # past the task's deadline
    assert desk.check_in("crashes").held_back is not None


def test_a_device_that_loses_the_same_task_again_and_again_is_backed_off():
    desk = opened()
    first = desk.lease("crashes")
    again = [desk.check_in("crashes") for _ in range(6)]
    assert [a.task.task_id for a in again[:5]] == [first.task_id] * 5
    assert again[5].task is None
    assert again[5].held_back.reason is HeldBackReason.SETBACKS_IN_A_ROW


def test_one_update_taken_ends_the_row():
    desk = opened()
    for _ in range(3):
        for _ in range(4):
            desk.grant(1)
            task = desk.lease("d1")
            claims = desk.mint.open_task(task.token)
            desk.state.end_task(claims, Outcome.INTERRUPTED, "battery", FREE, desk.now_s)
        desk.grant(1)
        assert desk.upload(desk.lease("d1"), make_payload(make_delta(1))).reason_code == 0
    desk.grant(1)
    assert desk.check_in("d1").task is not None


# -- daily cap ----------------------------------------------------------------------------------


class History:
    def __init__(self, had=None):
        self.had, self.asked = had or {}, []

    def count_tasks(self, device_id, since):
        self.asked.append((device_id, since.timestamp()))
        return self.had.get(device_id, 0)


def test_a_device_is_given_so_many_tasks_a_day_and_more_the_next():
    history = History({"d": 1})
    cap = DailyCap(3, history)
    now_s = 10 * DAY_S + 3600
    for n in range(2):
        assert cap.check("d", now_s) is None
        cap.note("d", f"t{n}", now_s)
        cap.note("d", f"t{n}", now_s)  # handed out once more: the same task
    held = cap.check("d", now_s)
    assert held.reason is HeldBackReason.DAILY_PARTICIPATION
    assert held.wait_s == 6 * 3600
    assert cap.check("d", 11 * DAY_S - 60).wait_s == pytest.approx(60)
    assert cap.check("e", now_s) is None
    history.had.clear()
    assert cap.check("d", 11 * DAY_S + 1) is None
    assert history.asked == [("d", 10 * DAY_S), ("e", 10 * DAY_S), ("d", 11 * DAY_S)]


def test_without_a_cap_nobody_is_asked():
    history = History({"d": 10**6})
    cap = DailyCap(None, history)
    assert cap.check("d", 0.0) is None
    assert not history.asked


def test_the_cap_remembers_a_bounded_number_of_devices():
    cap = DailyCap(1, History(), most_devices=10)
    for n in range(100):
        cap.check(f"d{n}", 0.0)
    assert len(cap._days) == 10


def test_a_device_that_had_its_share_still_settles_and_keeps_its_running_task():
    desk = opened()
    task = desk.lease("d1")
    policy = desk.policy.sha256()
    again = desk.state.check_in("d1", policy, (), desk.now_s, may_lease=False)
    assert again.task.task_id == task.task_id
    payload = make_payload(make_delta(1))
    desk.upload(task, payload)
    assert desk.state.check_in("d1", policy, (), desk.now_s, may_lease=False).task is None
    assert desk.settle(task, payload).state == pb.Settlement.HELD


# -- uploads ------------------------------------------------------------------------------------


def test_turned_away_uploads_are_asked_back_one_after_another_as_fast_as_they_are_taken():
    now = [0.0]
    slots = UploadSlots(2, clock=lambda: now[0])
    for _ in range(200):  # each takes a second
        with slots.take() as taken:
            assert taken
            now[0] += 1.0
    with slots.take(), slots.take(), slots.take() as third:
        assert not third
        places = [slots.place_s() for _ in range(40)]
    gaps = [b - a for a, b in pairwise(places)]
    assert places[0] == pytest.approx(0.5)
    assert gaps == pytest.approx([0.5] * 39, rel=0.01)  # two slots, a second each


def test_an_upload_waits_its_turn_for_as_long_as_it_may():
    slots = UploadSlots(1, patience_s=20.0)
    order, holds = [], threading.Event()

    def second():
        holds.wait()
        with slots.take() as taken:
            order.append(("second", taken))

    thread = threading.Thread(target=second)
    thread.start()
    with slots.take():
        holds.set()
        order.append(("first", True))
    thread.join()
    assert order == [("first", True), ("second", True)]
    impatient = UploadSlots(1, patience_s=0.01)
    with impatient.take(), impatient.take() as taken:
        assert not taken


def test_nobody_is_sent_away_for_longer_than_two_minutes():
    slots = UploadSlots(1, clock=lambda: 0.0)
    slots._took_s = 10.0
    assert max(slots.place_s() for _ in range(100)) <= 120


# -- homes and pace -----------------------------------------------------------------------------


def gateways(*names, away=()):
    return [KnownGateway(f"g{n}", f"boot-{n}", n not in away) for n in names]


def homes(known):
    return {f"d{n}": known.home_of(f"d{n}") for n in range(3000)}


def test_every_gateway_names_the_same_home_and_all_have_about_the_same_share():
    first, second = KnownGateways("boot-1"), KnownGateways("boot-2")
    first.tell(gateways(1, 2, 3)), second.tell(reversed(gateways(1, 2, 3)))
    assert homes(first) == homes(second)
    for boot_id in ("boot-1", "boot-2", "boot-3"):
        assert list(homes(first).values()).count(boot_id) == pytest.approx(1000, rel=0.1)


def test_when_a_gateway_goes_only_its_devices_move_and_with_a_new_boot_they_come_back():
    known = KnownGateways("boot-1")
    known.tell(gateways(1, 2, 3))
    before = homes(known)
    known.tell(gateways(1, 2, 3, away=(3,)))
    after = homes(known)
    assert {d for d in before if before[d] != after[d]} == {
        d for d, home in before.items() if home == "boot-3"
    }
    known.tell([*gateways(1, 2), KnownGateway("g3", "boot-3b", True)])
    assert {d for d, home in homes(known).items() if home == "boot-3b"} == {
        d for d, home in before.items() if home == "boot-3"
    }


def test_a_process_is_given_up_only_when_the_coordinator_reckons_with_it_no_more():
    known = KnownGateways("boot-1")
    known.tell(gateways(1, 2, away=(2,)))
    assert not known.is_given_up("boot-2")
    known.tell(gateways(1))
    assert known.is_given_up("boot-2")
    assert not known.is_given_up("boot-1")


def test_gateways_that_share_the_devices_share_the_rate():
    alone, shared = Population(PaceSteering(200)), Population(PaceSteering(200))
    shared.share(4)
    for n in range(8000):
        alone.see(f"d{n}", 0.0, 1)
        if n % 4 == 0:
            shared.see(f"d{n}", 0.0, 1)
    assert shared.interval_s(1) == alone.interval_s(1)
