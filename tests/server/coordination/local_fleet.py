"""A fleet of linear-regression clients on a clock of its own, and a version store in memory.

Independent of the aggregator and of any transport: updates are kept one by one and summed in
float64 at release, so it is an oracle for what the real fleets do.
"""

import heapq
import itertools
from dataclasses import replace

import numpy as np

from modeling.spec import Dense, ModelSpec
from server.aggregation.aggregator import PartialSum
from server.coordination.events import TaskCompleted, TaskEnded, TaskStarted
from server.coordination.fleet import OpenJob, Released
from server.coordination.job_runner import JobRunner
from server.coordination.tasks import Outcome, UpdateReference
from server.job import Job

SIZE = 4
MODEL = ModelSpec(
    "linear", (Dense("d", SIZE - 1, 1, "none"),), None, (1,), "binary_cross_entropy", "accuracy"
)


class MemoryVersions:
    def __init__(self, initial):
        self.versions = [initial]
        self.results = []

    def newest(self):
        return self.versions[-1]

    def releases_after(self, number):
        return tuple(r for v in self.versions if v.number > number for r in v.release_ids)

    def store(self, version, results):
        self.versions.append(replace(version, parameters_sha256=b"v%d" % version.number))
        self.results += results
        return self.versions[-1].parameters_sha256

    def ended_tasks(self):
        return ()  # a second LocalFleet mints the same task ids anew

    def record_metrics(self, number, metrics):
        self.versions[number] = replace(self.versions[number], metrics=metrics)

    def store_results(self, results):
        self.results += results


class Watcher:
    def __init__(self):
        self.events, self.aggregations, self.progress = [], [], None

    def on_event(self, event):
        self.events.append(event)

    def on_aggregation(self, aggregation):
        self.aggregations.append(aggregation)

    def on_progress(self, progress):
        self.progress = progress


class LocalFleet:
    """Client ``i`` checks in every ``period_s`` and takes ``durations_s[i]`` for a task."""

    def __init__(self, store, durations_s, period_s=10.0, fails=()):
        self.store, self.durations_s, self.period_s, self.fails = (
            store,
            durations_s,
            period_s,
            fails,
        )
        self.clock_s, self.sequence = 0.0, itertools.count()
        self.agenda = [
            (0.0, 2, next(self.sequence), "check_in", i) for i in range(len(durations_s))
        ]
        heapq.heapify(self.agenda)
        self.grants, self.late, self.held, self.frozen = {}, set(), [], {}
        self.version, self.closed = 0, None

    def now_s(self):
        return self.clock_s

    def open(self, job):
        self.job = job

    def set_model(self, version, parameters_sha256, oldest_live_version):
        self.version, self.oldest_live = version, oldest_live_version

    def grant(self, grant):
        self.grants[grant.grant_id] = [grant, grant.count]

    def cancel(self, grant_id, *, running_too):
        self.grants.pop(grant_id, None)
        if running_too:
            self.late.add(grant_id)

    def next_event(self, timeout_s):
        until_s = self.clock_s + (1e9 if timeout_s is None else timeout_s)
        while self.agenda and self.agenda[0][0] <= until_s:
            self.clock_s, _, _, kind, what = heapq.heappop(self.agenda)
            event = self.check_in(what) if kind == "check_in" else self.finish(*what)
            if event is not None:
                return event
        self.clock_s = until_s
        return None

    def later(self, delay_s, order, kind, what):
        entry = (self.clock_s + delay_s, order, next(self.sequence), kind, what)
        heapq.heappush(self.agenda, entry)

    def check_in(self, client):
        entry = next((e for e in self.grants.values() if e[1] > 0), None)
        if entry is None or self.closed:
            return self.later(self.period_s, 2, "check_in", client)
        grant, _ = entry
        entry[1] -= 1
        base = self.version if grant.base_version is None else grant.base_version
        task_id = f"t{next(self.sequence)}"
        self.later(self.durations_s[client], 0, "finish", (task_id, client, base, grant.grant_id))
        return TaskStarted(self.clock_s, task_id, grant.grant_id, f"c{client}", base)

    def finish(self, task_id, client, base, grant_id):
        self.later(self.period_s - self.durations_s[client] % self.period_s, 2, "check_in", client)
        if client in self.fails:
            return self.ended(task_id, client, base, Outcome.FAILED, "engine")
        if grant_id in self.late or base < self.oldest_live:
            return self.ended(task_id, client, base, Outcome.OVER_COMMITTED, "round_closed")
        delta = local_delta(client, self.store.versions[base].weights)
        count = 3 + client
        weight = self.job.job.strategy.weight(count)
        self.held.append((task_id, base, weight, delta))
        return TaskCompleted(
            self.clock_s, UpdateReference(task_id, f"c{client}", base, count, weight)
        )

    def ended(self, task_id, client, base, outcome, reason):
        return TaskEnded(self.clock_s, task_id, f"c{client}", base, outcome, reason)

    def release(self, release):
        if release.release_id not in self.frozen:
            self.frozen[release.release_id], self.held = self.held, []
        sums = []
        for base in sorted({entry[1] for entry in self.frozen[release.release_id]}):
            bucket = [entry for entry in self.frozen[release.release_id] if entry[1] == base]
            total = np.sum([weight * delta for _, _, weight, delta in bucket], axis=0)
            weight = sum(entry[2] for entry in bucket)
            ids = tuple(entry[0] for entry in bucket)
            sums.append(PartialSum(base, total.astype(np.float32), weight, ids))
        return Released((release.release_id,), tuple(sums))

    def commit(self, release_id):
        del self.frozen[release_id]

    def drop(self, base_version, outcome, reason):
        self.held = [entry for entry in self.held if entry[1] != base_version]

    def close(self, reason):
        self.closed = reason


def local_delta(client, weights):
    """One gradient step of the client's own quadratic: towards ``(client, client, ...)``."""
    return 0.1 * (client + 1.0 - weights.astype(np.float64))


def make_job(strategy, **stop):
    return Job.model_validate(
        {
            "name": "test",
            "model": "linear",
            "client": {"optimizer": {"name": "sgd", "learning_rate": 0.1}},
            "strategy": strategy,
            "stop": stop,
        }
    )


def run_job(job, fleet, store, evaluate=None, stop_requested=lambda: None):
    watcher = Watcher()
    opened = OpenJob("j-1", 1, job, MODEL, b"", b"", b"")
    runner = JobRunner(
        opened,
        fleet,
        store,
        watcher,
        evaluate=evaluate,
        stop_requested=stop_requested,
        poll_s=None,
    )
    return runner.run(), watcher
