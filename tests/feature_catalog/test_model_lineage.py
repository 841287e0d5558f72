"""From a model version back to all it came from; what is not known is said, never guessed."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import Engine, delete, update

from feature_catalog.blobs import BlobStore
from feature_catalog.code_version import code_version
from feature_catalog.datasets import DatasetCatalog
from feature_catalog.feature_registry import FeatureRegistry
from feature_catalog.featurize import FieldRoles
from feature_catalog.jobs import JobQueue
from feature_catalog.lineage import LineageGraph
from feature_catalog.model_lineage import MAX_GENERATIONS, lineage_of_version
from feature_catalog.model_store import ModelStore, ModelVersion, NewVersion
from feature_catalog.schema import DatasetRecord, JobRecord
from feature_catalog.task_outcomes import TaskOutcomeRow
from tests.feature_catalog.definitions.examples import parsed, with_change
from tests.feature_catalog.models import DENSE_MODEL

pytestmark = pytest.mark.integration


@dataclass
class Deployed:
    """What a deployment's processes do to the catalog, without the processes."""

    engine: Engine
    blobs: BlobStore

    @property
    def models(self) -> ModelStore:
        return ModelStore(self.engine, self.blobs)

    @property
    def contract(self) -> str:
        return FeatureRegistry(self.engine).state().contracts["ads_ctr_v1"]

    def train(
        self,
        name: str,
        versions: int,
        *,
        dataset: str | None = None,
        contract: str | None = None,
        parent: ModelVersion | None = None,
    ) -> ModelVersion:
        """A job from its submission to its end; returns its last version."""
        job = {"name": name, "model": "tiny", "seed": 7}
        job |= {} if dataset is None else {"evaluation": {"dataset": dataset}}
        queue = JobQueue(self.engine)
        job_id = queue.submit(json.dumps(job), name, 2**64 - 1)
        epoch, parent_id = queue.claim(job_id), None if parent is None else parent.id
        for number in range(versions + 1):
            outcome = TaskOutcomeRow(
                job_id, f"{job_id}-{number}", f"d-{number % 2}", 0, "succeeded", "", 0, b"", number
            )
            stored = self.models.add_version(
                NewVersion(
                    name,
                    "tiny",
                    f"{job_id} {number}".encode(),
                    parent_id=parent_id,
                    job_id=job_id,
                    job_version=number,
                    job_epoch=epoch,
                    feature_contract_sha256=None if contract is None else bytes.fromhex(contract),
                ),
                [outcome] if number else [],
            )
            parent_id = stored.id
        queue.finish(job_id, "finished", "")
        return stored

    def lineage(self, version: ModelVersion) -> LineageGraph:
        return lineage_of_version(self.engine, version.id)


@pytest.fixture
def deployed(engine: Engine, blobs: BlobStore) -> Deployed:
    FeatureRegistry(engine).apply(parsed(), actor="ann@desk")
    return Deployed(engine, blobs)


@pytest.fixture
def clicks(deployed: Deployed, tmp_path: Path) -> Path:
    random = np.random.default_rng(1)
    path = tmp_path / "clicks.parquet"
    columns = {
        "user": [f"u{n % 30}" for n in range(300)],
        "clicked": random.integers(0, 2, 300),
        "a": random.random(300),
        "b": random.random(300),
    }
    pq.write_table(pa.table(columns), path)
    catalog = DatasetCatalog(deployed.engine, deployed.blobs)
    catalog.add(path, FieldRoles("user", "clicked"), DENSE_MODEL)
    return path


def chain(graph: LineageGraph, *relations: str) -> str:
    """Title of what the relations lead to from the root."""
    key = graph.root
    for relation in relations:
        (key,) = [edge.source for edge in graph.sources(key) if edge.relation == relation]
    return graph.nodes[key].title


def facts(graph: LineageGraph, kind: str) -> list[dict[str, str]]:
    return [dict(node.facts) for node in graph.nodes.values() if node.kind == kind]


def test_a_version_leads_back_to_job_code_data_and_features(deployed: Deployed, clicks: Path):
    contract = deployed.contract
    version = deployed.train("ads", 3, dataset="clicks@1", contract=contract)
    graph = deployed.lineage(version)
    assert chain(graph) == "ads@4"
    assert chain(graph, "made by") == version.job_id
    assert chain(graph, "made by", "run as") == str(2**64 - 1)
    assert chain(graph, "stored by") == f"FLINT {code_version()}"
    assert chain(graph, "made by", "evaluated on") == "clicks@1"
    assert chain(graph, "made by", "evaluated on", "made from") == str(clicks)
    assert chain(graph, "made by", "trained on") == "of 2 devices"
    assert facts(graph, "training records") == [{"updates": "3", "devices": "2"}]
    assert chain(graph, "3 aggregations after") == "ads@1"
    assert chain(graph, "3 aggregations after", "started from") == "of tiny"
    assert chain(graph, "trained under", "freezes") == "ads_ctr_v1, version 1"
    assert facts(graph, "contract")[0]["sha256"] == contract
    defined = {(node.kind, node.title) for node in graph.nodes.values()}
    for view in ("ad_stats", "ad_views", "user_stats"):
        assert ("feature_view", f"{view}, version 1") in defined
    assert ("asset", "ad_categories, version 1") in defined
    assert {("entity", "ad, version 1"), ("entity", "user, version 1")} <= defined
    assert sum(kind == "feature" for kind, _ in defined) == 7
    # The one thing a federated catalog never knows.
    assert [node.kind for node in graph.missing] == ["training records"]


