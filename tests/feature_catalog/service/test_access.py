"""What devices may read: open jobs' services, and listed ones, under which contract."""

import pytest

from feature_catalog.definitions.catalog_set import DefinitionKey, DefinitionSet
from feature_catalog.feature_registry import FeatureRegistry
from feature_catalog.service.access import DeviceAccess
from feature_catalog.service.errors import NotServedToDevices, OutdatedManifest
from feature_catalog.service.served_contracts import NEWEST_FOR_S, ServedContracts
from tests.feature_catalog.definitions.examples import parsed

pytestmark = pytest.mark.integration

NAME = "ads_ctr_v1"


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def registry(engine):
    registry = FeatureRegistry(engine)
    registry.apply(parsed())
    return registry


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def contracts(engine, registry, clock):
    return ServedContracts(engine, clock=clock)


def contract_of(registry) -> bytes:
    return bytes.fromhex(registry.state().contracts[NAME])


def access(contracts, *listed, open_services=()):
    return DeviceAccess(contracts, listed, lambda: open_services)


def test_nothing_may_be_read_that_is_neither_listed_nor_an_open_jobs(contracts, registry):
    for name in (NAME, "no_such_service"):
        with pytest.raises(NotServedToDevices):
            access(contracts).find(name, b"")
    found = access(contracts, NAME).find(NAME, b"")
    assert found.sha256 == contract_of(registry)
    assert found.definitions.view("ad_views") == parsed().view("ad_views")  # whole: all of an event


def test_a_listed_service_is_read_under_its_newest_contract_alone(contracts, registry, clock):
    first = contract_of(registry)
    everybody = access(contracts, NAME)
    assert everybody.find(NAME, first).sha256 == first
    registry.apply(changed())
    clock.now_s += NEWEST_FOR_S
    second = contract_of(registry)
    assert second != first
    assert everybody.find(NAME, b"").sha256 == second
    with pytest.raises(OutdatedManifest):
        everybody.find(NAME, first)


def test_a_pinned_contract_stays_readable_as_it_was(contracts, registry, clock):
    first = contract_of(registry)
    pinned = access(contracts, f"{NAME}@{first.hex()}")
    registry.apply(changed())
    clock.now_s += NEWEST_FOR_S
    found = pinned.find(NAME, b"")
    assert found.sha256 == first
    assert "seen_before" in {each.feature.name for each in found.features}
    with pytest.raises(OutdatedManifest):
        pinned.find(NAME, contract_of(registry))


def test_an_open_jobs_contract_counts_before_the_listed_one(contracts, registry, clock):
    first = contract_of(registry)
    both = access(contracts, NAME, open_services=[(NAME, first)])
    registry.apply(changed())
    clock.now_s += NEWEST_FOR_S
    second = contract_of(registry)
    assert both.find(NAME, b"").sha256 == first
    assert {both.find(NAME, each).sha256 for each in (first, second)} == {first, second}


def test_a_deleted_service_is_not_served(contracts, registry, clock):
    everybody = access(contracts, NAME)
    everybody.find(NAME, b"")
    registry.apply(DefinitionSet({}), delete=[DefinitionKey("feature_service", NAME)])
    clock.now_s += NEWEST_FOR_S
    with pytest.raises(OutdatedManifest, match="there is no feature service ads_ctr_v1"):
        everybody.find(NAME, b"")


def test_an_open_job_outlives_the_service_it_was_opened_with(contracts, registry, clock):
    first = contract_of(registry)
    both = access(contracts, NAME, open_services=[(NAME, first)])
    registry.apply(DefinitionSet({}), delete=[DefinitionKey("feature_service", NAME)])
    clock.now_s += NEWEST_FOR_S
    assert {both.find(NAME, each).sha256 for each in (first, b"")} == {first}


def changed() -> DefinitionSet:
    """The example without one feature of the service."""
    given = parsed()
    key = DefinitionKey("feature_service", NAME)
    service = given.definitions[key]
    fewer = [each for each in service.features if each.name != "seen_before"]
    definitions = dict(given.definitions)
    definitions[key] = type(service)(NAME, fewer, owner=service.owner)
    return DefinitionSet(definitions)


def test_a_clock_that_stands_still_asks_the_database_once(contracts, registry, clock):
    first = contracts.newest(NAME)
    registry.apply(changed())
    clock.now_s += NEWEST_FOR_S / 2
    assert contracts.newest(NAME) == first
    clock.now_s += NEWEST_FOR_S
    assert contracts.newest(NAME) != first
