"""The virtual fleet keeps the contract that gateways and Flower's nodes keep."""

from dataclasses import dataclass

import numpy as np
import pytest

from server.coordination.fleet import OpenJob
from server.gateway.pace import PaceSteering
from simulation.executors.local import LocalExecutor
from simulation.fleet import VirtualFleet
from simulation.random_streams import RandomStreams
from simulation.task_log import TaskLog
from simulation.traces.criteria import DailyHours
from simulation.update_training import UpdateTraining
from simulation.virtual_clients import VirtualClients
from tests.server.coordination.fleet_contract import CLIENTS, FleetContract
from tests.simulation.small_worlds import MODEL, Phone, make_dry_run, make_job, training

JOB = make_job({"name": "fedbuff", "buffer_size": 2, "concurrency": 2}, stop={"max_updates": 9})
PHONES = [Phone()] * CLIENTS


@dataclass
class VirtualRig:
    fleet: VirtualFleet
    quiet_s: float = 200.0

    def train(self) -> None:
        """Clients train as the fleet's own clock goes on."""


class TestVirtualFleet(FleetContract):
    @pytest.fixture(params=[False, True], ids=["lazy", "at_completion"])
    def rig(self, request):
        dry_run = make_dry_run(PHONES, JOB)
        executor: LocalExecutor = training(dry_run, PHONES)
        executor.set_weights(1, np.zeros(MODEL.parameter_count, np.float32))
        clients = VirtualClients(
            dry_run.world,
            dry_run.devices,
            dry_run.records,
            DailyHours.parse(None),
            dry_run.environment.check_in,
            0.0,
            RandomStreams(1),
        )
        fleet = VirtualFleet(
            clients,
            dry_run.work,
            UpdateTraining(executor, range(CLIENTS), 1, at_completion=request.param),
            PaceSteering(check_ins_per_s=200.0),
            1,
            TaskLog(0),
        )
        fleet.open(OpenJob("j-1", 1, JOB, MODEL, b"", b"", b""))
        fleet.set_model(1, b"", 0)
        return VirtualRig(fleet)
