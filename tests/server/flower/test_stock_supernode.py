"""A stock `flower-supernode` with a real example store trains a real model for us."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from device_runtime.attestation import AttestationTrust
from device_runtime.engine import LiteRtEngine
from device_runtime.examples import SqliteExampleStore
from device_runtime.training import train
from device_runtime.training_plan import TrainingPlan
from device_runtime.update_codec import encode_parameters, flatten
from feature_catalog.blobs import BlobStore
from feature_catalog.release_budgets import ReleaseBudgets
from modeling.tflite import ModelArtifact, build_artifact
from modeling.zoo import get_model
from server.coordination.events import TaskCompleted, TaskEnded, TaskStarted
from server.coordination.fleet import OpenJob
from server.coordination.selection import shuffle_seed
from server.coordination.tasks import Grant, Outcome, Release
from server.flower.adapter import FlowerRun, submit_run
from server.flower.grid_fleet import GridFleet
from server.job import Job
from server.operations.ports import choose_ports
from server.operations.settings import ServerSettings
from server.secure_aggregation.attesters.software import SoftwareRoot
from server.secure_aggregation.client import RemoteEnclave
from server.secure_aggregation.configuration import enclave_configuration
from server.secure_aggregation.measurement import measure
from tests.server.flower.conftest import eventually

pytestmark = pytest.mark.integration

SUPERNODE = str(Path(sys.executable).with_name("flower-supernode"))
MODEL = get_model("tiny_mlp")
JOB = Job.model_validate(
    {
        "name": "stock-nodes",
        "model": "tiny_mlp",
        "client": {
            "local_epochs": 2,
            "batch_size": 20,
            "optimizer": {"name": "sgd", "learning_rate": 0.1},
        },
        "strategy": {"name": "fedbuff", "buffer_size": 1, "concurrency": 1},
        "stop": {"max_aggregations": 1},
        "seed": 5,
    }
)


@pytest.fixture(scope="module")
def artifact() -> ModelArtifact:
    return build_artifact(MODEL, batch_size=JOB.client.batch_size)


@pytest.fixture
def records() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.Generator(np.random.Philox(1))
    x = generator.standard_normal((50, 40)).astype(np.float32)
    return x, (x[:, :1] > 0).astype(np.float32)


@pytest.fixture
def supernode(settings: ServerSettings, tmp_path: Path) -> Iterator[Callable[[Path], None]]:
    started: list[subprocess.Popen[bytes]] = []

    def start(examples: Path, **config: object) -> None:
        port = choose_ports({"supernode": ("127.0.0.1", 0)})["supernode"]
        command = [SUPERNODE, "--superlink", settings.superlink_address]
        command += ["--root-certificates", str(settings.ca_certificate)]
        node_config = " ".join(
            f'{key}="{value}"' for key, value in {"examples": examples, **config}.items()
        )
        command += ["--port", str(port), "--node-config", node_config]
        environment = {
            **os.environ,
            "FLWR_HOME": str(tmp_path / f"flower-{len(started)}"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
        }
        with (tmp_path / f"supernode-{len(started)}.log").open("wb") as output:
            started.append(
                subprocess.Popen(
                    command,
                    env=environment,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )

    yield start
    for process in started:
        process.send_signal(signal.SIGINT)  # it then says goodbye to SuperLink
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)
        # The whole group: a SuperNode leaves the processes of its ClientApps behind.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def fleet(settings: ServerSettings, tmp_path: Path, artifact: ModelArtifact) -> Iterator[GridFleet]:
    blobs = BlobStore(f"file://{tmp_path}/blobs")
    run = FlowerRun.acquire(settings, submit_run(settings, JOB.name), JOB.name)
    fleet = GridFleet(run.grid, blobs)
    model_digest = blobs.put(artifact.model_bytes)
    manifest_digest = blobs.put(artifact.manifest.to_json().encode())
    fleet.open(OpenJob("j-1", 1, JOB, MODEL, model_digest, manifest_digest, b"c" * 32))
    base = MODEL.initial_parameters(seed=3)
    fleet.set_model(1, blobs.put(encode_parameters(MODEL.parameters, base)), 0)
    yield fleet
    fleet.close("test over")
    run.finish("completed", "")


def test_a_stock_supernode_trains_exactly_what_a_device_would(
    fleet, supernode, artifact, records, tmp_path
):
    examples = tmp_path / "node" / "examples.sqlite"
    examples.parent.mkdir()
    SqliteExampleStore(examples).fill(*records)
    supernode(examples)
    eventually(lambda: fleet.capacity() == 1, within_s=60)
    fleet.grant(Grant("g", 1, None, 120.0))
    started = fleet.next_event(30.0)
    assert isinstance(started, TaskStarted)
    completed = fleet.next_event(100.0)
    assert isinstance(completed, TaskCompleted), completed
    assert completed.reference.num_examples == 50
    assert completed.reference.loss_after < completed.reference.loss_before

    plan = TrainingPlan(2, 20, 500, 0.1, 0.0, shuffle_seed(JOB.seed, started.task_id))
    engine = LiteRtEngine(artifact.model_bytes, artifact.manifest)
    expected = train(engine, plan, MODEL.initial_parameters(seed=3), *records)
    (partial,) = fleet.release(Release("r")).sums
    assert partial.weight == 1.0
    np.testing.assert_allclose(partial.total, flatten(expected.delta), atol=1e-6)


def test_a_supernode_without_records_says_so(fleet, supernode, tmp_path):
    supernode(tmp_path / "nothing.sqlite")
    eventually(lambda: fleet.capacity() == 1, within_s=60)
    fleet.grant(Grant("g", 1, None, 120.0))
    assert isinstance(fleet.next_event(30.0), TaskStarted)
    ended = fleet.next_event(100.0)
    assert isinstance(ended, TaskEnded)
    assert (ended.outcome, ended.reason) == (Outcome.FAILED, "no_examples")


@pytest.fixture
def enclave(tmp_path: Path, engine) -> Iterator[RemoteEnclave]:
    socket_path, secrets = tmp_path / "enclave.sock", tmp_path / "secrets"
    secrets.mkdir(mode=0o700)
    command = [sys.executable, "-m", "server.secure_aggregation", "--socket", str(socket_path)]
    process = subprocess.Popen([*command, "--secrets", str(secrets)])
    remote = RemoteEnclave(socket_path, ReleaseBudgets(engine), slot=1)
    yield remote
    remote.close()
    process.terminate()
    assert process.wait(10) == 0


def test_stock_supernodes_verify_an_enclave_and_seal_to_it(
    settings, supernode, enclave, artifact, records, tmp_path
):
    """Two nodes, one enclave; a third node that pins another root gives nothing away."""
    measurement = measure(enclave_configuration("software_root", {})).value.hex()
    secure = {"release_threshold": 2, "allowed_measurements": [measurement]}
    job = Job.model_validate(
        JOB.model_dump()
        | {
            "strategy": {"name": "fedbuff", "buffer_size": 2, "concurrency": 3},
            "privacy": {"secure_aggregation": secure},
        }
    )
    root = SoftwareRoot.load_or_create(tmp_path / "secrets" / "software_root.key")
    for name, key in (("right", root.public_key), ("wrong", bytes(range(32)))):
        trust = AttestationTrust({"software_root": {"public_keys": [key.hex()]}})
        (tmp_path / f"{name}.json").write_text(trust.to_json())
    blobs = BlobStore(f"file://{tmp_path}/blobs")
    run = FlowerRun.acquire(settings, submit_run(settings, job.name), job.name)
    fleet = GridFleet(run.grid, blobs, enclave=enclave)
    digests = [blobs.put(artifact.model_bytes), blobs.put(artifact.manifest.to_json().encode())]
    fleet.open(OpenJob("j-secure", 1, job, MODEL, *digests, b"c" * 32))
    base = MODEL.initial_parameters(seed=3)
    fleet.set_model(0, blobs.put(encode_parameters(MODEL.parameters, base)), 0)
    for number, pinned in enumerate(("right", "right", "wrong")):
        examples = tmp_path / f"node-{number}" / "examples.sqlite"
        examples.parent.mkdir()
        SqliteExampleStore(examples).fill(*records)
        supernode(examples, attestation_trust=tmp_path / f"{pinned}.json")
    try:
        eventually(lambda: fleet.capacity() == 3, within_s=60)
        fleet.grant(Grant("g", 3, None, 120.0))
        events = [fleet.next_event(100.0) for _ in range(6)]
        completed = [event for event in events if isinstance(event, TaskCompleted)]
        (ended,) = [event for event in events if isinstance(event, TaskEnded)]
        assert (ended.outcome, ended.reason) == (Outcome.FAILED, "attestation_untrusted_root")
        assert len(completed) == 2
        assert np.isnan(completed[0].reference.loss_after), "that stays inside"
        (partial,) = fleet.release(Release("r")).sums
    finally:
        fleet.close("test over")
        run.finish("completed", "")
    learner = LiteRtEngine(artifact.model_bytes, artifact.manifest)
    expected = np.zeros(MODEL.parameter_count)
    for event in completed:
        seed = shuffle_seed(job.seed, event.reference.task_id)
        plan = TrainingPlan(2, 20, 500, 0.1, 0.0, seed)
        expected += flatten(train(learner, plan, base, *records).delta)
    assert partial.weight == 2.0
    np.testing.assert_allclose(partial.total, expected, atol=1e-6)
