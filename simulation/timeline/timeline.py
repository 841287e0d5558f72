"""A trial on the compiled engine: its memory, made of job, environment and world."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from server.coordination.limits import limits_of
from server.gateway.pace import PaceSteering
from server.job import FedAvgSettings
from simulation.device_admission import admitted_clients
from simulation.random_streams import RandomStreams
from simulation.timeline.asked_strategy import AskedStrategy
from simulation.timeline.compilation import without_dispatch
from simulation.timeline.courses import COURSES_SIZE, LANES_SIZE
from simulation.timeline.device_keys import SCRATCH_WORDS
from simulation.timeline.ends import END_SLOTS
from simulation.timeline.engine import (
    DECIDES,
    NO_ROOM,
    advance,
    forget_superseded,
    open_fleet,
    sweep,
)
from simulation.timeline.layout import (
    CLIENT,
    DUE,
    FEDAVG,
    FEDBUFF,
    OUTCOMES,
    PYTHON,
    REASONS,
    ROUND_CLOSED,
    SIGHTING,
    STATE,
    TASK,
    VERSION,
    Memory,
    Traces,
)
from simulation.timeline.queues import CHUNK, MOST_TALLY_BITS, SLOTS
from simulation.timeline.sightings import LONGEST_MEMORY_S, MOST_BETWEEN, SWEEP_EVERY
from simulation.traces.criteria import DailyHours
from simulation.trial import DryRun, trial_seed

EVENTS_AT_ONCE = 2_000_000
_CACHE_LINE_BYTES = 64
_FIRST_TASKS = 1 << 22
"""Room for them costs no memory before they come; a column that grows is there twice meanwhile."""


@dataclass(slots=True)
class Timeline:
    """A trial in memory.

    Attributes:
        reasons: Words for the numbers of `REASONS`.
        asked: The strategy, if its decisions are not compiled.
    """

    state: NDArray[np.void]
    traces: Traces
    memory: Memory
    reasons: tuple[str, ...] = REASONS
    asked: AskedStrategy | None = None

    def number(self, name: str) -> int:
        """A whole number of the state."""
        return int(self.state[name][0])

    def seconds(self, name: str) -> float:
        """Seconds of the state."""
        return float(self.state[name][0])

    def go_on(self, events: int = EVENTS_AT_ONCE) -> int:
        """Let events happen; returns why they stopped: after so many, or see `advance`."""
        self.state["enough"] = self.number("events") + events
        code = NO_ROOM
        while code == NO_ROOM:
            code = advance(self.state, self.traces, self.memory)
            if code == DECIDES and self.asked is not None:
                code = self._asking(self.asked)
            if code == NO_ROOM:
                self._make_room()
        return code

    def _asking(self, asked: AskedStrategy) -> int:
        """Go on until something else than the strategy's decisions is wanted."""
        go_on, decide = without_dispatch(advance), asked.decide
        state, traces, memory = self.state, self.traces, self.memory
        decide()
        while (code := go_on(state, traces, memory)) == DECIDES:
            decide()
        return code

    def _make_room(self) -> None:
        """Let every column grow that is full, or nearly so."""
        memory, size = self.memory, self.number
        changed: dict[str, NDArray[Any]] = {}
        for name, used in (
            ("tasks", size("started")),
            ("ends", size("ends_to_come") + 2),
            ("due", size("due") + 1),
            ("versions", size("versions")),
        ):
            column = getattr(memory, name)
            if used >= len(column):
                changed[name] = _grown(column)
        if "ends" in changed:
            for name in ("end_links", "ends_ready", "ends_spare", "ends_apart"):
                changed[name] = _grown(getattr(memory, name))
        if "tasks" in changed:
            for name in ("undecided", *(["results"] if len(memory.results) else [])):
                changed[name] = _grown(getattr(memory, name))
            if self.asked is not None:  # it may hold any number of updates
                changed["held"] = _grown(memory.held)
        _, first, beyond = self.state["seen"][0].tolist()
        if len(memory.seen) - (beyond - first) <= 2 * MOST_BETWEEN:
            # A sighting's place is its number, so it is in the right one of the halves.
            changed["seen"] = np.tile(memory.seen, 2)
            changed["superseded"] = np.tile(memory.superseded, 2)
        if size("sweep_at") - beyond <= 2 * MOST_BETWEEN:
            sweep(self.state, memory)
        if self.state["eligible"][0][2] >= len(memory.eligible) > 0:
            forget_superseded(self.state, memory)
            if 2 * self.state["eligible"][0][2] >= len(memory.eligible):
                changed["eligible"] = _grown(memory.eligible)
        self.memory = memory._replace(**changed)


