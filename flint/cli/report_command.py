"""``flint report``: one HTML page about dry-runs."""

from pathlib import Path
from typing import Annotated

import typer

from flint.cli.options import HomeOption, JsonOption, resolve_home
from flint.cli.output import note, print_json


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("report")(report)


def report(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Runs: an id, the beginning of one, or a job's name for its newest run.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File to write. Default: report-RUN.html here, RUN being the first run's id.",
            show_default=False,
        ),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write an HTML page about a dry-run, or about several side by side.

    The page holds all it shows and fetches nothing: open it, mail it, print it. With several runs
    the first is what the others are compared with.

    Example: flint report ads-fedavg ads-fedbuff --output comparison.html
    """
    from flint.catalog_session import open_catalog
    from flint.extras import require
    from flint.reports.output_file import check_writable, write_page
    from flint.reports.run_data import load_run

    require("matplotlib", purpose="a report")
    check_writable(output if output is not None else Path("report.html"))
    with open_catalog(resolve_home(home)) as catalog:
        loaded = [load_run(catalog.simulation_runs, reference) for reference in runs]
    each = list({run.run_id: run for run in loaded}.values())
    if len(each) < len(loaded):
        note("a run that was named more than once is shown once")
    path = output if output is not None else Path(f"report-{each[0].run_id}.html")
    check_writable(path)

    from flint.reports.page import make_report

    made = make_report(each)
    write_page(path, made.html)
    if as_json:
        print_json({"report": str(path.absolute()), **made.figures})
    else:
        print(f"the report is in {path}")
