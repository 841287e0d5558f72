"""How figures are drawn: two panels, as SVG, the same bytes for the same numbers."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure


def two_axes() -> tuple[Figure, Axes, Axes]:
    """A figure with a left and a right panel."""
    mpl.rcParams["svg.hashsalt"] = "flint"
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2))
    return figure, left, right


def error_bars(
    axes: Axes,
    points: Iterable[tuple[float, Mapping[str, float] | None]],
    colour: str,
    label: str,
    *,
    across: bool,
) -> None:
    """Draw medians with their ranges.

    Args:
        points: Positions, and ``median``, ``least`` and ``most`` there; None is left out.
        across: Values run from left to right, unconnected; else from bottom to top.
    """
    there = [(at, value) for at, value in points if value is not None]
    at, median = [at for at, _ in there], [value["median"] for _, value in there]
    error = [
        [value["median"] - value["least"] for _, value in there],
        [value["most"] - value["median"] for _, value in there],
    ]
    style: dict[str, Any] = {"color": colour, "label": label, "capsize": 3, "marker": "o"}
    if across:
        axes.errorbar(median, at, xerr=error, linestyle="none", **style)
    else:
        axes.errorbar(at, median, yerr=error, **style)


def save(figure: Figure, path: Path) -> None:
    """Write a figure."""
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
