"""Charts as inline SVG: selectable text, a title and a description, the page's own colours."""

import contextlib
import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree as ET

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import Formatter, MaxNLocator, MultipleLocator

from flint.reports.colours import light, with_variables
from flint.reports.markup import Html
from flint.reports.wording import TimeUnit, printable, said_number, shortened

WIDTH_IN = 10.0
_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_COORDINATES = {"d", "x", "y", "points"}
_LABEL_LENGTH = 44
_MOST_DECIMALS = 9
_TIME_TICKS = 9
_TIME_STEPS = {
    "seconds": (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 20, 30, 60),
    "minutes": (0.5, 1, 2, 5, 10, 15, 20, 30, 60),
    "hours": (0.5, 1, 2, 3, 6, 12, 24),
    "days": (0.5, 1, 2, 7, 14, 28, 56),
}
_LEGEND_MARK_PT, _LEGEND_LETTER_PT = 38.0, 5.2
_DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
_RUN_COLOURS = 6

# Numbers beside charts are for spreadsheets: enough to draw the chart anew.
Column = Sequence[object]


@dataclass(frozen=True, slots=True)
class Chart:
    """One figure of a report.

    Attributes:
        key: Identifies it in the page.
        reading: What all runs of it have in common, in a sentence or two; may be empty.
        of_runs: ``(label, sentence)``: what it shows of each run, with the figures that matter.
        description: For who cannot see it.
        svg: The figure; None where there is nothing to draw, and ``reading`` says why.
        data: What is drawn, by column.
    """

    key: str
    title: str
    reading: str
    of_runs: Sequence[tuple[str, str]] = ()
    description: str = ""
    svg: Html | None = None
    data: Mapping[str, Column] = field(default_factory=dict)


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """Draw charts within: sets how they look."""
    with mpl.rc_context(
        {
            "svg.fonttype": "none",  # text stays text
            "svg.hashsalt": "flint report",  # the same run gives the same page
            "text.parse_math": False,  # a name may have dollars in it
            "font.family": ["DejaVu Sans"],
            "font.size": 8.5,
            "axes.titlesize": 9.0,
            "axes.titlelocation": "left",
            "axes.titlepad": 7.0,
            "axes.labelsize": 8.5,
            "axes.labelcolor": light("quiet"),
            "axes.edgecolor": light("rule"),
            "axes.titlecolor": light("ink"),
            "axes.linewidth": 0.8,
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.facecolor": "none",
            "figure.facecolor": "none",
            "grid.color": light("rule"),
            "grid.linewidth": 0.5,
            "xtick.color": light("rule"),
            "ytick.color": light("rule"),
            "xtick.labelcolor": light("quiet"),
            "ytick.labelcolor": light("quiet"),
            "text.color": light("ink"),
            "legend.frameon": False,
            "legend.fontsize": 8.5,
            "legend.handlelength": 1.6,
            "lines.linewidth": 1.6,
            "patch.linewidth": 0.0,
            "path.simplify": True,
            "path.simplify_threshold": 0.2,
        }
    ):
        yield


