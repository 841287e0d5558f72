"""Versions: numbered without gaps, stored with their outcomes or not at all, found by reference."""

import dataclasses
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine, text

from device_runtime.manifest import ArtifactManifest
from device_runtime.update_codec import encode_parameters, parameters_from_blob
from feature_catalog.blobs import BlobStore, MissingBlob
from feature_catalog.jobs import JobQueue, JobTakenOver, require_epoch
from feature_catalog.model_files import UnfitModelFile, UnknownModelFormat, UnwritableModelFile
from feature_catalog.model_store import (
    InvalidModelName,
    ModelStore,
    NewVersion,
    UnknownVersion,
    VersionConflict,
)
from feature_catalog.task_outcomes import TaskOutcomeRow, find_outcome, record_outcomes
from modeling.zoo import get_model

pytestmark = pytest.mark.integration

TINY = get_model("tiny_mlp")


@pytest.fixture
def store(engine: Engine, blobs: BlobStore) -> ModelStore:
    return ModelStore(engine, blobs)


def parameters(seed: int) -> bytes:
    return encode_parameters(TINY.parameters, TINY.initial_parameters(seed))


def outcome(task_id: str, **changes: object) -> TaskOutcomeRow:
    row = TaskOutcomeRow("j-1", task_id, "d-1", 0, "succeeded", "", 0, b"\x01" * 32, 1)
    return dataclasses.replace(row, **changes)  # type: ignore[arg-type]


def test_a_version_comes_back_as_it_was_stored(store: ModelStore) -> None:
    parent = store.add_version(NewVersion("ads", "tiny_mlp", parameters(0)))
    stored = store.add_version(
        NewVersion(
            name="ads",
            model="tiny_mlp",
            parameters=parameters(1),
            parent_id=parent.id,
            job_id="j-1",
            job_version=1,
            metrics={"metric": 0.5, "loss": math.nan},
            strategy_state={"totals": {"updates": 20}},
            optimizer_state=b"slots",
            release_ids=("r-1", "r-2"),
            contract_sha256=b"\x07" * 32,
        )
    )
    found = store.resolve("ads@2")
    assert dataclasses.replace(found, metrics={}) == dataclasses.replace(stored, metrics={})
    assert (found.number, found.parent_id, found.release_ids) == (2, parent.id, ("r-1", "r-2"))
    assert found.metrics["metric"] == 0.5
    assert math.isnan(found.metrics["loss"])
    assert found.strategy_state == {"totals": {"updates": 20}}
    assert store.parameters(found) == parameters(1)
    assert store.optimizer_state(found) == b"slots"
    assert store.optimizer_state(parent) is None


