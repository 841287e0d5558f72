"""What the fleet did: availability, tasks in flight, bytes, device tiers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from flint.reports.chart import (
    Chart,
    finished,
    grouped_numbers,
    panels,
    virtual_time_axis,
    whole_numbers,
)
from flint.reports.colours import light
from flint.reports.intervals import (
    Reals,
    interval_edges,
    mean_in_flight,
    peak_in_flight,
    spread_over,
    thinned,
)
from flint.reports.shown_run import ShownRun, legend_of_runs
from flint.reports.trials import Spread, Trial, numeric_columns
from flint.reports.wording import (
    said_bytes,
    said_duration,
    said_metric_name,
    said_number,
    said_share,
    sentence,
    unit_of,
)

TIERS = ("fast", "middle", "slow")
_PEAK_WINDOW_S = 60.0


def availability_chart(runs: Sequence[ShownRun]) -> Chart:
    """Clients available, and tasks in flight, over the run."""
    key, title = "availability", "Devices available and tasks in flight"
    known = [run for run in runs if run.run.availability.num_rows]
    started = [run for run in runs if any(t.tasks["started_s"].size for t in run.trials)]
    if not known and not started:
        return Chart(key, title, "Neither availability nor any task was recorded.")
    end_s = max(run.end_s for run in runs)
    unit, edges = unit_of(end_s), interval_edges(end_s, at_most=240)
    longest = max(known, key=lambda run: run.run.availability.num_rows, default=None)
    is_same = longest is not None and all(
        run.run.availability.equals(longest.run.availability[: run.run.availability.num_rows])
        for run in known
    )
    count = bool(known) + bool(started)
    figure, axes = panels(count, 1, height_in=0.4 + 2.0 * count, sharex=True)
    data: dict[str, list[object]] = {
        name: [] for name in ("run", "from_s", "to_s", "available", "in_flight")
    }
    for run in runs:
        available = _available(run, edges)
        in_flight = np.mean([_in_flight(trial, edges) for trial in run.trials], axis=0)
        is_over = edges[:-1] >= run.end_s
        middle = (edges[:-1] + edges[1:]) / 2 / unit.seconds
        if run is longest or (run in known and not is_same):
            _curve(axes[0], middle, available, run, is_only=len(runs) == 1)
        if run in started:
            _curve(axes[-1], middle[~is_over], in_flight[~is_over], run, is_only=len(runs) == 1)
        data["run"] += [run.run.run_id] * middle.size
        data["from_s"] += edges[:-1].tolist()
        data["to_s"] += edges[1:].tolist()
        data["available"] += available.tolist()
        data["in_flight"] += in_flight.tolist()
    if known:
        axes[0].set_title(_AVAILABLE + (_SAME if is_same and len(known) > 1 else ""))
    if started:
        axes[-1].set_title("Tasks in flight")
    for panel in axes:
        panel.set_ylim(bottom=0)
        whole_numbers(panel.yaxis)
        virtual_time_axis(panel, unit, end_s, label=panel is axes[-1])
    legend_of_runs(figure, runs)
    of_runs = [(run.label, _fleet_sentence(run)) for run in runs]
    several = any(len(run.trials) > 1 for run in runs)
    reading = "Tasks in flight are means over trials." if several else ""
    description = "Clients available, and tasks in flight, against virtual time."
    svg = finished(figure, key, title, description)
    return Chart(key, title, reading, of_runs, description, svg, data)


_SAME = ", the same for all runs"
_AVAILABLE = "Clients available (inside a window of their trace)"


def _curve(panel: Any, x: Reals, y: Reals, run: ShownRun, *, is_only: bool) -> None:  # noqa: ANN401 - matplotlib's
    shown = np.isfinite(y)
    panel.plot(x[shown], y[shown], color=run.style.colour, linestyle=run.style.dash, linewidth=1.4)
    if is_only:
        panel.fill_between(x[shown], y[shown], color=run.style.colour, alpha=0.14)


def _available(run: ShownRun, edges: Reals) -> Reals:
    """Mean of the recorded values in each interval; NaN where there are none."""
    columns = numeric_columns(run.run.availability)
    count, _ = np.histogram(columns["virtual_s"], edges)
    total, _ = np.histogram(columns["virtual_s"], edges, weights=columns["available"])
    if not columns["virtual_s"].size:
        return np.full(edges.size - 1, np.nan)
    middle = (edges[:-1] + edges[1:]) / 2
    with np.errstate(invalid="ignore"):
        mean = total / count
    # Between points of a coarse grid: in between.
    inside = (middle >= columns["virtual_s"].min()) & (middle <= columns["virtual_s"].max())
    between = np.interp(middle, columns["virtual_s"], columns["available"])
    return np.where(count > 0, mean, np.where(inside, between, np.nan))


def _in_flight(trial: Trial, edges: Reals) -> Reals:
    return mean_in_flight(trial.tasks["started_s"], trial.tasks["ended_s"], edges)


def _fleet_sentence(run: ShownRun) -> str:
    told = []
    available = numeric_columns(run.run.availability)["available"]
    if not available.size:
        told.append("how many clients were available is not recorded")
    elif available.min() == available.max():
        told.append(f"{said_number(available.max())} clients available throughout")
    else:
        told.append(
            f"between {said_number(available.min())} and {said_number(available.max())} clients "
            f"available (mean {said_number(round(float(available.mean())))})"
        )
    tasks = [trial for trial in run.trials if trial.tasks["started_s"].size]
    if tasks:
        busy = Spread.of(_mean_in_flight(trial) for trial in tasks)
        peak = max(peak_in_flight(t.tasks["started_s"], t.tasks["ended_s"]) for t in tasks)
        mean = busy.mean if busy else 0.0
        told.append(f"{said_number(mean)} tasks in flight on average, at most {peak:,}")
    else:
        told.append("no task was started")
    return f"{'; '.join(told)}."


def _mean_in_flight(trial: Trial) -> float:
    end_s = trial.end_s
    whole = np.array([0.0, end_s])
    return float(_in_flight(trial, whole)[0]) if end_s > 0 else 0.0


# -- bytes -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Transfer:
    """When bytes of a trial's tasks flowed, in one direction."""

    start_s: Reals
    end_s: Reals
    amount: Reals

    def rate(self, edges: Reals) -> Reals:
        """Bytes per second in each interval."""
        flowed = spread_over(self.start_s, self.end_s, self.amount, edges)
        return flowed / np.diff(edges)


