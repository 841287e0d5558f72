"""FLINT's Fig. 1: which devices and operating systems there are, and which are eligible."""

from collections.abc import Sequence

import numpy as np

from flint.reports.availability.evidence import AvailabilityEvidence
from flint.reports.chart import Chart, finished, grouped_numbers, legend_above, panels
from flint.reports.colours import light
from flint.reports.wording import said_share, shortened
from simulation.availability.fairness import ALL_CRITERIA, GroupShift

_LABEL_LENGTH = 24


def devices_chart(evidence: AvailabilityEvidence) -> Chart:
    """Shares of the most common device models and of OS releases: of all, and of eligible."""
    key, title = "devices", "Which devices"
    whole = [shift for shift in evidence.shifts if shift.criterion == ALL_CRITERIA]
    models = [shift for shift in whole if shift.dimension == "device model"]
    years = [shift for shift in whole if shift.dimension == "OS release"]
    both = (("Device models", models), ("Release of the operating system", years))
    shown = [(name, groups) for name, groups in both if groups]
    if not shown:
        why = evidence.not_told.get(
            "devices", "The log tells neither device models nor systems apart."
        )
        return Chart(key, title, why)
    figure, axes = panels(1, len(shown), height_in=0.9 + 0.3 * max(len(g) for _, g in shown))
    data: dict[str, list[object]] = {
        name: [] for name in ("of", "group", "devices", "share", "eligible_share")
    }
    handles = []
    for panel, (name, groups) in zip(axes, shown, strict=True):
        at = np.arange(len(groups))
        share = [100 * group.share for group in groups]
        eligible = [100 * (group.passing_share or 0.0) for group in groups]
        handles = [
            panel.barh(at - 0.2, share, height=0.36, color=light("run-6"))[0],
            panel.barh(at + 0.2, eligible, height=0.36, color=light("run-1"))[0],
        ]
        panel.set_yticks(at, [shortened(group.group, _LABEL_LENGTH) for group in groups])
        panel.tick_params(axis="y", labelcolor=light("ink"), length=0)
        panel.invert_yaxis()
        panel.grid(visible=False, axis="y")
        panel.set_title(name)
        panel.set_xlabel("%")
        grouped_numbers(panel.xaxis)
        for group in groups:
            data["of"].append(group.dimension)
            data["group"].append(group.group)
            data["devices"].append(group.clients)
            data["share"].append(group.share)
            data["eligible_share"].append(group.passing_share)
    legend_above(figure, handles, ["% of all devices", "% of devices that pass all criteria"])
    description = "Shares of device models and of OS releases among all and eligible devices."
    svg = finished(figure, key, title, description)
    return Chart(key, title, _reading(models, years), (), description, svg, data)


def _reading(models: Sequence[GroupShift], years: Sequence[GroupShift]) -> str:
    told = []
    named = [group for group in models if group.group not in {"all others", "unknown"}]
    if named:
        first = max(named, key=lambda group: group.share)
        together = sum(group.share for group in named)
        told.append(
            f"The most common device model is {first.group} ({said_share(first.share)} of all "
            f"devices); the {len(named)} shown by name are {said_share(together)} of them."
        )
    known = [group for group in years if group.group.isdigit()]
    if known:
        newest = max(known, key=lambda group: int(group.group))
        told.append(
            f"The newest systems, of {newest.group}, run on {said_share(newest.share)} of all and "
            f"on {said_share(newest.passing_share)} of eligible devices."
        )
    return " ".join(told)
