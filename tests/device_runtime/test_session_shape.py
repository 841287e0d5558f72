"""How far attempts came, as devices say it, a phase at a time."""

from dataclasses import replace

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_runtime.pacing import Pacing
from device_runtime.participation import ParticipationPolicy
from device_runtime.protocol import device_pb2 as pb
from device_runtime.session_shape import (
    COURSES,
    DOWNLOADED,
    SHAPES,
    TRAINED,
    TRAINING,
    UPLOADING,
    SessionCourses,
    admitted_course,
)
from tests.device_runtime.conftest import READY

Verdict = pb.UploadResponse
PHASES = (DOWNLOADED, TRAINING, TRAINED, UPLOADING)


def test_the_shapes_of_bonawitz_table_1_are_among_ours():
    assert {"-v[]+^", "-v[]+#", "-v[!", "-v[]+*", "-v[*"} <= SHAPES


@given(reached=st.integers(0, 4), repeats=st.lists(st.integers(1, 4), min_size=4, max_size=4))
def test_phases_noted_in_order_and_again_and_again_give_one_of_few_courses(reached, repeats):
    courses = SessionCourses()
    courses.begin("t")
    for phase, times in zip(PHASES[:reached], repeats, strict=False):
        for _ in range(times):
            courses.note("t", phase)
    course = courses.end("t")
    assert course in COURSES
    assert course.startswith("-v[]+"[: 1 + reached])
    assert courses.end("t") == ""


def test_tries_of_an_upload_beyond_the_second_add_nothing():
    courses = SessionCourses()
    assert courses.note("t", UPLOADING) == "+"
    assert {courses.note("t", UPLOADING) for _ in range(5)} == {"+*+"}


def test_only_so_many_attempts_are_kept():
    courses = SessionCourses()
    for number in range(1000):
        courses.begin(f"t{number}")
    assert courses.end("t0") == ""
    assert courses.end("t999") == "-"
    assert len(courses._courses) < 100


@given(st.text(max_size=12))
def test_what_cannot_be_a_course_is_none(said):
    assert admitted_course(said) in COURSES
    assert admitted_course(said) == (said if said in COURSES else "")


def test_a_device_says_how_its_task_went(gateway, start_device, make_task):
    gateway.tasks.append(make_task())
    start_device().step_until(lambda: gateway.uploads)
    assert gateway.uploads[0].session_course == "-v[]+"


def test_an_upload_that_found_nobody_is_told_with_the_next(gateway, start_device, make_task):
    gateway.tasks.append(make_task())
    gateway.errors["Upload"].append(grpc.StatusCode.UNAVAILABLE)
    gateway.verdicts.append(pb.UploadResponse(verdict=Verdict.RETRY_LATER))
    start_device().step_until(lambda: len(gateway.uploads) == 2)
    assert [u.session_course for u in gateway.uploads] == ["-v[]+*+", "-v[]+*+"]


def test_an_upload_asked_for_again_is_a_session_of_its_own(gateway, start_device, make_task):
    gateway.tasks.append(make_task())
    device = start_device()
    device.step_until(lambda: gateway.uploads)
    gateway.settlements["t-1"] = pb.Settlement.UPLOAD_AGAIN
    device.step_until(lambda: len(gateway.uploads) == 2)
    assert gateway.uploads[1].session_course == "-+"


def test_an_upload_of_an_earlier_process_says_only_what_this_one_did(
    gateway, start_device, make_task
):
    gateway.tasks.append(make_task())
    gateway.errors["Upload"].append(grpc.StatusCode.UNAVAILABLE)
    first = start_device()
    first.step_until(lambda: first.counts["busy"])
    first.store.close()
    start_device().step_until(lambda: gateway.uploads)
    assert gateway.uploads[0].session_course == "+"


@pytest.mark.parametrize(("steps", "course"), [(1, "-v"), (3, "-v[")])
def test_an_interrupted_device_says_how_far_it_came(
    gateway, start_device, make_task, steps, course
):
    gateway.policy = ParticipationPolicy(min_battery=0.5)
    gateway.tasks.append(make_task(local_epochs=50))
    device = start_device(pacing=Pacing(slice_s=0))
    device.step_until(lambda: device.runner.has_task)
    for _ in range(steps):
        device.runner.step()
    device.state.state = replace(READY, battery=0.2)
    device.step_until(lambda: gateway.reports)
    assert gateway.reports[0].session_course == course
