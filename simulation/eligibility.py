"""Why an environment can never start, or never finish, a task of a job: who is excluded by what."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from server.device_criteria import BENCHMARK_RECORDS, DeviceRefusal
from server.job import FedAvgSettings, Job
from simulation.device_admission import clients_passing
from simulation.durations import TaskWork
from simulation.population import Counts, PopulationMapping
from simulation.traces.criteria import DAY_S, DailyHours
from simulation.traces.sessions import AvailabilityTrace
from simulation.world import ClientDevices, World

Mask = NDArray[np.bool_]


class NothingCanStart(FlintError):
    """No client of the environment can ever take part in the job."""

    code = "FLN-1715"


@dataclass(frozen=True, slots=True)
class CriterionCount:
    """One criterion, applied after all before it.

    Attributes:
        name: Key of job or environment that asks for it.
        remaining: Clients left.
        sentence: What those have, completing "<n> clients ...".
        mend: What lets more through.
    """

    name: str
    remaining: int
    sentence: str
    mend: str


def count_eligible(
    world: World,
    mapping: PopulationMapping,
    devices: ClientDevices,
    records: Counts,
    job: Job,
    work: TaskWork,
) -> list[CriterionCount]:
    """How many clients are left after each criterion the job asks for, in order.

    Criteria are judged on whole traces: a client counts if any of its windows will do. Its shortest
    task is one of its records at speeds that one draw in ten thousand reaches.

    Args:
        records: Records of each data client, shape ``(data clients,)``.
    """
    held = mapping.held(records)
    allowed_hours, max_hours = job.participation.state.allowed_hours, job.stop.max_hours
    first_s = _first_allowed_s(world.trace, DailyHours.parse(allowed_hours))[devices.device]
    ever_open = (world.trace.window_counts() > 0)[devices.device]
    asked = job.participation.device
    max_train_s = None if asked is None else asked.max_train_s
    max_memory_mb = None if asked is None else asked.max_memory_mb
    criteria = [
        ("dataset", held > 0, "hold records", "give a data set whose clients have records"),
        (
            "availability",
            ever_open,
            "have a device that is ever available",
            "give a trace with spans for the devices, or less strict limits on spans",
        ),
        (
            "participation.device.max_train_s",
            clients_passing(DeviceRefusal.TRAINS_TOO_LONG, asked, world, devices)
            if max_train_s is not None
            else None,
            f"train on {BENCHMARK_RECORDS:,} records within {max_train_s or 0:g} s",
            "raise max_train_s, take a smaller model, or give faster devices",
        ),
        (
            "participation.device.max_memory_mb",
            clients_passing(DeviceRefusal.NEEDS_TOO_MUCH_MEMORY, asked, world, devices)
            if max_memory_mb is not None
            else None,
            f"train within {max_memory_mb or 0:g} MB",
            "raise max_memory_mb, or take a smaller model or client.batch_size",
        ),
        (
            "participation.state.allowed_hours",
            np.isfinite(first_s) if allowed_hours is not None else None,
            f"are ever available within {allowed_hours}",
            "widen allowed_hours, or give a trace whose devices are available then",
        ),
        (
            "stop.max_hours",
            first_s < max_hours * 3600.0 if max_hours is not None else None,
            f"are available before the job ends after {max_hours or 0:g} h",
            "raise stop.max_hours",
        ),
        (
            "task duration",
            _finishes(world, devices, held, work),
            "have a window as long as their shortest task",
            "lower client.max_records or client.local_epochs, take a smaller model, or give faster "
            "devices, faster links or longer windows",
        ),
    ]
    counts = []
    left: Mask = np.ones(len(mapping), dtype=np.bool_)
    for name, passes, sentence, mend in criteria:
        if passes is not None:
            left = left & passes
            counts.append(CriterionCount(name, int(left.sum()), sentence, mend))
    return counts


def require_startable(counts: Sequence[CriterionCount], clients: int, job: Job) -> None:
    """Refuse an environment in which no task can ever start and finish.

    Args:
        counts: From `count_eligible`.
        clients: Size of the population.

    Raises:
        NothingCanStart: Says how many clients each criterion left, and which one excluded the rest.
    """
    passed: list[str] = []
    for count in counts:
        if count.remaining == 0:
            before = f" (of {clients} clients {', '.join(passed)})" if passed else ""
            raise NothingCanStart(
                f"no task of this job can ever be done in this environment: {count.name} excludes "
                f"everyone: no clients {count.sentence}{before}; {count.mend}"
            )
        passed.append(f"{count.remaining} {count.sentence}")
    strategy, left = job.strategy, counts[-1].remaining
    if isinstance(strategy, FedAvgSettings) and strategy.min_updates > left:
        raise NothingCanStart(
            f"no round of this job can ever succeed in this environment: strategy.min_updates is "
            f"{strategy.min_updates}, but only {left} of {clients} clients can do a task; lower "
            "min_updates, or give more clients"
        )


def _first_allowed_s(trace: AvailabilityTrace, hours: DailyHours) -> NDArray[np.float64]:
    """First moment each device is available within the hours, infinite if never; ``(devices,)``."""
    allowed_s = hours.next_allowed_many(trace.start_s)
    owner = np.repeat(np.arange(len(trace)), trace.window_counts())
    first_s = np.full(len(trace), np.inf)
    inside = allowed_s < trace.end_s
    np.minimum.at(first_s, owner[inside], allowed_s[inside])
    # What goes on past the end of the period is open at the trace's very beginning.
    carried = np.isfinite(trace.end_s) & (
        trace.end_s - trace.period_s[owner] > hours.next_allowed(0)
    )
    np.minimum.at(first_s, owner[carried], hours.next_allowed(0))
    # A period that is not whole days shifts windows against the hours with each repeat.
    repeats = np.isfinite(trace.period_s)
    shifts = repeats & (np.mod(np.where(repeats, trace.period_s, 0.0), DAY_S) != 0)
    some = trace.window_counts() > 0
    return np.where(shifts & some & ~np.isfinite(first_s), trace.period_s, first_s)


def _finishes(world: World, devices: ClientDevices, records: Counts, work: TaskWork) -> Mask:
    longest_s = np.zeros(len(world.trace))
    owner = np.repeat(np.arange(len(world.trace)), world.trace.window_counts())
    np.maximum.at(longest_s, owner, world.trace.end_s - world.trace.start_s)
    fastest_s = world.profiles.fastest_s()[devices.device_model]
    examples = np.int64(work.local_epochs) * np.minimum(records, work.max_records)
    shortest_s = fastest_s * examples
    best = np.full(len(records), 1.0 - 1e-4)
    for link, speeds, moved_bytes in (
        (devices.down_link, world.bandwidth.down, work.download_bytes),
        (devices.up_link, world.bandwidth.up, work.upload_bytes),
    ):
        shortest_s = shortest_s + moved_bytes * 8.0 / speeds.bits_per_s_many(link, best)
    finishes: Mask = shortest_s <= longest_s[devices.device]
    return finishes
