"""All that is defined now, read from the database only when somebody has applied something."""

import threading
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import func, select

from feature_catalog.feature_plan import RegistryState
from feature_catalog.schema import FeatureApplyRecord
from flint.catalog_session import CatalogSession


class LatestDefinitions:
    """The registry's state, kept until the next apply: thousands of definitions take seconds."""

    def __init__(self) -> None:
        self._reading = threading.Lock()
        self._known: tuple[int | None, RegistryState] | None = None

    def state(self, catalog: CatalogSession) -> RegistryState:
        """What is defined now.

        Raises:
            UnreadableRegistry: If a newer FLINT wrote what this one does not know.
        """
        with self._reading:
            # Asked for first: if another apply comes in between, its state is read once more.
            with catalog.engine.connect() as connection:
                newest = connection.execute(select(func.max(FeatureApplyRecord.id))).scalar_one()
            if self._known is None or self._known[0] != newest:
                self._known = (newest, catalog.features.state())
            return self._known[1]


def _state(request: Request) -> RegistryState:
    latest: LatestDefinitions = request.app.state.definitions
    return latest.state(request.app.state.catalog)


Definitions = Annotated[RegistryState, Depends(_state)]
