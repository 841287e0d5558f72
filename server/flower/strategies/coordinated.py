"""A Flower strategy whose rounds FLINT's coordinator drives, on the nodes of the user's own app."""

import io
import logging
import math
import random
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy
from flwr.serverapp.strategy.strategy_utils import (
    aggregate_metricrecords,
    log_strategy_start_info,
)
from pydantic import ValidationError

from server.coordination.versions import JobTotals
from server.flower.strategies.array_layout import ArrayLayout
from server.flower.strategies.errors import (
    InvalidStrategyArgument,
    NotRoundBased,
    UnusedRoundMethod,
)
from server.flower.strategies.strategy_run import StrategyRun
from server.job import Job, ServerAdaptive, ServerSgd
from server.strict_blocks import block_problems

log = logging.getLogger("flwr")

MetricsAggregation = Callable[[list[RecordDict], str], MetricRecord]
EvaluateFn = Callable[[int, ArrayRecord], MetricRecord | None]

_ROUND_METHODS = ("configure_train", "aggregate_train")
_ARGUMENTS = {
    "strategy.server_optimizer.learning_rate": "server_learning_rate",
    "strategy.staleness_weight.exponent": "staleness_exponent",
    "stop.max_aggregations": "num_rounds",
    "client.task_timeout_s": "timeout",
    "selection.name": "selection",
}
"""Arguments that the job file calls otherwise."""


