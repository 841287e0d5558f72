"""The catalog of a data directory, for the time of one command, with or without a server."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from feature_catalog.blobs import BlobStore
from feature_catalog.database import connect, upgrade
from feature_catalog.datasets import DatasetCatalog
from feature_catalog.embedded import DATABASE, EmbeddedPostgres
from feature_catalog.environment_inputs import EnvironmentInputs
from feature_catalog.feature_registry import FeatureRegistry
from feature_catalog.jobs import JobQueue
from feature_catalog.measurements import Measurements
from feature_catalog.model_store import ModelStore
from feature_catalog.simulation_runs import SimulationRuns
from server.operations.home_claim import AlreadyRunning, no_server_runs, running_server
from server.operations.settings import MissingSettings, ServerSettings
from server.operations.up import BLOB_URL_VARIABLE, DATABASE_URL_VARIABLE

if TYPE_CHECKING:
    from feature_catalog.offline import AssetReader, OfflineFeatures
    from feature_catalog.online.serving import OnlineFeatures


@dataclass(frozen=True)
class CatalogSession:
    """Handles to an open catalog."""

    engine: Engine
    blobs: BlobStore

    @property
    def datasets(self) -> DatasetCatalog:
        """Data sets by name and version."""
        return DatasetCatalog(self.engine, self.blobs)

    @property
    def models(self) -> ModelStore:
        """Model versions and artefacts."""
        return ModelStore(self.engine, self.blobs)

    @property
    def jobs(self) -> JobQueue:
        """Jobs, queued and past."""
        return JobQueue(self.engine)

    @property
    def simulation_runs(self) -> SimulationRuns:
        """Dry-runs and their results."""
        return SimulationRuns(self.engine, self.blobs)

    @property
    def features(self) -> FeatureRegistry:
        """Feature definitions, their history and contracts."""
        return FeatureRegistry(self.engine)

    def offline_features(
        self,
        data_folder: Path = Path(),
        assets: "AssetReader | None" = None,
        *,
        source_engine: Engine | None = None,
        memory_bytes: int | None = None,
    ) -> "OfflineFeatures":
        """Past values of features, for training data.

        Args:
            data_folder: Sources' relative paths are under it.
            assets: Where vocabularies and embeddings are; by default in the blob store.
            source_engine: Database of sources that are tables; by default the catalog's.
            memory_bytes: What a join over files may hold in memory besides its result.
        """
        from feature_catalog.offline import OfflineFeatures, blob_assets

        return OfflineFeatures(
            definitions=self.features.state().definitions,
            data_folder=data_folder,
            engine=source_engine or self.engine,
            assets=assets or blob_assets(self.blobs),
            memory_bytes=memory_bytes,
        )

    def online_features(self) -> "OnlineFeatures":
        """The newest values of features, for models served in the cloud; close it after use."""
        from feature_catalog.online.serving import OnlineFeatures

        return OnlineFeatures(self.engine, self.blobs)

    @property
    def measurements(self) -> Measurements:
        """What models were measured to cost on devices."""
        return Measurements(self.engine, self.blobs)

    @cached_property
    def environment_inputs(self) -> EnvironmentInputs:
        """Traces, profiles, shares and links; one object, as the files it lends live with it."""
        return EnvironmentInputs(self.engine, self.blobs)


@contextlib.contextmanager
def open_catalog(home: Path, *, read_only: bool = False) -> Iterator[CatalogSession]:
    """Open the catalog of a data directory.

    It is that of the server that runs there. Where none runs, it is the one that `flint up` would
    use: ``$FLINT_DATABASE_URL``, else the database the last server used, else the embedded
    Postgres, which is started, and stopped again by the last to leave. Any number of commands may
    have it open at once, also while a server starts or stops.

    Args:
        home: Data directory; made where there is none.
        read_only: The session can change nothing; the database itself refuses. Its tables are
            brought up to date before, as ever, where no server runs.

    Raises:
        DatabaseUnreachable: If a configured database does not answer.
        EmbeddedPostgresFailed: If the embedded one cannot be started.
        UnusableHome: If the directory cannot be made or written to.
    """
    home = home.absolute()
    places = _find_places(home)
    with _connected(home, places) as engine:
        if not places.is_served:  # a server's tables are its own affair
            upgrade(engine)
        if not read_only:
            yield CatalogSession(engine, BlobStore(places.blob_url))
            return
        url = engine.url.render_as_string(hide_password=False)
        engine.dispose()
        reading = connect(url, read_only=True)
        try:
            yield CatalogSession(reading, BlobStore(places.blob_url))
        finally:
            reading.dispose()


@contextlib.contextmanager
def open_empty(home: Path) -> Iterator[CatalogSession]:
    """`open_catalog`, but no table is made: for a backup to be restored into.

    Raises:
        AlreadyRunning: If a server runs in ``home``.
    """
    home = home.absolute()
    if running_server(home) is not None:
        raise AlreadyRunning(f"a FLINT server runs in {home}; stop it before a backup is restored")
    places = _find_places(home)
    with _connected(home, places) as engine:
        yield CatalogSession(engine, BlobStore(places.blob_url))


@dataclass(frozen=True, slots=True)
class _Places:
    """Where a catalog is.

    Attributes:
        database_url: None for the embedded Postgres.
        is_served: Whether a server runs there.
    """

    database_url: str | None
    blob_url: str
    is_served: bool


def _find_places(home: Path) -> _Places:
    blob_url = f"file://{home / 'blobs'}"
    try:
        settings = ServerSettings.load(home)
    except MissingSettings:
        settings = None
    last_database_url = None
    if settings is not None:
        # A data directory may have been moved: its own places are where it is now.
        if settings.database_url != EmbeddedPostgres(settings.home / "postgres").url(DATABASE):
            last_database_url = settings.database_url
        if settings.blob_url != f"file://{settings.home / 'blobs'}":
            blob_url = settings.blob_url
    if settings is not None and running_server(home) is not None:
        return _Places(last_database_url, blob_url, is_served=True)
    return _Places(
        os.environ.get(DATABASE_URL_VARIABLE) or last_database_url,
        os.environ.get(BLOB_URL_VARIABLE) or blob_url,
        is_served=False,
    )


@contextlib.contextmanager
def _connected(home: Path, places: _Places) -> Iterator[Engine]:
    with contextlib.ExitStack() as until_closed:
        url = places.database_url
        if url is None:
            url = until_closed.enter_context(_embedded(home))
        engine = connect(url)
        until_closed.callback(engine.dispose)
        yield engine


@contextlib.contextmanager
def _embedded(home: Path) -> Iterator[str]:
    postgres = EmbeddedPostgres(home / "postgres")
    try:
        with postgres.in_use():
            yield postgres.start()
    finally:
        with no_server_runs(home) as is_ours:
            if is_ours:
                postgres.stop()
