"""``flint model check``: whether devices can train a model, before anything is built on it."""

from enum import StrEnum
from typing import Annotated

import typer

from flint.cli import model_commands
from flint.cli.options import JsonOption
from flint.cli.output import note, print_fields, print_json

app = typer.Typer(help="A model of your own: can devices train it?", no_args_is_help=True)

UNFIT = 2

# `flint model` and `flint models` are easily taken for each other.
app.command("lineage", hidden=True)(model_commands.lineage)


class App(StrEnum):
    """What the model is to be part of."""

    SDK = "sdk"
    APP = "app"


@app.callback()
def _group() -> None:
    """Keeps ``check`` a command of its own, though it is the only one."""


@app.command("check")
def check(
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH",
            help="A Python file whose build_model() returns a torch or Keras model (or that "
            "defines model), or a registered model's name. The file is run.",
        ),
    ],
    fits: Annotated[
        App | None,
        typer.Option(
            help="Also refuse a file of 1 MB or more (sdk: of a third party) or 10 MB (app: one's "
            "own).",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Tell whether a model converts, trains and matches its twin, and what it costs a device.

    Exit code 2 if devices cannot train it.

    Example: flint model check my_model.py --fits sdk
    """
    from flint.model_view import described, sentences, shown, too_large
    from modeling.model_check import check_model

    found = check_model(path)
    if as_json:
        print_json(described(found))
    else:
        print_fields(shown(found))
    complaints = sentences(found)
    if fits is not None:
        complaints += too_large(found, "third-party SDK" if fits is App.SDK else "first-party app")
    for sentence in complaints:
        note(sentence)
    if complaints:
        raise typer.Exit(UNFIT)
