"""``flint device``: enrolment tokens, one device, a fleet of many."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flint.cli.dataset_commands import (
    ExcludeFieldOption,
    TextFieldOption,
    field_roles,
)
from flint.cli.options import HomeOption, JsonOption, resolve_home
from flint.cli.output import note, print_json

if TYPE_CHECKING:
    from feature_catalog.datasets import Dataset
    from flint.fleet import LocalFleet

app = typer.Typer(
    help="Devices: enrolment tokens, one device, a fleet of many.", no_args_is_help=True
)

_REPORT_EVERY_S = 1.0
_SAY_EVERY_S = 10.0


@app.command("enrol-token")
def enrol_token(
    max_devices: Annotated[int, typer.Option(min=1, help="Devices it lets in.")] = 1,
    valid_hours: Annotated[float, typer.Option(min=0.01, help="Hours from now.")] = 24.0,
    output: Annotated[
        Path | None, typer.Option(help="Write it to this file, readable by you only.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a token that lets devices enrol.

    Give it to the devices' app together with the server's ca.crt; only its digest is kept here.

    Example: flint device enrol-token --max-devices 100 --output token.txt
    """
    from flint.deployment import Deployment
    from server.operations.production import require_limited_token
    from server.operations.settings import PRODUCTION

    deployment = Deployment.attach(resolve_home(home))
    if deployment.settings.profile == PRODUCTION:
        require_limited_token(max_devices, valid_hours)
    if output is not None:  # before there is a token nobody would know
        try:
            output.touch(mode=0o600)
        except OSError as error:
            raise typer.BadParameter(
                f"{output} cannot be written ({error.strerror}); choose a file in a directory that "
                "exists and is yours",
                param_hint="--output",
            ) from error
    token = deployment.devices.create_enrolment_token(max_devices, valid_hours * 3600.0)
    settings = deployment.settings
    if output is not None:
        output.write_text(token + "\n")
    if as_json:
        trust = None if settings.insecure else str(settings.ca_certificate)
        print_json({"token": token, "gateway": settings.gateway_address, "ca_certificate": trust})
    elif output is None:
        print(token)
    else:
        trusting = "--insecure" if settings.insecure else f"--ca {settings.ca_certificate}"
        print(
            f"token for {max_devices} device(s) is in {output}; run a device with\n"
            f"  flint device run --home DIR --server {settings.gateway_address} {trusting} "
            f"--enrolment-token-file {output}"
        )


