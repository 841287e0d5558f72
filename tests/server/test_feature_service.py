"""A job's feature service is pinned to a contract, which is part of what devices echo."""

import pytest
from sqlalchemy import Engine

from device_runtime.feature_inputs import UnsuitableFeatures
from feature_catalog.feature_registry import FeatureRegistry
from feature_catalog.model_store import ArtifactRow
from modeling.zoo import get_model
from server.coordination.service import contract_sha256
from server.feature_service import (
    UnknownFeatureService,
    pin_feature_service,
    require_fitting_features,
)
from server.job import Job
from server.job_file import InvalidJobValue, parse_job
from tests.feature_catalog.definitions.examples import parsed, with_change

TEXT = """
name: j
model: tiny_mlp
client: {optimizer: {learning_rate: 0.1}}
strategy: {name: fedbuff, buffer_size: 2, concurrency: 4}
stop: {max_updates: 10}
"""


def with_service(service: str) -> Job:
    return parse_job(f"{TEXT}feature_service: {service}\n")


def test_a_job_without_a_service_reads_as_it_always_did():
    job = parse_job(TEXT)
    assert "feature_service" not in job.to_json()
    assert job.feature_contract_sha256 is None
    named = with_service("ads_ctr_v1")
    assert Job.model_validate_json(named.to_json()) == named


@pytest.mark.parametrize("service", ["Ads", "ads@", "ads@3", "a b", f"ads@{'0' * 63}", "[ads]"])
def test_what_is_no_service_s_name_is_refused_with_the_form(service):
    with pytest.raises(InvalidJobValue, match=r"feature_service = .*ads_ctr_v1"):
        with_service(service)


def test_the_contract_is_part_of_what_devices_echo():
    model = get_model("tiny_mlp")
    artifact = ArtifactRow(b"a" * 32, b"m" * 32, "tiny_mlp", 20, "sgd", False)
    without = contract_sha256(model, artifact, None)
    first = contract_sha256(model, artifact, b"1" * 32)
    assert len({without, first, contract_sha256(model, artifact, b"2" * 32)}) == 3


@pytest.mark.integration
def test_a_name_is_pinned_to_the_newest_contract_and_stays(engine: Engine):
    registry = FeatureRegistry(engine)
    with pytest.raises(UnknownFeatureService, match=r"^feature_service: .*there are none yet"):
        pin_feature_service(with_service("ads_ctr_v1"), registry)
    registry.apply(parsed())
    (stored,) = registry.contracts("ads_ctr_v1")
    pinned = pin_feature_service(with_service("ads_ctr_v1"), registry)
    assert pinned.feature_service == f"ads_ctr_v1@{stored.contract.sha256}"
    assert pinned.feature_contract_sha256 == bytes.fromhex(stored.contract.sha256)

    registry.apply(parsed(with_change("ttl: 2d", "ttl: 3d")))
    assert pin_feature_service(pinned, registry) == pinned
    newer = pin_feature_service(with_service("ads_ctr_v1"), registry)
    assert newer.feature_contract_sha256 != pinned.feature_contract_sha256
    with pytest.raises(UnknownFeatureService, match=r"ads_ctr_v1 never had the contract 0000"):
        pin_feature_service(with_service(f"ads_ctr_v1@{'0' * 64}"), registry)


@pytest.mark.integration
def test_a_model_that_cannot_read_the_features_is_refused_at_submit(engine: Engine):
    registry = FeatureRegistry(engine)
    registry.apply(parsed())
    job = pin_feature_service(with_service("ads_ctr_v1"), registry)
    with pytest.raises(UnsuitableFeatures, match=r"^feature_service: the feature \w+ "):
        require_fitting_features(job, get_model(job.model), registry)
