"""Training on LiteRT against a float64 model written out by hand, and in slices."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_runtime.engine import InvalidArtifact, LiteRtEngine, UnsuitableExamples
from device_runtime.manifest import ArtifactManifest, InvalidManifest
from device_runtime.training import TrainingSession, peak_memory_bytes, train
from device_runtime.training_plan import TrainingPlan, UnsuitablePlan, epoch_order
from tests.device_runtime.conftest import BATCH_SIZE
from tests.device_runtime.records import draw_records, reference_loss, reference_steps

PLAN = TrainingPlan(
    local_epochs=3,
    batch_size=BATCH_SIZE,
    max_records=500,
    learning_rate=0.1,
    proximal_mu=0.0,
    shuffle_seed=2**64 - 5,
)


def batches_of(x, y, plan):
    """The batches the documentation promises, in order."""
    for epoch in range(plan.local_epochs):
        order = epoch_order(len(x), plan.shuffle_seed, epoch)
        for start in range(0, len(x), plan.batch_size):
            chosen = order[start : start + plan.batch_size]
            yield x[chosen], y[chosen]


@pytest.mark.parametrize("records", [7, 40, 53])
def test_a_task_equals_the_float64_reference(engine, spec, records):
    x, y = draw_records(spec, records)
    base = spec.initial_parameters(seed=1)
    result = train(engine, PLAN, base, x, y)

    expected, _ = reference_steps(spec, base, list(batches_of(x, y, PLAN)), PLAN.learning_rate)
    for found, wanted in zip(result.parameters, expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    for delta, local, old in zip(result.delta, result.parameters, base, strict=True):
        np.testing.assert_array_equal(delta, local - old)
    assert result.loss_before == pytest.approx(reference_loss(spec, base, x, y), rel=1e-5)
    assert result.loss_after == pytest.approx(reference_loss(spec, expected, x, y), rel=1e-4)
    assert result.num_examples == records


def test_training_lowers_the_loss(engine, spec):
    result = train(
        engine,
        replace(PLAN, local_epochs=30),
        spec.initial_parameters(seed=1),
        *draw_records(spec, 200),
    )
    assert result.loss_after < 0.7 * result.loss_before


def test_the_base_parameters_are_left_alone(engine, spec):
    base = spec.initial_parameters(seed=1)
    copies = [array.copy() for array in base]
    train(engine, PLAN, base, *draw_records(spec, 30))
    for array, copy in zip(base, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_slices_give_the_same_bits_as_one_go(engine, spec):
    x, y = draw_records(spec, 53)
    base = spec.initial_parameters(seed=1)
    whole = train(engine, PLAN, base, x, y)
    session = TrainingSession(engine, PLAN, base, x, y)
    slices = 1
    while not session.run(budget_s=0):
        slices += 1
    assert slices >= 15
    assert_same(session.result(), whole)


@pytest.mark.parametrize("proximal_mu", [0.0, 0.5])
def test_identities_that_take_turns_on_one_engine_do_not_disturb_each_other(
    artifacts, spec, proximal_mu
):
    artifact = artifacts(spec.name, proximal=proximal_mu > 0)
    engine = LiteRtEngine(artifact.model_bytes, artifact.manifest)
    plans = [replace(PLAN, proximal_mu=proximal_mu, shuffle_seed=seed) for seed in range(3)]
    bases = [spec.initial_parameters(seed) for seed in range(3)]
    records = [draw_records(spec, 25 + 13 * seed, seed) for seed in range(3)]
    alone = [
        train(engine, plan, base, *xy) for plan, base, xy in zip(plans, bases, records, strict=True)
    ]
    sessions = [
        TrainingSession(engine, plan, base, *xy)
        for plan, base, xy in zip(plans, bases, records, strict=True)
    ]
    waiting = list(sessions)
    while waiting:
        waiting = [session for session in waiting if not session.run(budget_s=0)]
    for session, expected in zip(sessions, alone, strict=True):
        assert_same(session.result(), expected)


def test_a_proximal_term_keeps_the_local_model_nearer_to_the_base(artifacts, spec):
    artifact = artifacts(spec.name, proximal=True)
    engine = LiteRtEngine(artifact.model_bytes, artifact.manifest)
    base, records = spec.initial_parameters(seed=1), draw_records(spec, 60)
    free = train(engine, PLAN, base, *records)
    held = train(engine, replace(PLAN, proximal_mu=2.0), base, *records)
    assert norm(held.delta) < 0.9 * norm(free.delta)


def test_what_another_identity_left_in_the_batch_does_not_leak(engine, spec):
    base, records = spec.initial_parameters(seed=1), draw_records(spec, 7)
    expected = train(engine, PLAN, base, *records)
    x, y = draw_records(spec, BATCH_SIZE, seed=9)
    if x.dtype == np.float32:
        x[:] = np.nan
    train(engine, PLAN, base, x, np.full_like(y, np.nan))
    assert_same(train(engine, PLAN, base, *records), expected)


def test_inference_takes_any_number_of_records(engine, spec):
    x, y = draw_records(spec, 53)
    engine.restore(spec.initial_parameters(seed=1))
    logits = engine.infer(x)
    assert logits.shape == (53, 1)
    np.testing.assert_allclose(engine.infer(x[50:]), logits[50:], atol=1e-6)
    mean = engine.total_loss(x, y) / 53
    assert mean == pytest.approx(
        reference_loss(spec, spec.initial_parameters(seed=1), x, y), rel=1e-5
    )
    assert engine.infer(x[:0]).shape == (0, 1)


def test_parameters_come_back_to_the_bit(engine, spec):
    base = spec.initial_parameters(seed=4)
    engine.restore(base)
    for found, wanted in zip(engine.parameters(), base, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_a_model_file_is_loaded_from_its_path_too(artifacts, spec, tmp_path):
    artifact = artifacts(spec.name)
    path = tmp_path / "model.tflite"
    path.write_bytes(artifact.model_bytes)
    base, records = spec.initial_parameters(seed=1), draw_records(spec, 30)
    mapped = train(LiteRtEngine(path, artifact.manifest), PLAN, base, *records)
    assert_same(
        mapped, train(LiteRtEngine(artifact.model_bytes, artifact.manifest), PLAN, base, *records)
    )


@given(st.integers(0, 200), st.integers(0, 2**64 - 1), st.integers(0, 1000))
def test_an_epochs_order_is_a_permutation_known_without_the_epochs_before(count, seed, epoch):
    order = epoch_order(count, seed, epoch)
    assert sorted(order) == list(range(count))
    np.testing.assert_array_equal(order, epoch_order(count, seed, epoch))


def test_the_order_is_the_same_on_every_machine():
    assert epoch_order(8, 7, 0).tolist() == [7, 1, 3, 2, 6, 5, 0, 4]
    assert epoch_order(8, 7, 1).tolist() == [1, 7, 4, 0, 3, 2, 6, 5]


def test_cost_is_measured(engine, spec):
    result = train(engine, PLAN, spec.initial_parameters(seed=1), *draw_records(spec, 100))
    assert 0 < result.cpu_s <= 1.5 * result.train_s + 0.01
    assert 20e6 < result.peak_memory_bytes <= peak_memory_bytes()


def test_a_result_is_not_there_before_the_end(engine, spec):
    session = TrainingSession(
        engine, PLAN, spec.initial_parameters(seed=1), *draw_records(spec, 100)
    )
    session.run(budget_s=0)
    with pytest.raises(RuntimeError):
        session.result()


def test_divergence_shows(engine, spec):
    plan = replace(PLAN, learning_rate=1e30)
    result = train(engine, plan, spec.initial_parameters(seed=1), *draw_records(spec, 100))
    assert not result.is_finite


def test_records_of_another_form_are_refused(engine, spec):
    x, y = draw_records(spec, 5)
    base = spec.initial_parameters(seed=1)
    for wrong_x, wrong_y in (
        (x.astype(np.float64), y),
        (x[:, :-1], y),
        (x, y[:, 0]),
        (x, y[:-1]),
    ):
        with pytest.raises(UnsuitableExamples, match="FLN-1403"):
            TrainingSession(engine, PLAN, base, wrong_x, wrong_y)


def test_a_model_file_and_the_manifest_of_another_are_refused(artifacts):
    tiny, sparse = artifacts("tiny_mlp"), artifacts("sparse_mlp")
    with pytest.raises(InvalidArtifact, match="FLN-1402"):
        LiteRtEngine(tiny.model_bytes, sparse.manifest)
    renamed = replace(sparse.manifest, model_sha256=tiny.manifest.model_sha256, model="sparse_mlp")
    with pytest.raises(InvalidArtifact, match="has no tensors"):
        LiteRtEngine(tiny.model_bytes, renamed)


def test_bytes_that_are_no_model_are_refused(artifacts):
    import hashlib

    junk = b"not a flatbuffer" * 100
    manifest = replace(
        artifacts("tiny_mlp").manifest, model_sha256=hashlib.sha256(junk).hexdigest()
    )
    with pytest.raises(InvalidArtifact, match="LiteRT cannot load"):
        LiteRtEngine(junk, manifest)


def test_a_plan_for_another_artefact_is_refused(artifacts):
    manifest = artifacts("tiny_mlp").manifest
    PLAN.check(manifest)
    for wrong in (replace(PLAN, batch_size=7), replace(PLAN, proximal_mu=0.1)):
        with pytest.raises(UnsuitablePlan, match="FLN-1412"):
            wrong.check(manifest)


def test_a_manifest_comes_back_from_its_json(artifacts):
    manifest = artifacts("sparse_mlp", proximal=True).manifest
    assert ArtifactManifest.from_json(manifest.to_json()) == manifest


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"model": 1}', "{" * 500])
def test_what_is_no_manifest_is_refused(text):
    with pytest.raises(InvalidManifest, match="FLN-1401"):
        ArtifactManifest.from_json(text)


def assert_same(found, wanted):
    for a, b in zip(found.parameters, wanted.parameters, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (found.loss_before, found.loss_after) == (wanted.loss_before, wanted.loss_after)


def norm(arrays) -> float:
    return float(np.sqrt(sum(np.sum(np.square(a, dtype=np.float64)) for a in arrays)))
