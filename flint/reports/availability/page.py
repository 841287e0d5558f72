"""The page on availability: who can take part, when, for how long, and who is left out."""

from collections.abc import Sequence

from flint.reports.availability.criteria_chart import criteria_chart, criteria_table
from flint.reports.availability.device_charts import devices_chart
from flint.reports.availability.evidence import (
    AvailabilityEvidence,
    criteria_rows,
)
from flint.reports.availability.fairness_chart import (
    fairness_chart,
    fairness_table,
    fairness_warnings,
)
from flint.reports.availability.length_chart import length_chart
from flint.reports.availability.week_chart import week_chart
from flint.reports.chart import Chart, drawing
from flint.reports.frame import card, contents, drawn, framed
from flint.reports.markup import Html, element, joined
from flint.reports.tables import table
from flint.reports.wording import said_number, said_share


def availability_page(evidence: AvailabilityEvidence) -> str:
    """One page that needs nothing but itself."""
    with drawing():
        criteria, week = criteria_chart(evidence), week_chart(evidence)
        lengths, devices = length_chart(evidence), devices_chart(evidence)
        fairness = fairness_chart(evidence)
    charts = (criteria, week, lengths, devices, fairness)
    body = joined(
        _head(evidence),
        contents([*((chart.key, chart.title) for chart in charts), ("record", "How it was built")]),
        _section(criteria, after=[criteria_table(evidence)]),
        _section(week),
        _section(lengths),
        _section(devices),
        _section(fairness, before=[fairness_warnings(evidence)], after=[fairness_table(evidence)]),
        _record(evidence),
        element(
            "footer",
            "Made from session logs: who never opens the app is not in them, and a session that "
            "was not logged is no availability. Criteria are judged session by session; “devices” "
            "are the log's device ids, so a reinstalled app may count twice. Whether people will "
            "stay as they were in the log, it does not tell. The page holds all it shows; it "
            "fetches nothing.",
        ),
    )
    return framed(f"Availability of {evidence.name}", body)


def _head(evidence: AvailabilityEvidence) -> Html:
    build = evidence.facts.build
    all_of = criteria_rows(evidence)[-1]
    cards = [
        card("Devices in the log", said_number(build["clients"]),
             f"{said_number(build['sessions_valid'])} sessions"),
        card("Devices that can take part", said_share(all_of["clients"]),
             f"{said_number(build['clients_out'])} have a span in the trace"),
        card("Available on average", said_share(build["eligible_mean_share"]), "of all devices"),
        card("In the busiest hour", said_share(build["eligible_peak_share"]),
             f"quietest over busiest: {said_number(build['trough_peak_ratio'], 2)}"),
    ]  # fmt: skip
    if evidence.completion is not None:
        cards.append(
            card("Spans a task fits into", said_share(evidence.completion.share_from_start),
                 f"{said_share(evidence.completion.share_from_check_in)} from a random moment")
        )  # fmt: skip
    warned = len({(shift.dimension, shift.group) for shift in evidence.warned})
    if evidence.shifts:
        cards.append(
            card("Groups shifted out", said_number(warned),
                 f"below {evidence.least_ratio:g} of their share by a criterion, or by all")
        )  # fmt: skip
    return element(
        "header",
        element("h1", f"Availability of {evidence.name}"),
        element("p", _verdict(evidence), class_="verdict"),
        element("dl", *cards, class_="cards"),
    )


def _verdict(evidence: AvailabilityEvidence) -> str:
    build = evidence.facts.build
    count = len(evidence.facts.criteria.criteria)
    criteria = {0: "no criteria", 1: "1 criterion"}.get(count, f"{count} criteria")
    return (
        f"With {criteria}, {said_share(build['eligible_mean_share'])} of "
        f"{said_number(build['clients'])} devices are available at an average moment, and "
        f"{said_share(build['eligible_peak_share'])} in the busiest hour of the week."
    )


def _section(chart: Chart, *, before: Sequence[Html] = (), after: Sequence[Html] = ()) -> Html:
    return element(
        "section",
        element("h2", chart.title),
        element("p", chart.reading) if chart.reading else "",
        *before,
        drawn(chart),
        *after,
        id=chart.key,
    )


def _record(evidence: AvailabilityEvidence) -> Html:
    build = evidence.facts.build
    fields = [
        ("Rows read", said_number(build["sessions_in"])),
        ("Sessions", said_number(build["sessions_valid"])),
        ("Spans of the trace", said_number(build["sessions_out"])),
        ("Begins", build.get("begins") or "no single day"),
        ("Seed of estimates", build.get("seed")),
    ]
    problems = build.get("problems") or {}
    estimated = build.get("estimated") or {}
    return element(
        "section",
        element("h2", "How it was built"),
        table(("", ""), fields, words=True),
        element("h3", "Bad input"),
        table(
            ("What", "Count", "Example"),
            [(name, f"{p['count']:,}", p["example"]) for name, p in problems.items()],
            words=True,
        )
        if problems
        else element("p", "No row was left out or repaired."),
        element("h3", "Estimated where the log does not say") if estimated else "",
        table(
            ("Criterion", "Sessions known", "Decided by a coin", "Known that pass"),
            [
                (
                    evidence.said_criterion(name),
                    f"{e['known']:,}",
                    f"{e['unknown']:,}",
                    said_share(e["known_passing_share"]),
                )
                for name, e in estimated.items()
            ],
        )
        if estimated
        else "",
        id="record",
    )
