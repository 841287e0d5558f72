"""Attempts of devices, counted by shape: each task's once, whoever repeats what."""

from collections import Counter

import pytest

from device_runtime.session_shape import SHAPES
from server.coordination.tasks import Outcome
from server.gateway.task_book import TaskCost
from tests.server.gateway.desk import Desk, opened
from tests.server.update_examples import make_delta, make_payload

GOOD = make_payload(make_delta(1))
COURSE = "-v[]+"


def told(desk: Desk) -> Counter[str]:
    """Shapes the coordinator was told of since the last call."""
    return Counter({s.shape: s.count for s in desk.progress().sessions})


def upload(desk: Desk, task, payload: bytes = GOOD, course: str = COURSE, device_id: str = "d1"):
    return desk.upload(task, payload, course=course, device_id=device_id)


def end(desk: Desk, task, outcome: Outcome, course: str) -> None:
    claims = desk.mint.open_task(task.token)
    desk.state.end_task(claims, outcome, "because", TaskCost(), desk.now_s, course)


def test_an_update_taken_ends_its_attempt_and_repeats_add_nothing():
    desk = opened()
    task = desk.lease()
    upload(desk, task)
    upload(desk, task)
    assert told(desk) == {"-v[]+^": 1}
    desk.release()
    desk.commit()
    upload(desk, task)
    assert told(desk) == {}
    assert desk.sessions == {"-v[]+^": 1}


def test_a_refused_update_and_a_late_one_are_refused_attempts():
    desk = opened()
    upload(desk, desk.lease("d1"), b"not an update")
    late = desk.lease("d2")
    desk.cancel()
    upload(desk, late, device_id="d2")
    assert told(desk) == {"-v[]+#": 2}


@pytest.mark.parametrize(
    ("outcome", "shape"),
    [(Outcome.INTERRUPTED, "-v[!"), (Outcome.FAILED, "-v[*")],
)
def test_an_attempt_ended_by_its_device_ends_as_it_says(outcome, shape):
    desk = opened()
    task = desk.lease()
    end(desk, task, outcome, "-v[")
    end(desk, task, outcome, "-v[")
    assert told(desk) == {shape: 1}


def test_a_device_never_heard_of_again_is_counted_once_also_when_it_comes_late():
    desk = opened()
    task = desk.lease()
    desk.now_s += 61
    desk.state.expire(desk.now_s)
    upload(desk, task)
    assert told(desk) == {"-?": 1}


def test_a_runtime_that_says_nothing_of_its_attempt_is_counted_by_its_end():
    desk = opened()
    upload(desk, desk.lease(), course="")
    assert told(desk) == {"^": 1}


def test_an_attempt_is_told_no_later_than_its_update_or_end():
    desk = opened()
    told_with = []
    desk.state.outbox.listen(lambda: told_with.append(desk.state.outbox.take().progress))
    upload(desk, desk.lease("d1"))
    end(desk, desk.lease("d2"), Outcome.FAILED, "-v[")
    shown = [(len(p.sessions), len(p.completed) + len(p.ended)) for p in told_with if not p.leased]
    assert shown == [(1, 0), (0, 1)] * 2


def test_attempts_not_acknowledged_are_told_again_under_the_same_sequence_and_never_twice():
    desk = opened()
    upload(desk, desk.lease())
    first = desk.state.take_progress()
    again, snapshot = desk.open()
    assert again.sequence == first.sequence
    assert [s.shape for s in again.progress.sessions] == ["-v[]+^"]
    assert not snapshot.progress.sessions


def test_every_shape_a_gateway_makes_is_a_known_one():
    desk = opened()
    for number, course in enumerate(["", "-v[", COURSE]):
        upload(desk, desk.lease(f"d{number}"), course=course, device_id=f"d{number}")
    assert desk.sessions.keys() <= SHAPES