def transfers(trial: Trial) -> Mapping[str, Transfer]:
    """What went ``"down"`` to devices and ``"up"`` from them, evenly over its phase of a task."""
    tasks = trial.tasks
    ended = np.where(np.isnan(tasks["ended_s"]), trial.end_s, tasks["ended_s"])
    downloaded = np.minimum(tasks["started_s"] + np.nan_to_num(tasks["download_s"]), ended)
    upload_from = np.maximum(ended - np.nan_to_num(tasks["upload_s"]), downloaded)
    return {
        "down": Transfer(tasks["started_s"], downloaded, np.nan_to_num(tasks["bytes_down"])),
        "up": Transfer(upload_from, ended, np.nan_to_num(tasks["bytes_up"])),
    }


def busiest_minute(transfer: Transfer, end_s: float) -> float:
    """Bytes per second in the busiest minute of a run (the whole run, if shorter)."""
    if not end_s > 0:
        return 0.0
    if end_s <= _PEAK_WINDOW_S:
        return float(transfer.rate(np.array([0.0, end_s]))[0])
    edges = np.arange(0.0, end_s + _PEAK_WINDOW_S, _PEAK_WINDOW_S)
    return float(transfer.rate(edges).max())


def bytes_chart(runs: Sequence[ShownRun]) -> Chart:
    """Traffic between server and devices over time, and its peak."""
    key, title = "bytes", "Network traffic of the server"
    having = [
        run
        for run in runs
        if any(np.nansum(t.tasks[c]) > 0 for t in run.trials for c in ("bytes_down", "bytes_up"))
    ]
    if not having:
        return Chart(key, title, "No bytes were recorded, so there is nothing to show.")
    end_s = max(run.end_s for run in runs)
    unit, edges = unit_of(end_s), interval_edges(end_s)
    width = said_duration(float(edges[1] - edges[0]))
    figure, axes = panels(1, 2, height_in=2.9)
    data: dict[str, list[object]] = {
        name: [] for name in ("run", "from_s", "to_s", "down_bytes_per_s", "up_bytes_per_s")
    }
    for run in having:
        data["run"] += [run.run.run_id] * (edges.size - 1)
        data["from_s"] += edges[:-1].tolist()
        data["to_s"] += edges[1:].tolist()
        for panel, direction in zip(axes, ("down", "up"), strict=True):
            rates = [transfers(trial)[direction].rate(edges) for trial in run.trials]
            mean = np.mean(rates, axis=0)
            data[f"{direction}_bytes_per_s"] += mean.tolist()
            middle = (edges[:-1] + edges[1:]) / 2 / unit.seconds
            shown = edges[:-1] < run.end_s
            x, y = thinned(middle[shown], mean[shown])
            _curve(panel, x, y, run, is_only=len(runs) == 1)
    for panel, name in zip(axes, ("To devices (down)", "From devices (up)"), strict=True):
        panel.set_title(name)
        panel.set_ylim(bottom=0)
        panel.yaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{said_bytes(rate)}/s"))
        virtual_time_axis(panel, unit, end_s)
    legend_of_runs(figure, runs)
    of_runs = [(run.label, _bytes_sentence(run)) for run in having]
    reading = f"The curves are means per {width}."
    if edges[1] - edges[0] > _PEAK_WINDOW_S:
        reading += " The busiest minute lies above them."
    description = "Bytes per second to and from devices against virtual time."
    svg = finished(figure, key, title, description)
    return Chart(key, title, reading, of_runs, description, svg, data)


