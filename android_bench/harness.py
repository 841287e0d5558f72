"""Runs a benchmark on many devices at once; no device's failure costs another its result."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from android_bench.assembled_results import one_line
from android_bench.devices.base import DeviceGroup
from android_bench.protocol import (
    BenchResult,
)
from android_bench.run_folder import RunFolder
from device_runtime.errors import FlintError

MOST_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class DeviceOutcome:
    """What became of one device.

    Attributes:
        result: None where there is no readable answer, and ``failure`` says why.
        is_kept: Whether it was there from before.
    """

    name: str
    result: BenchResult | None
    failure: str = ""
    is_kept: bool = False

    @property
    def is_ok(self) -> bool:
        """Whether figures may be drawn from it."""
        return self.result is not None and self.result.validity.ok


@dataclass
class BenchOutcomes:
    """What became of all devices, in the order they finished."""

    devices: list[DeviceOutcome] = field(default_factory=list)

    @property
    def results(self) -> list[BenchResult]:
        """Readable answers, ok or not."""
        return [outcome.result for outcome in self.devices if outcome.result is not None]

    @property
    def failures(self) -> dict[str, str]:
        """Why devices gave no figures, by name."""
        return {
            outcome.name: outcome.failure
            or (outcome.result.validity.reasons[0] if outcome.result is not None else "")
            for outcome in self.devices
            if not outcome.is_ok
        }

    @property
    def failed_repeats(self) -> dict[str, list[str]]:
        """Reasons of single repeats that failed, by device."""
        return {
            outcome.name: [failed.reason for failed in outcome.result.failed]
            for outcome in self.devices
            if outcome.result is not None and outcome.result.failed
        }


def run_benchmark(
    folder: RunFolder,
    groups: Sequence[DeviceGroup],
    told: Callable[[DeviceOutcome], None] = lambda _: None,
) -> BenchOutcomes:
    """Run a benchmark on every group; groups that the folder has all answers of are not run again.

    An interrupt stops what runs and is raised again; answers that had come stay in the folder.

    Args:
        told: Called with each device's outcome, from the calling thread.
    """
    outcomes = BenchOutcomes()
    arrived: list[DeviceOutcome] = []
    lock = threading.Lock()
    stopping = threading.Event()

    def hand_over(outcome: DeviceOutcome) -> None:
        with lock:
            arrived.append(outcome)

    def tell() -> None:
        with lock:
            new, arrived[:] = list(arrived), []
        for outcome in new:
            outcomes.devices.append(outcome)
            told(outcome)

    to_run = []
    for group in groups:
        kept = folder.kept(group.name)
        if kept is None:
            to_run.append(group)
        else:
            for name, result in kept.items():
                hand_over(DeviceOutcome(name, result, is_kept=True))
    tell()
    if not to_run:
        return outcomes
    pool = ThreadPoolExecutor(min(len(to_run), MOST_AT_ONCE), thread_name_prefix="bench")
    waiting: set[Future[None]] = set()
    try:
        waiting = {pool.submit(_run_group, folder, g, hand_over, stopping) for g in to_run}
        while waiting:
            done, waiting = wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED)
            tell()
            for future in done:
                future.result()
    finally:
        if waiting:
            stopping.set()
        for group in to_run:
            group.close()
        pool.shutdown(cancel_futures=True)
        tell()
    return outcomes


def _run_group(
    folder: RunFolder,
    group: DeviceGroup,
    hand_over: Callable[[DeviceOutcome], None],
    stopping: threading.Event,
) -> None:
    all_ok = True
    answered = 0
    try:
        for answer in group.run(folder.spec, folder.package, folder.state(group.name)):
            if stopping.is_set():
                return
            outcome = _read(answer.name, answer.data, folder)
            answered += 1
            all_ok &= outcome.is_ok
            if outcome.result is not None:
                folder.keep(group.name, answer.name, outcome.result)
            hand_over(outcome)
    except FlintError as error:
        if not stopping.is_set():
            hand_over(DeviceOutcome(group.name, None, one_line(str(error))))
        return
    if answered == 0:
        hand_over(DeviceOutcome(group.name, None, "it gave no answer"))
    elif all_ok and not stopping.is_set():
        folder.finish(group.name)


def _read(name: str, data: bytes, folder: RunFolder) -> DeviceOutcome:
    try:
        result = BenchResult.from_json(data, source=f"the result of {name}")
        result.check_answers(folder.spec, source=f"the result of {name}")
    except FlintError as error:
        return DeviceOutcome(name, None, one_line(str(error)))
    return DeviceOutcome(name, result)