def test_numbers_are_unique_and_without_gaps_under_concurrency(store: ModelStore) -> None:
    def add(name: str) -> None:
        for _ in range(5):
            store.add_version(NewVersion(name, "tiny_mlp", b"same"))

    threads = [threading.Thread(target=add, args=(name,)) for name in ["a", "b"] * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name in ("a", "b"):
        assert [v.number for v in store.list_versions(name)] == list(range(1, 21))


def test_a_repeated_store_of_a_jobs_version_is_the_first_one(store: ModelStore) -> None:
    version = NewVersion("ads", "tiny_mlp", parameters(0), job_id="j-1", job_version=3)
    first = store.add_version(version, [outcome("t-1")])
    assert store.add_version(version, [outcome("t-1")]) == first
    assert len(store.list_versions("ads")) == 1
    with pytest.raises(VersionConflict, match="version 3 of job j-1"):
        store.add_version(dataclasses.replace(version, parameters=parameters(1)))


def test_outcomes_are_stored_with_the_version_or_not_at_all(
    store: ModelStore, engine: Engine
) -> None:
    version = NewVersion("ads", "tiny_mlp", parameters(0), job_id="j-1", job_version=1)
    bad = outcome("t-2", outcome=None)
    with pytest.raises(Exception, match="outcome"):
        store.add_version(version, [outcome("t-1"), dataclasses.replace(bad, reason=None)])
    assert store.newest_of_job("j-1") is None
    assert find_outcome(engine, "t-1") is None
    store.add_version(version, [outcome("t-1")])
    assert find_outcome(engine, "t-1") == outcome("t-1")


def test_a_failed_version_leaves_no_gap_in_the_numbers(store: ModelStore) -> None:
    store.add_version(NewVersion("ads", "tiny_mlp", parameters(0)))
    with pytest.raises(Exception, match="foreign key"):
        store.add_version(NewVersion("ads", "tiny_mlp", parameters(1), parent_id=999))
    assert store.add_version(NewVersion("ads", "tiny_mlp", parameters(1))).number == 2


def test_the_first_outcome_of_a_task_is_kept(engine: Engine, store: ModelStore) -> None:
    record_outcomes(engine, [])
    record_outcomes(engine, [outcome("t-1"), outcome("t-2")])
    store.record_outcomes(
        [
            outcome("t-1", outcome="stale", reason="base_version"),
            outcome("t-3", version_number=None),
        ],
        "j-1",
        epoch=1,
    )
    assert find_outcome(engine, "t-1") == outcome("t-1")
    assert find_outcome(engine, "t-3") == outcome("t-3", version_number=None)
    assert find_outcome(engine, "t-9") is None


def test_a_coordinator_whose_job_another_one_has_claimed_stores_nothing_more(
    engine: Engine, store: ModelStore
) -> None:
    jobs = JobQueue(engine)
    job_id = jobs.submit("{}", "ads", None)
    deposed, leader = jobs.claim(job_id), jobs.claim(job_id)
    version = NewVersion("ads", "tiny_mlp", parameters(0), job_id=job_id, job_version=1)
    with pytest.raises(JobTakenOver, match="FLN-1290"):
        store.add_version(dataclasses.replace(version, job_epoch=deposed), [outcome("t-1")])
    with pytest.raises(JobTakenOver):
        store.record_outcomes([outcome("t-1")], job_id, deposed)
    assert store.newest_of_job(job_id) is None
    assert find_outcome(engine, "t-1") is None
    store.add_version(dataclasses.replace(version, job_epoch=leader), [outcome("t-1")])
    assert find_outcome(engine, "t-1") == outcome("t-1")


def test_a_claim_waits_for_a_version_that_is_just_being_stored(engine: Engine) -> None:
    jobs = JobQueue(engine)
    job_id = jobs.submit("{}", "ads", None)
    epoch = jobs.claim(job_id)
    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as storing:
            require_epoch(storing, job_id, epoch)
            claim = pool.submit(jobs.claim, job_id)
            with pytest.raises(TimeoutError):
                claim.result(timeout=0.5)
        assert claim.result(timeout=10) == epoch + 1


def test_what_ended_is_found_again_with_its_counts(engine: Engine, store: ModelStore) -> None:
    record_outcomes(engine, [outcome("t-1"), outcome("t-2", outcome="failed", reason="nan")])
    record_outcomes(engine, [outcome("t-3")])
    assert store.ended_tasks("j-1", 10) == ("t-2", "t-1", "t-3")
    assert store.ended_tasks("j-1", 1) == ("t-3",)
    assert store.count_outcomes("j-1") == {
        ("succeeded", outcome("t-1").reason): 2,
        ("failed", "nan"): 1,
    }
    assert store.count_outcomes("j-2") == {}


def test_many_outcomes_go_in_at_once(engine: Engine) -> None:
    record_outcomes(engine, [outcome(f"t-{n}") for n in range(2500)])
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM task_outcomes")).scalar_one() == 2500


def test_aliases_name_the_newest_the_best_and_the_promoted(store: ModelStore) -> None:
    for seed, metrics in enumerate([{"metric": 0.3}, {"metric": 0.5}, {"metric": 0.5}, {}]):
        store.add_version(NewVersion("ads", "tiny_mlp", parameters(seed), metrics=metrics))
    assert store.resolve("ads").number == 4
    assert store.resolve("ads@latest").number == 4
    assert store.resolve("ads@best").number == 2
    assert store.promote("ads", 1).number == 1
    assert store.resolve("ads@production").number == 1


def test_metrics_are_added_later_and_decide_the_best(store: ModelStore) -> None:
    first = store.add_version(NewVersion("ads", "tiny_mlp", parameters(0), metrics={"loss": 1.0}))
    store.add_version(NewVersion("ads", "tiny_mlp", parameters(1), metrics={"metric": 0.2}))
    store.record_metrics(first.id, {"metric": 0.9})
    assert store.resolve("ads@1").metrics == {"loss": 1.0, "metric": 0.9}
    assert store.resolve("ads@best").number == 1
    store.record_metrics(first.id, {"metric": math.nan})
    assert store.resolve("ads@best").number == 2
    with pytest.raises(UnknownVersion):
        store.record_metrics(999, {"metric": 1.0})


@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        ("asd@1", r"no model 'asd' in the model store \(did you mean ads\?\); there are ads, irc"),
        ("ads@7", "no version ads@7; it has 1 to 1, and the aliases latest, best, production"),
        ("ads@newest", "no version ads@newest"),
        ("ads@99999999999", "no version ads@99999999999"),
        ("ads@", "no version ads@"),
        ("ads@best", "no version of ads has been evaluated"),
        ("ads@production", "no version of ads is in production"),
    ],
)
def test_a_reference_to_nothing_says_what_there_is(
    store: ModelStore, reference: str, sentence: str
) -> None:
    for name in ("ads", "irc"):
        store.add_version(NewVersion(name, "tiny_mlp", parameters(0)))
    with pytest.raises(UnknownVersion, match=sentence):
        store.resolve(reference)


