"""What became of tasks: outcomes over time, how long they took, how stale updates were."""

from collections.abc import Sequence

import numpy as np
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from flint.reports.chart import (
    Chart,
    finished,
    grouped_numbers,
    legend_above,
    panels,
    virtual_time_axis,
    whole_numbers,
)
from flint.reports.colours import light
from flint.reports.intervals import Reals, interval_edges
from flint.reports.rounds import staleness_of
from flint.reports.shown_run import ShownRun, legend_of_runs, panel_each
from flint.reports.trials import UNKNOWN_OUTCOME, Trial
from flint.reports.wording import (
    OUTCOMES,
    said_duration,
    said_list,
    said_number,
    said_outcome,
    said_share,
    unit_of,
)

_SHOWN_OUTCOMES = (*OUTCOMES, "unknown")
_DURATION_BINS = 48
_STALENESS_BARS = 40
_SHOWN_PERCENTILE = 99.0
_NO_TASKS = "No task was started, so there is nothing to show."


def outcome_colour(code: int) -> str:
    """The colour of an outcome, see `Trial.outcome`."""
    return light(said_outcome(_SHOWN_OUTCOMES[code]))


def outcome_legend(figure: object, codes: Sequence[int]) -> None:
    """A legend of the outcomes that occur."""
    handles = [Patch(facecolor=outcome_colour(code)) for code in codes]
    labels = [said_outcome(_SHOWN_OUTCOMES[code]) for code in codes]
    legend_above(figure, handles, labels)  # type: ignore[arg-type]


def outcomes_chart(runs: Sequence[ShownRun]) -> Chart:
    """Tasks that ended in each interval of virtual time, stacked by outcome."""
    key, title = "outcomes", "Outcomes over time"
    codes = _codes(runs)
    if not codes:
        return Chart(key, title, _NO_TASKS)
    end_s = max(run.end_s for run in runs)
    edges, unit = interval_edges(end_s, at_most=120), unit_of(end_s)
    width = said_duration(float(edges[1] - edges[0]))
    figure, axes = panel_each(runs, height_in=2.9, share_y=True)
    data: dict[str, list[object]] = {name: [] for name in ("run", "from_s", "to_s")}
    data |= {_SHOWN_OUTCOMES[code]: [] for code in codes}
    for panel, run in zip(axes, runs, strict=True):
        counts = np.mean([_ended_by_outcome(trial, edges) for trial in run.trials], axis=0)
        below = np.zeros(edges.size - 1)
        for code in codes:
            above = below + counts[code]
            panel.stairs(
                above, edges / unit.seconds, baseline=below, fill=True, color=outcome_colour(code)
            )
            below = above
            data[_SHOWN_OUTCOMES[code]] += counts[code].tolist()
        data["run"] += [run.run.run_id] * (edges.size - 1)
        data["from_s"] += edges[:-1].tolist()
        data["to_s"] += edges[1:].tolist()
        virtual_time_axis(panel, unit, end_s)
        whole_numbers(panel.yaxis)
    axes[0].set_ylabel(f"tasks ended per {width}")
    outcome_legend(figure, codes)
    of_runs = [(run.label, _outcome_sentence(run)) for run in runs]
    several = any(len(run.trials) > 1 for run in runs)
    reading = "Counts are means over trials." if several else ""
    description = f"Tasks ended per {width} of virtual time, stacked by outcome."
    svg = finished(figure, key, title, description)
    return Chart(key, title, reading, of_runs, description, svg, data)


