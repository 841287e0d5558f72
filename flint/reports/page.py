"""The whole report: one page that needs nothing but itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flint.reports.chart import Chart, drawing
from flint.reports.comparison import Comparison, Incomparable, compare
from flint.reports.fleet_charts import availability_chart, bytes_chart, tiers_chart
from flint.reports.frame import card, contents, drawn, framed
from flint.reports.learning_charts import loss_chart, metric_chart
from flint.reports.markup import Html, element, joined
from flint.reports.round_chart import round_chart
from flint.reports.run_data import RunData
from flint.reports.shown_run import ShownRun, shown_runs
from flint.reports.tables import (
    Said,
    client_errors,
    comparison_table,
    figures_table,
    said_hours,
    said_metric,
    spread_texts,
    trials_table,
    what_it_was,
)
from flint.reports.task_charts import duration_chart, outcomes_chart, staleness_chart
from flint.reports.trials import Spread
from flint.reports.wording import (
    said_bytes,
    said_list,
    said_metric_name,
    said_number,
    said_share,
    sentence,
)
from simulation.update_log import diverged_sentence

_CHARTS = (
    metric_chart,
    loss_chart,
    outcomes_chart,
    availability_chart,
    duration_chart,
    staleness_chart,
    round_chart,
    tiers_chart,
    bytes_chart,
)
_RUNS_IN_WORDS = 4


@dataclass(frozen=True, slots=True)
class Report:
    """A report.

    Attributes:
        html: The page.
        figures: Its key figures, for programs.
    """

    html: str
    figures: dict[str, Any]


def make_report(runs: Sequence[RunData]) -> Report:
    """One page about one run, or about several side by side.

    Args:
        runs: At least one, each once; the first is what the others are compared with.
    """
    shown = shown_runs(runs)
    found = compare([(run.run, run.trials) for run in shown]) if len(shown) > 1 else None
    with drawing():
        charts = [chart(shown) for chart in _CHARTS]
    body = joined(
        _head(shown),
        _contents(charts, several=len(shown) > 1),
        _side_by_side(shown, found) if found is not None else "",
        *(_section(chart) for chart in charts),
        _trials(shown),
        _records(shown),
        element(
            "footer",
            "A dry-run on a virtual clock: hours, tasks and bytes are what the environment's "
            "traces and profiles make of the job, not measurements of real devices. The page "
            "holds all it shows; it fetches nothing.",
        ),
    )
    title = f"Dry-run of {said_list([run.label for run in shown])}"
    return Report(framed(title, body), _figures(shown, found))


# -- head ------------------------------------------------------------------------------------------


def _head(runs: Sequence[ShownRun]) -> Html:
    if len(runs) > 1:
        title, kicker = "Dry-runs side by side", said_list([run.label for run in runs])
    else:
        (run,) = runs
        title = run.run.name
        kicker = f"Dry-run {run.run.run_id} of {run.run.created_at:%d %B %Y}"
    warnings = [
        element("p", f"{run.label} has {_state(run)}: what follows may be less than its whole.",
                class_="warning")
        for run in runs
        if run.run.status != "finished"
    ]  # fmt: skip
    warnings += [
        element("p", f"{run.label}, trial {trial.number}: {told}.", class_="warning")
        for run in runs
        for trial in run.trials
        if (told := diverged_sentence(trial.summary)) is not None
    ]
    if len(runs) == 1:
        verdict = element("p", sentence(_verdict(runs[0])), class_="verdict")
        cards = _cards(runs[0])
    else:
        verdict = _each([(run.label, _verdict(run)) for run in runs])
        cards = Html("")
    return element(
        "header",
        element("h1", title),
        element("p", kicker, class_="quiet"),
        *warnings,
        verdict,
        cards,
    )


def _state(run: ShownRun) -> str:
    if run.run.status == "failed":
        return f"failed ({run.run.detail or 'no reason was recorded'})"
    return "not finished"


def _verdict(run: ShownRun) -> str:
    """The run in two sentences."""
    figures, name = run.figures, said_metric_name(run.run.metric_name)
    over = f" (means of {len(run.trials)} trials)" if len(run.trials) > 1 else ""
    time, count = figures.virtual_hours, figures.aggregations
    if count is None or not count.mean:
        told = "no update was ever aggregated"
        told += f" in {said_hours(time.mean)} of virtual time{over}." if time else f"{over}."
    else:
        told = (
            f"{said_hours(time.mean) if time else 'unknown'} of virtual time and "
            f"{_count(count.mean)} aggregations{over}"
        )
        told += (
            f" led to {name} {said_metric(figures.best_metric.mean)} at best."
            if figures.best_metric is not None
            else "; no metric was measured."
        )
    if figures.tasks_started is not None and figures.device_hours is not None:
        told += (
            f" That took {_count(figures.tasks_started.mean)} tasks and "
            f"{said_number(figures.device_hours.mean)} device hours"
        )
        wasted = figures.wasted_share
        told += f", {said_share(wasted.mean)} of them wasted" if wasted is not None else ""
        up, down = figures.bytes_up, figures.bytes_down
        if up is not None and down is not None:
            told += f", and moved {said_bytes(up.mean + down.mean)}"
        told += "."
    return told


def _count(value: float) -> str:
    return said_number(round(value) if value >= 100 else value)


def _cards(run: ShownRun) -> Html:
    figures = run.figures
    name = said_metric_name(run.run.metric_name)
    cards = (
        ("Virtual time", figures.virtual_hours, said_hours, ""),
        ("Aggregations", figures.aggregations, said_number, ""),
        (
            f"Best {name}",
            figures.best_metric,
            said_metric,
            f"{said_metric(figures.metric.mean)} at the end" if figures.metric else "not measured",
        ),
        ("Tasks started", figures.tasks_started, said_number, _succeeded(run)),
        ("Device hours", figures.device_hours, said_number, ""),
        ("Wasted device time", figures.wasted_share, said_share, "of tasks that did not succeed"),
        ("Bytes to devices", figures.bytes_down, said_bytes, ""),
        ("Bytes from devices", figures.bytes_up, said_bytes, ""),
    )
    return element("dl", *(_card(*card) for card in cards), class_="cards")


def _card(name: str, spread: Spread | None, said: Said, more: str) -> Html:
    mean, span = spread_texts(spread, said)
    beside = " · ".join(part for part in (span, more) if part)
    return card(name, mean, beside)


def _succeeded(run: ShownRun) -> str:
    share = run.figures.succeeded_share
    return f"{said_share(share.mean)} succeeded" if share is not None else ""


# -- sections --------------------------------------------------------------------------------------


def _contents(charts: Sequence[Chart], *, several: bool) -> Html:
    links = [("compare", "Side by side")] if several else []
    links += [(chart.key, chart.title) for chart in charts]
    links.append(("record", "What was run"))
    return contents(links)


def _side_by_side(runs: Sequence[ShownRun], found: Comparison | Incomparable) -> Html:
    return element(
        "section",
        element("h2", "Side by side"),
        figures_table(runs),
        element("h3", "To the same quality"),
        comparison_table(runs, found),
        id="compare",
    )


def _section(chart: Chart) -> Html:
    content: list[object] = [element("h2", chart.title)]
    if len(chart.of_runs) == 1:
        told = f"{sentence(chart.of_runs[0][1])} {chart.reading}"
        content.append(element("p", told.strip()))
    else:
        each = _each(chart.of_runs) if chart.of_runs else ""
        if len(chart.of_runs) > _RUNS_IN_WORDS:
            each = element("details", element("summary", "Each run in words"), each)
        content.append(each)
        content.append(element("p", chart.reading) if chart.reading else "")
    return element("section", *content, drawn(chart), id=chart.key)


def _each(told: Sequence[tuple[str, str]]) -> Html:
    """A sentence a run."""
    return element(
        "ul", *(element("li", element("strong", label), f": {text}") for label, text in told)
    )


def _trials(runs: Sequence[ShownRun]) -> Html:
    parts = [
        element(
            "details",
            element("summary", f"Trials of {run.label}"),
            trials_table(run),
            client_errors(run),
        )
        for run in runs
    ]
    return element("section", element("h2", "Trials"), *parts, id="trials")


def _records(runs: Sequence[ShownRun]) -> Html:
    parts = [
        element(
            "details",
            element("summary", f"{run.label}: inputs, seed, versions, job and environment"),
            what_it_was(run),
        )
        for run in runs
    ]
    return element("section", element("h2", "What was run"), *parts, id="record")


# -- for programs ----------------------------------------------------------------------------------


def _figures(runs: Sequence[ShownRun], found: Comparison | Incomparable | None) -> dict[str, Any]:
    comparison: dict[str, Any] | None = None
    if isinstance(found, Comparison):
        to_target = {
            run.run.run_id: cost.as_json() for run, cost in zip(runs, found.costs, strict=True)
        }
        comparison = {
            "metric_name": found.metric_name,
            "target": found.target,
            "to_target": to_target,
        }
    elif isinstance(found, Incomparable):
        comparison = {"reason": found.reason}
    return {
        "runs": [
            {
                "run_id": run.run.run_id,
                "name": run.run.name,
                "metric_name": run.run.metric_name,
                "trials": len(run.trials),
                **run.figures.as_json(),
            }
            for run in runs
        ],
        "comparison": comparison,
    }
