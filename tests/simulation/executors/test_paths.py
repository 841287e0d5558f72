"""Which way clients are trained: said, and the same for every executor."""

from dataclasses import replace

import numpy as np
import pytest

from device_runtime.compression import UpdateCodec
from modeling.spec import Embedding
from modeling.zoo import EMBEDDING_MLP, MULTITASK_MLP, SPARSE_MLP, TEXT_CNN, TINY_MLP
from simulation.executors.local import LocalExecutor
from simulation.executors.paths import LANES, TrainingPath, choose_path
from simulation.executors.records import ClientRecords
from simulation.executors.training import LocalPlan
from tests.simulation.executors.compiled.conftest import WIDE, records_of
from tests.simulation.executors.conftest import make_tasks

PLAN = LocalPlan(1, 20, 500)


def zeros(spec, counts) -> ClientRecords:
    counts = np.array(counts)
    dtype = np.float32 if spec.ids is None else np.int32
    x = np.zeros((int(counts.sum()), *spec.input.shape), dtype)
    y = np.zeros((int(counts.sum()), *spec.label_shape), np.float32)
    return ClientRecords(x, y, np.cumsum(counts) - counts, counts)


@pytest.mark.parametrize("spec", [TINY_MLP, SPARSE_MLP, EMBEDDING_MLP], ids=lambda spec: spec.name)
def test_small_models_and_tables_have_weights_of_their_own(spec):
    path = choose_path(spec, PLAN, zeros(spec, [5, 400]))
    assert path.name == "compiled"
    assert not path.in_samples.any()


def test_of_a_large_model_clients_of_few_steps_are_trained_in_sample_space():
    path = choose_path(MULTITASK_MLP, PLAN, zeros(MULTITASK_MLP, [1, 20, 500, 5]))
    assert path.in_samples.tolist() == [True, True, False, True]
    assert "75% of its clients" in path.sentence
    compressed = replace(PLAN, codec=UpdateCodec("float16"))
    assert not choose_path(MULTITASK_MLP, compressed, zeros(MULTITASK_MLP, [1])).in_samples.any()


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        (TEXT_CNN, "in text_cnn words is a frozen table"),
        (
            replace(TEXT_CNN, layers=(Embedding("words", 9, 100, slots=40), *TEXT_CNN.layers[1:])),
            "in text_cnn convolution is a text convolution",
        ),
    ],
)
def test_what_has_no_compiled_steps_goes_layer_by_layer_and_says_why(spec, why):
    path = choose_path(spec, PLAN, zeros(spec, [3]))
    assert path.name == "layers"
    assert why in path.sentence


def test_records_that_the_kernel_cannot_read_go_layer_by_layer():
    records = zeros(TINY_MLP, [3])
    doubles = replace(records, x=records.x.astype(np.float64))
    assert "x is float64(40,) a record" in choose_path(TINY_MLP, PLAN, doubles).sentence


def test_each_lane_of_clients_has_one_executor():
    path = choose_path(MULTITASK_MLP, PLAN, zeros(MULTITASK_MLP, [4] * 40))
    home = path.executor_of(3)
    assert set(home) == {0, 1, 2}
    np.testing.assert_array_equal(home[:8], home[8:16])


def test_rows_and_ids_that_are_not_there_are_refused():
    records = records_of(WIDE)
    too_many = records.records + np.array([0, 0, 0, 0, 854, 0])
    with pytest.raises(ValueError, match="data client 4 has rows up to 999"):
        LocalExecutor(WIDE, PLAN, replace(records, records=too_many))
    sparse = zeros(SPARSE_MLP, [7, 20, 53, 1, 64, 33])
    sparse.x[30] = SPARSE_MLP.ids
    executor = LocalExecutor(SPARSE_MLP, PLAN, sparse)
    executor.set_weights(1, np.zeros(SPARSE_MLP.parameter_count, np.float32))
    with pytest.raises(
        ValueError, match="data client 2: a record has an id beyond the 1024 of the table"
    ):
        executor.reduce(make_tasks(6, base_version=1))


def test_more_executors_than_share_sample_space_are_told():
    path = TrainingPath("compiled", "of a test", np.array([True, True, True, False]))
    assert path.idle_sentence(LANES) is None
    assert path.idle_sentence(LANES + 4) == (
        f"75% of the clients are trained in sample space, which {LANES} executors at most share; "
        "the other 4 have only the rest"
    )
    nobody = TrainingPath("compiled", "of a test", np.zeros(4, np.bool_))
    assert nobody.idle_sentence(100) is None
