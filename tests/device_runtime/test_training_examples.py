"""Examples made on the device: inferences with LiteRT, joined by what the user then does."""

import numpy as np
import pytest

from device_runtime.columns import Kind
from device_runtime.engine import UnsuitableExamples
from device_runtime.event_store import EventSchema, EventStore
from device_runtime.examples import UnreadableExamples
from device_runtime.feature_database import FeatureDatabase
from device_runtime.feature_policies import Retention
from device_runtime.training import train
from device_runtime.training_examples import (
    ClosedWindows,
    InferenceLog,
    LabelRule,
    TrainingExamples,
    Unlabelled,
    UnsuitableInference,
)
from device_runtime.training_plan import TrainingPlan
from tests.device_runtime.records import draw_records
from tests.device_runtime.set_time import SetTime

WINDOW_S = 600.0


@pytest.fixture
def spec(tiny):
    return tiny


@pytest.fixture
def time():
    return SetTime()


@pytest.fixture
def database(tmp_path, time):
    database = FeatureDatabase(tmp_path / "features.sqlite", read_time=time)
    yield database
    database.close()


@pytest.fixture
def examples(database, spec):
    return TrainingExamples(database, spec.name, Retention(max_age_s=86_400, max_records=50))


@pytest.fixture
def log(examples, spec):
    return InferenceLog(examples, spec.name, LabelRule(WINDOW_S))


@pytest.fixture
def ready(engine, spec):
    engine.restore(spec.initial_parameters(seed=2))
    return engine


def test_a_click_makes_an_example_of_the_features_as_they_were_served(log, examples, ready, spec):
    x, _ = draw_records(spec, 3)
    served = x.copy()
    shown = log.infer(ready, x, ["a", "b", "c"], version=7)
    x[:] = 0
    assert shown.scores.tobytes() == ready.infer(served).tobytes()
    assert shown.logged == log.waiting() == 3
    assert log.observe(shown.inference_id, "b")
    found_x, found_y = examples.load(10)
    assert found_x.tobytes() == served[1:2].tobytes()
    assert (found_x.dtype, found_x.shape) == (served.dtype, (1, *spec.input.shape))
    assert found_y.tolist() == [[1.0]]
    assert found_y.dtype == np.float32


def test_what_nobody_acted_on_becomes_a_negative_once_the_window_has_passed(
    log, examples, ready, spec, time
):
    x, _ = draw_records(spec, 3)
    shown = log.infer(ready, x, ["a", "b", "c"])
    log.observe(shown.inference_id, "a")
    time.pass_s(WINDOW_S)
    assert log.close_windows() == ClosedWindows(0, 0)
    time.pass_s(0.001)
    assert log.close_windows() == ClosedWindows(2, 0)
    found_x, found_y = examples.load(10)
    assert found_y.ravel().tolist() == [1.0, 0.0, 0.0]
    assert found_x.tobytes() == x.tobytes()
    assert log.close_windows() == ClosedWindows(0, 0)
    assert log.waiting() == 0


def test_what_nobody_acted_on_is_dropped_if_the_rule_says_so(examples, ready, spec, time):
    log = InferenceLog(examples, spec.name, LabelRule(WINDOW_S, Unlabelled.DROP))
    log.infer(ready, draw_records(spec, 2)[0], ["a", "b"])
    time.pass_s(WINDOW_S + 1)
    assert log.close_windows() == ClosedWindows(0, 2)
    assert examples.count() == 0


def test_a_candidate_gives_one_example_however_often_it_is_acted_on(
    log, examples, ready, spec, time
):
    shown = log.infer(ready, draw_records(spec, 1)[0], ["a"])
    results = [log.observe(shown.inference_id, "a") for _ in range(3)]
    time.pass_s(WINDOW_S + 1)
    log.close_windows()
    assert results == [True, False, False]
    assert examples.count() == 1


def test_an_event_after_the_window_labels_nothing(log, examples, ready, spec, time):
    shown = log.infer(ready, draw_records(spec, 1)[0], ["a"])
    time.pass_s(WINDOW_S + 1)
    assert not log.observe(shown.inference_id, "a")
    assert examples.load(10)[1].ravel().tolist() == [0.0]


def test_an_event_about_what_was_never_shown_labels_nothing(log, examples, ready, spec):
    shown = log.infer(ready, draw_records(spec, 1)[0], ["a"])
    assert not log.observe(shown.inference_id, "z")
    assert not log.observe("no such inference", "a")
    assert examples.count() == 0


