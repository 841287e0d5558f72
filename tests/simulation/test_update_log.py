"""What a run records of single updates, and of those that left the numbers."""

import datetime as dt
from dataclasses import fields, replace

import numpy as np
import pytest

from device_runtime.training_plan import epoch_order
from feature_catalog.simulation_runs import NewSimulationRun, SimulationRunRow
from server.coordination.selection import shuffle_seed
from simulation.checkpoint import UnusableCheckpoint, decode_checkpoint, encode_checkpoint
from simulation.executors import TrainingTask
from simulation.executors.local import LocalExecutor
from simulation.executors.training import LocalPlan
from simulation.experiment import require_same
from simulation.run_summary import summarise
from simulation.timeline.training import TimelineTrial
from simulation.trajectory import events_sha256
from simulation.trial import Trial
from simulation.update_log import OUTPUT_COLUMNS, diverged_sentence, outputs_of
from tests.simulation.small_worlds import MODEL, make_dry_run, records_of, rows, training
from tests.simulation.test_trial import (
    BOTH,
    FEDBUFF_JOB,
    MIXED_PHONES,
    WORLD,
    assert_same,
    with_norm_limit,
)

EVERYTHING = ("losses", "norms")
PATHS = pytest.mark.parametrize("kind", [Trial, TimelineTrial])


def dry_run_asking(asked, job=FEDBUFF_JOB):
    """The usual small world, with these outputs asked for."""
    dry_run = make_dry_run(MIXED_PHONES, job, **WORLD)
    environment = dry_run.environment.model_copy(update={"client_outputs": tuple(asked)})
    return replace(dry_run, environment=environment)


def executor_of(dry_run, records=None):
    plan = LocalPlan.of(dry_run.job.client, outputs_of(dry_run.environment.client_outputs))
    return LocalExecutor(MODEL, plan, records or records_of(MIXED_PHONES))


# -- outputs -----------------------------------------------------------------------------------


@PATHS
@BOTH
def test_outputs_are_those_of_each_task_trained_by_itself(job, kind):
    dry_run = dry_run_asking(EVERYTHING, job)
    result = kind(dry_run, 0, executor_of(dry_run), None).run()
    first = [task for task in result.tasks.to_pylist() if task["version"] == 1]
    assert first
    alone = executor_of(dry_run)
    alone.set_weights(0, dry_run.initial_weights)
    for task in first:
        number = f"t{task['task']}"
        (wanted,) = alone.train(
            [TrainingTask(number, task["client"], 0, 1.0, 0.1, shuffle_seed(7, number))]
        )
        assert {name: task[name] for name in OUTPUT_COLUMNS} == pytest.approx(
            {name: getattr(wanted, name) for name in OUTPUT_COLUMNS}, rel=1e-6
        )
    for task in result.tasks.to_pylist():
        assert (task["update_norm"] is not None) >= (task["outcome"] == "succeeded")


@PATHS
@pytest.mark.parametrize(
    ("asked", "columns"),
    [
        ([], ()),
        (["train_loss"], ("train_loss",)),
        (["losses"], ("train_loss", "loss_before", "loss_after")),
        (["norms"], ("update_norm",)),
    ],
)
def test_only_what_was_asked_for_is_recorded_and_nothing_else_changes(kind, asked, columns):
    plain = kind(dry_run_asking([]), 0, executor_of(dry_run_asking([])), None).run()
    dry_run = dry_run_asking(asked)
    result = kind(dry_run, 0, executor_of(dry_run), None).run()
    assert result.tasks.column_names == [*plain.tasks.column_names, *columns]
    assert_same(replace(result, tasks=result.tasks.select(plain.tasks.column_names)), plain)
    assert events_sha256(result.trajectory, result.tasks) == events_sha256(
        plain.trajectory, plain.tasks
    )


@PATHS
def test_a_run_taken_up_again_still_has_the_outputs_of_what_went_before(kind):
    dry_run = dry_run_asking(EVERYTHING)
    kept = []
    trial = kind(dry_run, 0, executor_of(dry_run), None)
    whole = trial.run(lambda state: kept.append(encode_checkpoint("r", state)), 3)
    state = decode_checkpoint("r", kept[1])
    assert kind(dry_run, 0, executor_of(dry_run), None, state=state).run().tasks.equals(whole.tasks)