def duration_chart(runs: Sequence[ShownRun]) -> Chart:
    """How long tasks took, on a logarithmic axis, by outcome."""
    key, title = "durations", "How long tasks took"
    codes = _codes(runs)
    every = np.concatenate([_durations(t) for run in runs for t in run.trials] or [np.array([])])
    positive = every[every > 0]
    if not codes or not positive.size:
        return Chart(key, title, _NO_TASKS if not codes else "No task took any time.")
    edges = _log_edges(float(positive.min()), float(positive.max()))
    figure, axes = panel_each(runs, height_in=2.9)
    data: dict[str, list[object]] = {name: [] for name in ("run", "from_s", "to_s")}
    data |= {_SHOWN_OUTCOMES[code]: [] for code in codes}
    for panel, run in zip(axes, runs, strict=True):
        durations = np.concatenate([_durations(trial) for trial in run.trials])
        outcome = np.concatenate([trial.outcome[_has_ended(trial)] for trial in run.trials])
        # What took no time at all (a task refused at once) is in the first bar.
        durations = np.maximum(durations, edges[0])
        below = np.zeros(edges.size - 1)
        for code in codes:
            count, _ = np.histogram(durations[outcome == code], edges)
            above = below + count
            panel.stairs(above, edges, baseline=below, fill=True, color=outcome_colour(code))
            below = above
            data[_SHOWN_OUTCOMES[code]] += count.tolist()
        data["run"] += [run.run.run_id] * (edges.size - 1)
        data["from_s"] += edges[:-1].tolist()
        data["to_s"] += edges[1:].tolist()
        panel.set_ylim(top=1.16 * max(float(below.max()), 1.0))  # room for the median's label
        _mark_median(panel, durations[outcome == 0])
        _duration_axis(panel, edges)
        whole_numbers(panel.yaxis)
        panel.set_xlabel("from start to end of a task (logarithmic)")
    axes[0].set_ylabel("tasks")
    outcome_legend(figure, codes)
    of_runs = [(run.label, _duration_sentence(run)) for run in runs]
    several = any(len(run.trials) > 1 for run in runs)
    reading = "Tasks of all trials together." if several else ""
    description = "Histogram of task durations on a logarithmic axis, stacked by outcome."
    svg = finished(figure, key, title, description)
    return Chart(key, title, reading, of_runs, description, svg, data)


