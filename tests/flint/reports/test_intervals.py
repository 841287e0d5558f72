"""Sums over intervals, against going through every task one by one."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flint.reports.intervals import (
    interval_edges,
    mean_in_flight,
    peak_in_flight,
    spread_over,
    thinned,
)

SPANS = st.lists(
    st.tuples(st.floats(0, 100), st.floats(0, 50), st.floats(0, 1e6)), min_size=0, max_size=30
)


def one_by_one(spans, edges):
    """Each amount's overlap with each interval, in Python."""
    sums = [0.0] * (len(edges) - 1)
    for start, lasts, amount in spans:
        for place, (low, high) in enumerate(pairwise(edges)):
            if start + lasts > start:
                inside = min(start + lasts, high) - max(start, low)
                sums[place] += amount * max(inside, 0.0) / (start + lasts - start)
            elif low <= start < high or (high == edges[-1] and start == high):
                sums[place] += amount
    return sums


@given(SPANS)
def test_amounts_spread_over_intervals_as_one_by_one(spans):
    spans = [(s, d if d > 1e-3 else 0.0, a) for s, d, a in spans]
    edges = np.array([0.0, 7.0, 20.0, 21.0, 80.0, 150.0])
    start, lasts, amount = np.array(spans, dtype=float).reshape(-1, 3).T
    found = spread_over(start, start + lasts, amount, edges)
    assert found == pytest.approx(one_by_one(spans, edges), rel=1e-6, abs=1e-2)


def test_what_flows_outside_of_the_edges_is_left_out():
    found = spread_over(np.array([0.0]), np.array([10.0]), np.array([10.0]), np.array([2.0, 5.0]))
    assert found == pytest.approx([3.0])


def test_two_tasks_that_overlap_for_half_an_interval_are_one_and_a_half_in_flight():
    started, ended = np.array([0.0, 5.0]), np.array([10.0, 10.0])
    assert mean_in_flight(started, ended, np.array([0.0, 10.0, 20.0])) == pytest.approx([1.5, 0.0])


def test_a_task_without_an_end_is_in_flight_to_the_last_edge():
    found = mean_in_flight(np.array([5.0]), np.array([np.nan]), np.array([0.0, 10.0, 20.0]))
    assert found == pytest.approx([0.5, 1.0])


@given(SPANS)
def test_the_peak_is_the_most_in_flight_at_any_start(spans):
    started = np.array([s for s, _, _ in spans])
    ended = np.array([s + d for s, d, _ in spans])
    expected = max(
        (sum(s <= at < e or (s == at == e) for s, e in zip(started, ended, strict=True))
         for at in started),
        default=0,
    )  # fmt: skip
    # Tasks of no duration that begin together are counted apart by the oracle only.
    if (ended > started).all():
        assert peak_in_flight(started, ended) == expected


def test_a_task_that_ends_when_another_starts_makes_room():
    assert peak_in_flight(np.array([0.0, 5.0]), np.array([5.0, 9.0])) == 1


@pytest.mark.parametrize("span_s", [0.3, 12.0, 59.0, 3600.0, 7 * 86400.0, 400 * 86400.0])
def test_intervals_cover_the_span_and_are_not_too_many(span_s):
    edges = interval_edges(span_s, at_most=100)
    assert edges[0] == 0.0
    assert edges[-1] >= span_s
    assert edges[-2] < span_s
    assert edges.size - 1 <= 100
    assert np.diff(edges) == pytest.approx(edges[1])


def test_a_run_without_time_has_one_interval():
    assert interval_edges(0.0).tolist() == [0.0, 1.0]
    assert interval_edges(float("nan")).tolist() == [0.0, 1.0]


def test_thinning_keeps_ends_and_extremes():
    random = np.random.default_rng(1)
    x, y = np.arange(10_000.0), random.normal(size=10_000)
    fewer_x, fewer_y = thinned(x, y, at_most=200)
    assert fewer_x.size <= 202
    assert (fewer_x[0], fewer_x[-1]) == (x[0], x[-1])
    assert (fewer_y.min(), fewer_y.max()) == (y.min(), y.max())
    assert np.all(np.diff(fewer_x) > 0)
    assert thinned(x[:50], y[:50], at_most=200)[0] is not None
