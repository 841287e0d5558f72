"""How long a task takes, and how it ends, decided before it starts (FLINT, section 3.4).

``t * E * |D_k| + 2 M / N``: seconds per example times epochs times records, and the bytes of the
model down and of the update up over the client's link. Known at dispatch, so the order of events
is known without training.

Scalars and arrays go through the same arithmetic in the same order, so they agree to the bit.
"""

import math
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from device_runtime.errors import FlintError

Floats = NDArray[np.float64]
Quantity = TypeVar("Quantity", float, Floats)

_SECONDS_PER_HOUR = 3600.0

ENDINGS = ("", "window", "dropout", "deadline")
"""How a task ends, by number: see `TaskCourse.reason`."""


class InvalidTaskCost(FlintError):
    """A client whose task could have no duration: no speed, no bandwidth or no records."""

    code = "FLN-1707"


@dataclass(frozen=True, slots=True)
class TaskDuration(Generic[Quantity]):
    """Phases of a task, in their order; floats, or arrays of shape ``(clients,)``."""

    download_s: Quantity
    train_s: Quantity
    upload_s: Quantity

    @property
    def total_s(self) -> Quantity:
        """From the start of the download to the end of the upload."""
        return self.download_s + self.train_s + self.upload_s


@dataclass(frozen=True, slots=True)
class TaskCourse:
    """How one task will go.

    Attributes:
        end_s: When it completes or is interrupted.
        reason: ``""`` if it completes, else ``"window"`` (the device's availability ends first),
            ``"dropout"`` (it drops out for no reason a trace could tell) or ``"deadline"`` (the
            server waits no longer).
        device_s: Seconds the device worked; wasted if the task is interrupted.
        bytes_down: Bytes that reached the device by then.
        bytes_up: Bytes that reached the server by then.
    """

    end_s: float
    reason: str
    device_s: float
    bytes_down: int
    bytes_up: int

    @property
    def completed(self) -> bool:
        """Whether it reaches the end of its upload."""
        return not self.reason


@dataclass(frozen=True, slots=True)
class TaskWork:
    """What every task of a job does.

    Attributes:
        local_epochs: ``E``.
        max_records: A client with more trains on this many of them in each epoch.
        download_bytes: What a device fetches for one task: parameters, as sent.
        upload_bytes: What it sends: the update's bytes (``M``).
    """

    local_epochs: int
    max_records: int
    download_bytes: int
    upload_bytes: int

    def examples(self, records: int) -> int:
        """Examples a client trains on in one epoch, ``|D_k|`` capped."""
        return min(records, self.max_records)


def task_duration(
    work: TaskWork,
    *,
    records: int,
    per_example_s: float,
    down_bits_per_s: float,
    up_bits_per_s: float,
) -> TaskDuration[float]:
    """Duration of one client's task.

    Args:
        records: Records the client holds.
        per_example_s: Seconds per example on its device.

    Raises:
        InvalidTaskCost: If there are no records, or a speed is not positive.
    """
    if not (records > 0 and 0 < per_example_s < math.inf):
        raise InvalidTaskCost(
            f"a client of {records} records at {per_example_s} s per example has no task duration; "
            "both must be above 0"
        )
    if not (down_bits_per_s > 0 and up_bits_per_s > 0):
        raise InvalidTaskCost(
            f"a link of {down_bits_per_s} bit/s down and {up_bits_per_s} bit/s up has no transfer "
            "time; both must be above 0"
        )
    return TaskDuration(
        download_s=work.download_bytes * 8.0 / down_bits_per_s,
        train_s=per_example_s * float(work.local_epochs * work.examples(records)),
        upload_s=work.upload_bytes * 8.0 / up_bits_per_s,
    )


