"""``flint runs``: dry-runs, past and running."""

from typing import Annotated

import typer

from flint.cli.options import HomeOption, JsonOption, resolve_home
from flint.cli.output import print_fields, print_json, print_table

app = typer.Typer(invoke_without_command=True)


@app.callback()
def runs(context: typer.Context, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Dry-runs: list them, newest first, or show one.

    One whose process was killed is "interrupted".

    Example: flint runs --json
    """
    if context.invoked_subcommand is not None:
        return
    from flint.catalog_session import open_catalog
    from flint.run_view import describe, mean_metric, status, trials

    with open_catalog(resolve_home(home)) as catalog:
        rows = catalog.simulation_runs.list()[::-1]
        driven = catalog.simulation_runs.driven()
    if as_json:
        print_json([describe(row, driven) for row in rows])
        return
    print_table(
        ("run", "name", "status", "trials", "metric", "virtual hours", "device hours", "started"),
        [
            (
                row.run_id,
                row.name,
                status(row, driven),
                row.trials,
                mean_metric(row),
                _mean([trial.get("virtual_hours") for trial in trials(row)]),
                _mean([trial.get("device_hours") for trial in trials(row)]),
                row.created_at,
            )
            for row in rows
        ],
        empty="no dry-runs yet; start one with `flint simulate`",
    )


@app.command("show")
def show(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="Id, its beginning, or a job's name: its newest run."),
    ],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a dry-run: its inputs, which way it was computed and why, and what came of each trial.

    Example: flint runs show ads-ctr
    """
    from flint.catalog_session import open_catalog
    from flint.run_view import describe, input_in_words, paths_taken, trials

    with open_catalog(resolve_home(home)) as catalog:
        row = catalog.simulation_runs.get(run)
        fields = describe(row, catalog.simulation_runs.driven())
    if as_json:
        print_json(fields)
        return
    for long in ("job", "environment", "summary"):
        del fields[long]
    inputs = {key: input_in_words(found) for key, found in fields.pop("inputs").items()}
    fields["files"] = ", ".join(row.files) or None
    print_fields({**fields, "detail": row.detail or None, **paths_taken(row), **inputs})
    if not trials(row):
        return
    print()
    metric_name = row.summary.get("metric_name") or "metric"
    columns = {
        "trial": "trial",
        "ended by": "stop_reason",
        metric_name: "metric",
        "best": "best_metric",
        "versions": "aggregations",
        "tasks": "tasks_started",
        "virtual hours": "virtual_hours",
        "device hours": "device_hours",
        "wasted": "wasted_device_hours",
        "seconds": "wall_s",
        "trajectory": "trajectory_sha256",
    }
    print_table(
        list(columns),
        [[_short(key, trial.get(key)) for key in columns.values()] for trial in trials(row)],
        empty="",
    )


def _short(key: str, value: object) -> object:
    return str(value)[:12] if key.endswith("sha256") and value is not None else value


def _mean(values: list[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return sum(found) / len(found) if found else None
