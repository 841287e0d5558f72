"""How sides of FLB-1 are timed: rounds of one, rounds of the other, and again."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np
from flb1_naive import NaiveLoop
from flb1_workload import Workload, tasks_of
from numpy.typing import NDArray

from device_runtime.update_codec import flatten
from simulation.executors import Executor
from simulation.executors.task_columns import TaskColumns
from simulation.executors.training import LocalPlan

WARM_ROUNDS = 3
TURN_S = 1.0
"""About how long a turn of either side takes."""
EQUAL_ROUNDS = 7
"""After which ours and the plain loop are compared."""


@dataclass(frozen=True, slots=True)
class Spent:
    """On some rounds: of the processor, by all processes of a side, and by the clock."""

    cpu_s: float
    wall_s: float


AskRounds = Callable[[int], Spent]
"""Do so many rounds."""


class OurRounds:
    """FedAvg over an executor; tasks are made beforehand, as the event engine makes them."""

    def __init__(self, executor: Executor, work: Workload) -> None:
        self._executor = executor
        self._tasks = [tasks_of(work, at) for at in range(len(work.cohorts))]
        self._done, self._weights = 0, flatten(work.start)

    def __call__(self, count: int) -> Spent:
        """Do so many rounds."""
        begun_s, begun_cpu_s = time.perf_counter(), time.process_time()
        for _ in range(count):
            version = self._done % len(self._tasks)
            self._weights = our_round(self._executor, self._tasks[version], version, self._weights)
            self._done += 1
        return Spent(time.process_time() - begun_cpu_s, time.perf_counter() - begun_s)


class NaiveRounds:
    """The same by the plain loop."""

    def __init__(self, loop: NaiveLoop, work: Workload) -> None:
        self._loop, self._work = loop, work
        self._done, self._weights = 0, flatten(work.start)

    def __call__(self, count: int) -> Spent:
        """Do so many rounds."""
        begun_s, begun_cpu_s = time.perf_counter(), time.process_time()
        for _ in range(count):
            tasks = tasks_of(self._work, self._done % len(self._work.cohorts))
            self._weights = self._loop.round(tasks, self._weights)
            self._done += 1
        return Spent(time.process_time() - begun_cpu_s, time.perf_counter() - begun_s)


def our_round(
    executor: Executor, tasks: TaskColumns, version: int, weights: NDArray[np.float32]
) -> NDArray[np.float32]:
    """FedAvg's next weights of tasks that start from ``version``."""
    executor.set_weights(version, weights)
    (partial,) = executor.reduce(tasks).sums
    executor.forget_weights(version + 1)
    step = partial.total  # nobody else's: the next version takes its place
    step /= np.float32(partial.weight)
    step += weights
    return step


def distance_to_naive(
    work: Workload, plan: LocalPlan, executor: Executor, rounds: int = EQUAL_ROUNDS
) -> float:
    """Of our weights to the plain loop's after so many rounds, by the way those went."""
    loop = NaiveLoop(work.spec, plan, work.records)
    begin = flatten(work.start)
    ours, theirs = begin, begin
    for at in range(rounds):
        tasks = tasks_of(work, at)
        ours, theirs = our_round(executor, tasks, at, ours), loop.round(tasks, theirs)
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs - begin))


def in_turn(sides: dict[str, AskRounds], turns: int) -> dict[str, list[Spent]]:
    """Seconds a round of each side, turn by turn; a turn is as many rounds as fill `TURN_S`."""
    counts = {}
    for name, rounds in sides.items():
        rounds(WARM_ROUNDS)
        tried = 1 if rounds(1).wall_s > TURN_S else 4
        counts[name] = max(1, round(TURN_S * tried / rounds(tried).wall_s))
    found: dict[str, list[Spent]] = {name: [] for name in sides}
    for _ in range(turns):
        for name, rounds in sides.items():
            count = counts[name]
            spent = rounds(count)
            found[name].append(Spent(spent.cpu_s / count, spent.wall_s / count))
    return found


def cpu_ratio(slower: list[Spent], faster: list[Spent]) -> float:
    """Median over turns of CPU seconds of one side by those of the other."""
    return median(s.cpu_s / f.cpu_s for s, f in zip(slower, faster, strict=True))


def wall_ratio(slower: list[Spent], faster: list[Spent]) -> float:
    """The same of seconds by the clock."""
    return median(s.wall_s / f.wall_s for s, f in zip(slower, faster, strict=True))


def tasks_a_cpu_s(cohort: int, spent: list[Spent]) -> float:
    """Tasks a CPU second, the median of the turns."""
    return round(cohort / median(each.cpu_s for each in spent), 1)


def tasks_a_s(cohort: int, spent: list[Spent]) -> float:
    """Tasks a second by the clock, the median of the turns."""
    return round(cohort / median(each.wall_s for each in spent), 1)
