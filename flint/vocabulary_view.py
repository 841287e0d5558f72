"""Vocabularies and hashing compared, as people and programs read it."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from feature_catalog.vocabularies.advice import Advice, SchemeAdvice
from feature_catalog.vocabularies.files import write_whole

FLINT_VOCABULARY_BYTES = 1_280_000
FLINT_MAPPED_SHARE = 0.7
"""FLINT's ads model: vocabularies of 1.28 MB, over 70 % of features mapped (section 4.2)."""

SCHEMES = (
    "tokens are",
    "at most",
    "vocabulary bytes",
    "table bytes",
    "coverage",
    "AUPRC",
    "lost",
    "+/-",
)
_WORDS = {"full": "in a vocabulary", "truncated": "in a cut vocabulary", "hashed": "hashed"}


def scheme_rows(advice: Advice) -> list[tuple[object, ...]]:
    """Rows of `SCHEMES`; the recommended one is marked."""
    return [
        (
            _WORDS[each.scheme.kind] + (" <-" if each is advice.recommended else ""),
            each.scheme.entries,
            each.vocabulary_bytes,
            each.table_bytes,
            f"{each.coverage:.1%}",
            f"{each.auprc:.4f}",
            f"{each.loss:+.4f}",
            f"{each.loss_error:.4f}",
        )
        for each in advice.schemes
    ]


def coverage_table(advice: Advice) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """What vocabularies of each size hold of unseen clients' values: columns and rows."""
    chosen = [each for each in advice.schemes if each.scheme.kind != "hashed"]
    full = chosen[0].columns
    header = ("coverage of", "tokens", "bytes", *(f"at {each.scheme.entries}" for each in chosen))
    return header, [
        (
            column.column,
            column.rows - 1,
            column.vocabulary_bytes,
            *(f"{each.columns[place].coverage:.1%}" for each in chosen),
        )
        for place, column in enumerate(full)
    ]


def collision_table(advice: Advice) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    """Tokens that share a bucket at each size, measured and expected: columns and rows."""
    chosen = [each for each in advice.schemes if each.scheme.kind == "hashed"]
    header = ("tokens sharing a bucket", *(f"of {each.scheme.entries}" for each in chosen))
    rows: list[tuple[object, ...]] = []
    for place, column in enumerate(chosen[0].columns):
        found = [each.columns[place].collisions for each in chosen]
        cells = (
            "-" if c is None else f"{c.tokens_share:.1%} ({c.expected_share:.1%})" for c in found
        )
        rows.append((column.column, *cells))
    return header, rows


def closing_lines(advice: Advice) -> Iterator[str]:
    """What it was measured on, what is recommended and why, and FLINT's figures beside."""
    full = advice.schemes[0]
    yield (
        f"AUPRC of a logistic regression over ids, a stand-in for the model: trained on "
        f"{advice.training_records:,} records, judged on {advice.heldout_records:,} of "
        f"{advice.heldout_clients:,} clients held out; a random ranking gets "
        f"{advice.positive_share:.4f}"
    )
    yield recommendation(advice)
    if full.auprc <= advice.positive_share:
        yield (
            "even the full vocabularies rank no better than chance, so these data cannot tell "
            "sizes apart: give more clients, or other columns"
        )
    yield (
        f"FLINT's ads vocabularies have {FLINT_VOCABULARY_BYTES:,} bytes and map over "
        f"{FLINT_MAPPED_SHARE:.0%} of the features; the full ones here have "
        f"{full.vocabulary_bytes:,} and map {full.coverage:.1%} of unseen clients' values"
    )


def recommendation(advice: Advice) -> str:
    """What is recommended and why, in one sentence."""
    full, chosen = advice.schemes[0], advice.recommended
    if chosen is full:
        return (
            f"recommended: the full vocabularies ({full.bytes:,} bytes with the table): of "
            f"whatever is smaller it is not sure that it loses no more than {advice.tolerance:g} "
            "of AUPRC"
        )
    what = (
        f"hash each column into at most {chosen.scheme.entries} buckets"
        if chosen.scheme.kind == "hashed"
        else f"cut each vocabulary to {chosen.scheme.entries} tokens"
    )
    return (
        f"recommended: {what}: {chosen.bytes:,} bytes with the table, "
        f"{full.bytes / chosen.bytes:.1f} times fewer than the full vocabularies, for "
        f"{max(chosen.loss, 0.0):.4f} of AUPRC; at most {advice.tolerance:g} may be lost, a "
        "standard error included"
    )


def describe_advice(advice: Advice) -> dict[str, Any]:
    """All of it as JSON."""
    return {
        "proxy": "logistic regression over one-hot ids, C=1",
        "training_records": advice.training_records,
        "heldout_records": advice.heldout_records,
        "heldout_clients": advice.heldout_clients,
        "positive_share": advice.positive_share,
        "tolerance": advice.tolerance,
        "schemes": [_scheme(each) for each in advice.schemes],
        "recommended": {
            **asdict(advice.recommended.scheme),
            "reason": recommendation(advice),
        },
        "flint": {
            "vocabulary_bytes": FLINT_VOCABULARY_BYTES,
            "mapped_share_above": FLINT_MAPPED_SHARE,
        },
    }


def draw(advice: Advice, path: Path) -> None:
    """Draw AUPRC over bytes on the device, as SVG or PNG by the path's ending.

    Raises:
        UnwritableVocabulary: If it cannot be written.
    """
    import io

    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for kinds, label, marker in (
        (("full", "truncated"), "vocabulary", "o"),
        (("hashed",), "hashed", "s"),
    ):
        chosen = [each for each in advice.schemes if each.scheme.kind in kinds]
        axes.errorbar(
            [each.bytes for each in chosen],
            [each.auprc for each in chosen],
            yerr=[each.loss_error for each in chosen],
            marker=marker,
            capsize=3,
            label=label,
        )
    axes.axhline(advice.schemes[0].auprc - advice.tolerance, linestyle=":", color="grey")
    axes.set_xscale("log")
    axes.set_xlabel("bytes on the device: vocabularies and table")
    axes.set_ylabel("AUPRC on held-out clients")
    axes.legend()
    drawn = io.BytesIO()
    is_png = path.suffix.lower() == ".png"
    with rc_context({"svg.hashsalt": "flint"}):  # the same file for the same numbers
        figure.savefig(
            drawn,
            format="png" if is_png else "svg",
            dpi=120,
            facecolor="white",
            metadata={} if is_png else {"Date": None},
        )
    write_whole(path, drawn.getvalue())


def _scheme(each: SchemeAdvice) -> dict[str, Any]:
    return {
        "kind": each.scheme.kind,
        "entries": each.scheme.entries,
        "bytes": each.bytes,
        "vocabulary_bytes": each.vocabulary_bytes,
        "table_bytes": each.table_bytes,
        "coverage": each.coverage,
        "auprc": each.auprc,
        "loss": each.loss,
        "loss_standard_error": each.loss_error,
        "columns": [asdict(column) for column in each.columns],
    }
