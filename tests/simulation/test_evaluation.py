"""The torch evaluation against the artefact's, and metrics by group against their definition."""

import numpy as np
import pytest

from device_runtime.engine import LiteRtEngine
from device_runtime.update_codec import flatten
from modeling.metrics import accuracy, auprc
from modeling.tflite import build_artifact
from modeling.zoo import get_model
from server.coordination.evaluation import CentralEvaluation
from simulation.evaluation import TorchEvaluation, metric_by_group
from simulation.executors.records import ClientRecords
from tests.device_runtime.records import draw_records, reference_loss


@pytest.fixture(scope="module", params=["tiny_mlp", "sparse_mlp"])
def spec(request):
    return get_model(request.param)


@pytest.mark.parametrize("metric", ["auprc", "accuracy"])
def test_metric_and_loss_are_those_of_the_artefact(spec, metric):
    """More records than a batch, the last batch short."""
    x, y = draw_records(spec, 5000)
    artifact = build_artifact(spec, batch_size=20)
    engine = LiteRtEngine(artifact.model_bytes, artifact.manifest)
    central = CentralEvaluation(spec, engine, x, y, metric)
    torch_twin = TorchEvaluation(spec, x, y, metric)
    for seed in (1, 2):
        weights = flatten(spec.initial_parameters(seed))
        found, expected = torch_twin(weights), central(weights)
        assert set(found) == {"metric", "loss"}
        assert found["metric"] == pytest.approx(expected["metric"], abs=1e-6)
        assert found["loss"] == pytest.approx(expected["loss"], abs=1e-6)
    assert torch_twin(weights) == found


def test_a_diverged_model_has_neither_metric_nor_loss(spec):
    x, y = draw_records(spec, 50)
    found = TorchEvaluation(spec, x, y, "auprc")(np.full(spec.parameter_count, np.nan, np.float32))
    assert np.isnan(found["metric"])
    assert np.isnan(found["loss"])


@pytest.fixture(scope="module")
def model():
    return get_model("tiny_mlp")


@pytest.fixture(scope="module")
def weights(model):
    return flatten(model.initial_parameters(1))


def of_counts(model, counts) -> ClientRecords:
    counts = np.array(counts)
    x, y = draw_records(model, int(counts.sum()))
    return ClientRecords(x, y, np.cumsum(counts) - counts, counts)


def logits(model, weights, x):
    """One hidden layer, written out in float64."""
    hidden, bias, kernel, logit_bias = np.split(weights.astype(np.float64), [1440, 1476, 1512])
    return np.maximum(x @ hidden.reshape(40, 36) + bias, 0) @ kernel[:, None] + logit_bias


@pytest.mark.parametrize(("metric", "function"), [("auprc", auprc), ("accuracy", accuracy)])
def test_a_groups_metric_is_that_of_all_its_clients_records(model, weights, metric, function):
    records = of_counts(model, [3000, 20, 1500, 40, 7])
    data_client = np.array([4, 0, 2, 1, 3, 0])  # the first client's records are on two devices
    group = ["slow", "fast", "fast", "slow", "slow", "slow"]
    found = metric_by_group(model, weights, records, data_client, group, metric)
    assert list(found) == ["fast", "slow"]
    for name, clients in (("fast", [0, 2]), ("slow", [4, 1, 3, 0])):
        x, y = (np.concatenate(parts) for parts in zip(*map(records.of, clients), strict=True))
        assert found[name] == pytest.approx(function(y, logits(model, weights, x)), abs=1e-6)


def test_a_group_of_one_class_or_no_records_has_no_metric(model, weights):
    records = of_counts(model, [30, 30, 0])
    records.y[:30] = 1
    records.y[30:] = 0
    clients = np.array([0, 1, 2, 0, 1])
    group = ["ones", "zeros", "empty", "both", "both"]
    found = metric_by_group(model, weights, records, clients, group, "auprc")
    assert [name for name, value in found.items() if value is None] == ["empty", "ones", "zeros"]
    assert found["both"] is not None


def test_of_a_large_group_whole_clients_are_drawn_by_seed(model, weights):
    records = of_counts(model, [10] * 300)
    clients, group = np.arange(300), ["all"] * 300

    def measured(seed, max_records=200):
        return metric_by_group(
            model, weights, records, clients, group, "auprc", max_records=max_records, seed=seed
        )["all"]

    assert measured(1) == measured(1)
    assert measured(1) != measured(2)
    assert measured(1, max_records=3000) == measured(2, max_records=3000)
    assert measured(1) == pytest.approx(measured(2), abs=0.2)


def test_the_loss_is_the_mean_over_records(spec):
    x, y = draw_records(spec, 90)
    parameters = spec.initial_parameters(1)
    found = TorchEvaluation(spec, x, y, "auprc")(flatten(parameters))["loss"]
    assert found == pytest.approx(reference_loss(spec, parameters, x, y), rel=1e-6)