def test_a_line_of_an_unknown_name_cannot_be_listed(store: ModelStore) -> None:
    assert store.list_versions() == ()
    with pytest.raises(UnknownVersion, match="there are none yet"):
        store.list_versions("ads")


def test_a_name_that_breaks_references_is_refused(store: ModelStore) -> None:
    for name in ("ads@2", "", "my ads", "x" * 64):
        with pytest.raises(InvalidModelName):
            store.add_version(NewVersion(name, "tiny_mlp", b""))


def test_newest_of_job_is_the_highest_of_that_job(store: ModelStore) -> None:
    for job_id, job_version in (("j-1", 0), ("j-2", 0), ("j-1", 1), ("j-2", 5)):
        store.add_version(
            NewVersion("ads", "tiny_mlp", parameters(0), job_id=job_id, job_version=job_version)
        )
    newest = store.newest_of_job("j-1")
    assert newest is not None
    assert (newest.job_version, newest.number) == (1, 3)


def test_releases_of_a_job_are_those_of_its_versions_above_a_number(store: ModelStore) -> None:
    for job_id, number in (("j-1", 0), ("j-1", 1), ("j-2", 2), ("j-1", 2), ("j-1", 3)):
        releases = [f"{job_id}/{number}/a", f"{job_id}/{number}/b"] if number else []
        store.add_version(
            NewVersion(
                "ads",
                "tiny_mlp",
                parameters(0),
                job_id=job_id,
                job_version=number,
                release_ids=releases,
            )
        )
    assert store.releases_of_job("j-1", 1) == ("j-1/2/a", "j-1/2/b", "j-1/3/a", "j-1/3/b")


def manifest(model_bytes: bytes) -> ArtifactManifest:
    from device_runtime.update_codec import sha256_of

    return ArtifactManifest(
        model="tiny_mlp",
        model_sha256=sha256_of(model_bytes).hex(),
        model_bytes=len(model_bytes),
        batch_size=20,
        optimizer="sgd",
        proximal=False,
        parameters=TINY.parameters,
        tensor_names=("a", "b", "c", "d"),
        input=TINY.input,
        label_shape=(1,),
    )


def test_the_newest_artefact_of_its_kind_is_found(store: ModelStore, blobs: BlobStore) -> None:
    assert store.find_artifact("tiny_mlp", 20, "sgd", False) is None
    first = store.register_artifact(b"one", manifest(b"one"))
    second = store.register_artifact(b"two", manifest(b"two"))
    assert store.find_artifact("tiny_mlp", 20, "sgd", False) == second
    assert store.find_artifact("tiny_mlp", 20, "sgd", True) is None
    assert store.register_artifact(b"one", manifest(b"one")) == first
    assert store.find_artifact("tiny_mlp", 20, "sgd", False) == first
    assert blobs.get(first.artifact_sha256) == b"one"
    stored = ArtifactManifest.from_json(blobs.get(first.manifest_sha256).decode())
    assert stored == manifest(b"one")


