"""A real server whose processes are killed, and the model that tells what counted."""

import importlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from device_runtime.update_codec import flatten, parameters_from_blob
from feature_catalog.schema import TaskOutcomeRecord
from flint.deployment import Deployment
from flint.submission import submit
from server.operations.supervisor import read_status
from tests.faults.one_hot_devices import MODEL, OneHotFleet, one_hot_devices, one_hot_job

DEVICES = 14


@pytest.fixture(scope="session")
def killable():
    """The benchmarks' module: scripts beside each other, and no package."""
    folder = str(Path(__file__).parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    try:
        yield importlib.import_module("killable")
    finally:
        sys.path.remove(folder)


@dataclass
class World:
    """A server in a process of its own, as `flint up` starts it."""

    server: Any
    deployment: Deployment
    token: str
    wait_for: Callable[..., bool]
    fleet: OneHotFleet = field(default_factory=OneHotFleet)

    def pid(self, role: str) -> int:
        """Process id of a role."""
        return self.server.pids(role)[0]

    def restarts(self, role: str) -> int:
        """How often a role was started again by itself."""
        processes = read_status(self.server.home).processes
        return sum(p.restarts for p in processes if p.name.startswith(role))

    def version(self, job_id: str) -> int:
        """Newest stored version, -1 while that cannot be told."""
        try:
            found = self.deployment.models.newest_of_job(job_id)
        except Exception:
            return -1
        return -1 if found is None or found.job_version is None else found.job_version

    def status(self, job_id: str) -> str:
        """Of a job; empty while that cannot be told."""
        try:
            return self.deployment.jobs.get(job_id).status
        except Exception:
            return ""

    def run(
        self,
        strategy: str,
        aggregations: int,
        disturb: Callable[["World", str], None],
        *,
        within_s: float = 120.0,
    ) -> "Outcome":
        """One job of one-hot devices; ``disturb`` is called once it is in the queue."""
        with one_hot_devices(self.deployment.settings, self.token, DEVICES) as self.fleet:
            job = one_hot_job(strategy, aggregations)
            job_id = submit(self.deployment, job, lambda _: None).job_id
            disturb(self, job_id)
            ended = ("finished", "stopped", "failed")
            assert self.wait_for(lambda: self.status(job_id) in ended, within_s), self.state(job_id)
            assert self.wait_for(lambda: self.server.is_ready, 60.0)
        return Outcome(self, job_id, self.fleet)

    def state(self, job_id: str) -> str:
        """What to say of a job that does not end."""
        logs = self.server.home / "logs"
        tails = [
            f"{name}: {(logs / f'{name}.log').read_text()[-1500:]}"
            for name in ("up", "coordinator", "gateway")
        ]
        return "\n".join([f"{self.status(job_id)}, version {self.version(job_id)}", *tails])


class Outcome:
    """What a job gave: outcomes in the catalog, versions, and what the model itself tells."""

    def __init__(self, world: World, job_id: str, fleet: OneHotFleet) -> None:
        self.job = world.deployment.jobs.get(job_id)
        self.fleet = fleet
        models = world.deployment.models
        found = [v for v in models.list_versions() if v.job_id == job_id]
        self.versions = sorted(found, key=lambda version: version.job_version)
        self.weights = [
            flatten(parameters_from_blob(MODEL.parameters, models.parameters(version)))
            for version in self.versions
        ]
        with world.deployment.engine.connect() as connection:
            statement = select(TaskOutcomeRecord).where(TaskOutcomeRecord.job_id == job_id)
            self.rows = {row.task_id: row for row in connection.execute(statement)}
        self.counts = Counter(f"{row.outcome}: {row.reason}" for row in self.rows.values())

    def assert_exactly_once(self) -> None:
        """Finished, no version missing, and every update in the model as often as it was stored."""
        assert self.job.status == "finished", self.job
        assert [v.job_version for v in self.versions] == list(range(len(self.versions)))
        counted = [row for row in self.rows.values() if row.outcome == "succeeded"]
        in_version = Counter(row.version_number for row in counted)
        assert set(in_version) == set(range(1, len(self.versions)))
        times = np.zeros(MODEL.parameter_count)
        for number, (before, after) in enumerate(
            zip(self.weights, self.weights[1:], strict=False), start=1
        ):
            times += (after.astype(np.float64) - before) * in_version[number]
        expected = np.zeros(MODEL.parameter_count)
        for row in counted:
            expected[self.fleet.number_of[row.task_id]] += 1
        np.testing.assert_allclose(times, expected, atol=1e-3)
        assert expected.max() == 1.0
        for task_id, told in self.fleet.told.items():
            was_counted = task_id in self.rows and self.rows[task_id].outcome == "succeeded"
            assert (told == "COMMITTED") == was_counted, (task_id, told)
        assert self.job.progress["updates"] == len(counted)


@pytest.fixture(scope="session")
def world(killable, tmp_path_factory) -> Iterator[World]:
    with killable.bare_server() as server:
        deployment = Deployment.attach(server.home)
        token = deployment.devices.create_enrolment_token(100_000, 3600)
        yield World(server, deployment, token, killable.wait_for)


@pytest.fixture
def run(world):
    """Runs a job on a server that is whole again."""
    world.server.failpoint_file.unlink(missing_ok=True)
    if world.server.ended:
        world.server.start()
    assert world.wait_for(lambda: world.server.is_ready, 60.0)
    return world.run
