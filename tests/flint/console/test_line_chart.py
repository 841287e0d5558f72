"""A chart shows each measured point where it belongs, and nothing where there is none."""

import math
from itertools import pairwise
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from flint.console.line_chart import HEIGHT, WIDTH, line_chart, ticks

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)


@given(NUMBERS, NUMBERS)
def test_ticks_are_few_and_even_and_hold_both_ends(one, other):
    low, high = sorted((one, other))
    found = ticks(low, high)
    step = found[1] - found[0]
    assert 2 <= len(found) <= 12
    assert found[0] <= low + step * 1e-6
    assert found[-1] >= high - step * 1e-6
    assert all(math.isclose(b - a, step, rel_tol=1e-3) for a, b in pairwise(found))


def placed(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    svg = ET.fromstring(line_chart(points, title="<b>", x_name="version", y_name="metric"))
    (line,) = svg.iter("polyline")
    return [tuple(map(float, pair.split(","))) for pair in line.get("points", "").split()]


def test_points_stand_in_proportion():
    (x0, y0), (x1, y1), (x2, y2) = placed([(0, 0.0), (5, 0.5), (10, 1.0)])
    assert 0 < x0 < x2 < WIDTH
    assert 0 < y2 < y0 < HEIGHT
    assert math.isclose(x1 - x0, x2 - x1, abs_tol=0.2)
    assert math.isclose(y0 - y1, y1 - y2, abs_tol=0.2)


def test_what_was_not_measured_is_left_out_and_nothing_is_no_chart():
    assert len(placed([(0, 0.1), (1, math.nan), (2, 0.2)])) == 2
    assert line_chart([], title="", x_name="", y_name="") == ""
    assert line_chart([(1, math.inf)], title="", x_name="", y_name="") == ""
    assert len(placed([(3, 0.5)])) == 1
