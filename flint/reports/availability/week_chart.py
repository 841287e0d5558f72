"""FLINT's Fig. 2: how many devices are available in each hour of the week."""

import numpy as np
from matplotlib.ticker import FixedLocator

from flint.reports.availability.evidence import AvailabilityEvidence
from flint.reports.chart import Chart, finished, grouped_numbers, panels
from flint.reports.colours import light
from flint.reports.wording import said_number, said_share

_HOURS_A_DAY = 24
_DAY_S = 86_400


def week_chart(evidence: AvailabilityEvidence) -> Chart:
    """Mean number of available devices against the hour of the local week."""
    key, title = "week", "Available devices over the week"
    hourly, names = evidence.facts.hourly, evidence.hour_names()
    observed = np.isfinite(hourly)
    if not observed.any():
        return Chart(key, title, "No hour of the week was observed in every time zone.")
    figure, (panel,) = panels(1, 1, height_in=3.0)
    # Each hour as a step, so that a value is read over its whole hour; gaps stay gaps.
    edges = np.arange(len(hourly) + 1)
    panel.stairs(hourly, edges, color=light("run-1"), linewidth=1.4)
    panel.stairs(np.nan_to_num(hourly), edges, color=light("run-1"), alpha=0.14, fill=True)
    panel.set_xlim(0, len(hourly))
    panel.set_ylim(bottom=0)
    panel.xaxis.set_major_locator(FixedLocator(list(range(0, len(hourly), _HOURS_A_DAY))))
    panel.set_xticklabels([name.split(",")[0] for name in names[::_HOURS_A_DAY]], ha="left")
    grouped_numbers(panel.yaxis)
    panel.set_title("Devices available, mean of each hour (local time of the device)")
    description = "Mean number of available devices in each hour of the week."
    clients = int(evidence.facts.build["clients"])
    data = {
        "hour_of_week": list(range(len(hourly))),
        "hour": names,
        "mean_devices_available": hourly.tolist(),
        "share_of_all_devices": (hourly / max(clients, 1)).tolist(),
    }
    svg = finished(figure, key, title, description)
    return Chart(key, title, _reading(evidence), (), description, svg, data)


def _reading(evidence: AvailabilityEvidence) -> str:
    hourly, names = evidence.facts.hourly, evidence.hour_names()
    build = evidence.facts.build
    peak, trough = int(np.nanargmax(hourly)), int(np.nanargmin(hourly))
    told = (
        f"Of {said_number(build['clients'])} devices, {said_number(round(hourly[peak]))} "
        f"({said_share(build['eligible_peak_share'])}) are available in the busiest hour "
        f"({names[peak]}), {said_share(build['eligible_mean_share'])} on average and "
        f"{said_number(round(hourly[trough]))} in the quietest hour ({names[trough]}): "
        f"{said_number(build['trough_peak_ratio'], 2)} of the peak."
    )
    missing = int((~np.isfinite(hourly)).sum())
    if missing:
        told += f" {missing} of the 168 hours were not observed and are left out."
    if build.get("repeat_every_s") == _DAY_S:
        told += " Days are laid over one another, so all are alike."
    elif not build.get("has_weekdays"):
        told += " The log does not say on which weekday it began: days count from its beginning."
    return told
