import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.flower.superlink import (
    superlink_answers,
    superlink_command,
    superlink_environment,
    write_flower_configuration,
)
from server.operations.ports import choose_ports
from server.operations.processes import ProcessSpec
from server.operations.settings import ServerSettings
from server.operations.supervisor import Supervisor
from server.operations.tls import ensure_keys


@pytest.fixture(scope="session")
def superlink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisor]:
    """A real SuperLink, with TLS and a durable state, under a real supervisor."""
    home: Path = tmp_path_factory.mktemp("superlink")
    port = choose_ports({"superlink": ("127.0.0.1", 0)})["superlink"]
    address = f"127.0.0.1:{port}"
    settings = ServerSettings(home, "", f"file://{home}/blobs", "", "", address, 0, 0)
    ensure_keys(settings)
    write_flower_configuration(settings)
    spec = ProcessSpec(
        "superlink",
        superlink_command(settings),
        lambda: superlink_answers(settings),
        superlink_environment(settings),
    )
    supervisor = Supervisor(settings, [spec])
    supervisor.start()
    yield supervisor
    supervisor.stop()


@pytest.fixture
def settings(superlink: Supervisor) -> ServerSettings:
    return superlink.settings


def eventually(condition: Callable[[], object], within_s: float = 20.0) -> None:
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.05)