def set_up(dry_run: DryRun, number: int, *, in_lock_step: int = 0) -> Timeline:
    """A trial at its beginning: every client's first check-in is scheduled.

    Args:
        in_lock_step: 0, or `IN_STEP` or `PRESUMING`: then the engine also stops before each
            aggregation.
    """
    state = np.zeros(1, STATE)
    most_held = _set_strategy(state, dry_run)
    state["in_lock_step"], state["asks"] = in_lock_step, in_lock_step > 0
    numbers = _limits(dry_run) | _conditions(dry_run) | _keys(dry_run, number)
    for name, value in numbers.items():
        state[name] = value
    state["slot"], state["chunks"], state["sweep_at"] = -1, 1, SWEEP_EVERY
    state["next_end_s"] = math.inf
    traces, memory = _traces(dry_run), _memory(dry_run, state, most_held)
    open_fleet(state, traces, memory, _asks_for_work(dry_run))
    reasons, asked = list(REASONS), None
    if dry_run.own_strategy is not None:
        reasons[ROUND_CLOSED] = dry_run.own_strategy.late_reason
        asked = AskedStrategy(dry_run.own_strategy, state)
    return Timeline(state, traces, memory, tuple(reasons), asked)


def _limits(dry_run: DryRun) -> dict[str, Any]:
    """When the job ends, whom it selects, and what a task is."""
    job, work = dry_run.job, dry_run.work
    aggregations, updates, max_hours = limits_of(job.stop)
    rest_hours = job.participation.user.min_hours_between_participations
    return {
        "rest_s": 3600.0 * rest_hours if rest_hours else -math.inf,
        "is_uniform": job.selection.name == "uniform",
        "max_aggregations": aggregations,
        "max_updates": updates,
        "max_hours": max_hours,
        "horizon_s": max_hours * 3600.0,
        "local_epochs": work.local_epochs,
        "max_records": work.max_records,
        "download_bytes": work.download_bytes,
        "upload_bytes": work.upload_bytes,
    }


def _conditions(dry_run: DryRun) -> dict[str, Any]:
    """Allowed hours, check-ins, drop-out and pace steering."""
    environment = dry_run.environment
    hours = DailyHours.parse(dry_run.job.participation.state.allowed_hours)
    pace = PaceSteering(check_ins_per_s=environment.check_in.check_ins_per_s)
    hazard = environment.dropout.hazard_per_hour if environment.dropout else 0.0
    if 2 * pace.longest_s > LONGEST_MEMORY_S:
        raise ValueError("the event engine forgets devices sooner than pace steering lets them go")
    return {
        "hours_start_s": hours.start_s,
        "hours_length_s": hours.length_s,
        "period_s": environment.check_in.period_s,
        "jitter": environment.check_in.jitter,
        "dropout_scale_s": 3600.0 / hazard if hazard > 0 else math.inf,
        "pace_check_ins_per_s": pace.check_ins_per_s,
        "pace_soonest_s": pace.soonest_s,
        "pace_idle_soonest_s": pace.idle_soonest_s,
        "pace_longest_s": pace.longest_s,
        "pace_idle_factor": pace.idle_factor,
        "pace_jitter": pace.jitter,
    }


def _keys(dry_run: DryRun, number: int) -> dict[str, Any]:
    """Of the trial's random streams."""
    streams = RandomStreams(dry_run.seed, number)
    return {
        "seed": trial_seed(streams, dry_run.seed),
        "opening_key": streams["check_in/opening"].key,
        "interval_key": streams["check_in/interval"].key,
        "speed_key": streams["per_example_s"].key,
        "link_key": streams["bandwidth"].key,
        "dropout_key": streams["dropout"].key,
    }


def _traces(dry_run: DryRun) -> Traces:
    """What is known of clients and their devices, as plain columns."""
    world, devices = dry_run.world, dry_run.devices
    trace, profiles, bandwidth = world.trace, world.profiles, world.bandwidth
    return Traces(
        _plain(trace.offsets, np.int32),
        _plain(trace.start_s, np.float64),
        _plain(trace.end_s, np.float64),
        _repeats(trace.period_s),
        _plain(devices.device, np.int32),
        _plain(dry_run.records, np.int32),
        _plain(devices.device_model, np.int32),
        _plain(devices.down_link, np.int32),
        _plain(devices.up_link, np.int32),
        _plain(profiles.offsets, np.int64),
        _plain(profiles.samples_s, np.float64),
        _plain(profiles.median_s, np.float64),
        _plain(profiles.log_stdev, np.float64),
        _plain(bandwidth.down.median_kbps, np.float64),
        _plain(bandwidth.down.log_stdev, np.float64),
        _plain(bandwidth.up.median_kbps, np.float64),
        _plain(bandwidth.up.log_stdev, np.float64),
    )