def test_event_and_example_are_one_transaction(log, examples, ready, spec, database):
    events = EventStore(database, EventSchema("click", {"item": Kind.STRING}), Retention())
    shown = log.infer(ready, draw_records(spec, 1)[0], ["a"])

    def record_and_break_off():
        with database.transaction():
            events.append({"item": "a"})
            log.observe(shown.inference_id, "a")
            raise RuntimeError("broken off")

    with pytest.raises(RuntimeError, match="broken off"):
        record_and_break_off()
    assert (events.count(), examples.count(), log.waiting()) == (0, 0, 1)
    with database.transaction():
        events.append({"item": "a"})
        log.observe(shown.inference_id, "a")
    assert (events.count(), examples.count(), log.waiting()) == (1, 1, 0)


def test_retention_owns_the_examples(log, examples, ready, spec, time):
    for _ in range(6):
        x, _ = draw_records(spec, 10)
        log.infer(ready, x, [str(n) for n in range(10)])
    time.pass_s(WINDOW_S + 1)
    log.close_windows()
    assert examples.count() == 50
    time.pass_s(86_400)
    assert examples.count() == 0
    with pytest.raises(UnreadableExamples):
        examples.load(10)


def test_a_model_trains_on_what_the_device_made(log, examples, ready, spec, time):
    x, y = draw_records(spec, 40)
    candidates = [str(n) for n in range(40)]
    shown = log.infer(ready, x, candidates)
    for candidate, label in zip(candidates, y[:, 0], strict=True):
        if label:
            log.observe(shown.inference_id, candidate)
    time.pass_s(WINDOW_S + 1)
    log.close_windows()
    found_x, found_y = examples.load(examples.count())
    assert sorted(found_y.ravel().tolist()) == sorted(y.ravel().tolist())
    plan = TrainingPlan(
        local_epochs=5,
        batch_size=20,
        max_records=100,
        learning_rate=0.1,
        proximal_mu=0.0,
        shuffle_seed=3,
    )
    result = train(ready, plan, spec.initial_parameters(seed=2), found_x, found_y)
    assert result.num_examples == 40
    assert result.loss_after < result.loss_before


def test_a_device_trains_a_leased_task_on_what_it_inferred_and_its_user_did(
    log, examples, ready, spec, time, gateway, start_device, make_task
):
    x, _ = draw_records(spec, 30)
    shown = log.infer(ready, x, [str(n) for n in range(30)])
    for clicked in ("3", "7"):
        log.observe(shown.inference_id, clicked)
    time.pass_s(WINDOW_S + 1)
    log.close_windows()
    gateway.tasks.append(make_task())
    device = start_device(records=0, source=examples)
    device.step_until(lambda: gateway.uploads)
    (update,) = gateway.updates()
    assert update.num_examples == 30
    assert update.loss_after < update.loss_before


def test_a_device_that_made_no_examples_yet_asks_for_no_task(
    examples, gateway, start_device, make_task
):
    gateway.tasks.append(make_task())
    device = start_device(records=0, source=examples)
    device.step_until_idle()
    assert device.counts["no_examples"]
    assert gateway.uploads == []


@pytest.mark.parametrize("candidates", [["a"], ["a", "a"], ["a", "b", "c"]])
def test_candidates_and_features_that_do_not_go_together_are_refused(log, ready, spec, candidates):
    with pytest.raises(UnsuitableInference, match="FLN-2857"):
        log.infer(ready, draw_records(spec, 2)[0], candidates)
    assert log.waiting() == 0


def test_features_the_model_does_not_take_are_refused_and_not_logged(log, ready):
    with pytest.raises(UnsuitableExamples):
        log.infer(ready, np.zeros((1, 3), np.float64), ["a"])
    assert log.waiting() == 0


@pytest.mark.parametrize("window_s", [0, -1, float("nan"), float("inf")])
def test_a_window_that_makes_no_sense_is_refused(window_s):
    with pytest.raises(UnsuitableInference):
        LabelRule(window_s)


def test_examples_of_an_older_form_are_left_out(database, time):
    examples = TrainingExamples(database, "m", Retention())
    examples.append(np.zeros(3, np.float32), np.ones(1, np.float32))
    for value in (1.0, 2.0):
        examples.append(np.full(4, value, np.float32), np.ones(1, np.float32))
    assert examples.load(10)[0].tolist() == [[1.0] * 4, [2.0] * 4]
