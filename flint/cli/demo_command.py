"""``flint demo``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flint.cli.dataset_commands import ExcludeFieldOption, TextFieldOption, field_roles
from flint.cli.options import HomeOption, JsonOption

if TYPE_CHECKING:
    from flint.demo.run import DemoOptions, DemoResult


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo")(demo)


def demo(
    data: Annotated[
        Path | None, typer.Option(help="Parquet or CSV file; default: generated click data.")
    ] = None,
    client_field: Annotated[
        str | None, typer.Option(help="With --data: column that says whose record it is.")
    ] = None,
    label_field: Annotated[
        str | None, typer.Option(help="With --data: column with the label, 0 or 1.")
    ] = None,
    text_field: TextFieldOption = None,
    exclude_field: ExcludeFieldOption = None,
    strategy: Annotated[str, typer.Option(help="fedbuff, fedavg or both.")] = "both",
    max_updates: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Updates per strategy. Default: 10000 with --data, 1000 with --features; 2000.",
        ),
    ] = None,
    target: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Report updates and seconds to this metric value."),
    ] = None,
    max_hours: Annotated[float, typer.Option(min=0.001, help="Longest a job may take.")] = 2.0,
    processes: Annotated[int, typer.Option(min=1, help="Processes the devices share.")] = 2,
    clients: Annotated[
        int | None,
        typer.Option(min=4, help="Without --data: devices. Default: 200, with --features 100."),
    ] = None,
    features: Annotated[
        bool,
        typer.Option("--features", help="Devices join features: their own and the cloud's."),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of data, model and every draw.")] = 7,
    output: Annotated[
        Path | None, typer.Option(help="Folder for models and plot. Default: in the home.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train on many devices, asynchronously and in rounds.

    Starts a server of its own, enrols one device for each training client, runs a FedBuff job and
    a FedAvg job, and compares both with training in one place. Without --data it generates click
    data for 200 devices. Everything is stopped at the end; the data directory stays.

    With --features the clicks are in two places, as in life: devices have what they showed, the
    cloud knows the ads. The demo defines a feature service over both, and devices fetch, transform
    and join its features themselves.

    Example: flint demo --features --strategy fedbuff

    Example: flint demo --data clicks.parquet --client-field user --label-field clicked --json
    """
    from flint.demo.homes import demo_home
    from flint.demo.jobs import STRATEGIES

    strategies = STRATEGIES if strategy == "both" else (strategy,)
    if not set(strategies) <= set(STRATEGIES):
        raise typer.BadParameter(f"--strategy is {strategy!r}; use fedbuff, fedavg or both")
    if data is None and (client_field or label_field or text_field or exclude_field):
        raise typer.BadParameter("fields are of a file; give it with --data FILE")
    if data is not None and not (client_field and label_field):
        raise typer.BadParameter("--data needs --client-field and --label-field")
    if data is not None and features:
        raise typer.BadParameter(
            "--features generates its own clicks; for yours follow docs/feature-catalog.md, "
            '"From two Parquet files to a trained model"'
        )
    from flint.demo.data import DemoData
    from flint.demo.run import (
        FEATURE_CLIENTS,
        FEATURE_MAX_UPDATES,
        GENERATED_CLIENTS,
        GENERATED_MAX_UPDATES,
        DemoOptions,
        run_demo,
    )
    from flint.demo.screen import Screen

    own = None
    if data is not None:
        roles = field_roles(str(client_field), str(label_field), text_field, exclude_field)
        own = DemoData(data.absolute(), roles)
    default_updates = 10_000 if own is not None else GENERATED_MAX_UPDATES
    if features:
        default_updates = FEATURE_MAX_UPDATES
    directory = demo_home(home)
    options = DemoOptions(
        home=directory,
        output=(output or directory / "results").absolute(),
        data=own,
        strategies=tuple(strategies),
        clients=clients or (FEATURE_CLIENTS if features else GENERATED_CLIENTS),
        max_updates=max_updates or default_updates,
        max_hours=max_hours,
        target=target,
        processes=processes,
        seed=seed,
        features=features,
    )
    _show(run_demo(options, Screen()), options, as_json=as_json)


def _show(result: "DemoResult", options: "DemoOptions", *, as_json: bool) -> None:
    from rich.console import Console

    from flint.cli.output import print_json
    from flint.demo.report import results_table
    from flint.demo.results import summary_json

    table = results_table(
        result.runs, central=result.central, chance=result.chance, target=options.target
    )
    console = Console(stderr=as_json, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = 120  # lines in a file or a pipe are not cut to a terminal's width
    console.print(table)
    if as_json:
        summary = summary_json(
            result.runs,
            metric=result.metric,
            central=result.central,
            chance=result.chance,
            target=options.target,
        )
        print_json(summary)
        return
    best = max(result.runs, key=lambda run: run.best.value)
    print(
        f"plot of AUPRC against model version: {result.plot}\n"
        f"best model: {best.model_path} (TFLite), {best.model_path.with_suffix('.pt')} (torch)\n"
        "\nNext:\n"
        "  flint demo --data FILE.parquet --client-field F --label-field F   on data of yours\n"
        f"  flint up --home {options.home}   then, with the same --home: flint jobs, flint models "
        "list\n"
        f"  {options.home / 'jobs'}   the job files, to change and submit again\n"
        "  docs/getting-started.md   a server, devices and a job of your own"
    )
