"""How long devices stay available, against how long a task takes."""

from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import FuncFormatter

from flint.reports.availability.evidence import AvailabilityEvidence
from flint.reports.chart import Chart, finished, grouped_numbers, legend_above, panels
from flint.reports.colours import light
from flint.reports.intervals import Reals
from flint.reports.wording import said_duration, said_share

_POINTS = 200
_TICKS_S = (1, 10, 60, 600, 3600, 6 * 3600, 86400, 7 * 86400)


def length_chart(evidence: AvailabilityEvidence) -> Chart:
    """Share of spans at least as long as a time; share of tasks that take at most as long."""
    key, title = "lengths", "Time available against time needed"
    lengths, found = evidence.facts.criteria.lengths, evidence.completion
    if not sum(lengths.spans):
        return Chart(key, title, "No session passes all criteria, so there are no spans.")
    edges = np.array(lengths.edges_s)
    figure, (panel,) = panels(1, 1, height_in=3.2)
    curves = {"spans of the trace": _share_at_least(edges, lengths.spans)}
    if sum(lengths.sessions):
        curves = {"sessions of the log": _share_at_least(edges, lengths.sessions)} | curves
    handles = [
        panel.plot(edges[1:], 100 * curve[1:], color=light(colour), linestyle=dash)[0]
        for (curve, colour, dash) in zip(
            curves.values(), ("run-6", "run-1")[-len(curves) :], ("--", "-"), strict=False
        )
    ]
    labels = [f"% of {name} that last at least this long" for name in curves]
    data: dict[str, list[object]] = {"at_least_s": edges.tolist()}
    for name, curve in curves.items():
        data[f"share of {name}"] = curve.tolist()
    if found is not None:
        finished_share = np.searchsorted(found.duration_s, edges, side="right") / len(
            found.duration_s
        )
        (line,) = panel.plot(edges[1:], 100 * finished_share[1:], color=light("run-2"))
        handles.append(line)
        labels.append("% of tasks that take at most this long")
        data["share of tasks done"] = finished_share.tolist()
    panel.set_xscale("log")
    panel.set_xlim(max(1.0, float(edges[1])), float(edges[-1]))
    panel.set_xticks(_TICKS_S)
    panel.minorticks_off()
    panel.xaxis.set_major_formatter(FuncFormatter(lambda s, _: said_duration(float(s))))
    panel.set_ylim(0, 103)
    grouped_numbers(panel.yaxis)
    panel.set_xlabel("length, logarithmic")
    legend_above(figure, handles, labels)
    description = "Share of sessions and spans at least so long, and of tasks at most so long."
    svg = finished(figure, key, title, description)
    return Chart(key, title, _reading(evidence), (), description, svg, data)


def _share_at_least(edges: Reals, counts: Sequence[int]) -> Reals:
    """Share with a length of at least each edge, shape of the edges."""
    total = sum(counts)
    below = np.concatenate(([0], np.cumsum(counts)))[: len(edges)]
    share: Reals = 1.0 - below / total
    return share


def _reading(evidence: AvailabilityEvidence) -> str:
    found = evidence.completion
    if found is None:
        return (
            "How long devices stay available. "
            + evidence.not_told.get("task", "No task was set against it.")
        ).strip()
    task = found.as_json()
    told = (
        f"The task: {evidence.task}. It takes {said_duration(task['duration_s']['p50'])} at the "
        f"median and more than {said_duration(task['duration_s']['p95'])} one time in twenty; "
        f"{said_share(found.train_share)} of that is training, the rest transfers. "
        f"{said_share(evidence.sessions_outlasting)} of all sessions of the log, eligible or not, "
        f"last as long. {said_share(found.share_from_start)} of the spans outlast a task that "
        "starts when they begin. A device does not check in just then: from a moment at which it "
        "is available, "
        f"{said_share(found.share_from_check_in)} of tasks finish before the span ends."
    )
    if len(found.by_tier) > 1:
        tiers = ", ".join(f"{said_share(v)} on {k} devices" for k, v in found.by_tier.items())
        told += f" Of tasks that start with the span, there finish {tiers}."
    if found.unmeasured_share > 0:
        told += (
            f" {said_share(found.unmeasured_share)} of the spans are of device models without a "
            "measured speed and are left out."
        )
    return told
