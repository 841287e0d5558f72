"""The rounds of a Flower app, seen from its grid: one row of the trajectory each.

A round is what is between the first training message and the next one after replies have come: so
it is of any strategy, also of an app's own loop. An asynchronous strategy asks one node after the
other: messages that say the same ``server-round`` are then of one round. Metrics that come after
the replies, from evaluation on clients or on the server, are those of the version the round made.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from flwr.app import Message, MetricRecord

from simulation.flower.messages import num_examples
from simulation.flower.sent_message import is_training, server_round
from simulation.flower.virtual_time import real_monotonic_s
from simulation.task_log import TaskLog
from simulation.trajectory import OUTCOMES, TRAJECTORY_SCHEMA

_COUNTS = re.compile(r"num[-_]examples", re.IGNORECASE)
_LOWER_IS_BETTER = re.compile(r"loss|error|perplexity|(^|[-_])(r?mse|mae)($|[-_])", re.IGNORECASE)


@dataclass
class WeightedMeans:
    """Means of metrics over replies, weighted by examples."""

    sums: dict[str, float] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)

    def add(self, metrics: Mapping[str, float], weight: float) -> None:
        """Count one reply."""
        for name, value in metrics.items():
            self.sums[name] = self.sums.get(name, 0.0) + value * weight
            self.weights[name] = self.weights.get(name, 0.0) + weight

    def means(self) -> dict[str, float]:
        """By name, in the order in which names first came."""
        return {name: total / self.weights[name] for name, total in self.sums.items()}


@dataclass
class Round:
    """One row.

    Attributes:
        server_round: What its training messages say, or None.
        is_over: The server has waited for its replies, and waits no longer.
        system: Columns of clock, tasks and devices at the moment the round's replies had come.
        evaluated: Metrics by source: ``"server"`` or ``"clients"``.
    """

    version: int
    server_round: int | None = None
    is_over: bool = False
    updates: int = 0
    system: dict[str, Any] | None = None
    trained: WeightedMeans = field(default_factory=WeightedMeans)
    on_clients: WeightedMeans = field(default_factory=WeightedMeans)
    on_server: dict[str, float] = field(default_factory=dict)

    def evaluated(self, source: str) -> dict[str, float]:
        """Metrics of this version."""
        return self.on_server if source == "server" else self.on_clients.means()


@dataclass(frozen=True, slots=True)
class Progress:
    """What to tell of a run on its way.

    Attributes:
        updates: Successful replies to training in the last round.
    """

    version: int
    updates: int
    virtual_s: float
    wall_s: float
    tasks_started: int
    succeeded: int
    in_flight: int


class Rounds:
    """Rows of one trial.

    Args:
        momentary: Virtual time, clients available and tasks in flight, now.
    """

    def __init__(
        self,
        trial: int,
        log: TaskLog,
        momentary: Callable[[], tuple[float, int, int]],
        on_progress: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        self._trial = trial
        self._log = log
        self._momentary = momentary
        self._on_progress = on_progress
        self._begun_s = real_monotonic_s()
        self._rounds = [Round(0)]
        self._snapshot()

    @property
    def version(self) -> int:
        """Version that the open round makes, or the last round made."""
        return self._rounds[-1].version

    def base_version(self, message: Message) -> int:
        """Version a message is about: training starts from the one before the open round's."""
        return max(self.version - 1, 0) if is_training(message) else self.version

    def wall_s(self) -> float:
        """Seconds on the wall since the trial began."""
        return real_monotonic_s() - self._begun_s

    # -- what happens --------------------------------------------------------------------------

    def on_push(self, messages: Iterable[Message]) -> None:
        """Messages are about to go out; the first training message after replies opens a round.

        Unless it is one more of a round whose replies the server takes as they come.
        """
        training = next(filter(is_training, messages), None)
        current = self._rounds[-1]
        if training is None or current.system is None:
            return
        asked = server_round(training)
        if asked is not None and asked == current.server_round and not current.is_over:
            return
        if current.version > 0 and not current.is_over:
            self._tell()
        self._rounds.append(Round(self.version + 1, asked))

    def on_replies(self, replies: Iterable[Message]) -> None:
        """The server was given replies."""
        current, has_trained = self._rounds[-1], False
        for reply in replies:
            category = reply.metadata.message_type.partition(".")[0]
            if not reply.has_content() or category not in {"train", "evaluate"}:
                continue
            examples = num_examples(reply)
            if category == "train":
                has_trained = True
                current.updates += 1
                current.trained.add(scalars(reply.content.metric_records.values()), examples)
            else:
                current.on_clients.add(scalars(reply.content.metric_records.values()), examples)
        if has_trained:
            self._snapshot()

    def on_waited(self) -> None:
        """The server waits no longer for the round's replies, whether or not there were any."""
        self._rounds[-1].is_over = True
        self._snapshot()
        self._tell()

    def on_server_metrics(self, metrics: MetricRecord) -> None:
        """The server has measured its newest version."""
        self._rounds[-1].on_server.update(scalars([metrics]))

    def on_end(self) -> None:
        """The app has ended; a round still open gets its row."""
        if self._rounds[-1].system is None:
            self._snapshot()
        self._tell()

    def _snapshot(self) -> None:
        virtual_s, available, in_flight = self._momentary()
        totals = self._log.totals
        self._rounds[-1].system = {
            "virtual_s": virtual_s,
            "tasks_started": totals.started,
            **{outcome: totals.outcomes[outcome] for outcome in OUTCOMES},
            "device_s": totals.device_s,
            "wasted_device_s": totals.wasted_device_s,
            "bytes_down": totals.bytes_down,
            "bytes_up": totals.bytes_up,
            "available": available,
            "in_flight": in_flight,
            "wall_s": self.wall_s(),
        }

    def _tell(self) -> None:
        virtual_s, _, in_flight = self._momentary()
        totals = self._log.totals
        self._on_progress(
            Progress(
                self.version,
                self._rounds[-1].updates,
                virtual_s,
                self.wall_s(),
                totals.started,
                totals.outcomes["succeeded"],
                in_flight,
            )
        )

    # -- what is written -----------------------------------------------------------------------

    def metric_source(self) -> str | None:
        """``"server"`` if the ServerApp measured anything, else ``"clients"``, else None."""
        for source in ("server", "clients"):
            if any(each.evaluated(source) for each in self._rounds):
                return source
        return None

    def metric_name(self) -> str | None:
        """First metric of the source that is not a loss."""
        return self._first(lambda name: not _LOWER_IS_BETTER.search(name))

    def table(self) -> pa.Table:
        """All rows, with the columns of `TRAJECTORY_SCHEMA`."""
        source = self.metric_source()
        metric = self.metric_name()
        loss = self._first(lambda name: _LOWER_IS_BETTER.search(name) is not None)
        rows = []
        for each in self._rounds:
            if each.system is None:
                continue
            found = each.evaluated(source) if source is not None else {}
            trained = each.trained.means()
            losses = [value for name, value in trained.items() if _LOWER_IS_BETTER.search(name)]
            rows.append(
                {
                    "trial": self._trial,
                    "version": each.version,
                    "metric": found.get(metric) if metric is not None else None,
                    "loss": found.get(loss) if loss is not None else None,
                    "train_loss": losses[0] if losses else None,
                    "updates": each.updates,
                    "staleness_mean": None,
                    "staleness_max": None,
                    **each.system,
                }
            )
        return pa.Table.from_pylist(rows, TRAJECTORY_SCHEMA)

    def aggregations(self) -> int:
        """Rounds with at least one update."""
        return sum(each.updates > 0 for each in self._rounds)

    def _first(self, is_wanted: Callable[[str], bool]) -> str | None:
        source = self.metric_source()
        if source is None:
            return None
        names = (name for each in self._rounds for name in each.evaluated(source))
        return next((name for name in names if is_wanted(name)), None)


def scalars(records: Iterable[MetricRecord]) -> dict[str, float]:
    """Single numbers of metric records, without counts of examples; the first of a name counts."""
    found: dict[str, float] = {}
    for record in records:
        for name, value in record.items():
            if isinstance(value, int | float) and not _COUNTS.search(name):
                found.setdefault(name, float(value))
    return found
