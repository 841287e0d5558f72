"""The demo's table and plot."""

from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.table import Table

from flint.demo.results import StrategyRun

_COLOURS = {"fedbuff": "#1f77b4", "fedavg": "#d95f02"}
_NAMES = {"fedbuff": "FedBuff (asynchronous)", "fedavg": "FedAvg (rounds)"}


def results_table(
    runs: Sequence[StrategyRun], *, central: float, chance: float, target: float | None
) -> Table:
    """One row a strategy, then central training and chance."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
    table.add_column("strategy", no_wrap=True)
    for name in ("AUPRC", "at version", "updates", "seconds", "updates/s"):
        table.add_column(name, justify="right", no_wrap=True)
    if target is not None:
        table.add_column(f"to {target:g}", justify="right")
    table.add_column("other outcomes")
    for run in runs:
        others = {k: v for k, v in run.outcomes.items() if k != "succeeded" and v}
        reached = run.reached(target) if target is not None else None
        to_target = f"{reached.updates:,} / {reached.elapsed_s:.0f} s" if reached else "not reached"
        table.add_row(
            _NAMES[run.strategy],
            f"{run.best.value:.4f}",
            f"{run.best.version} of {run.versions}",
            f"{run.updates:,}",
            f"{run.seconds:.0f}",
            f"{run.updates / run.seconds:.1f}" if run.seconds > 0 else "-",
            *([to_target] if target is not None else []),
            ", ".join(f"{count} {name.replace('_', '-')}" for name, count in others.items()) or "-",
        )
    table.add_section()
    table.add_row("central logistic regression", f"{central:.4f}")
    table.add_row("chance (share of positives)", f"{chance:.4f}", style="dim")
    return table


def plot_runs(
    runs: Sequence[StrategyRun], path: Path, *, central: float, chance: float, title: str
) -> None:
    """Write a PNG: AUPRC on held-out clients against model version."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2), dpi=150)
    for run in runs:
        axes.plot(
            [m.version for m in run.measurements],
            [m.value for m in run.measurements],
            color=_COLOURS[run.strategy],
            linewidth=1.8,
            label=f"{_NAMES[run.strategy]}: best {run.best.value:.3f}",
        )
    axes.axhline(
        central, color="#444444", linestyle="--", linewidth=1.2, label=f"central: {central:.3f}"
    )
    axes.axhline(
        chance, color="#aaaaaa", linestyle=":", linewidth=1.2, label=f"chance: {chance:.3f}"
    )
    axes.set_xlabel("model version")
    axes.set_ylabel("AUPRC on held-out clients")
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)
