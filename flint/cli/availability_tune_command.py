"""``flint availability tune``: what each relaxed criterion would gain."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flint.cli.options import HomeOption, JsonOption, resolve_home
from flint.cli.output import note, print_json, print_table

if TYPE_CHECKING:
    from simulation.availability.relaxation import Tuning


def register(app: typer.Typer) -> None:
    """Add the command to ``flint availability``."""
    app.command("tune")(tune)


def tune(
    log: Annotated[
        str,
        typer.Argument(
            metavar="SESSIONS|NAME[@VERSION]|FACTS",
            help="The session log, with --criteria; or, without, a trace that was built or its "
            "facts file, of which only dropped criteria can be told.",
        ),
    ],
    criteria: Annotated[
        Path | None, typer.Option(help="Criteria file, as of `flint availability build`.")
    ] = None,
    max_sessions: Annotated[
        int,
        typer.Option(
            min=1000, help="A log of more rows is sampled by device, to about so many sessions."
        ),
    ] = 2_000_000,
    seed: Annotated[int, typer.Option(min=0, help="Of coins, as of the build.")] = 0,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what relaxing each criterion would gain, most first.

    One criterion at a time: dropped, and for thresholds a few steps weaker. Gains are shares of all
    devices: available at an average moment, in the busiest hour, or at all.

    Example: flint availability tune sessions.parquet --criteria criteria.yaml
    """
    if criteria is None:
        found = _from_facts(log, home)
    else:
        from flint.steps_screen import StepsScreen
        from simulation.availability.criteria_file import load_criteria
        from simulation.availability.relaxation import tune_on_log
        from simulation.availability.session_log import find_session_files

        asked = load_criteria(criteria)
        files = find_session_files(log)
        with StepsScreen("criteria evaluated") as screen:
            found = tune_on_log(
                files,
                asked,
                seed=seed,
                source=criteria.name,
                max_sessions=max_sessions,
                progress=screen.step,
            )
    if found.sampled_share < 1.0:
        note(
            f"evaluated on {found.clients:,} devices, {found.sampled_share:.1%} of the log's: "
            "shares are of these"
        )
    if as_json:
        print_json(found.as_json())
    else:
        _print(found)


def _from_facts(reference: str, home: Path | None) -> "Tuning":
    from flint.availability_evidence import read_facts
    from flint.named_inputs import named_inputs
    from simulation.availability.relaxation import tune_on_facts

    with named_inputs(resolve_home(home)) as inputs:
        facts = read_facts(reference, inputs)
    return tune_on_facts(facts.criteria)


def _print(found: "Tuning") -> None:
    from simulation.availability.relaxation import said

    def row(name: str, values: tuple[float | None, ...]) -> tuple[str, ...]:
        return (name, *("-" if v is None else f"{100 * v:.2f} %" for v in values))

    before = found.before
    rows = [row("as they are", (before.mean, before.peak, before.clients, before.sessions))]
    rows += [
        row(said(r.relaxation), (r.shares.mean, r.shares.peak, r.shares.clients, r.shares.sessions))
        for r in found.relaxed
    ]
    print_table(
        ("criteria", "available on average", "in the busiest hour", "devices", "sessions"),
        rows,
        empty="",
    )