def _bytes_sentence(run: ShownRun) -> str:
    peaks = {
        direction: max(
            busiest_minute(transfers(trial)[direction], trial.end_s) for trial in run.trials
        )
        for direction in ("down", "up")
    }
    down, up = run.figures.bytes_down, run.figures.bytes_up
    return (
        f"{said_bytes(down.mean if down else None)} down, "
        f"{said_bytes(up.mean if up else None)} up; in its busiest minute the server sends "
        f"{said_bytes(peaks['down'])}/s and receives {said_bytes(peaks['up'])}/s."
    )


# -- tiers -----------------------------------------------------------------------------------------


def tiers_chart(runs: Sequence[ShownRun]) -> Chart:
    """Model quality and share of the work by speed of the device (FedScale, Fig. 13)."""
    key, title = "tiers", "Fast and slow devices"
    having = [(run, tier_figures(run)) for run in runs]
    having = [(run, tiers) for run, tiers in having if tiers]
    if not having:
        return Chart(key, title, "Devices of these runs are in no tiers of speed.")
    measured = [r for r, tiers in having if any(t["metric"] is not None for t in tiers.values())]
    figure, axes = panels(1, 1 + bool(measured), height_in=3.0)
    data: dict[str, list[object]] = {
        n: [] for n in ("run", "tier", "metric", "clients_share", "tasks_share", "succeeded_share")
    }
    share = 0.8 / len(having)
    for place, (run, tiers) in enumerate(having):
        at = np.arange(len(TIERS)) - 0.4 + share * (place + 0.5)
        for x, tier in zip(at, TIERS, strict=True):
            found = tiers.get(tier)
            if found is None:
                continue
            _draw_tier(axes, float(x), share, found, run)
            told = {n: s.mean if s is not None else None for n, s in found.items()}
            for name, value in {"run": run.run.run_id, "tier": tier, **told}.items():
                data[name].append(value)
    for panel in axes:
        panel.set_xticks(range(len(TIERS)), [f"{tier} devices" for tier in TIERS])
        panel.set_xlim(-0.5, len(TIERS) - 0.5)
        panel.grid(visible=False, axis="x")
        panel.tick_params(axis="x", labelcolor=light("ink"), length=0)
        grouped_numbers(panel.yaxis)
    name = said_metric_name(next((run.run.metric_name for run in measured), None))
    if measured:
        axes[0].set_title(f"{sentence(name)} on the clients of a tier")
        axes[0].margins(y=0.25)
    axes[-1].set_title("% of all clients, tasks and successful tasks")
    axes[-1].set_ylim(bottom=0)
    _tier_legend(axes[-1])
    legend_of_runs(figure, [run for run, _ in having])
    of_runs = [(run.label, _tier_sentence(run, tiers)) for run, tiers in having]
    reading = (
        "Clients are ranked by the median speed of their device model and cut into thirds; those "
        "of one model stay together, so the thirds need not be equal."
    )
    if not measured:
        reading += " The metric was not measured by tier."
    description = "Metric of each tier of devices, and its share of clients and tasks."
    svg = finished(figure, key, title, description)
    return Chart(key, title, reading, of_runs, description, svg, data)


