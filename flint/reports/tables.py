"""The tables of a report: runs side by side, trials one by one, and what each run was."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeAlias

from flint.reports.comparison import Comparison, Incomparable
from flint.reports.key_figures import trial_figures
from flint.reports.markup import Html, element, joined
from flint.reports.shown_run import ShownRun
from flint.reports.trials import Spread
from flint.reports.wording import (
    said_bytes,
    said_duration,
    said_metric_name,
    said_number,
    said_share,
)

_NONE = said_number(None)
_MOST_ERRORS = 10

Said: TypeAlias = Callable[[float | None], str]


def spread_texts(spread: Spread | None, said: Said = said_number) -> tuple[str, str]:
    """Mean, and the range (empty unless trials differ)."""
    if spread is None:
        return _NONE, ""
    if said is said_number and abs(spread.mean) >= 100:  # decimals tell nothing then
        mean = said(round(spread.mean))
    else:
        mean = said(spread.mean)
    if spread.least == spread.most:
        return mean, ""
    return mean, f"{said(spread.least)} to {said(spread.most)}"


def said_spread(spread: Spread | None, said: Said = said_number) -> Html:
    """A table's cell: the mean, and the range below it."""
    mean, span = spread_texts(spread, said)
    return element("span", mean, element("small", span) if span else "")


def said_metric(value: float | None) -> str:
    """A metric, to the digits in which runs differ."""
    return said_number(value, 4)


def said_hours(value: float | None) -> str:
    """Hours in the unit in which they are read."""
    return said_duration(value * 3600.0 if value is not None else None)


def table(head: Sequence[object], rows: Sequence[Sequence[object]], *, words: bool = False) -> Html:
    """A table whose first column names the rows; ``words``: its cells are text, not numbers."""
    top = element("tr", *(element("th", name, scope="col") for name in head))
    body = [
        element(
            "tr", element("th", row[0], scope="row"), *(element("td", cell) for cell in row[1:])
        )
        for row in rows
    ]
    whole = element(
        "table", element("thead", top), element("tbody", *body), class_="words" if words else None
    )
    return element("div", whole, class_="scroll")


def _named(run: ShownRun) -> Html:
    swatch = element("span", class_="swatch", style=f"background:{run.style.variable}")
    return element("span", swatch, run.label)


def figures_table(runs: Sequence[ShownRun]) -> Html:
    """Key figures of several runs, a column a run."""
    head = ["", *(_named(run) for run in runs)]
    rows = [
        ("Virtual time", "virtual_hours", said_hours),
        ("Aggregations", "aggregations", said_number),
        ("Metric, best", "best_metric", said_metric),
        ("Metric, at the end", "metric", said_metric),
        ("Tasks started", "tasks_started", said_number),
        ("Tasks that succeeded", "succeeded_share", said_share),
        ("Device hours", "device_hours", said_number),
        ("Wasted of these", "wasted_share", said_share),
        ("Bytes to devices", "bytes_down", said_bytes),
        ("Bytes from devices", "bytes_up", said_bytes),
    ]
    body: list[list[object]] = [
        [name, *(said_spread(getattr(run.figures, figure), said) for run in runs)]
        for name, figure, said in rows
    ]
    body.append(["Metric", *(said_metric_name(run.run.metric_name) for run in runs)])
    body.append(["Trials", *(len(run.trials) for run in runs)])
    body.append(["Ended by", *(", ".join(dict.fromkeys(run.figures.stop_reasons)) for run in runs)])
    return table(head, body)


def comparison_table(runs: Sequence[ShownRun], found: Comparison | Incomparable) -> Html:
    """What each run had spent at the best metric all reached (FLINT, Table 3)."""
    if isinstance(found, Incomparable):
        return element("p", f"{found.reason} So there is no target to compare their costs at.")
    head = (
        "",
        "Virtual time",
        "Speed-up",
        "Aggregations",
        "Tasks started",
        "Ratio",
        "Device hours",
        "Ratio",
        "Bytes from devices",
    )
    rows = [
        [
            _named(run),
            said_spread(cost.virtual_hours, said_hours),
            _times(cost.speed_up),
            said_spread(cost.aggregations),
            said_spread(cost.tasks_started),
            _times(cost.tasks_ratio),
            said_spread(cost.device_hours),
            _times(cost.device_hours_ratio),
            said_spread(cost.bytes_up, said_bytes),
        ]
        for run, cost in zip(runs, found.costs, strict=True)
    ]
    told = element(
        "p",
        f"Until each first measured {said_metric_name(found.metric_name)} "
        f"{said_metric(found.target)}, the best that every trial of every run reached. Speed-up is "
        f"virtual time of {runs[0].label} over that of the run; ratios are tasks and device hours "
        f"of the run over those of {runs[0].label}. Time is that of the evaluation, so it is as "
        "exact as evaluations are frequent.",
    )
    return joined(told, table(head, rows))


