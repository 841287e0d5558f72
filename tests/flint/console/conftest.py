"""A real console on a real port over a filled catalog, one for all tests of a file."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest
import uvicorn
from sqlalchemy import Engine, NullPool, create_engine, text
from starlette.types import Receive, Scope, Send

from feature_catalog.blobs import BlobStore
from feature_catalog.database import connect
from flint.catalog_session import CatalogSession
from flint.console.application import make_application
from tests.flint.console.filled_catalog import Filled, fill
from tests.ports import free_port

DEADLINE_S = 30.0


@dataclass
class Console:
    """A console that is served.

    Attributes:
        home: Its data directory.
        engine: Of who may write to its database.
        reading: The console's own.
        filled: What is in it.
        on_answered: Called with the path of each request that was answered.
    """

    port: int
    home: Path
    engine: Engine
    reading: CatalogSession
    filled: Filled
    on_answered: list[Callable[[str], None]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, method: str = "GET", **headers: str) -> tuple[HTTPResponse, str]:
        """Answer to a request, and its body."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        body = response.read().decode()
        connection.close()
        return response, body


@pytest.fixture(scope="module")
def console(postgres_server, tmp_path_factory) -> Iterator[Console]:
    name = f"test_{uuid.uuid4().hex}"
    admin = create_engine(
        postgres_server.url("postgres"), poolclass=NullPool, isolation_level="AUTOCOMMIT"
    )
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE template_flint"))
    folder: Path = tmp_path_factory.mktemp("console")
    blobs = BlobStore(str(folder / "blobs"))
    engine = connect(postgres_server.url(name))
    filled = fill(engine, blobs, folder)
    reading = CatalogSession(connect(postgres_server.url(name), read_only=True), blobs)
    app, heard = make_application(reading, folder), list[Callable[[str], None]]()

    async def told(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)
        for hear in heard:
            hear(scope["path"])

    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(told, port=port, log_level="warning", lifespan="off", ws="none")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline_s = time.monotonic() + DEADLINE_S
    while not server.started and time.monotonic() < deadline_s:
        time.sleep(0.02)
    yield Console(port, folder, engine, reading, filled, heard)
    server.should_exit = True
    thread.join(DEADLINE_S)
    reading.engine.dispose()
    engine.dispose()
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
