"""Where features could live, as people and programs read it."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from feature_catalog.locality.network import NetworkFigures
from feature_catalog.locality.placement import CACHE_SIZES, Locality
from feature_catalog.locality.services import ViewLocality

Row = tuple[object, ...]

PLACEMENTS = ("feature", "could live", "values", "a client", "clients a value", "why")
GROUPS = (
    *("cloud key", "features", "keys", "a client", "reads had by 16 rows"),
    *(str(size) for size in CACHE_SIZES[1:]),
    *("no limit", "bytes a row", "bytes a client-day", "ms a read"),
)
VIEWS = ("view", "by", "mode", "holds", "reads had", "bytes a client-day", "ms a read", "why")

_WORDS = {
    "device": "on the device",
    "device_key": "on the device, as a key",
    "cloud_prefetch": "in the cloud, prefetched",
    "cloud_on_demand": "in the cloud, cached",
    "cloud_never": "in the cloud, not cached",
}


def placement_rows(found: Locality) -> list[Row]:
    """Rows of `PLACEMENTS`."""
    return [
        (
            each.column,
            _WORDS[each.place],
            each.facts.distinct,
            f"{each.facts.values_per_client:.1f}",
            f"{each.facts.clients_per_value:.1f}",
            each.reason,
        )
        for each in found.placements
    ]


def group_rows(found: Locality) -> list[Row]:
    """Rows of `GROUPS`."""
    return [
        (
            each.key,
            ", ".join(each.columns),
            each.replay.keys,
            f"{each.replay.keys_per_client:.1f}",
            *(f"{each.replay.hit_share[size]:.0%}" for size in CACHE_SIZES),
            f"{each.replay.unlimited_hit_share:.0%}",
            f"{each.row_bytes:.0f}",
            _bytes(each.fetched_bytes_a_day),
            f"{each.read_ms:.1f}",
        )
        for each in found.groups
    ]


def view_rows(found: Sequence[ViewLocality]) -> list[Row]:
    """Rows of `VIEWS`."""
    return [
        (
            each.view,
            ", ".join(each.keys) or "-",
            each.mode or "events",
            f"{each.held_rows:,}",
            "-" if each.hit_share is None else f"{each.hit_share:.1%}",
            _bytes(each.fetched_bytes_a_day),
            f"{each.read_ms:.1f}",
            each.advice,
        )
        for each in found
    ]


def closing_lines(found: Locality) -> Iterator[str]:
    """What was looked at, and by which figures."""
    days = "" if found.client_days is None else f", {found.client_days:,} days of clients"
    yield f"{found.rows:,} rows of {found.clients:,} clients{days}"
    yield network_line(found.network)


def network_line(network: NetworkFigures) -> str:
    """The figures that reads are reckoned by."""
    return (
        f"network: {network.round_trip_ms:g} ms and {network.downlink_mbps:g} Mbit/s "
        f"({network.source}); what a device's own cache takes, some 0.1 ms a key, is not in it"
    )


def describe_locality(found: Locality) -> dict[str, Any]:
    """All of it as JSON."""
    return {
        "rows": found.rows,
        "clients": found.clients,
        "client_days": found.client_days,
        "network": asdict(found.network),
        "whole_bytes": found.whole_bytes,
        "features": [
            {
                "feature": each.column,
                "place": str(each.place),
                "reason": each.reason,
                "facts": asdict(each.facts),
            }
            for each in found.placements
        ],
        "cloud_keys": [asdict(each) for each in found.groups],
    }


def describe_views(
    service: str, found: Sequence[ViewLocality], network: NetworkFigures
) -> dict[str, Any]:
    """A service's views as JSON."""
    return {
        "service": service,
        "network": asdict(network),
        "views": [asdict(each) for each in found],
    }


def _bytes(amount: float | None) -> str:
    return "-" if amount is None else f"{amount:,.0f}"
