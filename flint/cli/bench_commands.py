"""``flint bench``: what a model costs on devices, measured; into reports and dry-runs."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from flint.cli.options import HomeOption, JsonOption, resolve_home
from flint.cli.output import note, print_fields, print_json, print_table

app = typer.Typer(
    help="What a model costs devices: measure, report, export to dry-runs.", no_args_is_help=True
)

NO_FIGURES = 2
_EMULATED = "emulated devices imitate how far phones lie apart, not what one phone takes"


@app.command("run")
def run(
    model: Annotated[
        str,
        typer.Option(
            metavar="M",
            help="A registered model's name, or a Python file with a torch or Keras model, as "
            "`flint model check` takes it. The file is run.",
        ),
    ],
    devices: Annotated[
        str,
        typer.Option(
            help="Back ends parted by commas, each with names after a colon: host (this machine), "
            "emulated[:tier-01,...] (27 phones' speeds imitated here), adb[:SERIAL,...] (Android "
            "devices on a cable), device-farm:POOL_ARN (phones of AWS Device Farm)."
        ),
    ] = "host",
    records: Annotated[int, typer.Option(help="Of one pass.")] = 5000,
    repeats: Annotated[int, typer.Option(help="Fresh processes a device.")] = 5,
    task: Annotated[Literal["train", "infer"], typer.Option(help="What is measured.")] = "train",
    batch_size: Annotated[int, typer.Option(help="Records a call.")] = 20,
    seed: Annotated[int, typer.Option(help="Of records and parameters.")] = 0,
    min_pass_s: Annotated[
        float, typer.Option(help="Short passes are repeated until this many seconds are measured.")
    ] = 2.0,
    timeout_s: Annotated[
        float, typer.Option(min=0, help="A run on this machine that takes longer is stopped.")
    ] = 900.0,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder for raw results. Default: benchmarks/ in the data directory.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on in --output: only what is missing is run.")
    ] = False,
    app_apk: Annotated[
        Path | None, typer.Option(help="With adb or device-farm: APK of the benchmark's app.")
    ] = None,
    test_apk: Annotated[
        Path | None, typer.Option(help="With adb or device-farm: APK of its instrumentation.")
    ] = None,
    farm_project: Annotated[
        str | None,
        typer.Option(metavar="ARN", help="Device Farm project, for a pool that names none."),
    ] = None,
    resume_run: Annotated[
        str | None,
        typer.Option(metavar="ARN", help="Take up this Device Farm run, schedule none."),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a model on devices and keep what was found.

    Raw results go into a folder, figures into the catalog. A device that fails is reported and
    costs no other its result. Exit code 2 if none gave figures. docs/run-on-devices.md has what
    real phones need.

    Example: flint bench run --model sparse_mlp --devices host,emulated --repeats 3
    """
    from android_bench.devices.adb import AndroidApp
    from android_bench.devices.phones import PhoneOptions
    from android_bench.devices.select import SelectContext, select_groups
    from android_bench.harness import run_benchmark
    from android_bench.measured import store_results
    from android_bench.packing import load_model
    from android_bench.run_folder import open_run_folder
    from flint.bench_screen import BenchScreen
    from flint.bench_view import COLUMNS, described, sentences, shown
    from flint.catalog_session import open_catalog
    from flint.extras import require

    if resume and output is None:
        raise typer.BadParameter("--resume needs --output, the folder to go on in")
    require("tensorflow", purpose="a benchmark")
    phones = PhoneOptions(AndroidApp(app_apk, test_apk), farm_project, resume_run, note)
    groups = select_groups(devices, SelectContext(timeout_s=timeout_s, phones=phones))
    loaded = load_model(model, seed)
    home = resolve_home(home)
    name = f"{loaded.spec.name}-{task}-{datetime.now().astimezone():%Y%m%d-%H%M%S}"
    folder = open_run_folder(
        output.expanduser().absolute() if output is not None else home / "benchmarks" / name,
        loaded,
        resume=resume,
        task=task,
        records=records,
        batch_size=batch_size,
        repeats=repeats,
        seed=seed,
        min_pass_s=min_pass_s,
    )
    try:
        with BenchScreen(len(groups)) as screen:
            outcomes = run_benchmark(folder, groups, screen.finished)
        with open_catalog(home) as catalog:
            store_results(catalog.measurements, outcomes.results)
    except BaseException:
        note(f"what was measured is in {folder.path}; --resume --output {folder.path} goes on")
        raise
    if as_json:
        print_json(described(folder, outcomes))
    else:
        print_table(COLUMNS, shown(outcomes), empty="no device gave figures")
        print(f"raw results are in {folder.path}")
    for sentence in sentences(outcomes):
        note(sentence)
    if any(result.device.emulated for result in outcomes.results):
        note(_EMULATED)
    if not any(outcome.is_ok for outcome in outcomes.devices):
        raise typer.Exit(NO_FIGURES)


