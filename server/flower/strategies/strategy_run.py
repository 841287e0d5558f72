"""One call of a strategy's `start`: the coordinator on the app's nodes, round by round."""

import logging
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result
from numpy.typing import NDArray

from server.coordination.events import Event
from server.coordination.fleet import OpenJob
from server.coordination.job_runner import JobRunner
from server.coordination.progress import Aggregation, JobProgress
from server.coordination.tasks import Outcome
from server.coordination.versions import JobTotals, StoredVersion
from server.flower.strategies.array_layout import ArrayLayout
from server.flower.strategies.array_versions import ArrayVersions
from server.flower.strategies.client_app_fleet import ClientAppFleet
from server.flower.strategies.federated_evaluation import FederatedEvaluations
from server.flower.strategies.grid_nodes import nodes_of
from server.flower.strategies.metric_replies import averageable, without_bad_replies
from server.job import Job

if TYPE_CHECKING:
    from server.flower.strategies.coordinated import CoordinatedStrategy, EvaluateFn

log = logging.getLogger("flwr")


class StrategyRun:
    """Trains, evaluates and gathers Flower's `Result`; the `JobObserver` of its own job.

    Args:
        strategy: Says what is sent, and how metrics are put together.
        weights: Version 0, shape ``(parameters,)``.
    """

    def __init__(
        self,
        strategy: "CoordinatedStrategy",
        grid: Grid,
        job: Job,
        layout: ArrayLayout,
        weights: NDArray[np.float32],
        train_config: ConfigRecord | None,
        evaluate_config: ConfigRecord | None,
        evaluate_fn: "EvaluateFn | None",
    ) -> None:
        self.result = Result()
        self.totals = JobTotals()
        self._strategy = strategy
        self._grid = grid
        self._job = job
        self._rounds = job.stop.max_aggregations or 0
        self._train_config = train_config or ConfigRecord()
        self._evaluate_config = evaluate_config or ConfigRecord()
        self._evaluate_fn = evaluate_fn
        self._outcomes: Counter[str] = Counter()
        self._versions = ArrayVersions(layout, StoredVersion(0, weights, {}))
        poll_s, timeout_s = strategy.poll_interval_s, job.client.task_timeout_s
        self._fleet = ClientAppFleet(
            nodes_of(grid),
            layout,
            self._versions,
            self._task_content,
            strategy.weighted_by_key,
            poll_s=poll_s,
        )
        self._evaluations = FederatedEvaluations(nodes_of(grid), timeout_s, poll_s)
        opened = OpenJob("flower-app", 1, job, layout, b"", b"", b"")
        self._runner = JobRunner(
            opened,
            self._fleet,
            self._versions,
            self,
            evaluate=None,
            stop_requested=lambda: None,
            poll_s=poll_s,
        )

    def evaluate_initial(self, arrays: ArrayRecord) -> None:
        """Have the server evaluate what training begins with."""
        if self._evaluate_fn is None:
            return
        metrics = self._evaluate_fn(0, arrays)
        log.info("Initial global evaluation results: %s", metrics)
        if metrics is not None:
            self.result.evaluate_metrics_serverapp[0] = metrics

    def train(self) -> None:
        """All rounds."""
        strategy = self._strategy
        needed = strategy.min_available_nodes
        self._fleet.await_nodes(strategy.needed_nodes if needed is None else needed)
        self._runner.take_up()
        while (reason := self._runner.turn()) is None:
            self._hear_evaluations()
        self._runner.finish(reason)
        self._await_evaluations()

    def busy_nodes(self) -> frozenset[int]:
        """Nodes that still work on a train task."""
        return self._fleet.busy_nodes()

    # -- JobObserver -----------------------------------------------------------------------------

    def on_event(self, event: Event) -> None:
        """Nothing: the fleet notes what is wrong, and counts are in the progress."""

    def on_progress(self, progress: JobProgress) -> None:
        """Keep the totals."""
        self.totals = progress.totals

    def on_aggregation(self, aggregation: Aggregation) -> None:
        """A round is over: its arrays and metrics go into the result, and are evaluated."""
        server_round = aggregation.version
        self._log_round(aggregation)
        self.result.arrays = self._versions.record
        contents = averageable(
            self._versions.metrics,
            self._strategy.weighted_by_key,
            self._strategy.max_claimed_examples,
        )
        metrics = self._strategy.aggregate_train_metrics(contents)
        if metrics is not None:
            log.info("\t└──> Aggregated MetricRecord: %s", metrics)
            self.result.train_metrics_clientapp[server_round] = metrics
        self._evaluate(server_round)

    def _log_round(self, aggregation: Aggregation) -> None:
        log.info("")
        log.info("[ROUND %s/%s]", aggregation.version, self._rounds)
        staleness = aggregation.staleness
        log.info(
            "aggregate_train: %d updates, staleness %.2f on average and at most %d",
            aggregation.updates,
            sum(staleness) / len(staleness),
            max(staleness),
        )
        outcomes = Counter(self._runner.progress().totals.outcomes)
        not_counted = outcomes - self._outcomes
        del not_counted[Outcome.SUCCEEDED]
        if not_counted:
            log.info("\t> Not counted: %s", ", ".join(f"{n} {o}" for o, n in not_counted.items()))
        self._outcomes = outcomes

    # -- evaluation ------------------------------------------------------------------------------

    def _evaluate(self, server_round: int) -> None:
        strategy = self._strategy
        is_last = server_round >= self._rounds
        if is_last or server_round % strategy.evaluate_every == 0:
            self._begin_evaluation(server_round, is_last=is_last)
        if not strategy.evaluates_beside_training:
            self._await_evaluations()
        if self._evaluate_fn is not None:
            log.info("Global evaluation")
            metrics = self._evaluate_fn(server_round, self._versions.record)
            log.info("\t└──> MetricRecord: %s", metrics)
            if metrics is not None:
                self.result.evaluate_metrics_serverapp[server_round] = metrics

    def _begin_evaluation(self, server_round: int, *, is_last: bool) -> None:
        if self._evaluations.under_way:
            if not is_last:
                log.info("configure_evaluate: skipped, nodes still evaluate an earlier version")
                return
            self._await_evaluations()
        messages = self._strategy.configure_evaluate(
            server_round,
            self._versions.record,
            ConfigRecord(dict(self._evaluate_config)),
            self._grid,
        )
        self._evaluations.begin(server_round, list(messages))

    def _await_evaluations(self) -> None:
        while self._evaluations.under_way:
            self._evaluations.wait()
            self._hear_evaluations()

    def _hear_evaluations(self) -> None:
        strategy = self._strategy
        for server_round, replies in self._evaluations.ended():
            good = without_bad_replies(
                replies, strategy.weighted_by_key, strategy.max_claimed_examples
            )
            if len(good) < len(replies):
                log.info(
                    "aggregate_evaluate: %d of %d replies hold no metrics that can be averaged",
                    len(replies) - len(good),
                    len(replies),
                )
            metrics = strategy.aggregate_evaluate(server_round, good)
            if metrics is not None:
                log.info("\t└──> Round %d, aggregated MetricRecord: %s", server_round, metrics)
                self.result.evaluate_metrics_clientapp[server_round] = metrics

    # -- what nodes are asked --------------------------------------------------------------------

    def _task_content(self, base_version: int, arrays: ArrayRecord) -> RecordDict:
        config = ConfigRecord(dict(self._train_config))
        return RecordDict(
            {
                self._strategy.arrayrecord_key: arrays,
                self._strategy.configrecord_key: self._strategy.task_config(
                    base_version + 1, config
                ),
            }
        )
