"""``flint catalog locality``: which features could live on the device, and which in the cloud."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flint.cli.options import HomeOption, JsonOption, resolve_home
from flint.cli.output import note, print_json, print_table

if TYPE_CHECKING:
    from feature_catalog.locality.network import NetworkFigures


def locality(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="DATA|SERVICE",
            help="Parquet or CSV file, one record a row; or a feature service, with --rows.",
        ),
    ],
    client: Annotated[str, typer.Option(help="Column that says whose record it is.")],
    rows: Annotated[
        Path | None,
        typer.Option(
            help="Of a service: the file of records with its join keys.", show_default=False
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            help="Column that is no feature, such as the label; repeatable.", show_default=False
        ),
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(
            help="Column that keys what the cloud has, such as an item's id; repeatable. "
            "Default: found in the data.",
            show_default=False,
        ),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(
            help="Column with the time, by which reads are ordered (numbers are seconds). "
            "Default: the file's order.",
            show_default=False,
        ),
    ] = None,
    whole_bytes: Annotated[
        str, typer.Option(metavar="SIZE", help="Rows of a key up to this are fetched ahead, all.")
    ] = "500kB",
    rtt_ms: Annotated[
        float | None, typer.Option(help="Round trip. Default: 50, assumed.", show_default=False)
    ] = None,
    downlink_mbps: Annotated[
        float | None,
        typer.Option(
            help="Megabits per second. Default: 5.5, the median of FedScale's devices.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str,
        typer.Option(metavar="PROFILE", help="Of a service: the device, as explain takes it."),
    ] = "medium",
    definitions: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="Of a service: definitions from these files and not from the catalog.",
            show_default=False,
        ),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell which features could live on the device and which in the cloud, at what cost.

    Of a data set: from how each column's values lie among clients and keys, with a reason each.
    What many clients share by a key comes from the cloud, and its reads are replayed through
    caches of several sizes. Of a service: its own caches are replayed over --rows.

    Example: flint catalog locality clicks.parquet --client user_id --exclude clicked --time ts

    Example: flint catalog locality ads_ctr_v1 --rows clicks.parquet --client user_id
    """
    figures = _figures(rtt_ms, downlink_mbps)
    if rows is None and (Path(subject).exists() or subject.endswith((".parquet", ".pq", ".csv"))):
        _of_data(
            Path(subject), client, exclude, key, time, _size(whole_bytes), figures, as_json=as_json
        )
        return
    if rows is None:
        raise typer.BadParameter(
            f"{subject[:60]!r} is no data file; of a feature service, name its records with --rows"
        )
    _of_service(subject, rows, client, time, figures, device, definitions, home, as_json=as_json)


def register(app: typer.Typer) -> None:
    """Add the command to ``flint catalog``."""
    app.command("locality")(locality)


def _of_data(
    path: Path,
    client: str,
    exclude: list[str] | None,
    key: list[str] | None,
    time: str | None,
    whole_bytes: int,
    figures: "NetworkFigures",
    *,
    as_json: bool,
) -> None:
    from feature_catalog.locality.coded_columns import (
        client_column,
        read_coded_columns,
        read_times_s,
    )
    from feature_catalog.locality.placement import place_columns
    from feature_catalog.table_files import open_table
    from flint.locality_view import (
        GROUPS,
        PLACEMENTS,
        closing_lines,
        describe_locality,
        group_rows,
        placement_rows,
    )
    from flint.rows_screen import RowsScreen

    table = open_table(path)
    table.require([client, *(exclude or []), *(key or []), *([time] if time else [])])
    left_out = {client, *(exclude or []), *([time] if time else [])}
    names = [name for name in table.schema.names if name not in left_out]
    if not names:
        raise typer.BadParameter(f"{path} has no column left that could be a feature")
    misplaced = [name for name in key or () if name in left_out]
    if misplaced:
        raise typer.BadParameter(
            f"--key {misplaced[0]} is the client, the time or excluded; a key is a feature's column"
        )
    if not exclude:
        note("every column counts as a feature; --exclude leaves out the label")
    with RowsScreen() as screen:
        columns = read_coded_columns(table, [client, *names], progress=screen.progress)
        found = place_columns(
            [columns[name] for name in names],
            client_column(columns, table, client),
            keys=key or (),
            times_s=None if time is None else read_times_s(table, time),
            network=figures,
            whole_bytes=whole_bytes,
            progress=screen.progress,
        )
    if as_json:
        print_json(describe_locality(found))
        return
    print_table(PLACEMENTS, placement_rows(found), empty="")
    if found.groups:
        print_table(GROUPS, group_rows(found), empty="")
    for line in closing_lines(found):
        print(line)


def _of_service(
    service: str,
    rows: Path,
    client: str,
    time: str | None,
    figures: "NetworkFigures",
    device: str,
    definitions: list[Path] | None,
    home: Path | None,
    *,
    as_json: bool,
) -> None:
    from feature_catalog.locality.coded_columns import (
        client_column,
        read_coded_columns,
        read_times_s,
    )
    from feature_catalog.locality.services import place_service, require_join_keys
    from feature_catalog.on_device import resolve_for_device
    from feature_catalog.table_files import open_table
    from flint.device_profiles import deployment_rules, find_device_profile
    from flint.locality_view import VIEWS, describe_views, network_line, view_rows
    from flint.rows_screen import RowsScreen
    from flint.service_definitions import service_from_catalog, service_from_files

    table = open_table(rows)
    table.require([client, *([time] if time else [])])
    if definitions:
        profile = find_device_profile(device)
        given, found = service_from_files(definitions, service)
    else:
        from flint.catalog_session import open_catalog

        with open_catalog(resolve_home(home)) as catalog:
            profile = find_device_profile(
                device, measurements=catalog.measurements, engine=catalog.engine
            )
            given, found = service_from_catalog(catalog.features, service)
    rules = deployment_rules(resolve_home(home))
    resolution = resolve_for_device(profile, found, given, rules)
    keys = require_join_keys(resolution, given, table.schema.names)
    with RowsScreen() as screen:
        columns = read_coded_columns(
            table, list(dict.fromkeys([client, *keys])), progress=screen.progress
        )
        views = place_service(
            resolution,
            given,
            columns,
            client_column(columns, table, client),
            times_s=None if time is None else read_times_s(table, time),
            network=figures,
            progress=screen.progress,
        )
    if as_json:
        print_json(describe_views(found.name, views, figures))
        return
    print_table(VIEWS, view_rows(views), empty=f"{device} keeps nothing of {found.name}")
    print(network_line(figures))


def _figures(rtt_ms: float | None, downlink_mbps: float | None) -> "NetworkFigures":
    from feature_catalog.locality.network import NetworkFigures

    usual = NetworkFigures()
    if rtt_ms is None and downlink_mbps is None:
        return usual
    return NetworkFigures(
        usual.round_trip_ms if rtt_ms is None else rtt_ms,
        usual.downlink_mbps if downlink_mbps is None else downlink_mbps,
        source="given" if rtt_ms is not None and downlink_mbps is not None else "partly given",
    )


def _size(size: str) -> int:
    from feature_catalog.definitions.quantities import parse_bytes

    return parse_bytes(size, "--whole-bytes")