@app.command("report")
def report(
    model: Annotated[
        list[str] | None,
        typer.Option(help="Only this model; may be given again.", show_default=False),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(help="Also write a page with the table and a figure.", show_default=False),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print what models cost devices, beside FLINT's Table 5, from the newest measurements.

    Example: flint bench report --html devices.html
    """
    from flint.bench_export import NoMeasurements
    from flint.bench_table import (
        COLUMNS,
        FLEETS,
        left_out_sentence,
        measured_table,
        row_as_json,
        shown_row,
    )
    from flint.catalog_session import open_catalog
    from flint.extras import require
    from flint.reports.output_file import check_writable, write_page
    from server.device_criteria import BENCHMARK_RECORDS

    if html is not None:
        require("matplotlib", purpose="a page")
        check_writable(html)
    with open_catalog(resolve_home(home)) as catalog:
        table = measured_table(catalog.measurements, model or ())
    if not table.rows:
        of_model = f" of {', '.join(model)}" if model else ""
        raise NoMeasurements(
            f"there are no valid measurements{of_model}; make some with `flint bench run`"
        )
    if html is not None:
        from flint.reports.bench_page import make_bench_page

        write_page(html, make_bench_page(table))
    for name, others in table.left_out.items():
        note(left_out_sentence(name, others))
    if as_json:
        rows = [row_as_json(row) for row in table.rows]
        page = {} if html is None else {"report": str(html.absolute())}
        print_json({"records": BENCHMARK_RECORDS, "rows": rows, **page})
        return
    print_table(COLUMNS, [shown_row(row) for row in table.rows], empty="nothing was measured")
    if any(row.train_s and row.fleet == FLEETS["emulated"] for row in table.rows):
        note(_EMULATED)
    print("± is the deviation across device models; in brackets, the paper's figure (27 phones)")
    if html is not None:
        print(f"the page is in {html}")


@app.command("export")
def export(
    name: Annotated[str, typer.Argument(help="Name for environments: device_profiles: NAME@1.")],
    model: Annotated[str, typer.Option(metavar="M", help="The measured model's name.")],
    without_emulated: Annotated[
        bool, typer.Option("--without-emulated", help="Only devices that are not emulated.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Also keep the file here.", show_default=False),
    ] = None,
    measurements: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.csv",
            help="Also write the table that `measurements` of a criteria file names.",
            show_default=False,
        ),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make measured training times the device profiles of a dry-run's environment.

    A sample is a run's seconds per record, its share of a batch's cost included.

    Example: flint bench export sparse_mlp_bench --model sparse_mlp
    """
    import tempfile

    from feature_catalog.environment_inputs import checked_input_name
    from flint.bench_export import measured_profiles, write_measurements, write_profiles
    from flint.bench_table import left_out_sentence
    from flint.catalog_session import open_catalog
    from flint.trace_statistics import read_statistics
    from simulation.fitting.input_file import check_writable

    checked_input_name(Path(f"{name}.csv"), name)
    for path in filter(None, (output, measurements)):
        check_writable(path)
    with open_catalog(resolve_home(home)) as catalog, tempfile.TemporaryDirectory() as folder:
        profiles = measured_profiles(
            catalog.measurements, model, with_emulated=not without_emulated
        )
        path = output if output is not None else Path(folder) / f"{name}.csv"
        write_profiles(path, profiles)
        if measurements is not None:
            write_measurements(measurements, profiles)
        statistics = read_statistics(path, "device_profiles") | {
            "measured_model": model,
            "emulated_device_models": len(profiles.emulated),
        }
        row = catalog.environment_inputs.add(
            path.absolute(), "device_profiles", name=name, statistics=statistics
        )
    if profiles.left_out:
        note(left_out_sentence(model, profiles.left_out))
    if profiles.emulated:
        note(
            f"{len(profiles.emulated)} of {len(profiles.samples_s)} device models are emulated: "
            "their spread is that of phones, their times are not"
        )
    fields = {
        "device_profiles": row.reference,
        "device_models": len(profiles.samples_s),
        "samples": sum(len(samples) for samples in profiles.samples_s.values()),
        "emulated": len(profiles.emulated),
    }
    if as_json:
        print_json(fields)
    else:
        print_fields(fields)
