"""``flint bandwidth``: link speeds of an environment, from measured transfers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from flint.cli.options import HomeOption, JsonOption, resolve_home
from flint.cli.output import note, print_fields, print_json, print_table

if TYPE_CHECKING:
    from simulation.fitting.bandwidth_fit import BandwidthFit
    from simulation.fitting.bandwidth_measurements import Measurements

app = typer.Typer(help="Link speeds, fitted to measured transfers.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keeps ``fit`` a command of its own, though it is the only one."""


@app.command("fit")
def fit(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE...",
            help="Measurements, Parquet or CSV: of both directions (a column direction tells), or "
            "of links alike both ways.",
            show_default=False,
        ),
    ] = None,
    down: Annotated[
        list[Path] | None, typer.Option(help="File of downloads alone; may be repeated.")
    ] = None,
    up: Annotated[
        list[Path] | None, typer.Option(help="File of uploads alone; may be repeated.")
    ] = None,
    kbps_column: Annotated[str | None, typer.Option(help="Speed, 1000 bits a second.")] = None,
    bytes_column: Annotated[
        str | None, typer.Option(help="Bytes transferred; with --seconds-column.")
    ] = None,
    seconds_column: Annotated[str | None, typer.Option(help="Seconds it took.")] = None,
    direction_column: Annotated[
        str | None, typer.Option(help="Direction of a transfer. Default: direction.")
    ] = None,
    down_value: Annotated[str, typer.Option(help="What it calls downloads.")] = "down",
    up_value: Annotated[str, typer.Option(help="What it calls uploads.")] = "up",
    client_column: Annotated[
        str | None,
        typer.Option(help="Client, device or session of a transfer: its rows are one link."),
    ] = None,
    distribution: Annotated[
        Literal["auto", "lognormal", "quantiles"],
        typer.Option(help="auto: lognormal, or the measured quantiles where that fits poorly."),
    ] = "auto",
    links: Annotated[int, typer.Option(min=1, max=1_000_000, help="Links to draw.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Bandwidth file to write (.parquet, .csv).")
    ] = Path("bandwidth.parquet"),
    name: Annotated[
        str | None, typer.Option(help="In the catalog. Default: the output's name.")
    ] = None,
    add: Annotated[bool, typer.Option(help="Whether to add it to the catalog.")] = True,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fit link speeds to measured transfers, and draw links for the environment's bandwidth.

    Each link counts once. How well a lognormal fits is told by its distance from links that were
    held out. docs/population.md explains the figures.

    Example: flint bandwidth fit transfers.csv --bytes-column bytes --seconds-column s
    --client-column device --output links.parquet
    """
    from flint.cli.options import require_some
    from simulation.fitting.bandwidth_fit import fit_bandwidth
    from simulation.fitting.bandwidth_measurements import MeasurementColumns, read_measurements
    from simulation.fitting.input_file import check_writable, write_input

    require_some(files, down, up, sentence="give at least one FILE of measurements")
    columns = MeasurementColumns(
        kbps=kbps_column,
        transferred_bytes=bytes_column,
        transfer_s=seconds_column,
        direction=direction_column,
        down_value=down_value,
        up_value=up_value,
        client=client_column,
    )
    check_writable(output)
    measured = read_measurements(files or (), columns, down=down or (), up=up or ())
    fitted = fit_bandwidth(measured, seed=seed)
    family = fitted.preferred_family() if distribution == "auto" else distribution
    made_with = {"fitted": family, "links": links, "seed": seed}
    write_input(output, fitted.sample(links, family, seed=seed), made_with)
    said = _describe(measured, fitted) | {"distribution": family, "output": str(output.absolute())}
    if measured.unusable_rows:
        note(
            f"{measured.unusable_rows:,} of {measured.rows:,} rows are of no use and left out (the "
            f"first: {measured.first_unusable})"
        )
    if add:
        said["trace"] = _add(output, name, said, home)
    if as_json:
        print_json(said)
    else:
        _print(said)


def _describe(measured: "Measurements", fitted: "BandwidthFit") -> dict[str, Any]:
    return {
        "rows": measured.rows,
        "unusable_rows": measured.unusable_rows,
        "has_directions": measured.has_directions,
        "down": fitted.down.as_json(),
        "up": fitted.up.as_json(),
        "correlation": fitted.correlation,
        "paired_links": fitted.paired_links,
    }


def _add(output: Path, name: str | None, fit: dict[str, Any], home: Path | None) -> str:
    from flint.catalog_session import open_catalog
    from flint.trace_statistics import read_statistics

    statistics = read_statistics(output, "bandwidth") | {"fit": fit}
    with open_catalog(resolve_home(home)) as catalog:
        row = catalog.environment_inputs.add(
            output.absolute(), "bandwidth", name, statistics=statistics
        )
    return row.reference


def _print(said: dict[str, Any]) -> None:
    rows = []
    for direction in ("down", "up"):
        fit = said[direction]
        quantiles = fit["quantiles_kbps"]
        rows.append(
            (
                direction,
                fit["links"],
                *(quantiles[p] for p in ("p5", "p50", "p95")),
                fit["median_kbps"],
                fit["log_stdev"],
                fit["log_stdev_within"],
                fit["ks_lognormal"],
                fit["ks_quantiles"],
            )
        )
    print_table(
        ("", "links", "p5 kbit/s", "median", "p95", "lognormal: median", "log stdev",
         "within a link", "KS, held out", "KS of quantiles"),
        rows,
        empty="",
    )  # fmt: skip
    poor = [d for d in ("down", "up") if said[d]["is_lognormal_poor"]]
    if poor:
        drawn_anyway = said["distribution"] == "lognormal"
        print(
            f"a lognormal fits poorly {' and '.join(poor)}; "
            + (
                "--distribution quantiles fits"
                if drawn_anyway
                else "measured quantiles stand for it"
            )
        )
    fields = {"drawn from": said["distribution"], "correlation": said["correlation"]}
    print_fields(fields | {key: said[key] for key in ("trace", "output") if key in said})
