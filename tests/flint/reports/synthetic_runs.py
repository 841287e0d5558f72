"""Runs that never were: tables a dry-run could have written, from a few lines of arithmetic."""

import dataclasses
import datetime as dt
import heapq
import json

import numpy as np
import pyarrow as pa

from flint.reports.run_data import COLUMNS, InputUsed, RunData, conform

OUTCOMES = ("succeeded", "interrupted", "stale", "over_committed", "failed", "rejected")


def task_row(task, started, ended, outcome="succeeded", **given):
    """A row of the tasks' file; a task of 1 s download, 1 s upload and the rest training."""
    row = {
        "trial": 0,
        "task": task,
        "client": task,
        "base_version": 0,
        "version": 1 if outcome == "succeeded" else None,
        "started_s": started,
        "ended_s": ended,
        "download_s": 1.0,
        "train_s": max(ended - started - 2.0, 0.0),
        "upload_s": 1.0,
        "device_s": ended - started,
        "examples": 10,
        "outcome": outcome,
        "reason": "",
        "bytes_down": 1000,
        "bytes_up": 1000 if outcome == "succeeded" else 0,
    }
    return row | given


def trajectory_row(version, virtual_s, **given):
    """A row of the trajectory in which nothing has happened but what is given."""
    row = dict.fromkeys(COLUMNS["trajectory"].names) | {
        "trial": 0,
        "version": version,
        "virtual_s": virtual_s,
    }
    counts = ("tasks_started", *OUTCOMES, "device_s", "wasted_device_s", "bytes_down", "bytes_up")
    return row | dict.fromkeys(counts, 0) | given


def make_run(*, trajectory=(), tasks=(), population=(), availability=(), **given) -> RunData:
    """A finished run of these rows."""
    rows = {
        "trajectory": trajectory,
        "tasks": tasks,
        "population": population,
        "availability": availability,
    }
    tables = {
        name: conform(name, pa.Table.from_pylist(list(found)), where="a test")
        if found
        else COLUMNS[name].empty_table()
        for name, found in rows.items()
    }
    record = {
        "run_id": "s-0123456789ab",
        "name": "ads-ctr",
        "kind": "job",
        "status": "finished",
        "job_json": json.dumps({"name": "ads-ctr", "strategy": {"name": "fedbuff"}}),
        "environment_json": json.dumps({"availability": "week.parquet"}),
        "seed": 7,
        "executors": 1,
        "code_version": "0.1.0",
        "created_at": dt.datetime(2026, 3, 1, 12, 0, tzinfo=dt.UTC),
        "finished_at": dt.datetime(2026, 3, 1, 12, 5, tzinfo=dt.UTC),
        "summary": {"trials": [], "metric_name": "auprc"},
        "inputs": {"availability": InputUsed("week.parquet", None, "ab" * 32)},
        "versions": {"numpy": "2.0.0"},
        "files": {"trajectory": "cd" * 32},
    }
    return RunData(**(record | tables | given))


def empty_run(**given) -> RunData:
    """A run in which nothing was ever started."""
    return make_run(trajectory=[trajectory_row(0, 0.0)], **given)


def plausible_run(
    *,
    seed: int = 1,
    trials: int = 1,
    aggregations: int = 120,
    cohort: int = 20,
    concurrency: int = 60,
    is_round: bool = False,
    evaluate_every: int = 5,
    **given,
) -> RunData:
    """A run of a made-up fleet of heavy-tailed devices: asynchronous, or in rounds."""
    trajectory, tasks, summaries = [], [], []
    for trial in range(trials):
        one = _Trial(np.random.default_rng([seed, trial]), trial, concurrency, cohort, is_round)
        one.run(aggregations, evaluate_every)
        trajectory += one.trajectory
        tasks += one.tasks
        summaries.append(one.summary())
    end_s = max(row["virtual_s"] for row in trajectory)
    grid = np.arange(0.0, end_s, 900.0)
    available = 4000 + 3200 * np.cos((grid / 3600 - 2) / 24 * 2 * np.pi)
    return make_run(
        trajectory=trajectory,
        tasks=tasks,
        availability=[
            {"virtual_s": float(t), "available": int(a)}
            for t, a in zip(grid, available, strict=True)
        ],
        population=[
            {"client": c, "device_model": f"model {c % 7}", "records": 10, "tier": "fast"}
            for c in range(90)
        ],
        summary={"trials": summaries, "metric_name": "auprc"},
        **given,
    )


