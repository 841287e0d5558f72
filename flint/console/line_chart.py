"""A metric by version as a small inline SVG, in the page's own colours."""

import math
from collections.abc import Sequence

from flint.reports.markup import Html, element
from flint.reports.wording import said_number

WIDTH, HEIGHT = 720, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 14, 26, 34
_MARKED_POINTS = 60
_TICKS = 5
_NO_SPAN, _SMALL = 1e-9, 1e-6

Point = tuple[float, float]


def line_chart(points: Sequence[Point], *, title: str, x_name: str, y_name: str) -> Html:
    """A line through points in order of their first number; nothing where there are none.

    Args:
        title: What it shows, for who cannot see it.
    """
    known = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if not known:
        return Html("")
    x_ticks = ticks(min(x for x, _ in known), max(x for x, _ in known), whole=True)
    y_ticks = ticks(min(y for _, y in known), max(y for _, y in known))
    place = _Axes(x_ticks, y_ticks)
    placed = [(place.x(x), place.y(y)) for x, y in known]
    best = max(known, key=lambda point: point[1])
    told = (
        f"{len(known):,} measured, last {said_number(known[-1][1], 4)}, "
        f"highest {said_number(best[1], 4)} at {said_number(best[0])}"
    )
    return element(
        "svg",
        element("title", title),
        element("desc", told),
        *(_horizontal(place, y) for y in y_ticks),
        *(_vertical(place, x) for x in x_ticks),
        element("text", y_name, class_="axis", x=4, y=12),
        element("text", x_name, class_="axis end", x=WIDTH - _RIGHT, y=HEIGHT - 4),
        element("polyline", class_="line", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in placed)),
        *(_mark(point, at) for point, at in zip(known, placed, strict=True) if _is_marked(known)),
        class_="chart",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
    )


def ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Round numbers from below the least to above the greatest.

    >>> ticks(0.31, 0.42)
    [0.3, 0.32, 0.34, 0.36, 0.38, 0.4, 0.42]
    >>> ticks(3, 3, whole=True)
    [3.0, 4.0]
    """
    if high - low <= _NO_SPAN * max(1.0, abs(low), abs(high)):
        high = low + (1.0 if whole or abs(low) < _SMALL else abs(low) * 0.1)
    raw = (high - low) / _TICKS
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw * 0.99)
    if whole:
        step = max(1.0, step)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(n * step, 12) for n in range(first, last + 1)]


class _Axes:
    def __init__(self, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> None:
        self._x, self._y = (x_ticks[0], x_ticks[-1]), (y_ticks[0], y_ticks[-1])

    def x(self, value: float) -> float:
        share = (value - self._x[0]) / (self._x[1] - self._x[0])
        return _LEFT + share * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        share = (value - self._y[0]) / (self._y[1] - self._y[0])
        return HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)


def _horizontal(place: _Axes, value: float) -> Html:
    y = f"{place.y(value):.1f}"
    label = element("text", _tick(value), class_="tick end", x=_LEFT - 6, y=y, dy="0.32em")
    return Html(element("line", class_="grid", x1=_LEFT, x2=WIDTH - _RIGHT, y1=y, y2=y) + label)


def _vertical(place: _Axes, value: float) -> Html:
    x = f"{place.x(value):.1f}"
    return element("text", _tick(value), class_="tick middle", x=x, y=HEIGHT - _BOTTOM + 15)


def _tick(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.10g}"


def _is_marked(points: Sequence[Point]) -> bool:
    return len(points) <= _MARKED_POINTS


def _mark(point: Point, at: Point) -> Html:
    told = element("title", f"{said_number(point[0])}: {said_number(point[1], 4)}")
    return element("circle", told, class_="mark", cx=f"{at[0]:.1f}", cy=f"{at[1]:.1f}", r=2.5)
