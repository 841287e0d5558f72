"""``flint simulate-flower``."""

import contextlib
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flint.cli.options import HomeOption, JsonOption, resolve_home
from flint.cli.output import note, print_json, print_table

if TYPE_CHECKING:
    from feature_catalog.simulation_runs import SimulationRunRow
    from simulation.flower.rounds import Progress

_LINE_EVERY_S = 1.0


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("simulate-flower")(simulate_flower)


def simulate_flower(
    app_dir: Annotated[
        Path, typer.Argument(metavar="APP_DIR", help="Folder with the app's pyproject.toml.")
    ],
    environment: Annotated[
        Path,
        typer.Option("--environment", "-e", metavar="ENV.yaml", help="World to dry-run it in."),
    ],
    run_config: Annotated[
        list[str] | None,
        typer.Option(
            "--run-config",
            "-c",
            metavar="KEY=VALUE",
            help="The app's own settings, as `flwr run` takes them; may be repeated.",
        ),
    ] = None,
    local_epochs: Annotated[
        int,
        typer.Option(
            min=1,
            help="How often the app passes over its examples in a task, for the time it takes.",
        ),
    ] = 1,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Repetitions. Default: the environment's.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of every draw.")] = 0,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Dry-run an unmodified Flower app on a virtual clock.

    Its ServerApp and strategy run as they are; its ClientApp really trains, in this process, for
    nodes that are online as ENV.yaml says. docs/flower-apps.md says what is modelled.

    Example: flint simulate-flower my-app -e environment.yaml -c "num-server-rounds=10"
    """
    from simulation.environment import load_environment
    from simulation.flower.app_folder import read_flower_app

    world = load_environment(environment)
    app = read_flower_app(app_dir, run_config or [])
    from flint.catalog_session import open_catalog
    from flint.run_view import figures
    from simulation.catalog_inputs import CatalogInputs
    from simulation.flower.recorded_run import (
        new_flower_run,
        notes,
        prepare_flower_run,
        run_flower_trials,
    )

    for sentence in notes(world):
        note(sentence)
    with open_catalog(resolve_home(home)) as catalog:
        resolver = CatalogInputs(environment.parent, catalog.environment_inputs)
        dry_run = prepare_flower_run(app, world, resolver, seed, local_epochs)
        runs = catalog.simulation_runs
        row = runs.create(new_flower_run(dry_run, trials or world.trials))
        note(f"run {row.run_id} of {app.name}: {len(dry_run.records)} nodes")
        if as_json:
            logging.getLogger("flwr").setLevel(logging.WARNING)
        # Whatever the app prints is said on the way; results alone go to stdout.
        with contextlib.redirect_stdout(sys.stderr):
            row = run_flower_trials(dry_run, runs, row, _teller())
    if as_json:
        print_json(figures(row))
    else:
        _show(row)


def _teller() -> "Callable[[int, Progress], None]":
    """Tells of a round, at most once a second."""
    told = (0, -_LINE_EVERY_S)

    def tell(trial: int, progress: "Progress") -> None:
        nonlocal told
        if told[0] == trial and progress.wall_s - told[1] < _LINE_EVERY_S:
            return
        told = trial, progress.wall_s
        note(
            f"trial {trial}: round {progress.version} with {progress.updates} updates, "
            f"{progress.virtual_s / 3600:.2f} virtual hours in {progress.wall_s:.0f} s, "
            f"{progress.tasks_started} tasks, {progress.in_flight} in flight"
        )

    return tell


def _show(row: "SimulationRunRow") -> None:
    columns = (
        "trial",
        "virtual hours",
        "rounds",
        row.summary["metric_name"] or "metric",
        "tasks",
        "succeeded",
        "interrupted",
        "failed",
        "over-committed",
        "device hours",
        "MB up",
        "MB down",
    )
    rows = [
        (
            trial["trial"],
            trial["virtual_hours"],
            trial["aggregations"],
            trial["metric"],
            trial["tasks_started"],
            trial["outcomes"]["succeeded"],
            trial["outcomes"]["interrupted"],
            trial["outcomes"]["failed"],
            trial["outcomes"]["over_committed"],
            trial["device_hours"],
            trial["bytes_up"] / 1e6,
            trial["bytes_down"] / 1e6,
        )
        for trial in row.summary["trials"]
    ]
    print_table(columns, rows, empty="no trials")
    for trial in row.summary["trials"]:
        for each in trial["client_errors"][:1]:
            note(f"trial {trial['trial']}: {each['tasks']} ClientApp(s) raised {each['error']}")
        if trial["undelivered"]:
            note(
                f"trial {trial['trial']}: {trial['undelivered']} of {trial['messages']} messages "
                "were never taken, their nodes being offline"
            )
    note(f"\nNext: flint report {row.run_id}")
