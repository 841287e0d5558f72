"""The oracle fleet of the coordinator's tests keeps the contract that the real ones keep."""

from dataclasses import dataclass

import numpy as np
import pytest

from server.coordination.fleet import OpenJob
from server.coordination.versions import StoredVersion
from tests.server.coordination.fleet_contract import CLIENTS, FleetContract
from tests.server.coordination.local_fleet import MODEL, SIZE, LocalFleet, MemoryVersions, make_job

JOB = make_job({"name": "fedbuff", "buffer_size": 2, "concurrency": 2}, max_updates=9)


@dataclass
class LocalRig:
    fleet: LocalFleet
    quiet_s: float = 100.0

    def train(self):
        """Clients train as the fleet's own clock goes on."""


class TestLocalFleet(FleetContract):
    @pytest.fixture
    def rig(self):
        store = MemoryVersions(StoredVersion(0, np.zeros(SIZE, np.float32), {}))
        store.versions.append(StoredVersion(1, np.ones(SIZE, np.float32), {}))
        fleet = LocalFleet(store, [5.0] * CLIENTS)
        fleet.open(OpenJob("j-1", 1, JOB, MODEL, b"", b"", b""))
        fleet.set_model(1, b"", 0)
        return LocalRig(fleet)