def panels(
    rows: int,
    columns: int,
    *,
    height_in: float,
    **options: Any,  # noqa: ANN401 - matplotlib's
) -> tuple[Figure, list[Axes]]:
    """A figure of the page's width and its panels, row by row."""
    spacing = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06)
    figure = Figure(figsize=(WIDTH_IN, height_in), layout=spacing)
    FigureCanvasSVG(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, list(axes.ravel())


def finished(figure: Figure, key: str, title: str, description: str) -> Html:
    """A figure as inline SVG.

    Args:
        key: Goes before every id in it, as several figures share a page.
    """
    raw = io.BytesIO()
    with warnings.catch_warnings():
        # Letters our font lacks are the reader's browser's to draw: text stays text.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(raw, format="svg", metadata={"Date": None, "Creator": None})
    root = ET.fromstring(raw.getvalue())  # noqa: S314 - written a line above
    for found in root.findall(f"{{{_SVG}}}metadata"):
        root.remove(found)
    for node in root.iter():
        _tidy(node, key)
    for name in ("width", "height"):  # the page decides; the proportions are in the viewBox
        root.attrib.pop(name, None)
    root.set("role", "img")
    root.set("aria-labelledby", f"{key}-title {key}-description")
    for place, (name, text) in enumerate((("title", title), ("desc", description))):
        told = ET.Element(f"{{{_SVG}}}{name}")
        told.set("id", f"{key}-{'title' if name == 'title' else 'description'}")
        told.text = printable(text)
        root.insert(place, told)
    ET.register_namespace("", _SVG)
    svg = ET.tostring(root, encoding="unicode")
    return Html(with_variables(re.sub(r">\s+<", "><", svg)))


def _tidy(node: ET.Element, key: str) -> None:
    """Ids of this figure's own, no ``xlink``, and coordinates to a hundredth of a point."""
    for name, value in list(node.attrib.items()):
        if name == "id":
            node.set(name, f"{key}-{value}")
        elif name in _COORDINATES:
            node.set(name, _LONG_NUMBER.sub(lambda number: f"{float(number[0]):.2f}", value))
        elif name == f"{{{_XLINK}}}href":
            del node.attrib[name]
            node.set("href", f"#{key}-{value[1:]}" if value.startswith("#") else value)
        elif "url(#" in value:
            node.set(name, _REFERENCE.sub(rf"url(#{key}-\1)", value))


# -- what charts have in common --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RunStyle:
    """How a run is drawn and called in every chart of a page.

    Attributes:
        colour: In charts.
        variable: The same, in the page's CSS.
    """

    label: str
    colour: str
    variable: str
    dash: Any


def run_style(index: int, label: str) -> RunStyle:
    """The style of a page's run, counted from 0."""
    name = f"run-{index % _RUN_COLOURS + 1}"
    return RunStyle(
        shortened(printable(label), _LABEL_LENGTH),
        light(name),
        f"var(--{name})",
        _DASHES[index // _RUN_COLOURS % len(_DASHES)],
    )


class _TickNumbers(Formatter):
    """Numbers with as many decimals as tell an axis' ticks apart, thousands grouped."""

    def __call__(self, value: float, pos: int | None = None) -> str:  # noqa: ARG002
        return said_number(value)

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        scale = max((abs(value) for value in values), default=0.0) or 1.0
        for decimals in range(_MOST_DECIMALS):
            if all(abs(value - round(value, decimals)) < 1e-6 * scale for value in values):
                break
        return [f"{value + 0.0:,.{decimals}f}" for value in values]


def grouped_numbers(axis: Any) -> None:  # noqa: ANN401 - matplotlib's
    """Ticks as people write numbers."""
    axis.set_major_formatter(_TickNumbers())


def whole_numbers(axis: Any) -> None:  # noqa: ANN401 - matplotlib's
    """Ticks at whole numbers."""
    axis.set_major_locator(MaxNLocator(integer=True, nbins=7, min_n_ticks=1))
    grouped_numbers(axis)


def virtual_time_axis(axes: Axes, unit: TimeUnit, end_s: float, *, label: bool = True) -> None:
    """Virtual time from 0 to the end, in a unit, ticked as clocks and calendars are read."""
    span = end_s / unit.seconds if end_s > 0 else 1.0
    axes.set_xlim(0, span)
    step = next((s for s in _TIME_STEPS[unit.name] if span <= s * _TIME_TICKS), None)
    locator = MultipleLocator(step) if step is not None else MaxNLocator(nbins=_TIME_TICKS)
    axes.xaxis.set_major_locator(locator)
    grouped_numbers(axes.xaxis)
    if label:
        axes.set_xlabel(f"virtual time, {unit.name}")


def legend_above(figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """One legend for all panels, above them."""
    # In a row if they fit, else in columns of the width of the longest.
    widths = [_LEGEND_MARK_PT + _LEGEND_LETTER_PT * len(label) for label in labels]
    room = WIDTH_IN * 72 - 20
    fits = sum(widths) <= room
    columns = len(labels) if fits else max(1, int(room / max(widths)))
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, borderaxespad=0.0)
