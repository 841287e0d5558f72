"""``flint simulate``."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from flint.cli.options import HomeOption, JsonOption, resolve_home
from flint.cli.output import note, print_json, print_table

if TYPE_CHECKING:
    from feature_catalog.simulation_runs import SimulationRunRow
    from simulation.environment import ClientOutput


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("simulate")(simulate)


def simulate(
    job: Annotated[Path, typer.Argument(metavar="JOB.yaml", help="Job file.")],
    environment: Annotated[
        Path,
        typer.Option("--environment", "-e", metavar="ENV.yaml", help="World to dry-run it in."),
    ],
    trials: Annotated[
        int | None, typer.Option(min=1, help="Repetitions. Default: the environment's.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of every draw. Default: the job's.")
    ] = None,
    executors: Annotated[
        int | None,
        typer.Option(min=1, max=1024, help="What trains: so many. Default: the environment's."),
    ] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="Go on with a run that was interrupted.")
    ] = None,
    checkpoint_every: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Aggregations between two checkpoints. Default: one a second, if it costs little.",
        ),
    ] = None,
    client_outputs: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Record of each update: train_loss (free), losses, norms. Default: the "
            "environment's.",
        ),
    ] = None,
    no_training: Annotated[
        bool,
        typer.Option(
            "--no-training", "--system-only", help="Train nothing: time, devices and bytes only."
        ),
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Dry-run a job on a virtual clock: nobody's phone is touched.

    The very coordinator and strategies of `flint submit` run against devices of measured speed,
    real availability and bandwidth. docs/environment-file.md explains every key of ENV.yaml;
    no server need be running.

    Example: flint simulate examples/quickstart/job.yaml -e examples/quickstart/environment.yaml

    With --no-training it answers within seconds how long a job takes and what it costs devices,
    for millions of clients; it needs no data set then, only how many records clients hold
    (population.records). --client-outputs losses,norms adds columns to the run's table of tasks;
    docs/dry-run.md says what they cost.
    """
    from flint.catalog_session import open_catalog
    from flint.dry_run import DryRunOptions
    from flint.dry_run import simulate as dry_run
    from flint.run_view import figures
    from flint.simulation_screen import SimulationScreen

    options = DryRunOptions(
        trials=trials,
        seed=seed,
        executors=executors,
        checkpoint_every=checkpoint_every,
        resume=resume,
        trains=not no_training,
        client_outputs=_client_outputs(client_outputs, trains=not no_training),
    )
    with open_catalog(resolve_home(home)) as catalog, SimulationScreen() as screen:
        row = dry_run(
            catalog, job, environment, options, screen.note, screen.progress, screen.expect
        )
    if as_json:
        print_json(figures(row))
    else:
        show(row)


def _client_outputs(names: str | None, *, trains: bool) -> "tuple[ClientOutput, ...] | None":
    if names is None:
        return None
    from simulation.environment import ClientOutput

    if not trains:
        raise typer.BadParameter(
            "--client-outputs is of updates that are trained; leave it or --no-training out"
        )
    known: dict[str, ClientOutput] = {name: name for name in get_args(ClientOutput)}
    asked = list(dict.fromkeys(filter(None, (name.strip() for name in names.split(",")))))
    unknown = [name for name in asked if name not in known]
    if unknown:
        raise typer.BadParameter(
            f"--client-outputs: {unknown[0]!r} is not one of {', '.join(known)}; give some of "
            "these, separated by commas"
        )
    return tuple(known[name] for name in asked)


def show(row: "SimulationRunRow") -> None:
    """Print what came of a finished run: a table of its trials, and why they ended."""
    from simulation.update_log import diverged_sentence

    summary, trained = row.summary, row.executors > 0
    name = summary["metric_name"] or "metric"
    unusual = [
        outcome
        for outcome in ("failed", "rejected")
        if any(trial["outcomes"][outcome] for trial in summary["trials"])
    ]
    columns = (
        "trial",
        "virtual hours",
        "aggregations",
        *([name] if trained else []),
        "tasks",
        "succeeded",
        "interrupted",
        "stale",
        "over-committed",
        *unusual,
        "device hours",
        "wasted",
        "MB up",
        "MB down",
    )
    rows = []
    for trial in summary["trials"]:
        outcomes, device_hours = trial["outcomes"], trial["device_hours"]
        wasted = trial["wasted_device_hours"] / device_hours if device_hours else 0.0
        rows.append(
            (
                trial["trial"],
                trial["virtual_hours"],
                trial["aggregations"],
                *([trial["metric"]] if trained else []),
                trial["tasks_started"],
                outcomes["succeeded"],
                outcomes["interrupted"],
                outcomes["stale"],
                outcomes["over_committed"],
                *(outcomes[name] for name in unusual),
                device_hours,
                f"{wasted:.0%}",
                trial["bytes_up"] / 1e6,
                trial["bytes_down"] / 1e6,
            )
        )
    print_table(columns, rows, empty="no trials")
    for trial in summary["trials"]:
        print(f"trial {trial['trial']} ended: {trial['stop_reason']}")
        diverged = diverged_sentence(trial)
        if diverged is not None:
            print(f"trial {trial['trial']}: {diverged}")
        if "enclave" in trial:
            print(f"trial {trial['trial']}: {_enclave_sentence(trial['enclave'])}")
    if not trained:
        print("nothing was trained (--no-training), so there is no metric")
    if len(rows) > 1:
        spread = summary["over_trials"]
        told = [n for n in ("metric", "virtual_hours", "device_hours") if n in spread]
        for each in told:
            print(
                f"{each.replace('_', ' ')} over {len(rows)} trials: "
                f"{spread[each]['mean']:.4g} ± {spread[each]['stdev']:.2g} (standard deviation)"
            )
    note(f"\nNext: flint report {row.run_id}")


def _enclave_sentence(load: Mapping[str, Any]) -> str:
    said = (
        f"{load['updates_per_s']:.3g} updates/s of {load['bytes_per_update'] / 1e6:.3g} MB: "
        f"{load['mb_per_s']:.3g} MB/s into the enclave, {load['busiest_mb_per_s']:.3g} MB/s in the "
        "busiest ten minutes"
    )
    if load["budget_mb_per_s"] is None:
        return said
    kept = "within" if load["within_budget"] else "beyond"
    return f"{said}: {kept} budget.enclave_mb_per_s, {load['budget_mb_per_s']:g}"
