"""``flint catalog vocab advise``: full, cut or hashed, compared on one's own data."""

from pathlib import Path
from typing import Annotated

import typer

from flint.cli.options import JsonOption
from flint.cli.output import note, print_json, print_table


def advise(
    data: Annotated[Path, typer.Argument(help="Parquet or CSV file, one record a row.")],
    label: Annotated[str, typer.Option(help="Column with the label, 0 or 1.")],
    client: Annotated[str, typer.Option(help="Column that says whose record it is.")],
    column: Annotated[
        list[str] | None,
        typer.Option(
            help="Column of tokens; repeatable. Default: all of text, whole numbers, or lists "
            "of them.",
            show_default=False,
        ),
    ] = None,
    entries: Annotated[
        list[int] | None,
        typer.Option(
            help="Tokens or buckets to compare at; repeatable. Default: all, and 4, 16, 64 and "
            "256 times fewer.",
            min=1,
            show_default=False,
        ),
    ] = None,
    width: Annotated[
        int, typer.Option(help="Numbers a row of the model's table, for its bytes.", min=1)
    ] = 16,
    tolerance: Annotated[
        float, typer.Option(help="AUPRC that what is recommended may lose.", min=0.0)
    ] = 0.005,
    hash_seed: Annotated[int, typer.Option(help="Of the hash.", min=0, max=2**32 - 1)] = 0,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Draw AUPRC over bytes here, .svg or .png.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare vocabularies and hashing: bytes on the device, coverage, collisions, AUPRC.

    About a fifth of the clients is held out, by the rule of docs/datasets.md. The same logistic
    regression is trained for each, a stand-in for your model: it tells what is lost with ids
    that become one. Recommended is what takes the fewest bytes and, a standard error included,
    loses no more than the tolerance.

    Example: flint catalog vocab advise clicks.parquet --label clicked --client user_id
    --column ad_id --column publisher
    """
    from feature_catalog.table_files import open_table
    from feature_catalog.vocabularies.advice import advise as compare
    from feature_catalog.vocabularies.files import check_place
    from feature_catalog.vocabularies.records import read_token_records, token_fields
    from flint.extras import require
    from flint.rows_screen import RowsScreen
    from flint.vocabulary_view import (
        SCHEMES,
        closing_lines,
        collision_table,
        coverage_table,
        describe_advice,
        draw,
        scheme_rows,
    )

    if plot is not None:
        if plot.suffix.lower() not in {".svg", ".png"}:
            raise typer.BadParameter(f"--plot {plot} ends in neither .svg nor .png")
        require("matplotlib", purpose="--plot")
        check_place(plot)
    table = open_table(data)
    chosen = list(dict.fromkeys(column or token_fields(table, but=(label, client))))
    if not column:
        note(f"columns: {', '.join(chosen)} (--column chooses others)")
    with RowsScreen() as screen:
        records = read_token_records(
            table, chosen, client=client, label=label, progress=screen.progress
        )
        advice = compare(
            records,
            entries=entries or (),
            width=width,
            tolerance=tolerance,
            hash_seed=hash_seed,
            progress=screen.progress,
        )
    if plot is not None:
        draw(advice, plot)
    if as_json:
        print_json(describe_advice(advice))
        return
    print_table(SCHEMES, scheme_rows(advice), empty="")
    print_table(*coverage_table(advice), empty="")
    print_table(*collision_table(advice), empty="")
    for line in closing_lines(advice):
        print(line)


def register(app: typer.Typer) -> None:
    """Add the command to ``flint catalog vocab``."""
    app.command("advise")(advise)