def _times(ratio: float | None) -> str:
    return f"{said_number(ratio)}×" if ratio is not None else _NONE  # noqa: RUF001


def trials_table(run: ShownRun) -> Html:
    """A run's trials, one by one, with the digests that show two runs are the same."""
    head = (
        "Trial", "Ended by", "Virtual time", "Aggregations", "Metric", "Best", "Tasks",
        "Device hours", "Wasted", "Took", "trajectory_sha256", "events_sha256",
    )  # fmt: skip
    rows = []
    for trial in run.trials:
        figures = trial_figures(trial, run.run.metric_name)
        rows.append(
            [
                trial.number,
                figures["stop_reason"] or _NONE,
                said_hours(figures["virtual_hours"]),
                said_number(figures["aggregations"]),
                said_metric(figures["metric"]),
                said_metric(figures["best_metric"]),
                said_number(figures["tasks_started"]),
                said_number(figures["device_hours"]),
                said_share(figures["wasted_share"]),
                said_duration(figures["wall_s"]),
                *(
                    element("code", str(trial.summary.get(digest, _NONE))[:16])
                    for digest in ("trajectory_sha256", "events_sha256")
                ),
            ]
        )
    return table(head, rows)


def client_errors(run: ShownRun) -> Html:
    """What clients of a Flower app said when they failed, most frequent first."""
    counts: Counter[str] = Counter()
    for trial in run.trials:
        for each in trial.summary.get("client_errors") or ():
            counts[str(each.get("error"))] += int(each.get("tasks") or 0)
    if not counts:
        return Html("")
    rows = [(error, f"{tasks:,}") for error, tasks in counts.most_common(_MOST_ERRORS)]
    return joined(
        element("h3", "Errors of the app's clients"),
        table(("Error", "Tasks"), rows, words=True),
    )


def what_it_was(shown: ShownRun) -> Html:
    """Everything needed to do the run again."""
    run = shown.run
    fields = [
        ("Run", element("code", run.run_id)),
        ("Kind", "a job" if run.kind == "job" else "a Flower app"),
        ("Status", run.status),
        ("Started", f"{run.created_at:%Y-%m-%d %H:%M:%S %Z}"),
        ("Ended", f"{run.finished_at:%Y-%m-%d %H:%M:%S %Z}" if run.finished_at else _NONE),
        ("Seed", run.seed),
        ("Trials", len(shown.trials)),
        ("Executors", run.executors),
        ("Clients", f"{run.population.num_rows:,}" if run.population.num_rows else _NONE),
        ("FLINT", run.code_version),
        ("Packages", ", ".join(f"{name} {v}" for name, v in sorted(run.versions.items())) or "-"),
    ]
    inputs = [
        (
            key,
            used.reference,
            used.version if used.version is not None else _NONE,
            element("code", used.sha256),
        )
        for key, used in sorted(run.inputs.items())
    ]
    files = [(name, element("code", digest)) for name, digest in sorted(run.files.items())]
    return joined(
        table(("", ""), fields, words=True),
        element("h3", "Inputs"),
        table(("Key", "Reference", "Version", "SHA-256"), inputs, words=True)
        if inputs
        else element("p", "The record names no inputs."),
        element("h3", "Files of the run (Parquet)"),
        table(("File", "SHA-256"), files, words=True)
        if files
        else element("p", "The record names no files."),
        element("h3", "Job"),
        element("pre", _indented(run.job_json)),
        element("h3", "Environment"),
        element("pre", _indented(run.environment_json)),
    )


def _indented(text: str) -> str:
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except ValueError:
        return text