def _repeats(period_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each device, or of one if they are all the same."""
    if len(period_s) and (period_s == period_s[0]).all():
        period_s = period_s[:1].copy()
    return _plain(period_s, np.float64)


def _memory(dry_run: DryRun, state: NDArray[np.void], most_held: int) -> Memory:
    """Room for what the run changes; what a job does not need has none."""
    clients = len(dry_run.records)
    rests = bool(dry_run.job.participation.user.min_hours_between_participations)
    is_uniform = bool(state["is_uniform"][0])
    return Memory(
        clients=_in_lines(clients, CLIENT),
        participated_s=np.full(clients if rests else 0, -math.inf),
        taken_round=np.full(clients if state["pins"][0] else 0, -1, np.int32),
        eligible_s=np.full(clients if is_uniform else 0, -1.0),
        slot_end=np.zeros(SLOTS, np.int32),
        # At most one chunk of each slot is not full; the first is none.
        chunks=np.zeros(CHUNK * (1 + min(clients, clients // (CHUNK - 1) + SLOTS)), np.int64),
        far=np.zeros(clients, DUE),
        ready=np.zeros(clients, np.int64),
        spare=np.zeros(clients, np.int64),
        tally=np.zeros((1 << MOST_TALLY_BITS) + 1, np.int32),
        due=np.zeros(1024, np.int64),
        end_slots=np.zeros(END_SLOTS, np.int32),
        end_links=np.zeros(1024, np.int32),
        ends=np.zeros(1024, np.int64),
        ends_ready=np.zeros(1024, np.int64),
        ends_spare=np.zeros(1024, np.int64),
        ends_apart=np.zeros(1024, DUE),
        tasks=np.zeros(_FIRST_TASKS, TASK),
        undecided=np.zeros(_FIRST_TASKS, np.int32),
        held=np.zeros(most_held, np.int32),
        diverged=np.zeros(0, np.int64),
        versions=np.zeros(1024, VERSION),
        seen=np.zeros(65536, np.uint32),
        superseded=np.zeros(65536 // 8, np.uint8),
        eligible=np.zeros(65536 if is_uniform else 0, SIGHTING),
        courses=np.full(COURSES_SIZE, math.inf),
        lanes=np.zeros(LANES_SIZE, np.int64),
        scratch=np.zeros(SCRATCH_WORDS, np.uint32),
        results=np.zeros(_FIRST_TASKS if state["in_lock_step"][0] else 0, np.int8),
    )


def _set_strategy(state: NDArray[np.void], dry_run: DryRun) -> int:
    """Note what the strategy decides by; returns how many updates may be held at a time."""
    strategy, settings = dry_run.strategy, dry_run.job.strategy
    state["task_timeout_s"] = strategy.task_timeout_s(dry_run.job.client.task_timeout_s)
    state["pins"] = strategy.pins_base_version
    state["late_outcome"] = OUTCOMES.index(strategy.late_outcome)
    if dry_run.own_strategy is not None:
        state["strategy"] = PYTHON
        state["oldest_live"] = strategy.oldest_live_version(0)
        return _FIRST_TASKS
    if isinstance(settings, FedAvgSettings):
        state["strategy"] = FEDAVG
        names: tuple[str, ...] = (
            "cohort_size",
            "over_commitment",
            "round_deadline_s",
            "min_updates",
        )
        most_held = settings.cohort_size
    else:
        state["strategy"] = FEDBUFF
        names = ("buffer_size", "concurrency", "max_staleness")
        most_held = settings.buffer_size
    for name in names:
        state[name] = getattr(settings, name)
    return most_held + 1


def _asks_for_work(dry_run: DryRun) -> NDArray[np.bool_]:
    admitted = admitted_clients(dry_run.job, dry_run.world, dry_run.devices)
    return np.ascontiguousarray((dry_run.records > 0) & admitted)


def _plain(array: NDArray[Any], dtype: type[np.generic]) -> NDArray[Any]:
    """As the engine was compiled for: contiguous and writeable, though it only reads."""
    return np.require(array, dtype, ["C", "W"])


def _in_lines(count: int, dtype: np.dtype[np.void]) -> NDArray[np.void]:
    """Zeros that begin where a cache line does: no record of 32 bytes is in two of them."""
    room = np.zeros(count * dtype.itemsize + _CACHE_LINE_BYTES, np.uint8)
    first = -room.ctypes.data % _CACHE_LINE_BYTES
    return room[first : first + count * dtype.itemsize].view(dtype)


def _grown(column: NDArray[Any]) -> NDArray[Any]:
    larger = np.zeros(len(column) + max(len(column) // 2, 1024), column.dtype)
    larger[: len(column)] = column
    return larger
