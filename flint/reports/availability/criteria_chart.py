"""FLINT's Table 1: how much of a log each criterion keeps."""

import numpy as np

from flint.reports.availability.evidence import (
    AvailabilityEvidence,
    criteria_rows,
    if_independent,
)
from flint.reports.chart import Chart, finished, grouped_numbers, legend_above, panels
from flint.reports.colours import light
from flint.reports.markup import Html, element, joined
from flint.reports.tables import table
from flint.reports.wording import said_share, sentence

_OF = {"clients": "devices", "sessions": "sessions", "time": "session time"}
_COLOURS = {"clients": "run-1", "sessions": "run-2", "time": "run-3"}


def criteria_chart(evidence: AvailabilityEvidence) -> Chart:
    """Share of devices, sessions and time that pass each criterion, and all of them."""
    key, title = "criteria", "What each criterion keeps"
    rows = criteria_rows(evidence)
    if len(rows) == 1:
        return Chart(
            key, title, "The trace was built without any criterion: all sessions are kept."
        )
    names = [sentence(evidence.said_criterion(row["criterion"])) for row in rows]
    figure, (panel,) = panels(1, 1, height_in=0.9 + 0.62 * len(rows))
    at = np.arange(len(rows))
    bars = []
    for place, of in enumerate(_OF):
        values = [100 * row[of] for row in rows]
        bars.append(
            panel.barh(at + 0.27 * (place - 1), values, height=0.25, color=light(_COLOURS[of]))
        )
        for y, value in zip(at + 0.27 * (place - 1), values, strict=True):
            panel.annotate(f" {value:.1f}", (value, y), va="center", fontsize=7.5)
    panel.set_yticks(at, names)
    panel.tick_params(axis="y", labelcolor=light("ink"), length=0)
    panel.invert_yaxis()
    panel.grid(visible=False, axis="y")
    panel.set_xlim(0, 108)
    grouped_numbers(panel.xaxis)
    panel.set_xlabel("% that pass")
    legend_above(figure, [bar[0] for bar in bars], [f"% of {said}" for said in _OF.values()])
    description = "Share of devices, sessions and session time that pass each criterion, and all."
    data = {
        "criterion": [row["criterion"] for row in rows],
        **{f"{of}_share": [row[of] for row in rows] for of in _OF},
        **{f"{of}_share_without_it": [row.get(f"{of}_without") for row in rows] for of in _OF},
    }
    svg = finished(figure, key, title, description)
    return Chart(key, title, _reading(evidence), (), description, svg, data)


def criteria_table(evidence: AvailabilityEvidence) -> Html:
    """The same as a table, with what all other criteria would keep."""
    rows = criteria_rows(evidence)
    if len(rows) == 1:
        return Html("")
    head = ("", "Category", "Devices", "Sessions", "Session time",
            "Devices without it", "Sessions without it")  # fmt: skip
    body = [
        [
            sentence(evidence.said_criterion(row["criterion"])),
            row["category"],
            *(said_share(row[of]) for of in _OF),
            *(said_share(row.get(f"{of}_without")) for of in ("clients", "sessions")),
        ]
        for row in rows
    ]
    if len(rows) > 2:
        alone = if_independent(evidence)
        body.append(
            ["If criteria were independent", "", *(said_share(alone[of]) for of in _OF), "", ""]
        )
    return joined(
        table(head, body),
        element(
            "p",
            "“Without it” is what all other criteria keep together; its difference from the row "
            "“All together” is what dropping the criterion would gain. The last row multiplies the "
            "shares of the single criteria; for devices that is rough, as one session must pass "
            "them all.",
            class_="quiet",
        ),
    )


def _reading(evidence: AvailabilityEvidence) -> str:
    rows = criteria_rows(evidence)
    all_of, single = rows[-1], rows[:-1]
    strictest = min(single, key=lambda row: float(row["clients"]))
    told = (
        f"{said_share(all_of['clients'])} of the devices have a session that passes all "
        f"{len(single)} criteria at once; {said_share(all_of['sessions'])} of the sessions do, "
        f"which hold {said_share(all_of['time'])} of the time. The strictest single criterion is "
        f"“{evidence.said_criterion(strictest['criterion'])}” "
        f"({said_share(strictest['clients'])} of devices)."
    )
    return told + " A device counts as passing a criterion if any of its sessions does."
