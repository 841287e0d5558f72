"""Colours of a report, each for light and for dark paper.

Runs and outcomes use Okabe and Ito's palette, which people with any colour vision tell apart.
Charts are drawn in the light colours; in the page each becomes a CSS variable, so every light value
is of one name only (some differ in their last digit, which nobody sees).
"""

from collections.abc import Mapping

PALETTE: Mapping[str, tuple[str, str]] = {
    "paper": ("#ffffff", "#11151b"),
    "panel": ("#f5f7f9", "#191f27"),
    "ink": ("#1c2128", "#e4e9ef"),
    "quiet": ("#57606a", "#9aa5b1"),
    "rule": ("#d5dbe1", "#36404b"),
    "run-1": ("#0072b2", "#4fb0ea"),
    "run-2": ("#d55e00", "#ff8a3d"),
    "run-3": ("#009e73", "#2fcf9f"),
    "run-4": ("#a3438f", "#e08acb"),
    "run-5": ("#a87b00", "#e5bd45"),
    "run-6": ("#5a5f66", "#b9c1ca"),
    "succeeded": ("#009e74", "#23b889"),
    "interrupted": ("#e69f00", "#f0b02b"),
    "stale": ("#56b4e9", "#6cc3f5"),
    "over-committed": ("#a9b1ba", "#7d8894"),
    "failed": ("#d55e01", "#f0762a"),
    "rejected": ("#cc79a7", "#dd8fb9"),
    "unknown": ("#dfe3e8", "#4a545f"),
    "download": ("#a6cee3", "#2f6f96"),
    "train": ("#4a90c2", "#5fb0e6"),
    "upload": ("#1f4e79", "#c4e2f7"),
}


def light(name: str) -> str:
    """A colour as charts are drawn in it."""
    return PALETTE[name][0]


def with_variables(svg: str) -> str:
    """Drawn colours to the page's, which know light and dark."""
    for name, (colour, _) in PALETTE.items():
        svg = svg.replace(colour, f"var(--{name})")
    return svg


def variables(*, dark: bool) -> str:
    """CSS declarations of all colours."""
    return "".join(f"--{name}:{pair[dark]};" for name, pair in PALETTE.items())
