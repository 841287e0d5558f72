"""Whom criteria leave out: each group's share among eligible devices over its share among all."""

from collections.abc import Sequence

import numpy as np

from flint.reports.availability.evidence import AvailabilityEvidence
from flint.reports.availability.figures import warning_sentence
from flint.reports.chart import Chart, finished, grouped_numbers, panels
from flint.reports.colours import light
from flint.reports.markup import Html, element, joined
from flint.reports.tables import table
from flint.reports.wording import said_number, said_share
from simulation.availability.fairness import ALL_CRITERIA, LEAST_CLIENTS, GroupShift

_WARNINGS = 12


def fairness_chart(evidence: AvailabilityEvidence) -> Chart:
    """Ratio of every group under all criteria at once."""
    key, title = "fairness", "Whom the criteria leave out"
    whole = [s for s in evidence.shifts if s.criterion == ALL_CRITERIA and s.ratio is not None]
    if not whole:
        why = evidence.not_told.get("devices", "No device passes, so no group can be compared.")
        return Chart(key, title, why)
    figure, (panel,) = panels(1, 1, height_in=0.8 + 0.24 * len(whole))
    at = np.arange(len(whole))
    for y, shift in zip(at, whole, strict=True):
        colour = light("failed" if shift.is_below else "run-1")
        ratio = shift.ratio or 0.0
        panel.plot([1.0, ratio], [y, y], color=colour, linewidth=1.4, zorder=2)
        panel.plot(
            [ratio], [y], marker="o", markersize=5, color=colour,
            markerfacecolor=colour if shift.is_judged else light("paper"), clip_on=False, zorder=3,
        )  # fmt: skip
    panel.axvline(1.0, color=light("ink"), linewidth=1.0)
    panel.axvline(evidence.least_ratio, color=light("failed"), linewidth=1.0, linestyle="--")
    panel.set_yticks(at, [f"{s.dimension}: {s.group}" for s in whole])
    panel.tick_params(axis="y", labelcolor=light("ink"), length=0)
    panel.invert_yaxis()
    panel.set_xlim(left=0)
    grouped_numbers(panel.xaxis)
    panel.set_title("Share among eligible devices over share among all (1: as many as before)")
    description = "Ratio of each group's share among eligible devices to its share among all."
    names = ("dimension", "group", "criterion", "clients", "passing", "share", "passing_share",
             "ratio", "is_judged")  # fmt: skip
    data = {name: [_plain(getattr(s, name)) for s in evidence.shifts] for name in names}
    svg = finished(figure, key, title, description)
    return Chart(key, title, _reading(evidence, whole), (), description, svg, data)


def fairness_warnings(evidence: AvailabilityEvidence) -> Html:
    """A warning a group and criterion that shift it below the least ratio, worst first."""
    said = [
        element("p", warning_sentence(evidence, shift), class_="warning")
        for shift in evidence.warned[:_WARNINGS]
    ]
    more = len(evidence.warned) - len(said)
    if more > 0:
        said.append(element("p", f"{more} more are in the table below.", class_="quiet"))
    return joined(*said)


def fairness_table(evidence: AvailabilityEvidence) -> Html:
    """Ratios of all groups under each criterion and under all."""
    if not evidence.shifts:
        return Html("")
    criteria = list(dict.fromkeys(shift.criterion for shift in evidence.shifts))
    ordered = [ALL_CRITERIA, *(name for name in criteria if name != ALL_CRITERIA)]
    head = ["", "Devices", "Share", *("All together" if c == ALL_CRITERIA else c for c in ordered)]
    rows: dict[tuple[str, str], list[object]] = {}
    ratios = {(s.dimension, s.group, s.criterion): s for s in evidence.shifts}
    for shift in evidence.shifts:
        rows[shift.dimension, shift.group] = [
            f"{shift.dimension}: {shift.group}",
            f"{shift.clients:,}",
            said_share(shift.share),
            *(_ratio(ratios[shift.dimension, shift.group, name]) for name in ordered),
        ]
    return element(
        "details",
        element("summary", "All groups and criteria"),
        table(head, list(rows.values())),
    )


def _ratio(shift: GroupShift) -> Html:
    said = said_number(shift.ratio, 2)
    return element("strong", said) if shift.is_below else element("span", said)


def _plain(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else value


def _reading(evidence: AvailabilityEvidence, whole: Sequence[GroupShift]) -> str:
    below = [shift for shift in whole if shift.is_below]
    told = (
        f"{len(below)} of {len(whole)} groups keep less than {evidence.least_ratio:g} of their "
        "share when all criteria apply. "
        if below
        else f"Every group with at least {LEAST_CLIENTS} devices keeps at least "
        f"{evidence.least_ratio:g} of its share when all criteria apply. "
    )
    return told + (
        "A group passes by its devices: one passing session is enough, so devices with more and "
        "longer sessions pass more easily by that alone. Hollow marks are groups of fewer than "
        f"{LEAST_CLIENTS} devices, which are shown and not judged."
    )