class _Trial:
    """Concurrency tasks in flight at any time, or rounds of them; slower by night."""

    def __init__(self, random, trial, concurrency, cohort, is_round):
        self.random, self.trial, self.concurrency = random, trial, concurrency
        self.cohort, self.is_round = cohort, is_round
        self.tasks, self.trajectory, self.running, self.held = [], [], [], []
        self.now = 0.0
        self.version = 0

    def run(self, aggregations, evaluate_every):
        self.note(metric=0.14)
        while self.version < aggregations:
            while len(self.running) < self.concurrency and not (self.is_round and self.held):
                self.start()
            if not self.running:
                break
            self.now, task = heapq.heappop(self.running)
            row = self.tasks[task]
            if row["outcome"] != "succeeded":
                continue
            if self.version - row["base_version"] > 8:
                row["outcome"] = "stale"
                continue
            self.held.append(row)
            if len(self.held) == self.cohort:
                self.aggregate(evaluate_every)
        for row in self.tasks:
            if row["outcome"] == "succeeded" and row["version"] is None:
                row["outcome"] = "over_committed"
        self.trajectory[-1] |= self.totals(math_end=True)

    def start(self):
        random = self.random
        night = 1.2 + np.cos((self.now / 3600 - 2) / 24 * 2 * np.pi)
        started = self.now + random.exponential(60 / night)
        phases = [random.lognormal(m, s) for m, s in ((1.5, 0.7), (4.6, 1.0), (2.0, 0.7))]
        ends = random.choice(
            ["succeeded", "interrupted", "failed", "rejected"], p=[0.86, 0.11, 0.02, 0.01]
        )
        lasts = sum(phases) * (1.0 if ends == "succeeded" else random.uniform(0.2, 0.9))
        row = task_row(
            len(self.tasks) + 1,
            started,
            started + lasts,
            str(ends),
            trial=self.trial,
            base_version=self.version,
            version=None,
            download_s=phases[0],
            train_s=phases[1],
            upload_s=phases[2],
            bytes_down=752_564,
            bytes_up=752_564 if ends == "succeeded" else 0,
        )
        self.tasks.append(row)
        heapq.heappush(self.running, (row["ended_s"], len(self.tasks) - 1))

    def aggregate(self, evaluate_every):
        self.version += 1
        for row in self.held:
            row["version"] = self.version
        self.held = []
        if self.is_round:
            for ended, task in self.running:
                row = self.tasks[task]
                if row["outcome"] == "succeeded":
                    row["outcome"] = "over_committed"
                    row["bytes_up"] = 0
                if ended > self.now:
                    row["ended_s"] = max(self.now, row["started_s"])
                    row["device_s"] = row["ended_s"] - row["started_s"]
            self.running = []
        measured = self.version % evaluate_every == 0
        learnt = 0.41 - 0.27 * np.exp(-self.version / 35)
        noise = self.random.normal(0, 0.004)
        self.note(metric=float(learnt + noise) if measured else None)

    def note(self, metric):
        loss = None if metric is None else 0.9 - metric
        row = trajectory_row(self.version, self.now, trial=self.trial, metric=metric, loss=loss)
        row["train_loss"] = None if self.version == 0 else 0.5 * np.exp(-self.version / 60) + 0.2
        self.trajectory.append(row | self.totals())

    def totals(self, math_end=False):
        ended = [t for t in self.tasks if math_end or t["ended_s"] <= self.now]
        wasted = [t for t in ended if t["outcome"] != "succeeded"]
        counts = {o: sum(t["outcome"] == o for t in ended) for o in OUTCOMES}
        return counts | {
            "tasks_started": len(self.tasks),
            "device_s": float(sum(t["ended_s"] - t["started_s"] for t in ended)),
            "wasted_device_s": float(sum(t["ended_s"] - t["started_s"] for t in wasted)),
            "bytes_down": sum(t["bytes_down"] for t in ended),
            "bytes_up": sum(t["bytes_up"] for t in ended),
        }

    def summary(self):
        last = self.trajectory[-1]
        metrics = [r["metric"] for r in self.trajectory if r["metric"] is not None]
        tiers = [("fast", 30, 0.44, 0.42), ("middle", 30, 0.33, 0.405), ("slow", 30, 0.23, 0.371)]
        succeeded = last["succeeded"]
        return {
            "trial": self.trial,
            "stop_reason": "max_aggregations",
            "trajectory_sha256": "12" * 32,
            "events_sha256": "34" * 32,
            "virtual_hours": self.now / 3600,
            "aggregations": self.version,
            "metric": metrics[-1],
            "best_metric": max(metrics),
            "tasks_started": len(self.tasks),
            "outcomes": {o: last[o] for o in OUTCOMES},
            "device_hours": last["device_s"] / 3600,
            "wasted_device_hours": last["wasted_device_s"] / 3600,
            "bytes_up": last["bytes_up"],
            "bytes_down": last["bytes_down"],
            "wall_s": 12.5,
            "tiers": [
                {
                    "tier": tier,
                    "clients": clients,
                    "tasks": len(self.tasks) // 3,
                    "succeeded": round(succeeded * share),
                    "metric": metric + 0.003 * self.trial,
                }
                for tier, clients, share, metric in tiers
            ],
        }


def renamed(run: RunData, run_id: str, name: str) -> RunData:
    """The same run under another id and name."""
    return dataclasses.replace(run, run_id=run_id, name=name)