@app.command("end-tokens")
def end_tokens(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """End every enrolment token, e.g. when one may have been seen.

    Devices that have enrolled stay enrolled; no other can, until there is a new token.

    Example: flint device end-tokens
    """
    from flint.deployment import Deployment

    ended = Deployment.attach(resolve_home(home)).devices.end_enrolment_tokens()
    if as_json:
        print_json({"ended": ended})
    else:
        print(f"ended: {ended} enrolment token(s)")


@app.command(
    "run",
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def run(context: typer.Context) -> None:
    """Run one device until Ctrl-C.

    The same as `python -m device_runtime.device`, which needs the device runtime only. Its records
    are read from examples.sqlite in its folder; `flint device run --help` lists the options.

    Example: flint device run --home phone1 --server HOST:9510 --ca ca.crt
    --enrolment-token-file token.txt
    """
    from device_runtime.device import main

    raise typer.Exit(main(context.args, program="flint device run"))


@app.command("fleet")
def fleet(
    count: Annotated[
        int | None, typer.Option(min=1, help="Devices; default: one for each training client.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME[@VERSION]", help="Data set they hold.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="A file instead; it is added as a data set first.")
    ] = None,
    client_field: Annotated[str, typer.Option(help="With --data: whose record it is.")] = (
        "client_id"
    ),
    label_field: Annotated[str, typer.Option(help="With --data: the label, 0 or 1.")] = "label",
    text_field: TextFieldOption = None,
    exclude_field: ExcludeFieldOption = None,
    model: Annotated[str, typer.Option(help="With --data: model they are for.")] = "sparse_mlp",
    processes: Annotated[int, typer.Option(min=1, help="Processes they share.")] = 2,
    slowdown: Annotated[
        str | None,
        typer.Option(metavar="SECONDS|FILE", help="Training time per example, or device profiles."),
    ] = None,
    device_population: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With --slowdown FILE: shares of its device models."),
    ] = None,
    bandwidth: Annotated[
        str | None, typer.Option(metavar="MBIT/S|FILE", help="Link speed, or measured links.")
    ] = None,
    windows: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Availability sessions.")
    ] = None,
    environment: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Instead of these four: what `flint simulate` simulates."
        ),
    ] = None,
    conditions_seed: Annotated[
        int, typer.Option(min=0, help="With files: who gets which device, link and windows.")
    ] = 0,
    epoch: Annotated[
        float | None,
        typer.Option(
            metavar="UNIX_S", help="When windows begin to count; default: when all are ready."
        ),
    ] = None,
    device_model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What they say they are; default: this machine."),
    ] = None,
    os_release: Annotated[
        str | None,
        typer.Option(metavar="YYYY-MM", help="Month of the OS release they say they have."),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run many devices on this machine until Ctrl-C.

    Each has an identity, a key and an SQLite store of its own, with the records of one training
    client of the data set. Started again, the same devices come back. Where the data set is of a
    feature service, they get what their user did, fetch the rest, and join it themselves.

    They are as fast as this machine and always there, unless speeds, links and windows are imposed
    on them: then they wait as a phone would work, and all begin together.

    For jobs with participation.device, --device-model and --os-release say what they enrol as; a
    device that has enrolled keeps what it said.

    Example: flint device fleet --count 200 --dataset clicks --slowdown 0.05 --bandwidth 2.5
    """
    from feature_catalog.environment_inputs import EnvironmentInputs
    from flint.deployment import Deployment
    from flint.fleet import LocalFleet, dataset_folder, fill_stores
    from flint.imposed_conditions import ConditionOptions
    from simulation.catalog_inputs import CatalogInputs

    options = ConditionOptions(
        slowdown, device_population, bandwidth, windows, environment, conditions_seed
    )
    options.check(epoch=epoch)
    if dataset is None and data is None:
        dataset = options.dataset()
    if (dataset is None) == (data is None):
        raise typer.BadParameter("give either --dataset NAME or --data FILE")
    deployment = Deployment.attach(resolve_home(home))
    if data is not None:
        from modeling.zoo import get_model

        roles = field_roles(client_field, label_field, text_field, exclude_field)
        row = deployment.datasets.add(data, roles, get_model(model))
        dataset = f"{row.name}@{row.version}"
    opened: Dataset = deployment.datasets.open(str(dataset))
    inputs = EnvironmentInputs(deployment.engine, deployment.blobs)
    conditions = options.conditions(
        opened.train_record_counts, lambda folder: CatalogInputs(folder, inputs)
    )
    folder = dataset_folder(deployment.settings, opened)
    note(f"filling the stores of the devices in {folder} ...")
    events = deployment.datasets.user_events(opened)
    filled = fill_stores(opened, folder, count, lambda _: None, events)
    with LocalFleet(
        deployment,
        folder,
        filled,
        processes=processes,
        conditions=conditions,
        device_model=device_model,
        os_release=os_release,
    ) as running:
        shared = "1 process" if running.processes == 1 else f"{running.processes} processes"
        if conditions is not None:
            running.wait_until_enrolled()
            began_s = running.begin(epoch)
            note(f"ready: windows count from {began_s:.3f} (unix seconds)")
            if as_json:
                print_json({"ready": True, "devices": filled, "epoch_s": began_s})
        note(f"{filled} devices in {shared}; Ctrl-C stops them")
        _watch(running, as_json=as_json)


def _watch(running: "LocalFleet", *, as_json: bool) -> None:
    from dataclasses import asdict

    said_s, said = 0.0, None
    while True:
        time.sleep(_REPORT_EVERY_S)
        running.check()
        progress = running.progress()
        if progress == said or time.monotonic() - said_s < _SAY_EVERY_S:
            continue
        said_s, said = time.monotonic(), progress
        if as_json:
            print_json(asdict(progress))
        else:
            note(
                f"{progress.devices} devices, {progress.enrolled} enrolled now, "
                f"{progress.in_flight} training, {progress.finished_tasks} tasks finished"
            )