def test_a_data_set_of_joined_features_leads_to_its_own_contract(deployed: Deployed, clicks: Path):
    joined = {"feature_contract_sha256": deployed.contract}
    with deployed.engine.begin() as connection:
        connection.execute(update(DatasetRecord).values(roles=joined))
    graph = deployed.lineage(deployed.train("ads", 1, dataset="clicks@1"))
    contract = chain(graph, "made by", "evaluated on", "joined by")
    assert contract == deployed.contract[:16]
    assert "feature_service:ads_ctr_v1@1" in graph.nodes


def test_an_earlier_version_counts_only_the_updates_behind_it(deployed: Deployed):
    deployed.train("ads", 3)
    graph = deployed.lineage(deployed.models.resolve("ads@2"))
    assert facts(graph, "training records") == [{"updates": "1", "devices": "1"}]
    assert chain(graph, "1 aggregation after") == "ads@1"


def test_a_warm_start_is_followed_through_the_job_before(deployed: Deployed):
    first = deployed.train("ads", 2)
    second = deployed.train("ads", 1, parent=first)
    graph = deployed.lineage(second)
    assert chain(graph, "1 aggregation after", "started from") == "ads@3"
    jobs = [node.title for node in graph.nodes.values() if node.kind == "job"]
    assert jobs == [second.job_id, first.job_id]


def test_features_are_those_of_the_contract_not_of_todays_definitions(deployed: Deployed):
    old = deployed.contract
    version = deployed.train("ads", 1, contract=old)
    registry = FeatureRegistry(deployed.engine)
    registry.apply(parsed(with_change("ttl: 2d", "ttl: 3d")), actor="bob@desk")
    assert deployed.contract != old
    graph = deployed.lineage(version)
    (view,) = [n for n in graph.nodes.values() if n.title.startswith("ad_stats")]
    assert (view.title, view.facts["ttl"]) == ("ad_stats, version 1", "2d")
    newer = deployed.lineage(deployed.train("ads", 1, contract=deployed.contract))
    (view,) = [n for n in newer.nodes.values() if n.title.startswith("ad_stats")]
    assert (view.title, view.facts["ttl"]) == ("ad_stats, version 2", "3d")


def test_of_a_contract_that_came_back_the_members_are_of_the_time_of_the_job(deployed: Deployed):
    registry, contract = FeatureRegistry(deployed.engine), deployed.contract
    version = deployed.train("ads", 1, contract=contract)
    registry.apply(parsed(with_change("ttl: 2d", "ttl: 3d")))
    registry.apply(parsed())
    assert deployed.contract == contract
    assert "feature_view:ad_stats@1" in deployed.lineage(version).nodes
    again = deployed.train("ads", 1, contract=contract)
    assert "feature_view:ad_stats@3" in deployed.lineage(again).nodes


def missing(graph: LineageGraph) -> dict[str, str]:
    return {node.kind: node.missing or "" for node in graph.missing}


def test_what_is_not_known_is_said(deployed: Deployed):
    unpinned = deployed.lineage(deployed.train("ads", 1, dataset="clicks"))
    assert "named no version" in missing(unpinned)["data set"]
    assert "named no feature service" in missing(unpinned)["features"]
    gone = deployed.lineage(deployed.train("ads", 1, dataset="clicks@9", contract="ab" * 32))
    assert missing(gone)["data set"] == "this data set is not in the catalog"
    assert "no contract of this digest" in missing(gone)["contract"]


def test_an_imported_version_says_that_its_training_is_not_known(deployed: Deployed):
    version = deployed.models.add_version(NewVersion("central", "tiny", b"weights"))
    graph = deployed.lineage(version)
    assert list(missing(graph)) == ["training"]
    assert "who trained it" in missing(graph)["training"]


def test_a_version_older_than_the_record_of_code_says_so(deployed: Deployed):
    old = NewVersion("ads", "tiny", b"weights", job_id="j-000000000000", job_version=4)
    graph = deployed.lineage(deployed.models.add_version(old))
    assert "not recorded" in missing(graph)["code"]
    assert missing(graph)["job"] == "the job is not in this catalog"
    assert "first version is not" in missing(graph)["model version"]


def test_a_job_deleted_by_hand_leaves_its_versions_and_a_gap(deployed: Deployed):
    version = deployed.train("ads", 1)
    with deployed.engine.begin() as connection:
        connection.execute(delete(JobRecord))
    graph = deployed.lineage(version)
    assert "the seed is not known" in missing(graph)["initial parameters"]
    assert chain(graph, "stored by").startswith("FLINT ")


def test_a_long_line_of_jobs_is_followed_to_a_limit_that_is_said(deployed: Deployed):
    version = None
    for _ in range(MAX_GENERATIONS + 2):
        version = deployed.train("ads", 0, parent=version)
    graph = deployed.lineage(version)
    assert "goes on" in missing(graph)["model version"]
    assert sum(node.kind == "job" for node in graph.nodes.values()) == MAX_GENERATIONS


def test_code_is_that_of_the_coordinator_that_stored_the_version(deployed: Deployed):
    queue = JobQueue(deployed.engine)
    job_id = queue.submit("{}", "ads", None)
    queue.claim(job_id)
    epoch = queue.claim(job_id)
    stored = deployed.models.add_version(
        NewVersion("ads", "tiny", b"w", job_id=job_id, job_version=0, job_epoch=epoch)
    )
    assert "incarnation 2" in facts(deployed.lineage(stored), "code")[0]["coordinator"]