def staleness_chart(runs: Sequence[ShownRun]) -> Chart:
    """How many versions aggregated updates were behind."""
    key, title = "staleness", "How stale updates were"
    found = [(run, _staleness(run)) for run in runs]
    having = [(run, staleness) for run, staleness in found if staleness.size]
    if not having:
        return Chart(
            key, title, "No update's base version is known, so nothing can be said of staleness."
        )
    most = int(max(staleness.max() for _, staleness in having))
    of_runs = [(run.label, _staleness_sentence(staleness)) for run, staleness in found]
    if most == 0:
        return Chart(key, title, "", of_runs)
    # A long tail goes into the last bar, so that the rest can be told apart.
    shown_to = most
    if most >= _STALENESS_BARS:
        shown_to = int(max(np.percentile(staleness, _SHOWN_PERCENTILE) for _, staleness in having))
    width = -(-(shown_to + 1) // _STALENESS_BARS)
    edges = np.arange(0, shown_to + 1 + width, width) - 0.5
    figure, (panel,) = panels(1, 1, height_in=2.6)
    data: dict[str, list[object]] = {
        "run": [],
        "staleness_from": [],
        "staleness_to": [],
        "updates": [],
    }
    share = 0.86 / len(having)
    for place, (run, staleness) in enumerate(having):
        count, _ = np.histogram(np.minimum(staleness, edges[-1] - 0.5), edges)
        left = edges[:-1] + width * (0.07 + share * place)
        panel.bar(
            left,
            100 * count / staleness.size,
            width=share * width,
            align="edge",
            color=run.style.colour,
        )
        data["run"] += [run.run.run_id] * count.size
        data["staleness_from"] += (edges[:-1] + 0.5).astype(int).tolist()
        data["staleness_to"] += [*(edges[1:-1] - 0.5).astype(int).tolist(), most]
        data["updates"] += count.tolist()
    tail = f"; the last bar is {edges[-2] + 0.5:,.0f} and more" if most > edges[-1] else ""
    panel.set_xlabel(f"versions behind when aggregated{tail}")
    panel.set_ylabel("% of aggregated updates")
    panel.set_xlim(edges[0], edges[-1])
    whole_numbers(panel.xaxis)
    grouped_numbers(panel.yaxis)
    panel.grid(visible=False, axis="x")
    legend_of_runs(figure, [run for run, _ in having])
    reading = ""
    description = "Share of aggregated updates by the number of versions they were behind."
    svg = finished(figure, key, title, description)
    return Chart(key, title, reading, of_runs, description, svg, data)


# -- figures behind the charts ---------------------------------------------------------------------


def _codes(runs: Sequence[ShownRun]) -> list[int]:
    """Outcomes that occur in any of the runs, in order."""
    seen = [np.unique(trial.outcome) for run in runs for trial in run.trials]
    return [int(code) for code in np.unique(np.concatenate([*seen, np.array([], dtype=int)]))]


def _ended_by_outcome(trial: Trial, edges: Reals) -> Reals:
    """Tasks that ended in each interval, shape ``(outcomes + 1, intervals)``."""
    ended = trial.tasks["ended_s"]
    return np.array(
        [
            np.histogram(ended[(trial.outcome == code) & np.isfinite(ended)], edges)[0]
            for code in range(UNKNOWN_OUTCOME + 1)
        ],
        dtype=np.float64,
    )


def _has_ended(trial: Trial) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.isfinite(trial.tasks["ended_s"]) & np.isfinite(trial.tasks["started_s"])


def _durations(trial: Trial) -> Reals:
    lasted = trial.tasks["ended_s"] - trial.tasks["started_s"]
    return lasted[_has_ended(trial)]


def _staleness(run: ShownRun) -> Reals:
    return np.concatenate([staleness_of(trial) for trial in run.trials] or [np.array([])])


def _outcome_sentence(run: ShownRun) -> str:
    outcomes, started = run.figures.outcomes, run.figures.tasks_started
    if not outcomes or started is None or not started.mean:
        return "no task was started."
    told = [
        f"{said_share(count.mean / started.mean)} {said_outcome(name)}"
        for name, count in outcomes.items()
        if count.mean
    ]
    return f"of {said_number(round(started.mean, 1))} tasks {said_list(told)}."


def _duration_sentence(run: ShownRun) -> str:
    succeeded = [_durations(t)[t.outcome[_has_ended(t)] == 0] for t in run.trials]
    lasted = np.concatenate([*succeeded, np.array([])])
    if not lasted.size:
        return "no task succeeded."
    median, most_of, longest = np.percentile(lasted, (50, 95, 100))
    return (
        f"half of the tasks that succeeded took at most {said_duration(median)}, "
        f"95\N{NO-BREAK SPACE}% at most {said_duration(most_of)}, the longest "
        f"{said_duration(longest)}."
    )


def _staleness_sentence(staleness: Reals) -> str:
    if not staleness.size:
        return "no update's base version is known."
    if not staleness.any():
        return "every aggregated update was trained on the newest version: none was stale."
    median, most_of, largest = np.percentile(staleness, (50, 95, 100), method="inverted_cdf")
    return (
        f"aggregated updates were {said_number(float(staleness.mean()))} versions "
        f"behind on average (median {median:.0f}, 95th percentile {most_of:.0f}, at most "
        f"{largest:.0f})."
    )


# -- drawing ---------------------------------------------------------------------------------------


def _log_edges(least: float, most: float) -> Reals:
    if most <= least * 1.05:  # all alike
        least, most = least / 1.5, most * 1.5
    # The largest value belongs into the last bar whatever rounding does.
    return np.geomspace(least, most * (1 + 1e-9), _DURATION_BINS + 1)


def _duration_axis(panel: object, edges: Reals) -> None:
    panel.set_xscale("log")  # type: ignore[attr-defined]
    panel.set_xlim(edges[0], edges[-1])  # type: ignore[attr-defined]
    axis = panel.xaxis  # type: ignore[attr-defined]
    ticks = [t for t in _CLOCK_TICKS_S if edges[0] <= t <= edges[-1]]
    if len(ticks) >= 2:
        axis.set_ticks(ticks)
    else:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: said_duration(value)))
    axis.set_minor_formatter(NullFormatter())
    axis.set_tick_params(which="minor", length=0)


_CLOCK_TICKS_S = (
    *(0.001, 0.01, 0.1, 1, 3, 10, 30, 60, 180, 600, 1800),
    *(3600, 3 * 3600, 10 * 3600, 86400, 7 * 86400),
)


def _mark_median(panel: object, durations: Reals) -> None:
    if durations.size:
        median = float(np.median(durations))
        panel.axvline(median, color=light("ink"), linewidth=0.9, linestyle=(0, (3, 2)))  # type: ignore[attr-defined]
        panel.annotate(  # type: ignore[attr-defined]
            f" median succeeded {said_duration(median)}",
            (median, 0.97),
            xycoords=("data", "axes fraction"),
            va="top",
            fontsize=8,
        )