def test_the_norm_of_an_update_that_the_gate_refused_is_there_to_be_seen():
    limit = 0.05
    dry_run = dry_run_asking(["norms"], with_norm_limit(FEDBUFF_JOB, limit))
    tasks = Trial(dry_run, 0, executor_of(dry_run), None).run().tasks
    judged = [task for task in rows(tasks, "reason", "update_norm") if task[1] is not None]
    assert {reason for reason, _ in judged} >= {"norm_exceeded"}
    for reason, norm in judged:
        assert (norm > limit) == (reason == "norm_exceeded")


# -- updates that diverge ----------------------------------------------------------------------


@PATHS
@BOTH
def test_an_update_that_left_the_numbers_is_told_with_its_client_and_step(job, kind):
    client, spoilt = 7, 19  # one of its 26 records
    job = job.model_copy(update={"client": job.client.model_copy(update={"batch_size": 4})})
    records = records_of(MIXED_PHONES)
    records.x[records.first_row[client] + spoilt] = np.inf
    dry_run = make_dry_run(MIXED_PHONES, job, **WORLD)
    result = kind(dry_run, 0, executor_of(dry_run, records), None).run()
    told = summarise(dry_run.population, result, None)
    failed = [task for task in result.tasks.to_pylist() if task["reason"] == "not_finite"]
    assert {task["client"] for task in failed} == {client}
    assert [(each.task, each.base_version) for each in result.diverged] == [
        (task["task"], task["base_version"]) for task in failed
    ]
    for each in result.diverged:
        seed = shuffle_seed(7, f"t{each.task}")
        order = epoch_order(MIXED_PHONES[client].records, seed, 0).tolist()
        assert each.step == order.index(spoilt) // 4 + 1
    assert told["diverged"]["updates"] == told["outcomes"]["failed"] == len(failed)
    first = result.diverged[0]
    said = diverged_sentence(told)
    assert said.startswith(
        f"the training of client {client} (task {first.task}, from version {first.base_version}) "
        f"left the numbers in step {first.step}"
    )
    assert "client.optimizer.learning_rate" in said


def test_a_run_of_finite_updates_says_nothing():
    dry_run = make_dry_run(MIXED_PHONES, FEDBUFF_JOB, **WORLD)
    result = TimelineTrial(dry_run, 0, training(dry_run, MIXED_PHONES), None).run()
    told = summarise(dry_run.population, result, None)
    assert told["diverged"] == {"updates": 0, "clients": 0, "first": []}
    assert diverged_sentence(told) is None
    assert diverged_sentence({}) is None  # a run from before this was noted


# -- runs from before there were these keys ----------------------------------------------------


def recorded(environment_json):
    return NewSimulationRun(
        name="test",
        kind="job",
        job_json=FEDBUFF_JOB.to_json(),
        environment_json=environment_json,
        inputs={},
        seed=7,
        trials=1,
        executors=1,
        code_version="0",
        versions={},
    )


def row_of(run):
    given = {field.name: getattr(run, field.name) for field in fields(run)}
    return SimulationRunRow(
        run_id="s-0123456789ab",
        status="running",
        summary={},
        files={},
        checkpoint_sha256=None,
        detail="",
        created_at=dt.datetime(2026, 3, 1, tzinfo=dt.UTC),
        finished_at=None,
        **given,
    )


def test_a_run_recorded_before_a_key_came_into_being_is_taken_up_if_it_has_its_default():
    environment = make_dry_run(MIXED_PHONES, FEDBUFF_JOB, **WORLD).environment
    earlier = environment.model_dump_json(exclude={"training", "client_outputs"})
    require_same(row_of(recorded(earlier)), recorded(environment.to_json()))
    asking = environment.model_copy(update={"client_outputs": ("norms",)})
    with pytest.raises(UnusableCheckpoint, match="client_outputs"):
        require_same(row_of(recorded(earlier)), recorded(asking.to_json()))
