"""One deployment as its operator reaches it: the catalog behind a data directory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sqlalchemy import Engine

from feature_catalog.blobs import BlobStore
from feature_catalog.database import DatabaseUnreachable, connect
from feature_catalog.datasets import DatasetCatalog
from feature_catalog.devices import DeviceRegistry
from feature_catalog.feature_registry import FeatureRegistry
from feature_catalog.jobs import JobQueue
from feature_catalog.measurements import Measurements
from feature_catalog.model_store import ModelStore
from server.operations.settings import ServerSettings
from server.operations.supervisor import read_status


@dataclass(frozen=True)
class Deployment:
    """Handles to the catalog of a server that runs, or to a database that does."""

    settings: ServerSettings
    engine: Engine
    blobs: BlobStore

    @classmethod
    def attach(cls, home: Path) -> Self:
        """Connect to the catalog of the server in ``home``.

        Raises:
            MissingSettings: If no server was ever started there.
            DatabaseUnreachable: If its database does not answer: the server is down.
        """
        settings = ServerSettings.load(home)
        try:
            engine = connect(settings.database_url)
        except DatabaseUnreachable as error:
            if read_status(home).running:
                raise
            raise DatabaseUnreachable(
                f"no server runs in {home}, so its database does not answer; start it with "
                "`flint up`, or point FLINT_HOME (or --home) at the one that runs"
            ) from error
        return cls(settings, engine, BlobStore(settings.blob_url))

    @property
    def jobs(self) -> JobQueue:
        """Jobs, queued and past."""
        return JobQueue(self.engine)

    @property
    def models(self) -> ModelStore:
        """Model versions and artefacts."""
        return ModelStore(self.engine, self.blobs)

    @property
    def datasets(self) -> DatasetCatalog:
        """Data sets by name and version."""
        return DatasetCatalog(self.engine, self.blobs)

    @property
    def features(self) -> FeatureRegistry:
        """Feature definitions, their history and contracts."""
        return FeatureRegistry(self.engine)

    @property
    def measurements(self) -> Measurements:
        """What models were measured to cost on devices."""
        return Measurements(self.engine, self.blobs)

    @property
    def devices(self) -> DeviceRegistry:
        """Enrolled devices and enrolment tokens."""
        return DeviceRegistry(self.engine)