@dataclass(kw_only=True, eq=False)
class CoordinatedStrategy(Strategy):
    """What `FedBuff` and `OverCommittedFedAvg` share; a round is one aggregation.

    ``strategy.start(grid, initial_arrays, num_rounds=...)`` is called as on any strategy of
    Flower's, with unchanged ClientApps, and returns Flower's `Result`. A reply that cannot be used
    (wrong names, shapes, NaN, an absurd example count, an error) costs its own update and nothing
    else.

    Attributes:
        server_learning_rate: Step along the mean update; 1 makes the mean the next version.
        server_optimizer: Instead of plain SGD: `ServerSgd` with momentum, or `ServerAdaptive`.
        weighting: ``"examples"`` weighs an update by its example count, ``"uniform"`` by 1.
        weighted_by_key: Metric of a reply that holds the example count.
        max_examples: Caps the weight of one update.
        max_claimed_examples: An update that claims more is refused.
        max_update_norm: An update of a larger L2 norm is refused; None leaves it unlimited.
        selection: Among idle nodes, ``"uniform"`` draws, ``"arrival"`` takes the longest idle.
        seed: Of the draws; None takes it from Python's own generator, as Flower's sampling does.
        min_available_nodes: Nodes to wait for before training begins; None for what is needed.
        fraction_evaluate: Share of the online nodes that evaluate; 0 for no federated evaluation.
        min_evaluate_nodes: At least so many evaluate; with fewer online, nobody does.
        evaluate_every: Federated evaluation of every so many rounds, and of the last.
        arrayrecord_key, configrecord_key: Names of the records in a train or evaluate message.
        train_metrics_aggr_fn: Given the MetricRecords of a round's updates (without arrays) and
            ``weighted_by_key``; None for Flower's weighted mean.
        evaluate_metrics_aggr_fn: The same for federated evaluation.
        poll_interval_s: Between two looks for replies.
        totals: After `start`, what became of the tasks, by outcome and by reason.
    """

    server_learning_rate: float = 1.0
    server_optimizer: ServerSgd | ServerAdaptive | None = None
    weighting: Literal["examples", "uniform"] = "examples"
    weighted_by_key: str = "num-examples"
    max_examples: int | None = None
    max_claimed_examples: int = 1_000_000
    max_update_norm: float | None = None
    selection: Literal["uniform", "arrival"] = "uniform"
    seed: int | None = None
    min_available_nodes: int | None = None
    fraction_evaluate: float = 1.0
    min_evaluate_nodes: int = 2
    evaluate_every: int = 1
    arrayrecord_key: str = "arrays"
    configrecord_key: str = "config"
    train_metrics_aggr_fn: MetricsAggregation | None = None
    evaluate_metrics_aggr_fn: MetricsAggregation | None = None
    poll_interval_s: float = 0.5
    totals: JobTotals = field(default=JobTotals(), init=False, repr=False)
    _run: StrategyRun | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self._job(num_rounds=1, timeout=1.0)
        limits = {
            "fraction_evaluate": (0, 1),
            "min_evaluate_nodes": (0, math.inf),
            "evaluate_every": (1, math.inf),
            "min_available_nodes": (0, math.inf),
            "poll_interval_s": (1e-3, math.inf),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                wanted = f"at least {low}" if high == math.inf else f"from {low} to {high}"
                raise InvalidStrategyArgument(f"{self._called(name, value)}; it must be {wanted}")
        if self.server_optimizer is not None and self.server_learning_rate != 1.0:
            raise InvalidStrategyArgument(
                f"{self._called('server_learning_rate', self.server_learning_rate)} beside a "
                "server_optimizer; give the learning rate to the server_optimizer"
            )

    # -- what a strategy says --------------------------------------------------------------------

    @abstractmethod
    def job_settings(self) -> dict[str, Any]:
        """The ``strategy`` block of a job file, less what all strategies share."""

    @property
    @abstractmethod
    def needed_nodes(self) -> int:
        """Nodes without which beginning makes no sense."""

    @property
    @abstractmethod
    def evaluates_beside_training(self) -> bool:
        """Whether training goes on while nodes evaluate; else a round ends with its evaluation."""

    # -- what a user may override ----------------------------------------------------------------

    def task_config(self, server_round: int, config: ConfigRecord) -> ConfigRecord:
        """Config of the train messages that start from version ``server_round - 1``.

        Override it for a learning rate that falls, say. It is asked once a round.

        Args:
            server_round: From 1; the round the tasks are meant for.
            config: A copy of ``train_config``, for you to change.
        """
        config["server-round"] = server_round
        return config

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Evaluate messages for nodes drawn as by Flower's FedAvg, none when too few are online.

        Where a round waits for its evaluation, nodes that still train are asked only if there are
        not enough others.
        """
        online = list(grid.get_node_ids())
        least = self.min_evaluate_nodes
        if self.fraction_evaluate == 0 or len(online) < least:
            if self.fraction_evaluate > 0:
                log.info(
                    "configure_evaluate: skipped, %d nodes are online (minimum required: %d)",
                    len(online),
                    least,
                )
            return []
        busy = frozenset[int]() if self.evaluates_beside_training else self._busy_nodes()
        idle = [node_id for node_id in online if node_id not in busy]
        candidates = idle if len(idle) >= least else online
        wanted = max(int(len(online) * self.fraction_evaluate), least)
        chosen = random.sample(candidates, min(wanted, len(candidates)))
        log.info("configure_evaluate: Sampled %s nodes (out of %s)", len(chosen), len(online))
        config["server-round"] = server_round
        content = RecordDict({self.arrayrecord_key: arrays, self.configrecord_key: config})
        return [Message(content, node_id, MessageType.EVALUATE) for node_id in chosen]

    def aggregate_evaluate(
        self,
        server_round: int,  # noqa: ARG002
        replies: Iterable[Message],
    ) -> MetricRecord | None:
        """Weighted mean of the metrics, as by Flower's FedAvg.

        Args:
            replies: Errors, and replies whose metrics can be averaged together.
        """
        replies = list(replies)
        contents = [reply.content for reply in replies if reply.has_content()]
        log.info(
            "aggregate_evaluate: Received %s results and %s failures",
            len(contents),
            len(replies) - len(contents),
        )
        for reply in replies:
            if reply.has_error():
                node_id, reason = reply.metadata.src_node_id, reply.error.reason
                log.info("\t> Received error in reply from node %d: %.200r", node_id, reason)
        aggregate = self.evaluate_metrics_aggr_fn or aggregate_metricrecords
        return aggregate(contents, self.weighted_by_key) if contents else None

    def _busy_nodes(self) -> frozenset[int]:
        return frozenset() if self._run is None else self._run.busy_nodes()

    # -- what there is none of -------------------------------------------------------------------

    def configure_train(
        self,
        server_round: int,  # noqa: ARG002
        arrays: ArrayRecord,  # noqa: ARG002
        config: ConfigRecord,  # noqa: ARG002
        grid: Grid,  # noqa: ARG002
    ) -> Iterable[Message]:
        """There is no such step; whoever asks drives rounds that this strategy does not have.

        Raises:
            NotRoundBased: Always.
        """
        raise self._not_round_based()

    def aggregate_train(
        self,
        server_round: int,  # noqa: ARG002
        replies: Iterable[Message],  # noqa: ARG002
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """There is no such step either.

        Raises:
            NotRoundBased: Always.
        """
        raise self._not_round_based()

    def _not_round_based(self) -> NotRoundBased:
        name = type(self).__name__
        return NotRoundBased(
            f"{name} cannot be wrapped in a strategy that works in Flower's rounds, such as its "
            f"differential privacy wrappers: they would train without what makes it {name}; call "
            f"{name}.start() itself"
        )

    # -- Strategy --------------------------------------------------------------------------------

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: EvaluateFn | None = None,
    ) -> Result:
        """Train for ``num_rounds`` aggregations.

        Args:
            initial_arrays: Version 0. Floats and integers; arithmetic is in float32.
            timeout: Seconds a node has for one train task, and for an evaluation.
            evaluate_fn: Given round and arrays, before the first round and after each.

        Raises:
            InvalidStrategyArgument, UnusableArrays, UnusedRoundMethod: Before anything is sent.
            EveryNodeFails: If no node ever gives an update.
            ModelDiverged: If an aggregation gives a model that is not finite.
        """
        self._refuse_unused_methods()
        layout, weights = ArrayLayout.of(initial_arrays)
        job = self._job(num_rounds=max(1, num_rounds), timeout=timeout)
        log.info("Starting %s strategy:", type(self).__name__)
        log_strategy_start_info(num_rounds, initial_arrays, train_config, evaluate_config)
        self.summary()
        log.info("")
        begun_s = time.monotonic()
        self._run = run = StrategyRun(
            self, grid, job, layout, weights, train_config, evaluate_config, evaluate_fn
        )
        try:
            run.evaluate_initial(initial_arrays)
            if num_rounds > 0:
                run.train()
        finally:
            self.totals, self._run = run.totals, None
        log.info("")
        log.info("Strategy execution finished in %.2fs", time.monotonic() - begun_s)
        log.info("Tasks: %s", _counted(self.totals))
        log.info("")
        log.info("Final results:")
        log.info("")
        for line in io.StringIO(str(run.result)):
            log.info("\t%s", line.strip("\n"))
        log.info("")
        return run.result

    def summary(self) -> None:
        """Log what the strategy was made with."""
        settings = {key: value for key, value in self.job_settings().items() if key != "name"}
        log.info("\t├──> Aggregation:")
        for name, value in settings.items():
            log.info("\t│\t├── %s: %s", name, value)
        log.info("\t│\t├── Server optimizer: %s", self._server_optimizer())
        log.info("\t│\t└── Weighting: %s", self.weighting)
        log.info("\t├──> Evaluation:")
        log.info("\t│\t├── Fraction: %.2f", self.fraction_evaluate)
        log.info("\t│\t├── Minimum nodes: %d", self.min_evaluate_nodes)
        log.info("\t│\t└── Every: %d rounds", self.evaluate_every)
        log.info("\t└──> Keys in records:")
        log.info("\t\t├── Weighted by: '%s'", self.weighted_by_key)
        log.info("\t\t├── ArrayRecord key: '%s'", self.arrayrecord_key)
        log.info("\t\t└── ConfigRecord key: '%s'", self.configrecord_key)

    def aggregate_train_metrics(self, contents: list[RecordDict]) -> MetricRecord | None:
        """Metrics of one round's updates together; None without any."""
        aggregate = self.train_metrics_aggr_fn or aggregate_metricrecords
        return aggregate(contents, self.weighted_by_key) if contents else None

    # -- as a job --------------------------------------------------------------------------------

    def _job(self, *, num_rounds: int, timeout: float) -> Job:
        """The job that the coordinator is given. How clients train is the app's own affair."""
        seed = self.seed
        raw = {
            "name": "flower-app",
            "model": "flower-app",
            "client": {
                "optimizer": {"name": "sgd", "learning_rate": 1.0},
                "task_timeout_s": timeout,
            },
            "strategy": {
                **self.job_settings(),
                "weighting": self.weighting,
                "max_examples": self.max_examples,
                "server_optimizer": self._server_optimizer(),
            },
            "privacy": {
                "robustness": {
                    "max_update_norm": self.max_update_norm,
                    "max_claimed_examples": self.max_claimed_examples,
                }
            },
            "stop": {"max_aggregations": num_rounds},
            "selection": {"name": self.selection},
            "seed": random.getrandbits(63) if seed is None else seed,
        }
        try:
            return Job.model_validate(raw, strict=True)
        except ValidationError as error:
            (problem, *_) = block_problems(error, raw, Job, forms={}, foreign_key=lambda _: None)
            raise InvalidStrategyArgument(
                f"{type(self).__name__}: {_in_our_words(problem.key, problem.sentence)}"
            ) from error

    def _server_optimizer(self) -> dict[str, Any]:
        if self.server_optimizer is None:
            return {"name": "sgd", "learning_rate": self.server_learning_rate}
        return self.server_optimizer.model_dump()

    def _refuse_unused_methods(self) -> None:
        for name in _ROUND_METHODS:
            if getattr(type(self), name) is not getattr(CoordinatedStrategy, name):
                raise UnusedRoundMethod(
                    f"{type(self).__name__} overrides {name}, which is never called: tasks are "
                    "sent and updates are summed one by one; override task_config to change what "
                    "a task is told, or take a strategy of Flower's"
                )

    def _called(self, name: str, value: object) -> str:
        return f"{type(self).__name__}({name}={value!r}) is not possible"


def _in_our_words(key: str, sentence: str) -> str:
    """A job file's complaint with the names of our arguments."""
    ours = _ARGUMENTS.get(key, key.rpartition(".")[2])
    return sentence.removeprefix("strategy: ").replace(key, ours).removesuffix(".")


def _counted(totals: JobTotals) -> str:
    outcomes = [f"{count} {name}" for name, count in sorted(totals.outcomes.items())]
    reasons = [f"{count} {name}" for name, count in sorted(totals.reasons.items())]
    why = f" ({', '.join(reasons)})" if reasons else ""
    return (", ".join(outcomes) or "none") + why
