"""A whole deployment for the gateway's integration tests: keys, database, blobs, coordinator."""

import itertools
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from sqlalchemy import Engine

from feature_catalog.blobs import BlobStore
from feature_catalog.database import connect
from feature_catalog.devices import DeviceRegistry
from server.gateway.gateway import Gateway
from server.gateway.rate_limits import DeviceRates, Rate
from server.job import Job
from server.operations.ports import choose_ports
from server.operations.settings import ServerSettings
from server.operations.tls import ensure_keys
from tests.server.gateway.scripted_coordinator import ScriptedCoordinator
from tests.server.gateway.scripted_device import ScriptedDevice

# For tests that ask again until it is so: held to a device's rate, one that waits for its slot on a
# busy machine would spend every check-in on asking for the policy, and never get the task.
IMPATIENT = DeviceRates(check_ins=Rate(1e4, 10_000), uploads=Rate(1e4, 10_000))
PARAMETERS, ARTIFACT, MANIFEST = b"parameters " * 100_000, b"model.tflite" * 50_000, b"{}"


@dataclass(frozen=True)
class Deployment:
    """What `flint up` would have prepared."""

    settings: ServerSettings
    engine: Engine
    enrolment_token: str
    blobs: tuple[bytes, bytes, bytes]


@pytest.fixture(scope="module")
def deployment(postgres_server) -> Iterator[Deployment]:
    from sqlalchemy import NullPool, create_engine, text

    name = f"test_{uuid.uuid4().hex}"
    admin = create_engine(
        postgres_server.url("postgres"), poolclass=NullPool, isolation_level="AUTOCOMMIT"
    )
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE template_flint"))
    home = Path(tempfile.mkdtemp(prefix="flint-gw-"))
    settings = with_free_ports(
        ServerSettings(home, postgres_server.url(name), f"file://{home}/blobs", "", "", "", 0, 0)
    )
    ensure_keys(settings)
    settings.save()
    engine = connect(settings.database_url)
    store = BlobStore(settings.blob_url)
    yield Deployment(
        settings,
        engine,
        DeviceRegistry(engine).create_enrolment_token(10_000, 3600),
        (store.put(PARAMETERS), store.put(ARTIFACT), store.put(MANIFEST)),
    )
    engine.dispose()
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    shutil.rmtree(home)


def with_free_ports(settings: ServerSettings) -> ServerSettings:
    wanted = ("gateway", "coordinator", "gateway_metrics")
    ports = choose_ports(dict.fromkeys(wanted, ("127.0.0.1", 0)))
    return replace(
        settings,
        gateway_address=f"127.0.0.1:{ports['gateway']}",
        coordinator_address=f"127.0.0.1:{ports['coordinator']}",
        gateway_metrics_port=ports["gateway_metrics"],
    )


@pytest.fixture(scope="module")
def shared_coordinator(deployment) -> Iterator[ScriptedCoordinator]:
    coordinator = ScriptedCoordinator(deployment.settings)
    yield coordinator
    coordinator.stop()


@pytest.fixture(scope="module")
def gateway(deployment, shared_coordinator) -> Iterator[Gateway]:
    """A gateway that the tests of one file share."""
    gateway = Gateway(deployment.settings)
    yield gateway
    gateway.close()


_jobs = itertools.count(1)


@pytest.fixture
def coordinator(shared_coordinator, gateway, deployment) -> ScriptedCoordinator:
    """The shared coordinator with a job of this test's own open at the gateway."""
    open_new_job(shared_coordinator, deployment)
    return shared_coordinator


def open_new_job(
    coordinator: ScriptedCoordinator, deployment: Deployment, job: Job | None = None
) -> None:
    coordinator.sequence = 0
    coordinator.open(f"j-{next(_jobs)}", deployment.blobs, job)


@pytest.fixture
def new_device(deployment, gateway) -> Iterator[Callable[[], ScriptedDevice]]:
    """Makes enrolled devices."""
    devices = []

    def make() -> ScriptedDevice:
        devices.append(ScriptedDevice(deployment.settings, deployment.enrolment_token))
        return devices[-1]

    yield make
    for device in devices:
        device.close()
