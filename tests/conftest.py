"""One embedded Postgres for the whole test session, and a fresh migrated database for each test."""

import shutil
import signal
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# A test says what is true, not how fast a busy machine finds out.
settings.register_profile("flint", deadline=None)
settings.load_profile("flint")

# A shell starts background jobs with SIGINT ignored, and children inherit that. Tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def postgres_server():
    """A running server, and in it an upgraded database ``template_flint`` to copy."""
    from sqlalchemy import text

    from feature_catalog.database import connect, upgrade
    from feature_catalog.embedded import EmbeddedPostgres

    # Not under pytest's own directory: as root the server has a user of its own, which may not
    # enter there.
    home = Path(tempfile.mkdtemp(prefix="flint-test-"))
    home.chmod(0o755)
    server = EmbeddedPostgres(home / "postgres")
    try:
        server.start()
        admin = connect(server.url("postgres")).execution_options(isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(text("CREATE DATABASE template_flint"))
        template = connect(server.url("template_flint"))
        upgrade(template)
        template.dispose()
        admin.dispose()
        yield server
    finally:
        server.stop()
        shutil.rmtree(home)


@pytest.fixture
def database_url(postgres_server) -> Iterator[str]:
    """SQLAlchemy URL of a fresh, upgraded database."""
    from sqlalchemy import NullPool, create_engine, text

    name = f"test_{uuid.uuid4().hex}"
    admin = create_engine(
        postgres_server.url("postgres"), poolclass=NullPool, isolation_level="AUTOCOMMIT"
    )
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE template_flint"))
    yield postgres_server.url(name)
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def engine(database_url: str):
    """An engine on a fresh, upgraded database."""
    from feature_catalog.database import connect

    engine = connect(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def blobs(tmp_path: Path):
    """An empty blob store in a temporary directory."""
    from feature_catalog.blobs import BlobStore

    return BlobStore(str(tmp_path / "blobs"))


@pytest.fixture
def flint_home() -> Iterator[Path]:
    """An empty data directory that the embedded Postgres's system user may enter, also as root."""
    home = Path(tempfile.mkdtemp(prefix="flint-home-"))
    home.chmod(0o755)
    yield home
    shutil.rmtree(home, ignore_errors=True)
