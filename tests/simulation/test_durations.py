"""Tasks last as long as FLINT's formula says, and end when their device goes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulation.durations import (
    InvalidTaskCost,
    TaskDuration,
    TaskWork,
    completes,
    dropout_after_s,
    task_course,
    task_duration,
    task_durations,
)
from simulation.random_streams import RandomStreams

# FLINT, Table 5, model B: 0.76 MB.
WORK = TaskWork(local_epochs=2, max_records=500, download_bytes=760_000, upload_bytes=760_000)
LASTING = TaskDuration(download_s=4.0, train_s=10.0, upload_s=8.0)


def test_a_task_lasts_t_times_epochs_times_records_plus_two_m_over_n():
    duration = task_duration(
        WORK, records=120, per_example_s=0.05, down_bits_per_s=2e6, up_bits_per_s=2e6
    )
    assert duration.total_s == pytest.approx(0.05 * 2 * 120 + 2 * 760_000 * 8 / 2e6)
    assert duration.download_s == pytest.approx(3.04)


def test_directions_have_speeds_of_their_own():
    duration = task_duration(
        WORK, records=1, per_example_s=1.0, down_bits_per_s=8e6, up_bits_per_s=8e5
    )
    assert (duration.download_s, duration.train_s, duration.upload_s) == (0.76, 2.0, 7.6)


def test_records_are_capped():
    slow = {"per_example_s": 1.0, "down_bits_per_s": 1e6, "up_bits_per_s": 1e6}
    assert task_duration(WORK, records=40_000, **slow) == task_duration(WORK, records=500, **slow)


POSITIVE = st.floats(1e-6, 1e9)


@given(
    clients=st.lists(
        st.tuples(st.integers(1, 10**6), POSITIVE, POSITIVE, POSITIVE, st.floats(0, 1e7)),
        min_size=1,
        max_size=20,
    ),
    window_s=st.floats(0, 1e7),
)
def test_one_client_and_many_agree_to_the_bit(clients, window_s):
    records, per_example, down, up, start = zip(*clients, strict=True)
    many = task_durations(
        WORK,
        records=np.array(records),
        per_example_s=np.array(per_example),
        down_bits_per_s=np.array(down),
        up_bits_per_s=np.array(up),
    )
    singly = [
        task_duration(WORK, records=r, per_example_s=t, down_bits_per_s=d, up_bits_per_s=u)
        for r, t, d, u, _ in clients
    ]
    assert many.total_s.tolist() == [duration.total_s for duration in singly]
    window_end = np.array(start) + window_s
    courses = [
        task_course(s, duration, WORK, window_end_s=float(end))
        for s, duration, end in zip(start, singly, window_end, strict=True)
    ]
    done = completes(np.array(start), many, window_end_s=window_end)
    assert done.tolist() == [course.completed for course in courses]


def test_a_task_that_fits_its_window_completes():
    course = task_course(100.0, LASTING, WORK, window_end_s=122.0)
    assert course.completed
    assert (course.end_s, course.device_s) == (122.0, 22.0)
    assert (course.bytes_down, course.bytes_up) == (760_000, 760_000)


@pytest.mark.parametrize(
    ("window_end_s", "bytes_down", "bytes_up"),
    [
        (102.0, 380_000, 0),  # half of the model is there
        (110.0, 760_000, 0),  # training
        (118.0, 760_000, 380_000),  # half of the update is there
        (100.0, 0, 0),
    ],
)
def test_a_task_ends_with_its_window_and_its_work_is_wasted(window_end_s, bytes_down, bytes_up):
    course = task_course(100.0, LASTING, WORK, window_end_s=window_end_s)
    assert (course.end_s, course.reason) == (window_end_s, "window")
    assert course.device_s == window_end_s - 100.0
    assert (course.bytes_down, course.bytes_up) == (bytes_down, bytes_up)


def test_a_device_that_drops_out_ends_its_task_before_the_window_does():
    course = task_course(100.0, LASTING, WORK, window_end_s=115.0, dropout_s=5.0)
    assert (course.end_s, course.reason, course.device_s) == (105.0, "dropout", 5.0)


def test_a_task_without_bytes_moves_none():
    idle = TaskWork(local_epochs=1, max_records=1, download_bytes=0, upload_bytes=0)
    course = task_course(0.0, TaskDuration(0.0, 5.0, 0.0), idle, window_end_s=2.0)
    assert (course.bytes_down, course.bytes_up, course.device_s) == (0, 0, 2.0)


def test_the_hazard_is_the_share_that_drops_out_within_an_hour():
    draws = RandomStreams(9)["dropout"].exponentials(np.arange(100_000))
    after_s = dropout_after_s(draws, 0.08)
    assert (after_s < 3600).mean() == pytest.approx(1 - math.exp(-0.08), rel=0.03)
    assert after_s.mean() == pytest.approx(3600 / 0.08, rel=0.02)
    assert dropout_after_s(draws, 0.0).min() == math.inf
    assert dropout_after_s(1.0, 0.0) == math.inf


@pytest.mark.parametrize(
    "wrong",
    [
        {"records": 0},
        {"per_example_s": 0.0},
        {"per_example_s": math.nan},
        {"down_bits_per_s": 0.0},
        {"up_bits_per_s": -1.0},
    ],
)
def test_a_task_that_could_have_no_duration_is_refused(wrong):
    right = {"records": 5, "per_example_s": 0.1, "down_bits_per_s": 1e6, "up_bits_per_s": 1e6}
    with pytest.raises(InvalidTaskCost):
        task_duration(WORK, **(right | wrong))
    many = {key: np.array([right[key], value]) for key, value in (right | wrong).items()}
    with pytest.raises(InvalidTaskCost, match="client 1: "):
        task_durations(WORK, **many)
