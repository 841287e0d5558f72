"""A submitted job names exactly what it was submitted with."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import Engine

from feature_catalog.blobs import BlobStore
from feature_catalog.datasets import DatasetCatalog, UnknownDataset
from feature_catalog.featurize import FieldRoles
from flint.submission import pin_evaluation
from server.job import Evaluation, Job
from tests.feature_catalog.models import DENSE_MODEL

pytestmark = pytest.mark.integration


def job(dataset: str) -> Job:
    return Job.model_validate(
        {
            "name": "ads",
            "model": "sparse_mlp",
            "client": {
                "local_epochs": 1,
                "batch_size": 20,
                "max_records": 100,
                "optimizer": {"name": "sgd", "learning_rate": 0.1},
            },
            "strategy": {"name": "fedbuff", "buffer_size": 2, "concurrency": 4},
            "evaluation": {"dataset": dataset, "every": 1, "metric": "auprc"},
            "stop": {"max_aggregations": 3},
        }
    )


def evaluation(found: Job) -> Evaluation:
    assert found.evaluation is not None
    return found.evaluation


def test_a_job_stays_with_the_version_of_its_data_set_that_was_newest(
    engine: Engine, blobs: BlobStore, tmp_path: Path
):
    catalog = DatasetCatalog(engine, blobs)
    pinned = []
    for seed in (1, 2):
        random = np.random.default_rng(seed)
        columns = {"user": [f"u{n % 30}" for n in range(90)], "clicked": random.integers(0, 2, 90)}
        path = tmp_path / "clicks.parquet"
        pq.write_table(pa.table({**columns, "a": random.random(90), "b": random.random(90)}), path)
        catalog.add(path, FieldRoles("user", "clicked"), DENSE_MODEL)
        pinned.append(evaluation(pin_evaluation(job("clicks"), catalog)).dataset)
    assert pinned == ["clicks@1", "clicks@2"]
    assert evaluation(pin_evaluation(job("clicks@1"), catalog)).dataset == "clicks@1"
    with pytest.raises(UnknownDataset, match=r"^evaluation.dataset"):
        pin_evaluation(job("clicks@9"), catalog)
