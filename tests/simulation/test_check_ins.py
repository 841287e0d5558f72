"""At check-ins the virtual fleet answers as a gateway does: side by side, the same devices."""

import random

import pytest

from server.coordination.tasks import Grant
from server.gateway.grants import GrantBook
from server.gateway.pace import PaceSteering
from simulation.check_ins import CheckIns
from simulation.random_streams import RandomStreams
from simulation.traces.criteria import DailyHours
from simulation.virtual_clients import VirtualClients
from tests.server.gateway.desk import Desk
from tests.server.update_examples import make_job as make_gateway_job
from tests.simulation.small_worlds import Phone, make_dry_run, make_job

CLIENTS = 80
SEED = 11
TICK_S = 2.0**-20


def desk_and_check_ins(selection: str):
    job = make_gateway_job(selection={"name": selection}, seed=SEED)
    desk = Desk()
    desk.open(job)
    desk.set_model(1)
    world = make_dry_run(
        [Phone()] * CLIENTS,
        make_job(job.strategy.model_dump(), stop={"max_hours": 1.0}),
        period_s=1e-3,  # so that devices come when they are told
    )
    clients = VirtualClients(
        world.world,
        world.devices,
        world.records,
        DailyHours.parse(None),
        world.environment.check_in,
        0.0,
        RandomStreams(1),
    )
    grants = GrantBook()
    check_ins = CheckIns(clients, PaceSteering(check_ins_per_s=200), grants, SEED)
    check_ins.use(job)
    return desk, check_ins, grants


@pytest.mark.parametrize("selection", ["arrival", "uniform"])
@pytest.mark.parametrize("pinned_to", [None, 1])
def test_the_same_devices_are_given_tasks_and_told_to_come_back_at_the_same_time(
    selection, pinned_to
):
    """All come often enough to be remembered; one that has a task does not come again."""
    desk, check_ins, grants = desk_and_check_ins(selection)
    chance = random.Random(3)
    leased = set()
    waiting: list[int] = []
    for step in range(1000):
        desk.now_s += chance.choice([0.01, 0.1, 0.5])
        if step % 100 == 20:
            desk.grant(3, f"g{step}", pinned_to)
            grants.add(Grant(f"g{step}", 3, pinned_to, 60.0))
        if step % 300 == 299:
            desk.cancel(f"g{step - 79}")
            grants.cancel(f"g{step - 79}", running_too=True)
        if not waiting:
            waiting = [client for client in range(CLIENTS) if client not in leased]
            chance.shuffle(waiting)
        client = waiting.pop()
        slots = grants.open_slots()
        answer = desk.check_in(str(client))
        grant = check_ins.take(client, desk.now_s, slots)
        assert (grant is None) == (answer.task is None)
        if grant is not None:
            leased.add(client)
            told_s = desk.state.come_back_after_s(str(client))
            slots = grants.open_slots() + 1
        else:
            told_s = answer.come_back_after_s
        at_s = check_ins.next_s(client, desk.now_s, slots, after_task=grant is not None)
        assert at_s == pytest.approx(desk.now_s + told_s, abs=2 * TICK_S)
    assert len(leased) > 10


def test_a_rest_is_kept_whatever_the_device_is_told():
    _, check_ins, _ = desk_and_check_ins("arrival")
    check_ins.use(
        make_gateway_job(participation={"user": {"min_hours_between_participations": 2.0}})
    )
    check_ins.participated(3, 500.0)
    assert check_ins.next_s(3, 600.0, 5, after_task=True) == 500.0 + 7200.0
    assert check_ins.next_s(4, 600.0, 5, after_task=True) < 700.0
