"""The page about measured devices: FLINT's Table 5 and Fig. 4, on this platform's measurements."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from flint.bench_table import (
    COLUMNS,
    FLEETS,
    MeasuredTable,
    TableRow,
    left_out_sentence,
    shown_row,
)
from flint.reports.chart import Chart, drawing, finished, legend_above, panels
from flint.reports.colours import light
from flint.reports.frame import drawn, framed
from flint.reports.markup import Html, element, joined
from flint.reports.tables import table
from flint.reports.wording import said_duration, said_number, sentence
from server.device_criteria import BENCHMARK_RECORDS

_COLOURS = dict(zip(dict.fromkeys(FLEETS.values()), ("run-1", "run-3", "run-2"), strict=True))
_MARKERS = dict(zip(dict.fromkeys(FLEETS.values()), ("o", "D", "o"), strict=True))
_PAPER = "mean of the paper's 27 phones"

_CONVENTIONS = (
    "Storage is the model file with its manifest; network is one task's parameters down and update "
    "up; memory is how far the peak resident size grew beyond that after imports; CPU is that of "
    "the process, 100 % being one core; MB are 10^6 bytes. Training is one local epoch, scaled to "
    "5,000 records; mean and deviation (±) are across device models, each counted once, as in the "
    "paper. In brackets are the paper's figures."
)
_EMULATED = (
    "Emulated devices are shares of a core of the machine that measured. How far they lie apart is "
    "taken from a public benchmark of phones; no single time among them is a phone's, and memory "
    "and bandwidth are not a phone's either. Compare models with them, not devices."
)


def make_bench_page(measured: MeasuredTable) -> str:
    """The page; the table has at least one row."""
    with drawing():
        chart = training_time_chart(measured.rows)
    has_emulated = any(row.fleet == FLEETS["emulated"] for row in measured.rows)
    left_out = [
        sentence(f"{left_out_sentence(model, names)}.")
        for model, names in measured.left_out.items()
    ]
    body = joined(
        element(
            "header",
            element("h1", "What models cost devices"),
            element("p", "FLINT's Table 5 and Fig. 4, measured here.", class_="quiet"),
            element("p", _EMULATED, class_="warning") if has_emulated else "",
            *(element("p", told, class_="warning") for told in left_out),
        ),
        element(
            "section",
            element("h2", "Table"),
            table(COLUMNS, [[_cell(cell) for cell in shown_row(row)] for row in measured.rows]),
            element("p", _CONVENTIONS),
            id="table",
        ),
        element(
            "section",
            element("h2", chart.title),
            element("p", chart.reading),
            drawn(chart),
            id=chart.key,
        ),
        element("footer", "The page holds all it shows; it fetches nothing."),
    )
    return framed("What models cost devices", body)


def training_time_chart(rows: Sequence[TableRow]) -> Chart:
    """FLINT's Fig. 4: how training times of each model spread over device models, logarithmic."""
    key, title = "training-time", f"Training time on {BENCHMARK_RECORDS:,} records"
    timed = [row for row in rows if row.train_s]
    if not timed:
        return Chart(key, title, "No training was measured, so there is nothing to show.")
    reading = (
        "Each mark is a device model's mean; the bar is the middle half of them, the line in it "
        "their median."
    )
    return Chart(
        key,
        title,
        reading,
        description=_description(timed),
        svg=finished(training_time_figure(timed), key, title, _description(timed)),
        data={
            "model": [row.model for row in timed for _ in row.train_s],
            "measured_on": [row.fleet for row in timed for _ in row.train_s],
            "device_model": [name for row in timed for name in row.train_s],
            "train_s": [seconds for row in timed for seconds in row.train_s.values()],
        },
    )


def training_time_figure(timed: Sequence[TableRow]) -> Figure:
    """The drawing of `training_time_chart`; every row has times."""
    models = list(dict.fromkeys(row.model for row in timed))
    figure, [axes] = panels(1, 1, height_in=1.4 + 0.62 * len(models))
    for row in timed:
        _draw(axes, row, len(models) - 1 - models.index(row.model))
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(base=10, numticks=12))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(f"seconds for {BENCHMARK_RECORDS:,} records")
    axes.set_yticks(range(len(models)), [_label(model, timed) for model in reversed(models)])
    axes.set_ylim(-0.6, len(models) - 0.4)
    fleets = [fleet for fleet in _COLOURS if any(row.fleet == fleet for row in timed)]
    handles = [_handle(fleet) for fleet in fleets]
    labels = [f"{fleet}, one mark a device model" for fleet in fleets]
    if any(row.published is not None for row in timed):
        handles.append(Line2D([], [], marker="x", color=light("ink"), linestyle="none"))
        labels.append(_PAPER)
    legend_above(figure, handles, labels)
    return figure


def _draw(axes: Axes, row: TableRow, place: int) -> None:
    seconds = np.array(list(row.train_s.values()))
    colour = light(_COLOURS[row.fleet])
    if len(seconds) > 3:
        low, middle, high = np.quantile(seconds, [0.25, 0.5, 0.75])
        axes.barh(place, high - low, left=low, height=0.42, color=colour, alpha=0.22)
        axes.plot([middle, middle], [place - 0.21, place + 0.21], color=colour)
    axes.plot(
        seconds,
        np.full(len(seconds), place),
        _MARKERS[row.fleet],
        color=colour,
        markersize=5.5,
        markerfacecolor="none" if row.fleet == FLEETS["emulated"] else colour,
    )
    if row.published is not None:
        axes.plot([row.published.train_s], [place], "x", color=light("ink"), markersize=6.5)


def _handle(fleet: str) -> Line2D:
    colour = light(_COLOURS[fleet])
    face = "none" if fleet == FLEETS["emulated"] else colour
    return Line2D(
        [], [], marker=_MARKERS[fleet], color=colour, markerfacecolor=face, linestyle="none"
    )


def _label(model: str, rows: Sequence[TableRow]) -> str:
    published = next(row.published for row in rows if row.model == model)
    return model if published is None else f"{published.letter}  {model}"


def _description(rows: Sequence[TableRow]) -> str:
    told = []
    for row in rows:
        seconds = sorted(row.train_s.values())
        span = said_duration(seconds[0])
        if len(seconds) > 1:
            span += f" to {said_duration(seconds[-1])} on {len(seconds)} device models"
        told.append(f"{row.model}, {row.fleet}: {span}")
    return "; ".join(told)


def _cell(value: object) -> Html | str:
    return said_number(None) if value is None else str(value)
