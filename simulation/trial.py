"""One trial of a dry-run: the production coordinator on the virtual clock, from start to end."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from modeling.spec import ModelSpec
from server.coordination.fleet import OpenJob
from server.coordination.job_runner import Evaluate, JobRunner
from server.coordination.progress import JobProgress
from server.coordination.versions import StoredVersion
from server.gateway.pace import PaceSteering
from server.job import Job
from server.strategies import Strategy, make_strategy
from simulation.device_admission import admitted_clients
from simulation.durations import TaskWork
from simulation.environment import Environment
from simulation.executors.executor import Executor
from simulation.fleet import VirtualFleet
from simulation.patience import FleetExhausted
from simulation.population import Counts, PopulationMapping
from simulation.random_streams import RandomStreams
from simulation.run_versions import RunVersions
from simulation.task_log import TaskLog
from simulation.traces.criteria import DailyHours
from simulation.trajectory import TRAJECTORY_SCHEMA, TrajectoryRecorder
from simulation.update_log import DivergedUpdate, UpdateLog
from simulation.update_training import UpdateTraining, decides_on_results
from simulation.virtual_clients import VirtualClients
from simulation.world import ClientDevices, SimulatedPopulation, World


@dataclass(frozen=True)
class DryRun:
    """What all trials of a run share.

    Attributes:
        mapping: Which data client lives on which traced device.
        records: Records of each simulated client, shape ``(clients,)``.
        initial_weights: Of version 0, shape ``(parameters,)``.
        seed: Of every draw but those of the population; the job's own unless the user gave one.
        own_strategy: Decides in place of the strategy that the job names; what the job's says of
            weights, staleness and the server's optimiser it does not decide still holds.
    """

    job: Job
    model: ModelSpec
    environment: Environment
    world: World
    mapping: PopulationMapping
    devices: ClientDevices
    records: Counts
    work: TaskWork
    initial_weights: NDArray[np.float32]
    seed: int
    own_strategy: Strategy | None = None

    @property
    def strategy(self) -> Strategy:
        """Who decides."""
        return self.own_strategy or make_strategy(self.job.strategy)

    @property
    def population(self) -> SimulatedPopulation:
        """Its clients."""
        return SimulatedPopulation(self.world, self.mapping, self.devices, self.records)


@dataclass(frozen=True, slots=True)
class TrialResult:
    """How a trial went.

    Attributes:
        is_exhausted: It ended because no client could bring another update.
        trajectory: Columns of `TRAJECTORY_SCHEMA`.
        tasks: Columns of `simulation.task_log.TASK_SCHEMA`, and the outputs that were asked for.
        weights: Of the last version, shape ``(parameters,)``.
        diverged: Tasks whose update is no numbers.
    """

    trial: int
    stop_reason: str
    is_exhausted: bool
    virtual_s: float
    trajectory: pa.Table
    tasks: pa.Table
    weights: NDArray[np.float32]
    wall_s: float
    diverged: tuple[DivergedUpdate, ...] = ()


class Trial:
    """A trial that can be driven, kept and taken up again.

    Args:
        number: From 0; the first draws from the run's seed as production would.
        executor: Trains the updates.
        evaluate: Measures a version; None when the job asks for no evaluation.
        on_progress: Told of progress and virtual seconds after every event.
        at_completion: Train every update when it arrives, also where that decides nothing.
        state: Of a checkpoint, to go on from.
    """

    def __init__(
        self,
        dry_run: DryRun,
        number: int,
        executor: Executor,
        evaluate: Evaluate | None,
        *,
        on_progress: Callable[[JobProgress, float], None] = lambda *_: None,
        at_completion: bool = False,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        job, environment = dry_run.job, dry_run.environment
        self.number = number
        self._executor = executor
        self._dry_run = dry_run
        self._log = TaskLog(number) if state is None else TaskLog.restored(state["log"])
        self._recorder = TrajectoryRecorder(
            number,
            self._log,
            on_progress,
            rows=() if state is None else state["rows"],
            wall_s=0.0 if state is None else state["wall_s"],
        )
        self._updates = UpdateLog.restored(
            environment.client_outputs, None if state is None else state.get("updates")
        )
        strategy = dry_run.strategy
        self._versions = RunVersions(
            StoredVersion(0, dry_run.initial_weights, {}),
            strategy.oldest_live_version,
            executor,
            self._log,
            self._recorder.measured,
        )
        streams = RandomStreams(dry_run.seed, number)
        seed = trial_seed(streams, dry_run.seed)
        training = UpdateTraining(
            executor,
            dry_run.mapping.data_client.tolist(),
            seed,
            at_completion=at_completion
            or strategy.needs_training_results
            or decides_on_results(job),
            on_reduced=self._recorder.on_reduced,
            log=self._updates,
        )
        clients = VirtualClients(
            dry_run.world,
            dry_run.devices,
            dry_run.records,
            DailyHours.parse(job.participation.state.allowed_hours),
            environment.check_in,
            environment.dropout.hazard_per_hour if environment.dropout else 0.0,
            streams,
            admitted_clients(job, dry_run.world, dry_run.devices),
        )
        self._fleet = VirtualFleet(
            clients,
            dry_run.work,
            training,
            PaceSteering(check_ins_per_s=environment.check_in.check_ins_per_s),
            seed,
            self._log,
            horizon_s=job.stop.max_hours * 3600.0 if job.stop.max_hours else math.inf,
        )
        self._recorder.watch(self._fleet)
        opened = OpenJob(f"trial-{number}", 1, job, dry_run.model, b"", b"", b"")
        self._runner = JobRunner(
            opened,
            self._fleet,
            self._versions,
            self._recorder,
            evaluate=evaluate,
            stop_requested=lambda: None,
            poll_s=None,
            strategy=strategy,
        )
        if state is None:
            self._recorder.begin()
            self._runner.take_up()
        else:
            self._versions.restore(state["versions"])
            executor.restore_residuals(state.get("residuals", {}))
            self._fleet.restore(opened, state["fleet"])
            self._runner.restore(state["runner"])

    def run(
        self, save: Callable[[dict[str, Any]], None] = lambda _: None, every: int = 0
    ) -> TrialResult:
        """Run to the end.

        Args:
            save: Given the trial's state for a checkpoint.
            every: Aggregations between two checkpoints; 0 for none.

        Raises:
            ModelDiverged: If an aggregation gives a model that is not finite.
        """
        reason, is_exhausted = None, False
        saved = self._version()
        while reason is None:
            try:
                reason = self._runner.turn()
            except FleetExhausted as error:
                reason, is_exhausted = error.sentence, True
            if every and self._version() >= saved + every and self._fleet.is_settled:
                saved = self._version()
                save(self.state())
        virtual_s = self._fleet.now_s()
        self._runner.finish(reason)
        tasks = self._log.table()
        return TrialResult(
            self.number,
            reason,
            is_exhausted,
            virtual_s,
            self._trajectory(),
            self._updates.with_outputs(tasks),
            self._newest().weights,
            self._recorder.wall_s(),
            self._updates.diverged(tasks),
        )

    def state(self) -> dict[str, Any]:
        """Everything that `run` goes on from; between two turns only."""
        return {
            "trial": self.number,
            "log": self._log.state(),
            "rows": self._recorder.rows(),
            "wall_s": self._recorder.wall_s(),
            "updates": self._updates.state(),
            "versions": self._versions.state(),
            "residuals": self._executor.residuals(),
            "fleet": self._fleet.state(),
            "runner": self._runner.state(),
        }

    def _trajectory(self) -> pa.Table:
        rows = self._recorder.rows()
        times_s = np.array([row["virtual_s"] for row in rows])
        available = self._dry_run.population.count_available(times_s).tolist()
        whole = [{**row, "available": n} for row, n in zip(rows, available, strict=True)]
        return pa.Table.from_pylist(whole, TRAJECTORY_SCHEMA)

    def _version(self) -> int:
        return self._newest().number

    def _newest(self) -> StoredVersion:
        return self._versions.newest()


def trial_seed(streams: RandomStreams, seed: int) -> int:
    """Seed of what production draws from the job's; in the first trial that very seed."""
    if streams.trial == 0:
        return seed
    low, high = streams["trial"].key
    return (high << 32 | low) >> 1
