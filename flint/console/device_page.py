"""What one device stores of a feature service, and why: chosen in a form."""

import dataclasses
from typing import Annotated, Any

from fastapi import APIRouter, Query

from feature_catalog.browsing import CatalogBrowser
from feature_catalog.on_device import DeviceProfile, resolve_for_device
from feature_catalog.on_device.described import describe
from flint.console.latest_definitions import Definitions
from flint.console.pages import Catalog, Data, add_page
from flint.console.served_home import Home
from flint.device_profiles import (
    UnknownDeviceProfile,
    deployment_rules,
    known_device_profiles,
)

router = APIRouter()

Name = Annotated[str, Query(max_length=200)]
Number = Annotated[str, Query(max_length=20)]
_NETWORKS = {"": None, "unmetered": True, "metered": False}


def on_a_device(
    catalog: Catalog,
    home: Home,
    state: Definitions,
    service: Name = "",
    device: Name = "",
    network: Name = "",
    free_mb: Number = "",
    locale: Name = "",
) -> Data:
    """The form, and what the chosen device does with the chosen service.

    Raises:
        UnknownDeviceProfile: If there is no device of this name.
        InvalidDeviceProfile: If a value is impossible.
        InvalidDeviceRules: If the deployment's rules are spoilt.
    """
    services = state.definitions.names("feature_service")
    # Names only: a path would let who reaches the console read files.
    profiles = known_device_profiles(catalog.measurements)
    chosen = {
        "service": service,
        "device": device,
        "network": network,
        "free_mb": free_mb,
        "locale": locale,
    }
    form = {
        "services": services,
        "devices": sorted(profiles),
        "chosen": chosen,
        "enrolled": CatalogBrowser(catalog.engine).devices(),
    }
    found = state.definitions.service(service)
    if not device or found is None:
        return {**form, "found": None}
    if device not in profiles:
        raise UnknownDeviceProfile(
            f"there is no device {device[:60]!r}; choose one of those that the form lists"
        )
    profile = _with_facts(profiles[device], network, free_mb, locale)
    rules = deployment_rules(home.path)
    resolved = resolve_for_device(profile, found, state.definitions, rules)
    return {**form, "found": describe(resolved)}


def _with_facts(profile: DeviceProfile, network: str, free_mb: str, locale: str) -> DeviceProfile:
    facts: dict[str, Any] = {}
    if _NETWORKS.get(network) is not None:
        facts["unmetered"] = _NETWORKS[network]
    if locale:
        facts["locale"] = locale
    if free_mb:
        is_number = free_mb.isascii() and free_mb.isdecimal()
        facts["free_bytes"] = int(free_mb) * 10**6 if is_number else free_mb
    return dataclasses.replace(profile, **facts)


add_page(router, "/devices", "devices.html", on_a_device)