def task_durations(
    work: TaskWork,
    *,
    records: NDArray[np.int64],
    per_example_s: Floats,
    down_bits_per_s: Floats,
    up_bits_per_s: Floats,
) -> TaskDuration[Floats]:
    """Durations of many clients' tasks; all shapes ``(clients,)``.

    Raises:
        InvalidTaskCost: If any client has no records or a speed that is not positive; names the
            first.
    """
    for name, values in (
        ("records", records),
        ("per_example_s", per_example_s),
        ("down_bits_per_s", down_bits_per_s),
        ("up_bits_per_s", up_bits_per_s),
    ):
        wrong = ~((values > 0) & np.isfinite(values))
        if wrong.any():
            client = int(np.argmax(wrong))
            raise InvalidTaskCost(
                f"client {client}: {name} is {values[client]}, so its task has no duration; it "
                "must be above 0"
            )
    examples = work.local_epochs * np.minimum(records, work.max_records)
    return TaskDuration(
        download_s=work.download_bytes * 8.0 / down_bits_per_s,
        train_s=per_example_s * examples.astype(np.float64),
        upload_s=work.upload_bytes * 8.0 / up_bits_per_s,
    )


def dropout_after_s(exponential: Quantity, hazard_per_hour: float) -> Quantity:
    """Seconds of work after which a device drops out, from draws with mean 1 (`exponential`).

    A constant hazard: the chance to drop out in the next minute does not depend on how long the
    task has run. Infinite if the hazard is 0.
    """
    if hazard_per_hour <= 0:
        return exponential * math.inf
    return exponential * (_SECONDS_PER_HOUR / hazard_per_hour)


def task_course(
    start_s: float,
    duration: TaskDuration[float],
    work: TaskWork,
    *,
    window_end_s: float,
    dropout_s: float = math.inf,
    deadline_s: float = math.inf,
) -> TaskCourse:
    """How a task started now will go: to its end, or until something ends it first.

    A task that needs its window to the last moment completes.

    Args:
        start_s: Virtual time of its start.
        window_end_s: Until when the device stays available (`AvailabilityTrace.window_end`).
        dropout_s: Seconds of work after which it would drop out (`dropout_after_s`).
        deadline_s: Virtual time after which the server takes no update.
    """
    end_s, ending = first_end(
        start_s + duration.total_s, window_end_s, start_s + dropout_s, deadline_s
    )
    reason = ENDINGS[ending]
    worked_s = end_s - start_s
    if not reason:
        return TaskCourse(end_s, reason, duration.total_s, work.download_bytes, work.upload_bytes)
    return TaskCourse(end_s, reason, worked_s, *moved_bytes(duration, work, worked_s))


def first_end(
    completes_s: float, window_end_s: float, drops_out_s: float, deadline_s: float
) -> tuple[float, int]:
    """The earliest of a task's possible ends, and its number in `ENDINGS`; among equals the first.

    >>> first_end(50.0, 40.0, 60.0, 40.0)
    (40.0, 1)
    """
    end_s, ending = completes_s, 0
    if window_end_s < end_s:
        end_s, ending = window_end_s, 1
    if drops_out_s < end_s:
        end_s, ending = drops_out_s, 2
    if deadline_s < end_s:
        end_s, ending = deadline_s, 3
    return end_s, ending


def moved_bytes(duration: TaskDuration[float], work: TaskWork, worked_s: float) -> tuple[int, int]:
    """Bytes down and up after so many seconds of a task."""
    sending_s = worked_s - duration.download_s - duration.train_s
    return (
        moved(work.download_bytes, worked_s, duration.download_s),
        moved(work.upload_bytes, sending_s, duration.upload_s),
    )


def moved(total_bytes: int, elapsed_s: float, needed_s: float) -> int:
    """Bytes of a transfer that have passed after so many of the seconds it needs."""
    if needed_s <= 0.0 or elapsed_s >= needed_s:
        return total_bytes
    return int(total_bytes * max(elapsed_s, 0.0) / needed_s)


def completes(
    start_s: Floats,
    duration: TaskDuration[Floats],
    *,
    window_end_s: Floats,
    dropout_s: Floats | float = math.inf,
) -> NDArray[np.bool_]:
    """Whether tasks complete, as `task_course` decides it; shape ``(clients,)``."""
    completes_s = start_s + duration.total_s
    return (completes_s <= window_end_s) & (completes_s <= start_s + dropout_s)
