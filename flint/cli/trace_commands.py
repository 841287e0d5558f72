"""``flint trace``: what environments name, by name and version in the catalog."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flint.cli.options import HomeOption, JsonOption, resolve_home
from flint.cli.output import note, print_fields, print_json, print_table

if TYPE_CHECKING:
    from feature_catalog.environment_inputs import EnvironmentInputRow

app = typer.Typer(
    help="Availability, device and bandwidth traces: add, list, show.", no_args_is_help=True
)


@app.command("add")
def add(
    file: Annotated[Path, typer.Argument(help="Parquet or CSV file; docs/environment-file.md.")],
    kind: Annotated[
        Literal["availability", "device_profiles", "device_population", "bandwidth"],
        typer.Option(help="Key of the environment it is for."),
    ],
    name: Annotated[str | None, typer.Option(help="Default: the file's name.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a trace and store it under a name.

    An environment then names it NAME or NAME@VERSION instead of a path. The same file again is the
    same version.

    Example: flint trace add phones.csv --kind device_profiles
    """
    from flint.catalog_session import open_catalog
    from flint.trace_statistics import read_statistics

    statistics = read_statistics(file, kind)
    with open_catalog(resolve_home(home)) as catalog:
        row = catalog.environment_inputs.add(
            file.absolute(), kind, name=name, statistics=statistics
        )
    if statistics.get("overlapping"):
        note(
            "spans of a client overlap: an environment that names this trace must say merge: true, "
            "or only: with the rows to keep"
        )
    _print(row, as_json=as_json)


@app.command("list")
def list_traces(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List traces.

    Example: flint trace list --json
    """
    from flint.catalog_session import open_catalog
    from flint.trace_statistics import in_short

    with open_catalog(resolve_home(home)) as catalog:
        rows = catalog.environment_inputs.list()
    if as_json:
        print_json([_describe(row) for row in rows])
        return
    print_table(
        ("trace", "kind", "holds", "added"),
        [(r.reference, r.kind, in_short(r.kind, r.statistics), r.created_at) for r in rows],
        empty="no traces yet; add one with `flint trace add FILE`",
    )


@app.command("show")
def show(
    trace: Annotated[str, typer.Argument(metavar="NAME[@VERSION]", help="Trace.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a trace holds.

    Example: flint trace show phones@1
    """
    from flint.catalog_session import open_catalog

    with open_catalog(resolve_home(home)) as catalog:
        row = catalog.environment_inputs.get(trace)
    _print(row, as_json=as_json)


def _print(row: "EnvironmentInputRow", *, as_json: bool) -> None:
    fields = _describe(row)
    if as_json:
        print_json(fields)
        return
    statistics = fields.pop("statistics")
    found = dict(statistics) if isinstance(statistics, dict) else {}
    built = found.pop("build", None)  # long; --json has it whole
    if isinstance(built, dict):
        found |= {
            key: built[key]
            for key in ("share_all", "eligible_peak_share", "eligible_mean_share")
            if key in built
        }
    print_fields(fields | found)


def _describe(row: "EnvironmentInputRow") -> dict[str, object]:
    return {
        "name": row.name,
        "version": row.version,
        "kind": row.kind,
        "source": row.source,
        "sha256": row.sha256.hex(),
        "created_at": row.created_at,
        "statistics": dict(row.statistics),
    }
