"""Simulation runs as people and programs are shown them."""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

from feature_catalog.simulation_runs import SimulationRunRow


def status(row: SimulationRunRow, driven: Collection[str]) -> str:
    """``running``, ``finished``, ``failed``; ``interrupted`` where its process is gone.

    Args:
        driven: Ids of the runs that processes are at work on, `SimulationRuns.driven`.
    """
    is_left = row.status == "running" and row.run_id not in driven
    return "interrupted" if is_left else row.status


def describe(row: SimulationRunRow, driven: Collection[str]) -> dict[str, Any]:
    """Everything known of a run; JSON but for its times.

    Args:
        driven: As in `status`.
    """
    return {
        "run_id": row.run_id,
        "name": row.name,
        "kind": row.kind,
        "status": status(row, driven),
        "detail": row.detail,
        "seed": row.seed,
        "trials": row.trials,
        "executors": row.executors,
        "can_resume": row.checkpoint_sha256 is not None,
        "created_at": row.created_at,
        "finished_at": row.finished_at,
        "code_version": row.code_version,
        "versions": dict(row.versions),
        "inputs": {key: asdict(found) for key, found in row.inputs.items()},
        "files": dict(row.files),
        "job": json.loads(row.job_json),
        "environment": json.loads(row.environment_json),
        "summary": dict(row.summary),
    }


def trials(row: SimulationRunRow) -> tuple[Mapping[str, Any], ...]:
    """Summary of each trial; none before the run has finished."""
    return tuple(row.summary.get("trials", ()))


def paths_taken(row: SimulationRunRow) -> dict[str, str]:
    """Which way events went and updates were trained, and why; empty before a run has finished."""
    told = (row.summary.get(key) for key in ("event_path", "training_path"))
    return dict(sentence.split(": ", 1) for sentence in told if sentence)


def figures(row: SimulationRunRow) -> dict[str, Any]:
    """What came of a finished run, for a program: a single trial's figures, or means over several.

    Means have their standard deviations beside them, under ``stdev``; every trial is listed.
    """
    each = row.summary["trials"]
    found = {name: value for name, value in each[0].items() if name != "trial"}
    if len(each) > 1:
        spread = row.summary["over_trials"]
        counts = {name: [trial["outcomes"][name] for trial in each] for name in found["outcomes"]}
        found = {
            **{name: over["mean"] for name, over in spread.items()},
            "outcomes": {name: sum(n) / len(n) for name, n in counts.items()},
            "stdev": {name: over["stdev"] for name, over in spread.items()},
        }
    metric_name = row.summary["metric_name"]
    return {
        "run_id": row.run_id,
        "name": row.name,
        "metric_name": metric_name,
        **found,
        "trials": each,
    }


def mean_metric(row: SimulationRunRow) -> float | None:
    """Last metric, over the trials that have one; None where none has."""
    found = [float(trial["metric"]) for trial in trials(row) if trial.get("metric") is not None]
    return sum(found) / len(found) if found else None


def input_in_words(found: Mapping[str, Any]) -> str:
    """A run's input on a line: what was named, what that was, and its digest's beginning."""
    named = str(found["reference"])
    version = found["version"]
    exact = named if version is None else f"{named.partition('@')[0]}@{version}"
    return f"{exact} (SHA-256 {str(found['sha256'])[:12]})"
