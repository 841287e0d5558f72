"""A run as every chart of a page shows it."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from flint.reports.chart import RunStyle, legend_above, panels, run_style
from flint.reports.key_figures import KeyFigures, key_figures
from flint.reports.run_data import RunData
from flint.reports.trials import Trial, split_trials

_SHORT_ID = 8


@dataclass(frozen=True, eq=False)
class ShownRun:
    """A run, its trials and figures, and how it is drawn and called."""

    run: RunData
    trials: tuple[Trial, ...]
    figures: KeyFigures
    style: RunStyle

    @property
    def end_s(self) -> float:
        """When the last of its trials ended, virtual seconds."""
        return max((trial.end_s for trial in self.trials), default=0.0)

    @property
    def label(self) -> str:
        """What the page calls it."""
        return self.style.label


def shown_runs(runs: Sequence[RunData]) -> tuple[ShownRun, ...]:
    """Runs with their styles; those of one name are told apart by the beginning of their id."""
    names = [run.name for run in runs]
    shown = []
    for index, run in enumerate(runs):
        is_unique = names.count(run.name) == 1
        label = run.name if is_unique else f"{run.run_id[:_SHORT_ID]} {run.name}"
        trials = split_trials(run)
        shown.append(ShownRun(run, trials, key_figures(run, trials), run_style(index, label)))
    return tuple(shown)


def legend_of_runs(figure: Figure, runs: Sequence[ShownRun]) -> None:
    """A legend of the runs, where there are several."""
    if len(runs) > 1:
        handles = [Line2D([], [], color=r.style.colour, linestyle=r.style.dash) for r in runs]
        legend_above(figure, handles, [run.label for run in runs])


def panel_each(
    runs: Sequence[ShownRun], *, height_in: float, share_x: bool = True, share_y: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure with a panel a run, two beside each other, titled with the run where several."""
    columns = min(2, len(runs))
    rows = -(-len(runs) // columns)
    figure, axes = panels(rows, columns, height_in=height_in * rows, sharex=share_x, sharey=share_y)
    for panel in axes[len(runs) :]:
        panel.set_visible(False)
    for index, (panel, run) in enumerate(zip(axes, runs, strict=False)):
        if len(runs) > 1:
            panel.set_title(run.label)
        # Ticks are named below the lowest panel of each column, which is not always the last row.
        is_lowest = index + columns >= len(runs)
        panel.tick_params(labelbottom=is_lowest or not share_x)
    return figure, axes[: len(runs)]
