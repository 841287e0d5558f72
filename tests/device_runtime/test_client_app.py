"""The Flower ClientApp gives what the device engine gives."""

from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from device_runtime import flower_records as names
from device_runtime.client_app import app
from device_runtime.engine import LiteRtEngine
from device_runtime.examples import SqliteExampleStore
from device_runtime.flower_records import EchoKey, MetricKey, TaskKey
from device_runtime.training import train
from device_runtime.training_plan import TrainingPlan
from tests.device_runtime.conftest import BATCH_SIZE
from tests.device_runtime.records import draw_records

PLAN = TrainingPlan(
    local_epochs=2,
    batch_size=BATCH_SIZE,
    max_records=30,
    learning_rate=0.1,
    proximal_mu=0.0,
    shuffle_seed=2**64 - 1,
)


@pytest.fixture(autouse=True)
def flower_process(monkeypatch):
    """What a SuperNode's own process sets before it calls the app."""
    for field in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, field, 1)


@pytest.fixture
def content(artifacts, spec) -> RecordDict:
    artifact = artifacts(spec.name)
    named = zip(spec.parameters, spec.initial_parameters(seed=1), strict=True)
    return RecordDict(
        {
            names.ARRAYS: ArrayRecord({p.name: Array(array) for p, array in named}),
            names.CONFIG: ConfigRecord(
                {
                    TaskKey.MANIFEST: artifact.manifest.to_json(),
                    TaskKey.ARTIFACT: artifact.model_bytes,
                    TaskKey.BASE_VERSION: 12,
                    TaskKey.CONTRACT_SHA256: b"c" * 32,
                    TaskKey.LOCAL_EPOCHS: PLAN.local_epochs,
                    TaskKey.BATCH_SIZE: PLAN.batch_size,
                    TaskKey.MAX_RECORDS: PLAN.max_records,
                    TaskKey.LEARNING_RATE: PLAN.learning_rate,
                    TaskKey.PROXIMAL_MU: PLAN.proximal_mu,
                    TaskKey.SHUFFLE_SEED: PLAN.shuffle_seed,
                }
            ),
        }
    )


@pytest.fixture
def node_config(tmp_path, spec):
    store = SqliteExampleStore(tmp_path / "node" / "examples.sqlite")
    store.fill(*draw_records(spec, 50))
    return {names.EXAMPLES_NODE_CONFIG: str(tmp_path / "node" / "examples.sqlite")}


def answer(content: RecordDict, node_config) -> Message:
    # Over the wire and back, as a SuperNode would have it.
    content = RecordDict(
        {
            name: type(record).inflate(
                record.deflate(), {child.object_id: child for child in record.children.values()}
            )
            if record.children
            else type(record).inflate(record.deflate())
            for name, record in content.items()
        }
    )
    context = Context(
        run_id=1, node_id=7, node_config=node_config, state=RecordDict(), run_config={}
    )
    message = Message(content, 7, "train")
    message.metadata.__dict__["_message_id"] = "m-1"
    return app(message, context)


def test_a_node_answers_with_the_weights_the_engine_gives(artifacts, spec, content, node_config):
    reply = answer(content, node_config).content
    artifact = artifacts(spec.name)
    expected = train(
        LiteRtEngine(artifact.model_bytes, artifact.manifest),
        PLAN,
        spec.initial_parameters(seed=1),
        *(part[-30:] for part in draw_records(spec, 50)),
    )
    arrays = reply.array_records[names.ARRAYS]
    assert list(arrays) == [p.name for p in spec.parameters]
    for array, wanted in zip(arrays.values(), expected.parameters, strict=True):
        np.testing.assert_array_equal(array.numpy(), wanted)
    metrics = reply.metric_records[names.METRICS]
    assert metrics[MetricKey.NUM_EXAMPLES] == 30
    assert metrics[MetricKey.LOSS_BEFORE] == expected.loss_before
    assert metrics[MetricKey.LOSS_AFTER] == expected.loss_after
    assert metrics[MetricKey.TRAIN_S] > 0
    echo = reply.config_records[names.ECHO]
    assert echo == {EchoKey.BASE_VERSION: 12, EchoKey.CONTRACT_SHA256: b"c" * 32}


def test_the_artefact_is_kept_on_disk_by_its_digest(
    artifacts, spec, content, node_config, tmp_path
):
    answer(content, node_config)
    answer(content, node_config | {names.CACHE_NODE_CONFIG: str(tmp_path / "elsewhere")})
    digest = artifacts(spec.name).manifest.model_sha256
    for folder in (tmp_path / "node" / "cache", tmp_path / "elsewhere"):
        assert [path.name for path in folder.iterdir()] == [digest]


def without(record: str, key: str):
    def change(content, node_config):
        del content[record][key]

    return change


def test_node_without_records(content, node_config, tmp_path):
    reply = answer(content, {names.EXAMPLES_NODE_CONFIG: str(tmp_path / "none.sqlite")})
    assert reply.error.reason.startswith("no_examples: ")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c, n: n.clear(), "invalid_task: this SuperNode does not say"),
        (lambda c, n: c.pop(names.CONFIG), "invalid_task: "),
        (lambda c, n: c.pop(names.ARRAYS), "invalid_task: "),
        (without(names.CONFIG, TaskKey.SHUFFLE_SEED), "invalid_task: "),
        (without(names.CONFIG, EchoKey.CONTRACT_SHA256), "invalid_task: "),
        (lambda c, n: c[names.CONFIG].update(batch_size="20"), "invalid_task: "),
        (lambda c, n: c[names.CONFIG].update(batch_size=7), "invalid_plan: "),
        (lambda c, n: c[names.CONFIG].update(manifest="{}"), "invalid_manifest: "),
        (lambda c, n: c[names.CONFIG].update(artifact=b"x"), "invalid_artifact: "),
        (lambda c, n: c[names.CONFIG].update(learning_rate=1e30), "not_finite: "),
        (without(names.ARRAYS, "logit/bias"), "invalid_parameters: "),
    ],
)
def test_what_cannot_be_done_is_answered_with_the_reason(content, node_config, change, reason):
    change(content, node_config)
    reply = answer(content, node_config)
    assert reply.has_error()
    assert reply.error.reason.startswith(reason)


def test_records_of_another_model_are_answered_with_the_reason(content, node_config):
    SqliteExampleStore(Path(node_config[names.EXAMPLES_NODE_CONFIG])).fill(
        np.zeros((2, 3), np.float32), np.zeros((2, 1), np.float32)
    )
    assert answer(content, node_config).error.reason.startswith("unsuitable_examples: ")
