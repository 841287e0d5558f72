"""``flint catalog explain``: what a device does with a feature service, and why."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flint.cli.options import HomeOption, JsonOption, require_some, resolve_home
from flint.cli.output import print_json, print_table

if TYPE_CHECKING:
    from feature_catalog.on_device import DeviceProfile
    from flint.catalog_session import CatalogSession

NOT_COMPLETE = 3
ALL_DEVICES = "all"


def explain(
    service: Annotated[
        str,
        typer.Argument(
            metavar="SERVICE",
            help="A feature service, or SERVICE@CONTRACT for one it had: the first digits do.",
        ),
    ],
    device: Annotated[
        str | None,
        typer.Option(
            metavar="PROFILE",
            help="small, medium or large; an emulated phone (tier-01 to tier-27); a measured "
            "device model; an enrolled device's id; a profile file (.yaml); or all.",
            show_default=False,
        ),
    ] = None,
    storage_class: Annotated[
        str | None,
        typer.Option(help="small, medium or large; else from memory.", show_default=False),
    ] = None,
    memory_mb: Annotated[
        float | None, typer.Option(help="The device's memory, 10^6 bytes.", show_default=False)
    ] = None,
    free: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Free storage, e.g. 2GB.", show_default=False),
    ] = None,
    metered: Annotated[
        bool | None,
        typer.Option("--metered/--unmetered", help="What its network is.", show_default=False),
    ] = None,
    locale: Annotated[
        str | None, typer.Option(help="Its user's language, e.g. pt-BR.", show_default=False)
    ] = None,
    os_release: Annotated[
        str | None,
        typer.Option(metavar="YYYY-MM", help="Month of its OS release.", show_default=False),
    ] = None,
    rules: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="YAML with other budgets and limits. Default: those of `flint up "
            "--device-rules`, else those that docs/feature-catalog.md says.",
            show_default=False,
        ),
    ] = None,
    definitions: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="Take definitions from these files and not from the catalog. Repeatable.",
            show_default=False,
        ),
    ] = None,
    exit_code: Annotated[
        bool,
        typer.Option(
            "--exit-code", help="Exit with 3 if the device cannot have every feature, else 0."
        ),
    ] = False,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Explain what a device stores, caches, downloads and transforms, and why not more.

    Bytes are the most that the device spends, by the sizes its own code counts by. What is not
    said of the device is not judged. Nothing is changed.

    Example: flint catalog explain ads_ctr_v1 --device tier-26 --metered

    Example: flint catalog explain ads_ctr_v1 --device all --free 100MB

    Example: flint catalog explain ads_ctr_v1 --memory-mb 4000 --free 1GB --locale pt-BR --json
    """
    from feature_catalog.on_device import resolve_for_device
    from feature_catalog.on_device.described import describe
    from flint.device_profiles import deployment_rules, read_device_rules, with_facts
    from flint.device_view import DEVICES, closing_lines, device_rows, headline, tables
    from flint.service_definitions import service_from_catalog, service_from_files

    facts = {
        "storage_class": storage_class,
        "memory_mb": memory_mb,
        "free_bytes": _bytes(free),
        "unmetered": None if metered is None else not metered,
        "locale": locale,
        "os_release": os_release,
    }
    require_some(
        [device] if device is not None else None,
        [name for name, value in facts.items() if value is not None],
        sentence="say which device: --device PROFILE, or what it is like, e.g. --memory-mb 4000",
    )
    directory = resolve_home(home)
    asked = deployment_rules(directory) if rules is None else read_device_rules(rules)
    profiles: dict[str, DeviceProfile]
    if definitions:
        profiles = _profiles(device)
        given, found = service_from_files(definitions, service)
    else:
        from flint.catalog_session import open_catalog

        with open_catalog(directory) as catalog:
            profiles = _profiles(device, catalog)
            given, found = service_from_catalog(catalog.features, service)
    resolutions = {
        name: resolve_for_device(with_facts(profile, facts), found, given, asked)
        for name, profile in profiles.items()
    }
    if as_json:
        described = {name: describe(each) for name, each in resolutions.items()}
        print_json(described if device == ALL_DEVICES else next(iter(described.values())))
    elif device == ALL_DEVICES:
        print_table(DEVICES, device_rows(resolutions), empty="")
        whole = sum(each.is_complete for each in resolutions.values())
        print(f"{whole} of {len(resolutions)} devices can have every feature of {found.name}")
    else:
        (resolution,) = resolutions.values()
        print(headline(resolution))
        for columns, rows in tables(resolution):
            print_table(columns, rows, empty="")
        for line in closing_lines(resolution):
            print(line)
    if exit_code and not all(each.is_complete for each in resolutions.values()):
        raise typer.Exit(NOT_COMPLETE)


def register(app: typer.Typer) -> None:
    """Add the command to ``flint catalog``."""
    app.command("explain")(explain)


def _profiles(
    device: str | None, catalog: "CatalogSession | None" = None
) -> "dict[str, DeviceProfile]":
    """The devices asked about, by name; without a catalog those that need none."""
    from feature_catalog.on_device import DeviceProfile
    from flint.device_profiles import (
        find_device_profile,
        known_device_profiles,
        shipped_device_profiles,
    )

    if device is None:
        return {"this device": DeviceProfile("this device")}
    if device == ALL_DEVICES:
        if catalog is None:
            return shipped_device_profiles()
        return known_device_profiles(catalog.measurements)
    if catalog is None:
        return {device: find_device_profile(device)}
    found = find_device_profile(device, measurements=catalog.measurements, engine=catalog.engine)
    return {device: found}


def _bytes(size: str | None) -> int | None:
    from feature_catalog.definitions.quantities import parse_bytes

    return None if size is None else parse_bytes(size, "--free")
