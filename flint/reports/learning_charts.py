"""What the model learnt: metric and loss against time, versions, tasks and device hours."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from flint.reports.chart import (
    Chart,
    RunStyle,
    finished,
    grouped_numbers,
    panels,
    virtual_time_axis,
    whole_numbers,
)
from flint.reports.intervals import Reals, thinned
from flint.reports.shown_run import ShownRun, legend_of_runs
from flint.reports.trials import Trial, mean_curve
from flint.reports.wording import said_duration, said_list, said_metric_name, said_number, unit_of

_ROWS_BESIDE = 2000
_MARKED_POINTS = 30
_MANY_POINTS = 300


def metric_chart(runs: Sequence[ShownRun]) -> Chart:
    """The metric against virtual time, versions, tasks started and device hours."""
    key, title = "metric", "Model quality"
    measured = [run for run in runs if any(t.measured["metric"].size for t in run.trials)]
    if not measured:
        absent = _absent(runs, "No version's metric was measured")
        return Chart(key, title, absent)
    name = " / ".join(sorted({said_metric_name(run.run.metric_name) for run in measured}))
    unit = unit_of(_last_version_s(runs))
    against = [given for given in _AGAINST if _is_known(measured, given[0])]
    rows = -(-len(against) // 2)
    figure, axes = panels(rows, 2, height_in=0.4 + 2.3 * rows, sharey=True)
    for panel in axes[len(against) :]:
        panel.set_visible(False)
    for panel, (column, divisor, label) in zip(axes, against, strict=False):
        for run in measured:
            curves = [_curve(trial, column, divisor or unit.seconds) for trial in run.trials]
            _draw_trials(panel, [curve for curve in curves if curve[0].size], run.style)
        panel.set_xlabel(label)
        panel.set_xlim(left=0)
        grouped_numbers(panel.yaxis)
        (whole_numbers if column == "version" else grouped_numbers)(panel.xaxis)
    virtual_time_axis(axes[0], unit, _last_version_s(runs))
    for panel in axes[::2]:
        panel.set_ylabel(name)
    legend_of_runs(figure, measured)
    said = said_list(["virtual time", *(label for _, _, label in against[1:])])
    description = f"{name} of model versions against {said}."
    reading = _measured_where(measured)
    if any(len(run.trials) > 1 for run in measured):
        reading += " Bold: mean over trials; band: their range; thin: each trial."
    return Chart(
        key,
        title,
        reading.strip(),
        [(run.label, _metric_sentence(run)) for run in runs],
        description,
        finished(figure, key, title, description),
        _beside(measured, "metric"),
    )


def loss_chart(runs: Sequence[ShownRun]) -> Chart:
    """Central loss, and the loss devices saw, against virtual time."""
    key, title = "loss", "Loss"
    shown = {
        column: [run for run in runs if any(len(_known(t, column)[0]) for t in run.trials)]
        for column in ("loss", "train_loss")
    }
    if not shown["loss"] and not shown["train_loss"]:
        return Chart(key, title, _absent(runs, "No loss was recorded"))
    unit = unit_of(_last_version_s(runs))
    having_any = {column: having for column, having in shown.items() if having}
    figure, axes = panels(1, len(having_any), height_in=2.8)
    end_s = _last_version_s(runs)
    for panel, (column, having) in zip(axes, having_any.items(), strict=True):
        panel.set_title(_LOSSES[column])
        for run in having:
            curves = [_known(trial, column) for trial in run.trials]
            curves = [(x / unit.seconds, y) for x, y in curves if x.size]
            _draw_trials(panel, curves, run.style)
        virtual_time_axis(panel, unit, end_s)
        grouped_numbers(panel.yaxis)
    axes[0].set_ylabel("loss")
    legend_of_runs(figure, runs)
    description = "Loss against virtual time, of versions and of updates after local training."
    reading = (
        "The loss after local training is the mean over the updates of an aggregation, each on its "
        "own device's records; it flatters where devices hold few."
        if shown["train_loss"]
        else "The loss after local training was not recorded."
    )
    if not shown["loss"]:
        reading += " No version's loss was measured."
    return Chart(
        key,
        title,
        reading,
        (),
        description,
        finished(figure, key, title, description),
        _beside(runs, "loss", "train_loss"),
    )


_LOSSES = {
    "loss": "Of versions, as evaluated",
    "train_loss": "On the devices' own records, after local training",
}


def _last_version_s(runs: Sequence[ShownRun]) -> float:
    """When the last version was stored, of any run; tasks may have ended later."""
    stored = [t.trajectory["virtual_s"] for run in runs for t in run.trials]
    return max((float(s[-1]) for s in stored if s.size), default=0.0)


def _measured_where(runs: Sequence[ShownRun]) -> str:
    """Where a Flower app's metric comes from; a job's is always measured centrally."""
    sources = {str(run.run.summary.get("metric_source") or "") for run in runs}
    if sources == {"clients"}:
        return "Measured by the clients on their own records, weighted by examples."
    return "Measured centrally." if "clients" not in sources else ""


# Column, what divides it (None: the unit of virtual time), and what the axis says.
_AGAINST = (
    ("virtual_s", None, "virtual time"),
    ("version", 1.0, "model version (aggregations)"),
    ("tasks_started", 1.0, "tasks started"),
    ("device_s", 3600.0, "device hours"),
)


def _is_known(runs: Sequence[ShownRun], column: str) -> bool:
    """Whether a column says more than nothing; time and version always do."""
    values = [trial.measured[column] for run in runs for trial in run.trials]
    return column in {"virtual_s", "version"} or any(np.any(each > 0) for each in values)


def _curve(trial: Trial, column: str, divisor: float) -> tuple[Reals, Reals]:
    known = np.isfinite(trial.measured[column])
    return trial.measured[column][known] / divisor, trial.measured["metric"][known]


def _draw_trials(panel: Axes, curves: Sequence[tuple[Reals, Reals]], style: RunStyle) -> None:
    """One trial: its line. Several: each thin, their range as a band, their mean bold."""
    if not curves:
        return
    if len(curves) == 1:
        x, y = curves[0]
        panel.plot(
            *thinned(x, y),
            color=style.colour,
            linestyle=style.dash,
            marker="o" if x.size <= _MARKED_POINTS else "",
            markersize=2.6,
            linewidth=1.6 if x.size <= _MANY_POINTS else 0.9,
        )
        return
    for x, y in curves:
        panel.plot(*thinned(x, y, at_most=240), color=style.colour, linewidth=0.6, alpha=0.45)
    mean = mean_curve(curves)
    if mean is not None:
        panel.fill_between(mean.x, mean.least, mean.most, color=style.colour, alpha=0.16)
        panel.plot(mean.x, mean.mean, color=style.colour, linestyle=style.dash, linewidth=1.9)


def _absent(runs: Sequence[ShownRun], finding: str) -> str:
    """Why there is no curve."""
    trained = any(run.run.kind != "job" or run.run.executors > 0 for run in runs)
    return f"{finding if trained else 'Nothing was trained (--no-training)'}, so there is no curve."


def _metric_sentence(run: ShownRun) -> str:
    best, last, time = run.figures.best_metric, run.figures.metric, run.figures.virtual_hours
    if best is None or last is None:
        return "no metric was measured."
    over = f" (mean of {best.count} trials)" if best.count > 1 else ""
    when = f", after {said_duration(time.mean * 3600)} of virtual time" if time else ""
    return (
        f"best {said_metric_name(run.run.metric_name)} {said_number(best.mean, 4)}{over}; at the "
        f"end{when}, {said_number(last.mean, 4)}."
    )


def _known(trial: Trial, column: str) -> tuple[Reals, Reals]:
    known = np.isfinite(trial.trajectory[column])
    return trial.trajectory["virtual_s"][known], trial.trajectory[column][known]


def _beside(runs: Sequence[ShownRun], *columns: str) -> dict[str, list[object]]:
    """The curves' points, every k-th where there are very many."""
    kept = ("version", "virtual_s", "tasks_started", "device_s", *columns)
    data: dict[str, list[object]] = {name: [] for name in ("run", "trial", *kept)}
    for run in runs:
        for trial in run.trials:
            known = np.isfinite([trial.trajectory[name] for name in columns]).any(0)
            rows = np.flatnonzero(known)
            each = _ROWS_BESIDE // max(1, sum(len(r.trials) for r in runs))
            if rows.size > each:
                rows = rows[np.unique(np.linspace(0, rows.size - 1, max(each, 2)).astype(int))]
            data["run"] += [run.run.run_id] * rows.size
            data["trial"] += [trial.number] * rows.size
            for name in kept:
                data[name] += trial.trajectory[name][rows].tolist()
    return data