def test_a_version_whose_blob_is_gone_says_so(store: ModelStore, tmp_path: Path) -> None:
    version = store.add_version(NewVersion("ads", "tiny_mlp", parameters(0)))
    for path in (tmp_path / "blobs").rglob(version.parameters_sha256.hex()):
        path.unlink()
    with pytest.raises(MissingBlob):
        store.parameters(version)


@pytest.mark.parametrize("ending", [".npz", ".pt"])
def test_an_exported_model_imports_as_the_same_parameters(
    store: ModelStore, tmp_path: Path, ending: str
) -> None:
    first = store.add_version(NewVersion("ads", "tiny_mlp", parameters(3)))
    path = tmp_path / f"model{ending}"
    assert store.export_model("ads@latest", path) == first
    imported = store.import_model("central", TINY, path)
    assert (imported.name, imported.number, imported.job_id) == ("central", 1, None)
    assert imported.parameters_sha256 == first.parameters_sha256
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == [path.name]


def test_an_exported_tflite_model_infers_with_the_versions_weights(
    store: ModelStore, tmp_path: Path
) -> None:
    from ai_edge_litert.interpreter import Interpreter

    version = store.add_version(NewVersion("ads", "tiny_mlp", parameters(3)))
    path = tmp_path / "model.tflite"
    store.export_model("ads", path, "tflite")

    x = np.linspace(-1, 1, 40, dtype=np.float32).reshape(1, 40)
    interpreter = Interpreter(str(path))
    logits = interpreter.get_signature_runner("infer")(x=x)
    kernel_1, bias_1, kernel_2, bias_2 = parameters_from_blob(
        TINY.parameters, store.parameters(version)
    )
    expected = np.maximum(x @ kernel_1 + bias_1, 0) @ kernel_2 + bias_2
    assert next(iter(logits.values())) == pytest.approx(expected, abs=1e-5)


def test_a_model_file_that_does_not_fit_is_refused_in_one_sentence(
    store: ModelStore, tmp_path: Path
) -> None:
    named = {p.name: np.zeros(p.shape, np.float32) for p in TINY.parameters}
    other_shape = named | {"hidden/bias": np.zeros(7, np.float32)}
    not_finite = named | {"hidden/bias": np.full(36, np.inf, np.float32)}
    pickled = named | {"hidden/bias": np.array([{}] * 36, object)}
    for number, (arrays, sentence) in enumerate(
        [
            (other_shape, r"hidden/bias \(7,\)"),
            ({"x": np.zeros(1)}, r"holds x \(1,\); tiny_mlp has hidden/kernel \(40, 36\)"),
            (not_finite, "hidden/bias holds values that are not finite"),
            (pickled, "cannot be read as a NumPy archive"),
        ]
    ):
        path = tmp_path / f"{number}.npz"
        np.savez(path, **arrays)
        with pytest.raises(UnfitModelFile, match=sentence) as caught:
            store.import_model("central", TINY, path)
        assert str(path) in str(caught.value)
    (tmp_path / "text.npz").write_text("no archive")
    for name in ("text.npz", "absent.npz"):
        with pytest.raises(UnfitModelFile, match="cannot be read"):
            store.import_model("central", TINY, tmp_path / name)
    assert store.list_versions() == ()


def test_unknown_formats_and_closed_directories_are_refused(
    store: ModelStore, tmp_path: Path
) -> None:
    store.add_version(NewVersion("ads", "tiny_mlp", parameters(0)))
    with pytest.raises(UnknownModelFormat, match=r"'\.h5'"):
        store.export_model("ads", tmp_path / "model.h5")
    with pytest.raises(UnknownModelFormat, match=r"'\.tflite'"):
        store.import_model("ads", TINY, tmp_path / "model.tflite")
    with pytest.raises(UnwritableModelFile, match="cannot be written"):
        store.export_model("ads", tmp_path / "nowhere" / "model.npz")
