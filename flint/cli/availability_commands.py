"""``flint availability``: availability traces out of an app's session logs."""

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flint.cli.options import HomeOption, JsonOption, resolve_home
from flint.cli.output import note, print_fields, print_json, print_table

if TYPE_CHECKING:
    from simulation.availability.statistics import AvailabilityStatistics

app = typer.Typer(
    help="When are devices available, under which criteria? From session logs to a trace.",
    no_args_is_help=True,
)

# Of the example's transfers: more devices tell no more of links.
_MOST_LINKS = 10_000


@app.command("build")
def build(
    sessions: Annotated[
        str,
        typer.Argument(help="Log: a Parquet or CSV file, a folder of them, or a quoted pattern."),
    ],
    criteria: Annotated[
        Path,
        typer.Option("--criteria", "-c", help="Criteria file (YAML); docs/availability.md."),
    ],
    name: Annotated[
        str | None,
        typer.Option(
            help="Keep the trace in the catalog under this name. Default: the log's name, or "
            "nothing is kept if --output is given."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the trace to this .parquet file.")
    ] = None,
    facts: Annotated[
        Path | None,
        typer.Option(help="Write what is known of each client, for reports, to this .parquet."),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(min=0, help="Of the coins for sessions whose WiFi or battery is not known."),
    ] = 0,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse a log in which anything is bad.")
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Build an availability trace from a session log and criteria.

    A session makes its device available while it meets all criteria. Environments then name the
    trace: `availability: NAME@1`. Bad rows are counted with an example; the log is read in bounded
    memory, however long it is.

    Example: flint availability build 'logs/*.parquet' --criteria wifi_battery.yaml --name app_wifi
    """
    from flint.rows_screen import RowsScreen
    from simulation.availability.build import build_availability
    from simulation.availability.criteria_file import load_criteria
    from simulation.availability.session_log import find_session_files

    files = find_session_files(sessions)
    wanted = load_criteria(criteria)
    kept_as = _checked_name(sessions, name) if name is not None or output is None else None
    with tempfile.TemporaryDirectory(prefix="flint-availability-") as folder:
        trace_file = output or Path(folder) / f"{kept_as}.parquet"
        # A report needs what is known of each client: the catalog keeps it beside the trace.
        facts_file = facts or (Path(folder) / "facts.parquet" if kept_as is not None else None)
        with RowsScreen() as screen:
            statistics = build_availability(
                files,
                wanted,
                trace_file,
                facts=facts_file,
                seed=seed,
                strict=strict,
                source=criteria.name,
                progress=screen.progress,
            )
        reference = None
        if kept_as is not None and facts_file is not None:
            source = f"{sessions} by {criteria.name}"
            reference = _keep(trace_file, facts_file, kept_as, source, statistics, home)
    found = statistics.to_json() | {
        "trace": reference,
        "output": None if output is None else str(output),
        "facts_file": None if facts is None else str(facts),
    }
    _say_problems(statistics)
    if as_json:
        print_json(found)
    else:
        _print(found)


@app.command("example")
def example(
    folder: Annotated[Path, typer.Argument(help="Where to write; made if it is not there.")],
    clients: Annotated[int, typer.Option(min=1, help="Devices of the log.")] = 1000,
    days: Annotated[int, typer.Option(min=1, help="Days of the log, from 24 March 2025.")] = 7,
    seed: Annotated[int, typer.Option(min=0, help="The same seed, the same log.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Write made-up logs, benchmark results and a criteria file to try the tools with.

    `sessions.parquet` and `criteria.yaml` (with `measurements.csv`) are for `build`; `phones.csv`,
    facts about the log's device models and the emulated fleet's, for `flint population build`;
    `transfers.parquet` for `flint bandwidth fit`. docs/measuring.md goes all the way.

    Example: flint availability example demo && flint availability build demo/sessions.parquet -c
    demo/criteria.yaml
    """
    from flint.example_phones import write_phones
    from flint.rows_screen import RowsScreen
    from simulation.availability.generated_log import GeneratedLog, write_example
    from simulation.fitting.generated_transfers import write_transfers

    with RowsScreen() as screen:
        rows = write_example(
            folder,
            GeneratedLog(clients=clients, days=days),
            seed=seed,
            progress=lambda done, total: screen.progress("devices", done, total),
        )
    log, criteria = folder / "sessions.parquet", folder / "criteria.yaml"
    phones, transfers = folder / "phones.csv", folder / "transfers.parquet"
    write_phones(phones)
    write_transfers(transfers, min(clients, _MOST_LINKS), seed=seed)
    written = {
        "sessions": str(log),
        "rows": rows,
        "measurements": str(folder / "measurements.csv"),
        "criteria": str(criteria),
        "hardware": str(phones),
        "transfers": str(transfers),
    }
    if as_json:
        print_json(written)
        return
    print_fields(written)
    note(f"next: flint availability build {log} --criteria {criteria} --name example")


def _checked_name(sessions: str, name: str | None) -> str:
    """The name given, else one made of the log's; refused before hours of work, not after."""
    from feature_catalog.environment_inputs import checked_input_name

    stem = re.sub(r"[^a-z0-9_-]+", "_", Path(sessions).stem.lower()).strip("_-")
    return checked_input_name(Path(f"{stem}.parquet"), name)


def _keep(
    trace_file: Path,
    facts_file: Path,
    name: str,
    source: str,
    statistics: "AvailabilityStatistics",
    home: Path | None,
) -> str:
    from flint.catalog_session import open_catalog
    from simulation.availability.kept_facts import FACTS_KEY, STATISTICS_KEY

    with open_catalog(resolve_home(home)) as catalog:
        kept = {
            STATISTICS_KEY: statistics.to_json(),
            FACTS_KEY: catalog.blobs.put_file(facts_file).hex(),
        }
        row = catalog.environment_inputs.add(
            trace_file.absolute(),
            "availability",
            name=name,
            statistics=statistics.of_trace() | kept,
            source=source,
        )
    return row.reference


def _say_problems(statistics: "AvailabilityStatistics") -> None:
    from simulation.availability.problems import in_words

    for kind, problem in statistics.problems.items():
        note(in_words(kind, problem))
    for name, estimate in statistics.estimated.items():
        hours = estimate.hours_without_sample
        borrowed = (
            f"; {hours} hours of the week have no sample and take that of other days"
            if hours
            else ""
        )
        note(
            f"{name}: known for {estimate.known} sessions ({estimate.known_passing_share:.1%} "
            f"pass), {estimate.unknown} decided by coins of seed {statistics.seed}{borrowed}"
        )
    if statistics.repeat_every_s is None and statistics.horizon_s <= 2 * 86_400:
        note(
            "the trace ends within two days and does not repeat; where a longer dry-run is meant, "
            "fold: day lays its days over one another"
        )


def _print(found: dict[str, Any]) -> None:
    rows = [
        (
            name,
            f"{found['share_by_criterion'][name]:.1%}",
            f"{found['time_share_by_criterion'][name]:.1%}",
            f"{found['client_share_by_criterion'][name]:.1%}",
        )
        for name in found["share_by_criterion"]
    ]
    rows.append(
        (
            "all together",
            f"{found['share_all']:.1%}",
            f"{found['time_share_all']:.1%}",
            f"{found['client_share_all']:.1%}",
        )
    )
    print_table(("criterion", "of sessions", "of their time", "of clients"), rows, empty="")
    shown = (
        *("trace", "output", "facts_file", "sessions_in", "sessions_valid", "sessions_out"),
        *("clients", "clients_out", "eligible_peak_share", "eligible_mean_share"),
        *("trough_peak_ratio", "median_span_s", "begins", "repeat_every_s", "joined", "seed"),
    )
    print_fields({key: found[key] for key in shown if found[key] not in (None, {})})