TierFigures = Mapping[str, Mapping[str, Spread | None]]


def tier_figures(run: ShownRun) -> TierFigures:
    """Metric and shares of clients, tasks and successful tasks of each tier, over trials."""
    each: dict[str, dict[str, list[float | None]]] = {}
    for trial in run.trials:
        tiers = {str(t["tier"]): t for t in trial.summary.get("tiers") or ()}
        for tier, found in tiers.items():
            figures = each.setdefault(tier, {"metric": []})
            figures["metric"].append(found.get("metric"))
            for count in ("clients", "tasks", "succeeded"):
                whole = sum(other.get(count) or 0 for other in tiers.values())
                part = found.get(count) or 0
                figures.setdefault(f"{count}_share", []).append(part / whole if whole else None)
    return {t: {n: Spread.of(v) for n, v in figures.items()} for t, figures in each.items()}


def _draw_tier(
    axes: Sequence[Any], x: float, width: float, found: Mapping[str, Spread | None], run: ShownRun
) -> None:
    metric, colour = found["metric"], run.style.colour
    if metric is not None:
        axes[0].plot([x, x], [metric.least, metric.most], color=colour, linewidth=1.4)
        axes[0].plot([x], [metric.mean], color=colour, marker="o", markersize=5)
        axes[0].annotate(
            f" {said_number(metric.mean, 3)}", (x, metric.mean), va="center", xytext=(5, 0),
            textcoords="offset points", fontsize=7.5,
        )  # fmt: skip
    tasks, succeeded, clients = (found[f"{n}_share"] for n in ("tasks", "succeeded", "clients"))
    if tasks is not None:
        axes[-1].bar(x, 100 * tasks.mean, width=width * 0.86, color=colour, alpha=0.75)
    if succeeded is not None:
        axes[-1].plot(
            [x], [100 * succeeded.mean], marker="D", markersize=4.5, color=light("ink"),
            markerfacecolor=light("paper"), linestyle="",
        )  # fmt: skip
    if clients is not None:
        half = width * 0.46
        axes[-1].plot([x - half, x + half], [100 * clients.mean] * 2, color=light("ink"))


def _tier_legend(panel: Any) -> None:  # noqa: ANN401 - matplotlib's
    ink = light("ink")
    bar = Line2D([], [], color=light("quiet"), linewidth=7, alpha=0.75)
    diamond = Line2D(
        [], [], color=ink, marker="D", markersize=4.5, markerfacecolor=light("paper"), linestyle=""
    )
    panel.legend(
        [bar, diamond, Line2D([], [], color=ink)],
        ["tasks", "successful tasks", "clients"],
        loc="upper center",
        bbox_to_anchor=(0.5, -0.12),
        ncols=3,
    )


def _tier_sentence(run: ShownRun, tiers: TierFigures) -> str:
    slow, fast = tiers.get("slow"), tiers.get("fast")
    if slow is None or fast is None:
        return "not every tier is known."
    told = []
    if fast["metric"] is not None and slow["metric"] is not None:
        name = said_metric_name(run.run.metric_name)
        told.append(
            f"{name} {said_number(fast['metric'].mean)} on fast and "
            f"{said_number(slow['metric'].mean)} on slow devices"
        )
    if slow["succeeded_share"] is not None and slow["clients_share"] is not None:
        told.append(
            f"slow devices are {said_share(slow['clients_share'].mean)} of the clients and did "
            f"{said_share(slow['succeeded_share'].mean)} of the successful tasks"
        )
    return f"{'; '.join(told)}." if told else "not every tier is known."
