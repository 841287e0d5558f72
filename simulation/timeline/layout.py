"""The event engine's memory: arrays of records, in the order in which they are read."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Record = Any
"""One record of these arrays as compiled code has it: its fields are attributes."""

CLIENT = np.dtype(
    [
        ("open_until_s", np.float64),
        ("pace_key", np.uint64),
        ("check_ins", np.int32),
        ("seen_times", np.int32),
        ("tasks", np.int32),
        ("sighting", np.uint32),
    ],
    align=True,
)
"""What changes of a client: until when it may take part from its last or next check-in on; the key
of its draws of pace, 0 until it has made one; check-ins so far; how often the gateway saw it while
it stayed recent, tasks so far, and the number of its last sighting, of 32 bits. Half a cache line:
with millions of clients, looking in memory takes the time."""

TASK = np.dtype(
    [
        ("started_s", np.float64),
        ("ended_s", np.float64),
        ("download_s", np.float64),
        ("train_s", np.float64),
        ("upload_s", np.float64),
        ("wait_s", np.float64),
        ("bytes_down", np.int64),
        ("bytes_up", np.int64),
        ("client", np.int32),
        ("base_version", np.int32),
        ("version", np.int32),
        ("examples", np.int32),
        ("round", np.int32),
        ("ending", np.int8),
        ("outcome", np.int8),
        ("reason", np.int8),
        ("is_decided", np.int8),
    ],
    align=True,
)
"""A task: ``wait_s`` is how long its device's system then lets it wait, ``ended_s`` is NaN until
its device is done with it, ``ending`` is of `simulation.durations.ENDINGS`, ``outcome`` and
``reason`` are of `OUTCOMES` and `REASONS` (-1 until the coordinator knows), and ``is_decided`` once
that is stored, with a version or at the end."""

VERSION = np.dtype(
    [
        ("virtual_s", np.float64),
        ("device_s", np.float64),
        ("wasted_device_s", np.float64),
        ("version", np.int64),
        ("updates", np.int64),
        ("staleness_sum", np.int64),
        ("staleness_max", np.int64),
        ("tasks_started", np.int64),
        ("outcomes", np.int64, (6,)),
        ("bytes_down", np.int64),
        ("bytes_up", np.int64),
        ("in_flight", np.int64),
    ],
    align=True,
)
"""A stored version, as the trajectory tells of it."""

OUTCOMES = ("succeeded", "interrupted", "stale", "over_committed", "failed", "rejected")
SUCCEEDED, INTERRUPTED, STALE, OVER_COMMITTED, FAILED, REJECTED = range(6)
REASONS = (
    *("aggregated", "window", "dropout", "deadline"),  # the last three as ENDINGS numbers them
    *("base_version", "round_closed", "round_abandoned", "job_ended", "not_finite"),
    "norm_exceeded",
)
AGGREGATED, _, DROPOUT, DEADLINE, BASE_VERSION, ROUND_CLOSED, ROUND_ABANDONED, JOB_ENDED = range(8)
NOT_FINITE, NORM_EXCEEDED = 8, 9

UNKNOWN, COUNTS, HEARD = 0, 1, 32
"""What is known of a task's update before it arrives, in lock-step: nothing, that it will count, or
the reason why it will not (`REASONS`); with `HEARD` added once it has arrived."""

IN_STEP, PRESUMING = 1, 2
"""How the engine is in lock-step: it stops before an update arrives of which nothing is known, or
takes it that the update will count."""

FEDBUFF, FEDAVG, PYTHON = 0, 1, 2
"""Whose decisions are compiled; `PYTHON`: none, the strategy is asked."""

TURN, EVENT, STEP, RELEASE = range(4)
"""What comes next of a turn of the coordinator: it starts tasks; something happens; it decides
what becomes of the updates held; whoever trains has said which of them are finite."""

LANES = 64
"""Most check-ins drawn for at once; see `simulation.timeline.courses`."""

_SETTINGS = [
    # The job.
    *(("strategy", np.int64), ("pins", np.int64), ("late_outcome", np.int64)),
    *(("in_lock_step", np.int64), ("buffer_size", np.int64), ("concurrency", np.int64)),
    *(("max_staleness", np.int64), ("cohort_size", np.int64), ("min_updates", np.int64)),
    *(("over_commitment", np.float64), ("round_deadline_s", np.float64)),
    *(("task_timeout_s", np.float64), ("rest_s", np.float64), ("is_uniform", np.int64)),
    *(("max_aggregations", np.int64), ("max_updates", np.int64), ("max_hours", np.float64)),
    *(("horizon_s", np.float64), ("seed", np.uint64)),
    # A task's work.
    *(("local_epochs", np.int64), ("max_records", np.int64)),
    *(("download_bytes", np.int64), ("upload_bytes", np.int64)),
    # The world.
    *(("hours_start_s", np.float64), ("hours_length_s", np.float64)),
    *(("period_s", np.float64), ("jitter", np.float64), ("dropout_scale_s", np.float64)),
    *(("pace_check_ins_per_s", np.float64), ("pace_soonest_s", np.float64)),
    *(("pace_idle_soonest_s", np.float64), ("pace_longest_s", np.float64)),
    *(("pace_idle_factor", np.float64), ("pace_jitter", np.float64)),
    # Keys of random streams.
    *((f"{name}_key", np.uint32, (2,)) for name in ("opening", "interval", "speed", "link")),
    ("dropout_key", np.uint32, (2,)),
]
_PROGRESS = [
    # Where a turn is; whether a limit of the job is reached; turns without an event, in a row, and
    # without a moment passing.
    *(("phase", np.int64), ("is_over", np.int64), ("idle_turns", np.int64)),
    # What a strategy is told, in the order of `RoundState`; `lost` is always 0.
    *(("version", np.int64), ("round_started_s", np.float64), ("now_s", np.float64)),
    *(("granted", np.int64), ("offered", np.int64), ("running", np.int64), ("held", np.int64)),
    ("lost", np.int64),
    # What a strategy in Python has answered; see `simulation.timeline.asked_strategy`.
    *(("step", np.int64), ("next_oldest_live", np.int64), ("is_answered", np.int64)),
    *(("tasks", np.int64), ("deadline_s", np.float64)),
    # Until when it waits; whether whoever trains is asked before each aggregation; updates held of
    # which the coordinator has yet to hear that they are not finite.
    *(("until_s", np.float64), ("waits", np.int64), ("asks", np.int64), ("unheard", np.int64)),
    *(("events", np.int64), ("enough", np.int64), ("next_look", np.int64)),
    ("oldest_live", np.int64),
    # The round, or the filling of a buffer.
    *(("round", np.int64), ("round_first", np.int64), ("open_slots", np.int64)),
    # Tasks; `running` and `held` are those that the coordinator counts.
    *(("started", np.int64), ("undecided", np.int64)),
    ("succeeded", np.int64),
    *(("outcomes", np.int64, (6,)), ("device_s", np.float64), ("wasted_device_s", np.float64)),
    *(("bytes_down", np.int64), ("bytes_up", np.int64), ("versions", np.int64)),
    # Patience: see `simulation.patience`.
    *(("update_s", np.float64), ("release_s", np.float64), ("dropped", np.int64)),
    *(("ends", np.int64, (10,)), ("ends_order", np.int64, (10,)), ("kinds_of_ends", np.int64)),
    # Ends of tasks, and of the wait for silent devices; see `simulation.timeline.ends`.
    *(("ends_to_come", np.int64), ("next_end_s", np.float64), ("next_end", np.int64)),
    *(("next_end_is_apart", np.int64), ("ends_apart", np.int64), ("end_slot", np.int64)),
    *(("ends_ready", np.int64), ("ends_taken", np.int64), ("ends_in_ring", np.int64)),
    *(("end_nodes", np.int64), ("free_node", np.int64)),
    # Check-ins to come; see `simulation.timeline.queues`.
    *(("slot", np.int64), ("waiting", np.int64), ("far", np.int64)),
    *(("chunks", np.int64), ("free_chunk", np.int64)),
    *(("ready", np.int64), ("taken", np.int64), ("due", np.int64)),
    # Of those ready, which have their task's course drawn, and which the wait for the next one;
    # the share of check-ins lately that got a task.
    *(("drawn_first", np.int64), ("drawn_beyond", np.int64), ("task_share", np.int64)),
    *(("waits_first", np.int64), ("waits_beyond", np.int64)),
    # Devices seen, and eligible, lately: how many; the first sighting that may count, and the end.
    *(("seen", np.int64, (3,)), ("eligible", np.int64, (3,)), ("sweep_at", np.int64)),
    *(("seen_first_tick", np.int64), ("seen_last_tick", np.int64)),
]
STATE = np.dtype([*_SETTINGS, *_PROGRESS], align=True)
"""Settings of a trial, and how far it has come; an array of one record."""

SIGHTING = np.dtype([("seen_s", np.float64), ("client", np.int64)], align=True)
"""A device was eligible; it counts if that is still the last time it was."""

DUE = np.dtype([("at_s", np.float64), ("sequence", np.int64)], align=True)
"""Something to come: time, then kind and number of a task, or a client."""


class Traces(NamedTuple):
    """The world, and who each client is in it; read only. See `simulation.world`.

    Attributes:
        repeat_s: Of each device; of one, if they are all the same.
    """

    offsets: NDArray[np.int32]
    start_s: NDArray[np.float64]
    end_s: NDArray[np.float64]
    repeat_s: NDArray[np.float64]
    device: NDArray[np.int32]
    records: NDArray[np.int32]
    device_model: NDArray[np.int32]
    down_link: NDArray[np.int32]
    up_link: NDArray[np.int32]
    sample_offsets: NDArray[np.int64]
    samples_s: NDArray[np.float64]
    median_s: NDArray[np.float64]
    log_stdev: NDArray[np.float64]
    down_kbps: NDArray[np.float64]
    down_log_stdev: NDArray[np.float64]
    up_kbps: NDArray[np.float64]
    up_log_stdev: NDArray[np.float64]


class Memory(NamedTuple):
    """What the engine writes; heaps and logs grow between calls.

    Attributes:
        participated_s: When each client last handed in an update; empty where no rest is asked for.
        taken_round: Round in which each client last took a slot; empty where there are no rounds.
        eligible_s: When each client was last eligible; empty unless selection is uniform.
        slot_end: Where the last check-in of each slot is in ``chunks``, 0 for none.
        chunks: Check-ins of slots to come, by `simulation.timeline.queues.CHUNK`.
        far: Check-ins beyond these slots.
        ready: Check-ins of the slot that is open, in order; ``spare`` and ``tally`` serve to sort.
        due: Heap of check-ins that fell into the slot once it was open.
        end_slots: Where the list of ends of tasks of each slot begins, 0 for none.
        end_links: Where each list goes on.
        ends: The ends in these lists.
        ends_ready: Ends of the slot that is open, in order; ``ends_spare`` serves to sort.
        ends_apart: Heap of those that are in no slot to come.
        undecided: Numbers of the tasks that ended since the last version, in order.
        held: Numbers of the tasks whose updates are held, in order of arrival.
        diverged: Numbers of tasks, ascending, whose updates training has shown not to be finite.
        seen: When devices were seen, a ring; bits of ``superseded`` say which were again since.
        eligible: Sightings of devices that could take a task.
        courses: Rows of `LANES` columns, by `simulation.timeline.courses`.
        lanes: As ``courses``, of whole numbers.
        scratch: Room for a hash.
        results: By task, what is known of its update; empty unless in lock-step.
    """

    clients: NDArray[np.void]
    participated_s: NDArray[np.float64]
    taken_round: NDArray[np.int32]
    eligible_s: NDArray[np.float64]
    slot_end: NDArray[np.int32]
    chunks: NDArray[np.int64]
    far: NDArray[np.void]
    ready: NDArray[np.int64]
    spare: NDArray[np.int64]
    tally: NDArray[np.int32]
    due: NDArray[np.int64]
    end_slots: NDArray[np.int32]
    end_links: NDArray[np.int32]
    ends: NDArray[np.int64]
    ends_ready: NDArray[np.int64]
    ends_spare: NDArray[np.int64]
    ends_apart: NDArray[np.void]
    tasks: NDArray[np.void]
    undecided: NDArray[np.int32]
    held: NDArray[np.int32]
    diverged: NDArray[np.int64]
    versions: NDArray[np.void]
    seen: NDArray[np.uint32]
    superseded: NDArray[np.uint8]
    eligible: NDArray[np.void]
    courses: NDArray[np.float64]
    lanes: NDArray[np.int64]
    scratch: NDArray[np.uint32]
    results: NDArray[np.int8]
