"""The straggler timeline: every task of one aggregation, phase by phase (FedScale, Fig. 12)."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from flint.reports.chart import Chart, finished, grouped_numbers, legend_above
from flint.reports.colours import light
from flint.reports.rounds import AggregationWindow, typical_window
from flint.reports.shown_run import ShownRun, panel_each
from flint.reports.task_charts import outcome_colour
from flint.reports.trials import UNKNOWN_OUTCOME
from flint.reports.wording import OUTCOMES, TimeUnit, said_duration, said_outcome, unit_of

_PHASES = ("download", "train", "upload")
_BARS = 160


def round_chart(runs: Sequence[ShownRun]) -> Chart:
    """Tasks of a run's typical aggregation, that of median duration in its first trial."""
    key, title = "timeline", "Who the server waits for: one aggregation"
    found = [(run, typical_window(run.trials[0]) if run.trials else None) for run in runs]
    shown = [(run, window) for run, window in found if window is not None]
    if not shown:
        return Chart(key, title, "It is not known which tasks an aggregation consisted of.")
    most = max(min(window.outcome.size, _BARS) for _, window in shown)
    height = min(5.2, 1.5 + 0.06 * most)
    figure, axes = panel_each([run for run, _ in shown], height_in=height, share_x=False)
    data: dict[str, list[object]] = {
        name: []
        for name in ("run", "version", "outcome", "start_s", "downloaded_s", "trained_s", "end_s")
    }
    codes: set[int] = set()
    for panel, (run, window) in zip(axes, shown, strict=True):
        rows = _rows(window)
        longest = float(window.boundaries_s[:, 3].max() - window.boundaries_s[:, 0].min())
        unit = unit_of(longest)
        _draw(panel, window, rows, unit)
        codes |= set(window.outcome[rows].tolist())
        data["run"] += [run.run.run_id] * rows.size
        data["version"] += [window.version] * rows.size
        data["outcome"] += [_outcome(code) for code in window.outcome[rows]]
        for column, name in enumerate(("start_s", "downloaded_s", "trained_s", "end_s")):
            data[name] += window.boundaries_s[rows, column].tolist()
    axes[0].set_ylabel("tasks, by their end")
    _legend(figure, sorted(codes))
    of_runs = [
        (run.label, _sentence(window) if window is not None else "its tasks are not known.")
        for run, window in found
    ]
    reading = "The aggregation of median duration (of the first trial)."
    description = (
        "A bar for each task of one aggregation: download, training, upload, and its outcome."
    )
    svg = finished(figure, key, title, description)
    return Chart(key, title, reading, of_runs, description, svg, data)


def _rows(window: AggregationWindow) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """All tasks, or evenly chosen ones of very many; the last to end is always among them."""
    count = window.outcome.size
    return np.unique(np.linspace(0, count - 1, min(count, _BARS)).round().astype(np.intp))


def _draw(
    panel: Axes,
    window: AggregationWindow,
    rows: np.ndarray[tuple[int], np.dtype[np.intp]],
    unit: TimeUnit,
) -> None:
    since = (window.boundaries_s[rows] - window.begun_s) / unit.seconds
    height = np.arange(rows.size)[::-1].astype(float)
    # A bar's width in points, so that bars of any number of tasks leave gaps between them.
    width = min(9.0, 0.62 * panel.get_window_extent().height * 0.72 / max(rows.size, 8))
    for phase, name in enumerate(_PHASES):
        segments = [
            ((since[row, phase], height[row]), (since[row, phase + 1], height[row]))
            for row in range(rows.size)
            if since[row, phase + 1] > since[row, phase]
        ]
        panel.add_collection(
            LineCollection(segments, colors=light(name), linewidths=width, capstyle="butt")
        )
    for code in np.unique(window.outcome[rows]):
        of_outcome = window.outcome[rows] == code
        panel.plot(
            since[of_outcome, 3],
            height[of_outcome],
            linestyle="",
            marker="o",
            markersize=min(6.0, max(2.6, width * 0.9)),
            color=outcome_colour(int(code)),
        )
    for at in (0.0, window.duration_s / unit.seconds):
        panel.axvline(at, color=light("ink"), linewidth=0.9, linestyle=(0, (3, 2)), zorder=0.9)
    low, high = min(0.0, since.min()), max(window.duration_s / unit.seconds, since.max())
    margin = 0.02 * (high - low or 1.0)
    panel.set_xlim(low - margin, high + margin)
    panel.set_ylim(-1, rows.size)
    panel.set_yticks([])
    panel.grid(visible=False, axis="y")
    grouped_numbers(panel.xaxis)
    panel.set_xlabel(f"{unit.name} since version {window.version - 1:,} was stored")


def _legend(figure: object, codes: Sequence[int]) -> None:
    handles: list[object] = [Patch(facecolor=light(name)) for name in _PHASES]
    handles += [
        Line2D([], [], linestyle="", marker="o", markersize=5, color=outcome_colour(code))
        for code in codes
    ]
    handles.append(Line2D([], [], color=light("ink"), linewidth=0.9, linestyle=(0, (3, 2))))
    labels = [*_PHASES, *(said_outcome(_outcome(code)) for code in codes), "version stored"]
    legend_above(figure, handles, labels)  # type: ignore[arg-type]


def _outcome(code: int) -> str:
    return OUTCOMES[code] if code < UNKNOWN_OUTCOME else "unknown"


def _sentence(window: AggregationWindow) -> str:
    lasted = window.boundaries_s[:, 3] - window.boundaries_s[:, 0]
    succeeded = lasted[window.outcome == 0]
    tasks = window.outcome.size
    which = "all tasks of the round" if window.is_round else "those aggregated or lost in it"
    drawn = f" ({_BARS} of them are drawn)" if tasks > _BARS else ""
    told = (
        f"version {window.version:,} took "
        f"{said_duration(window.duration_s)}; {tasks:,} tasks, {which}{drawn}."
    )
    if succeeded.size:
        told += (
            f" Aggregated ones took {said_duration(float(np.median(succeeded)))} in the median and "
            f"{said_duration(float(succeeded.max()))} at most."
        )
    return told
