"""``flint availability report``: who can take part, when, for how long, and who is left out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flint.cli.options import HomeOption, JsonOption, resolve_home
from flint.cli.output import note, print_fields, print_json, print_table

if TYPE_CHECKING:
    from flint.reports.availability.evidence import AvailabilityEvidence

_WARNINGS = 6


def register(app: typer.Typer) -> None:
    """Add the command to ``flint availability``."""
    app.command("report")(report)


def report(
    trace: Annotated[
        str,
        typer.Argument(
            metavar="NAME[@VERSION]|FACTS",
            help="A trace that `flint availability build` made, or the file of its --facts.",
        ),
    ],
    html: Annotated[
        Path | None, typer.Option(help="Page to write; else the figures are printed.")
    ] = None,
    facts: Annotated[
        Path | None, typer.Option(help="Facts file of the build, where the catalog keeps none.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Set a task against the trace: a registered model.")
    ] = None,
    update_bytes: Annotated[
        int | None, typer.Option(min=1, help="Bytes each way, instead of --model.")
    ] = None,
    profiles: Annotated[
        str | None, typer.Option(help="Device profiles: seconds per example. Name or file.")
    ] = None,
    bandwidth: Annotated[str | None, typer.Option(help="Links. Name or file.")] = None,
    population: Annotated[
        str | None,
        typer.Option(help="Shares of device models, for spans that name none. Name or file."),
    ] = None,
    records: Annotated[int, typer.Option(min=1, help="Records a device trains on.")] = 500,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over them.")] = 1,
    min_group_share: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="Warn of groups whose share among eligible devices is below this much of their "
            "share among all.",
        ),
    ] = 0.8,
    seed: Annotated[int, typer.Option(min=0, help="Of the tasks drawn.")] = 0,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Report on a build of availability, for people to read.

    What each criterion keeps (FLINT, Table 1), the hourly curve (Fig. 2), which devices (Fig. 1),
    whether a task fits into the spans, and which groups the criteria shift out. The page holds all
    it shows and fetches nothing.

    Example: flint availability report app_sessions@1 --html availability.html
    """
    from flint.availability_evidence import AskedTask, gather_evidence
    from flint.extras import require
    from flint.named_inputs import named_inputs
    from flint.reports.output_file import check_writable, write_page

    if html is not None:
        require("matplotlib", purpose="a page")
        check_writable(html)
    task = AskedTask(model, update_bytes, profiles, bandwidth, population, records, epochs, seed)
    with named_inputs(resolve_home(home)) as inputs:
        evidence = gather_evidence(trace, facts, task, inputs, least_ratio=min_group_share)
    from flint.reports.availability.figures import availability_figures, warning_sentence

    for shift in evidence.warned[:_WARNINGS]:
        note(f"warning: {warning_sentence(evidence, shift)}")
    if len(evidence.warned) > _WARNINGS:
        note(f"{len(evidence.warned) - _WARNINGS} more warnings are in the page and in --json")
    figures = availability_figures(evidence)
    if html is not None:
        from flint.reports.availability.page import availability_page

        write_page(html, availability_page(evidence))
        figures["report"] = str(html.absolute())
    if as_json:
        print_json(figures)
    elif html is not None:
        print(f"the report is in {html}")
    else:
        _print(evidence, figures)


def _print(evidence: "AvailabilityEvidence", figures: dict[str, Any]) -> None:
    print_table(
        ("passes", "devices", "sessions", "time", "devices without it", "sessions without it"),
        [
            (
                evidence.said_criterion(r["criterion"]),
                *(r.get(of) for of in ("clients", "sessions", "time")),
                *(r.get(of) for of in ("clients_without", "sessions_without")),
            )
            for r in figures["criteria"]
        ],
        empty="the trace was built without criteria",
    )  # fmt: skip
    shown = ("clients", "clients_out", "eligible_peak_share", "eligible_mean_share",
             "trough_peak_ratio")  # fmt: skip
    print_fields({key: figures[key] for key in shown})
    if figures["task"] is not None:
        print_fields(figures["task"])
    for why in figures["not_told"].values():
        note(why)
