"""``flint up``, ``status`` and ``monitoring``: the server, and how it is watched."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flint.cli.options import HomeOption, JsonOption, resolve_home

if TYPE_CHECKING:
    from feature_catalog.on_device.rules import DeviceRules


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("up")(up)
    app.command("status")(status)
    app.command("monitoring")(monitoring)


def up(
    home: HomeOption = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="No TLS anywhere; for experiments on one machine.")
    ] = False,
    host: Annotated[
        str, typer.Option(help="Address devices dial; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    superlink_host: Annotated[
        str,
        typer.Option(
            help="Address Flower SuperNodes dial. Whoever reaches it may submit and stop runs."
        ),
    ] = "127.0.0.1",
    hostname: Annotated[
        list[str] | None,
        typer.Option(help="Name devices dial, for the certificate; may be repeated."),
    ] = None,
    gateway_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port devices dial; 0 picks one.")
    ] = 9510,
    coordinator_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port gateways dial.")
    ] = 9511,
    superlink_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of Flower's SuperLink.")
    ] = 9512,
    gateway_metrics_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Prometheus, gateway.")
    ] = 9513,
    coordinator_metrics_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Prometheus, coordinator.")
    ] = 9514,
    aggregator: Annotated[
        str,
        typer.Option(
            help="Where updates are summed: in-process, process (of its own), enclave, or "
            "external-enclave (`flint enclave up`). Secure jobs need an enclave."
        ),
    ] = "in-process",
    attestation: Annotated[
        str, typer.Option(help="Who vouches for enclaves: software_root, aws_nitro, ...")
    ] = "software_root",
    check_ins_per_s: Annotated[
        float, typer.Option(min=0.01, help="Check-ins a second that pace steering aims at.")
    ] = 200.0,
    gateways: Annotated[
        int, typer.Option(min=1, max=32, help="Gateway processes behind the one device port.")
    ] = 1,
    max_tasks_per_day: Annotated[
        int | None, typer.Option(min=1, help="Tasks a device is given in a day (UTC).")
    ] = None,
    device_feature_service: Annotated[
        list[str] | None,
        typer.Option(
            help="Feature service that devices may read besides those of open jobs: NAME, or "
            "NAME@CONTRACT. May be repeated."
        ),
    ] = None,
    feature_keys_per_day: Annotated[
        int,
        typer.Option(
            min=256, help="Keys a device may ask features of in a day; 256 are of one call."
        ),
    ] = 20_000,
    device_rules: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="YAML: what devices may spend on features (docs/feature-catalog.md).",
            show_default=False,
        ),
    ] = None,
    blob_url: Annotated[
        str | None,
        typer.Option(help="fsspec URL of the blob store. Default: $FLINT_BLOB_URL, else a folder."),
    ] = None,
    profile: Annotated[
        str,
        typer.Option(help="development, or production, which refuses what is not safe outside."),
    ] = "development",
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Own lines only; all logs are in HOME/logs anyway.")
    ] = False,
) -> None:
    """Start the server and serve until Ctrl-C.

    Postgres, Flower's SuperLink, coordinator and gateway run under one supervisor.

    The first start makes the database, a certificate authority and keys in the data directory.
    With $FLINT_DATABASE_URL set, that Postgres is used instead of the embedded one.

    Example: flint up --host 0.0.0.0 --hostname flint.example.com
    """
    from server.operations.settings import AGGREGATORS
    from server.operations.up import ServerOptions, run_up

    if aggregator not in AGGREGATORS:
        raise typer.BadParameter(
            f"aggregator is {aggregator!r}; use one of {', '.join(AGGREGATORS)}",
            param_hint="--aggregator",
        )
    if profile not in {"development", "production"}:
        raise typer.BadParameter(
            f"profile is {profile!r}; use development or production", param_hint="--profile"
        )
    for each in device_feature_service or ():
        if re.fullmatch(r"[a-z][a-z0-9_]{0,62}(@[0-9a-f]{64})?", each) is None:
            raise typer.BadParameter(
                f"{each!r} is no feature service; give NAME, or NAME@CONTRACT with the 64 digits "
                "that `flint catalog show NAME` prints",
                param_hint="--device-feature-service",
            )
    options = ServerOptions(
        insecure=insecure,
        host=host,
        superlink_host=superlink_host,
        hostnames=tuple(hostname or ()),
        gateway_port=gateway_port,
        coordinator_port=coordinator_port,
        superlink_port=superlink_port,
        gateway_metrics_port=gateway_metrics_port,
        coordinator_metrics_port=coordinator_metrics_port,
        aggregator=aggregator,
        attestation=attestation,
        check_ins_per_s=check_ins_per_s,
        gateways=gateways,
        max_tasks_per_day=max_tasks_per_day,
        device_feature_services=tuple(device_feature_service or ()),
        max_feature_keys_per_day=feature_keys_per_day,
        device_rules=None if device_rules is None else _rules(device_rules),
        blob_url=blob_url,
        profile=profile,
    )
    run_up(resolve_home(home), options, quiet=quiet)


def _rules(path: Path) -> "DeviceRules":
    from flint.device_profiles import read_device_rules

    return read_device_rules(path)


def status(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Show whether a server runs, and its processes.

    With --json, "ready" says whether all of its processes serve.

    Example: flint status --json
    """
    from dataclasses import asdict

    from flint.cli.output import print_json, print_table
    from server.operations.supervisor import read_status

    directory = resolve_home(home)
    found = read_status(directory)
    if as_json:
        print_json(
            {"home": str(directory), "running": found.running, "ready": found.ready} | asdict(found)
        )
        return
    if not found.running:
        print(f"no server runs in {directory}; start one with `flint up`")
        return
    print(f"server in {directory}, process {found.pid}")
    rows = [(p.name, p.state, p.pid, p.restarts) for p in found.processes]
    print_table(("process", "state", "pid", "restarts"), rows, empty="starting")


def monitoring(
    folder: Annotated[Path, typer.Argument(help="Folder to write to.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write alert rules for Prometheus, a dashboard for Grafana and a scrape configuration.

    They scrape the ports of the server in the data directory, else the default ones.
    docs/operations.md says what each alert means.

    Example: flint monitoring /etc/prometheus/flint
    """
    from flint.cli.output import print_json
    from server.operations.monitoring_files import write_monitoring
    from server.operations.told_changes import settings_before

    paths = write_monitoring(folder, settings_before(resolve_home(home)))
    if as_json:
        print_json({"paths": [str(path.absolute()) for path in paths]})
    else:
        print("\n".join(map(str, paths)))
