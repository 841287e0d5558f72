"""One trial of a Flower app: its ServerApp run to the end on a virtual clock."""

import contextlib
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from flwr.app import Context, RecordDict
from flwr.app.user_config import UserConfig
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.serverapp import ServerApp
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from simulation.environment import Environment
from simulation.flower.app_folder import FlowerApp, imported, told
from simulation.flower.client_runs import TERMINATED, ClientRuns, DeviceClock
from simulation.flower.grid import VirtualGrid
from simulation.flower.nodes import Nodes
from simulation.flower.random_state import seed_of, seeded
from simulation.flower.rounds import Progress, Rounds
from simulation.flower.strategy_hooks import strategy_hooks
from simulation.flower.superlink import VirtualSuperLink
from simulation.flower.virtual_time import on_clock, virtual_time
from simulation.population import PopulationMapping
from simulation.random_streams import RandomStreams
from simulation.task_log import TaskLog
from simulation.world import ClientDevices, SimulatedPopulation, World


class FlowerAppFailed(FlintError):
    """The app's ServerApp raised."""

    code = "FLN-1763"


@dataclass(frozen=True)
class FlowerDryRun:
    """What all trials of a run share.

    Attributes:
        mapping: Which client lives on which traced device.
        records: One for each client: what a client holds is the app's affair.
        seed: Of every draw but those of the population.
        local_epochs: How often the app passes over its examples in a task of training.
    """

    app: FlowerApp
    environment: Environment
    world: World
    mapping: PopulationMapping
    devices: ClientDevices
    records: NDArray[np.int64]
    seed: int
    local_epochs: int = 1

    @property
    def population(self) -> SimulatedPopulation:
        """Its clients."""
        return SimulatedPopulation(self.world, self.mapping, self.devices, self.records)


@dataclass(frozen=True)
class FlowerTrial:
    """How a trial went.

    Attributes:
        trajectory: Columns of `simulation.trajectory.TRAJECTORY_SCHEMA`.
        tasks: Columns of `simulation.task_log.TASK_SCHEMA`; a task is a message a node has taken.
        aggregations: Rounds with at least one reply to training.
        metric_source: ``"server"``, ``"clients"`` or None.
        messages: Pushed to nodes there are.
        undelivered: Of these, never taken by their node.
        client_errors: What ClientApps raised, by how often.
        arrays: Of the last strategy's result, by name; empty if it has none.
    """

    trial: int
    virtual_s: float
    wall_s: float
    trajectory: pa.Table
    tasks: pa.Table
    aggregations: int
    metric_name: str | None
    metric_source: str | None
    messages: int
    undelivered: int
    client_errors: Mapping[str, int]
    arrays: Mapping[str, NDArray[np.generic]]


def run_flower_trial(
    dry_run: FlowerDryRun, trial: int, on_progress: Callable[[Progress], None] = lambda _: None
) -> FlowerTrial:
    """Run an app's ServerApp to its end; its clients train in this process.

    The same seed and trial give the same trajectory to the bit, if the app draws its random
    numbers from the global generators (`random_state`) and its libraries are deterministic.

    Raises:
        FlowerAppImportFailed: If the app cannot be imported.
        UnsupportedFlowerApp: If it needs what a virtual clock cannot give.
        NothingCanArrive: If it waits for what never comes.
        FlowerAppFailed: If the ServerApp raises.
    """
    app, streams = dry_run.app, RandomStreams(dry_run.seed, trial)
    dropout = dry_run.environment.dropout
    nodes = Nodes(
        dry_run.world,
        dry_run.devices,
        dropout.hazard_per_hour if dropout is not None else 0.0,
        dry_run.local_epochs,
        streams,
    )
    run = _run_of(app, dry_run.seed, trial)
    log = TaskLog(trial)
    with (
        _task_identity(run.run_id),
        seeded(seed_of(streams["flower/server"].uniform(0))),
        virtual_time(DeviceClock(0.0, reading_s=0.0)),
        strategy_hooks(),
        imported(app) as loaded,
    ):
        clients = ClientRuns(loaded.client, len(nodes), run.run_id, app.run_config, streams)
        link = VirtualSuperLink(run.run_id, nodes, clients, log)
        grid = VirtualGrid(run, link, nodes)
        rounds = Rounds(trial, log, grid.momentary, on_progress)
        grid.watch(rounds)
        with on_clock(grid):
            _run_server(app, loaded.server, grid, run.run_id)
            rounds.on_end()
            link.close()
    arrays = grid.result.arrays if grid.result is not None else {}
    return FlowerTrial(
        trial,
        link.now_s(),
        rounds.wall_s(),
        rounds.table(),
        log.table(),
        rounds.aggregations(),
        rounds.metric_name(),
        rounds.metric_source(),
        link.pushed,
        link.undelivered,
        Counter(link.client_errors),
        {name: array.numpy() for name, array in arrays.items()},
    )


def _run_server(app: FlowerApp, server: ServerApp, grid: VirtualGrid, run_id: int) -> None:
    node_config: UserConfig = {}
    context = Context(run_id, SUPERLINK_NODE_ID, node_config, RecordDict(), dict(app.run_config))
    try:
        server(grid, context)
    except FlintError:
        raise
    except Exception as error:
        raise _failed(app, grid, error) from error
    except SystemExit as error:
        if error.code == TERMINATED:
            raise
        if error.code not in {None, 0}:
            raise _failed(app, grid, error) from error


def _failed(app: FlowerApp, grid: VirtualGrid, error: BaseException) -> FlowerAppFailed:
    hours = grid.now_s() / 3600
    return FlowerAppFailed(
        f"{app.name}: its ServerApp stopped after {hours:.2f} virtual hours with "
        f"{told(error, app)}; mend the app, or see the whole traceback with --debug"
    )


def _run_of(app: FlowerApp, seed: int, trial: int) -> Run:
    digest = hashlib.sha256(f"flower-run|{app.name}|{seed}|{trial}".encode()).digest()
    run = Run.create_empty(int.from_bytes(digest[:7], "little"))
    run.fab_id, run.fab_version = f"simulated/{app.name}", app.version
    run.override_config = dict(app.run_config)
    return run


@contextlib.contextmanager
def _task_identity(run_id: int) -> Iterator[None]:
    """Messages made inside are this run's; the identity is global to the process."""
    names = ("_task_id", "_run_id", "_node_id")
    before = {name: getattr(TaskIdentity, name) for name in names}
    TaskIdentity.task_id, TaskIdentity.run_id = 1, run_id
    TaskIdentity.node_id = SUPERLINK_NODE_ID
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(TaskIdentity, name, value)
