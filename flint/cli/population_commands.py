"""``flint population``: which measured device models people have, from logs."""

from pathlib import Path
from typing import Annotated, Any

import typer

from flint.cli.options import HomeOption, JsonOption, resolve_home
from flint.cli.output import note, print_fields, print_json

app = typer.Typer(help="Shares of device models, from logs.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps ``build`` a command of its own, though it is the only one."""


@app.command("build")
def build(
    logs: Annotated[
        list[Path],
        typer.Argument(metavar="LOG...", help="Parquet or CSV; any number of rows a device."),
    ],
    profiles: Annotated[
        str, typer.Option(help="Measured device profiles: NAME[@VERSION] or a file.")
    ],
    device_column: Annotated[str, typer.Option(help="Says which device.")] = "device_id",
    model_column: Annotated[str, typer.Option(help="Says its model.")] = "device_model",
    hardware: Annotated[
        Path | None,
        typer.Option(
            help="Facts about models, measured and not: device_model and columns of numbers; "
            "optional trace_model_codes, other names of a model."
        ),
    ] = None,
    feature: Annotated[
        list[str] | None,
        typer.Option(
            "--feature",
            help="Column of the hardware table to compare by; may be repeated. Default: all that "
            "hold numbers.",
        ),
    ] = None,
    max_distance: Annotated[
        float,
        typer.Option(
            min=0, help="Farthest match, in standard deviations of device models per feature."
        ),
    ] = 0.5,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Population file to write (.parquet, .csv).")
    ] = Path("device_population.parquet"),
    mapping: Annotated[
        Path | None,
        typer.Option(
            help="Where the matches go. Default: beside the output, with -mapping in its name.",
            show_default=False,
        ),
    ] = None,
    profiles_output: Annotated[
        Path | None,
        typer.Option(
            help="Also write profiles that have the logs' models too, each with the speed of its "
            "match: for traces that name device models.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="In the catalog. Default: the output's name.")
    ] = None,
    add: Annotated[bool, typer.Option(help="Whether to add it to the catalog.")] = True,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Weigh measured device models by how many devices of the logs have them.

    Every device counts once. A model that was not measured is matched to the one with the most
    similar hardware; one that is like none has no share, and how many such devices there are is
    told. docs/population.md explains the matching.

    Example: flint population build sessions.parquet --profiles sparse_mlp_bench
    --hardware phones.csv
    """
    from flint.named_inputs import named_inputs
    from flint.rows_screen import RowsScreen
    from simulation.fitting.device_log import count_devices
    from simulation.fitting.hardware import read_hardware
    from simulation.fitting.input_file import check_writable, write_input
    from simulation.fitting.matched_profiles import matched_profiles
    from simulation.fitting.population import build_population
    from simulation.traces.device_profiles import read_device_profiles

    matches = mapping or output.with_stem(f"{output.stem}-mapping")
    for path in (output, matches, profiles_output):
        if path is not None:
            check_writable(path)
    with named_inputs(resolve_home(home)) as inputs:
        measured = read_device_profiles(inputs.find(profiles, "device_profiles"))
    facts = read_hardware(hardware, feature) if hardware is not None else None
    with RowsScreen() as screen:
        counts = count_devices(
            logs,
            device_column=device_column,
            model_column=model_column,
            progress=screen.progress,
        )
    built = build_population(counts, measured.device_models, facts, max_distance=max_distance)
    made_with = {"profiles": profiles, "max_distance": max_distance}
    write_input(output, built.table(), made_with)
    write_input(matches, built.mapping(), made_with)
    if profiles_output is not None:
        write_input(profiles_output, matched_profiles(measured, built.matches), made_with)
    said: dict[str, Any] = built.as_json() | {
        "features": list(facts.features) if facts is not None else [],
        "max_distance": max_distance,
        "output": str(output.absolute()),
        "mapping": str(matches.absolute()),
    }
    if profiles_output is not None:
        said["profiles_output"] = str(profiles_output.absolute())
    if built.unmatched_share:
        examples = "; ".join(
            f"{e['log_model']} ({e['devices']}): {e['reason']}" for e in said["unmatched_examples"]
        )
        note(
            f"{built.unmatched_share:.1%} of the devices have no measured model or one like it, "
            f"and no share{': ' if examples else ''}{examples}"
        )
    if add:
        said |= _add(output, profiles_output, name, dict(said), home)
    if as_json:
        print_json(said)
    else:
        left_out = ("rows", "rows_without_device", "unmatched_examples")
        print_fields({key: value for key, value in said.items() if key not in left_out})


def _add(
    output: Path,
    profiles_output: Path | None,
    name: str | None,
    built: dict[str, Any],
    home: Path | None,
) -> dict[str, str]:
    from flint.catalog_session import open_catalog
    from flint.trace_statistics import read_statistics

    statistics = read_statistics(output, "device_population") | {"built": built}
    added = {}
    with open_catalog(resolve_home(home)) as catalog:
        inputs = catalog.environment_inputs
        row = inputs.add(output.absolute(), "device_population", name, statistics=statistics)
        added["trace"] = row.reference
        if profiles_output is not None:
            row = inputs.add(
                profiles_output.absolute(),
                "device_profiles",
                statistics=read_statistics(profiles_output, "device_profiles"),
            )
            added["profiles"] = row.reference
    return added
