import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from server.operations.settings import ServerSettings


@pytest.fixture
def settings(tmp_path: Path) -> ServerSettings:
    return ServerSettings(
        home=tmp_path / "home",
        database_url="postgresql+psycopg2://nowhere/none",
        blob_url=f"file://{tmp_path}/blobs",
        gateway_address="127.0.0.1:1",
        coordinator_address="127.0.0.1:2",
        superlink_address="127.0.0.1:3",
        gateway_metrics_port=4,
        coordinator_metrics_port=5,
    )


@pytest.fixture
def insecure(settings: ServerSettings) -> ServerSettings:
    return dataclasses.replace(settings, insecure=True)


def eventually(condition: Callable[[], object], within_s: float = 15.0) -> None:
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.02)
