from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

import pytest

from device_runtime.blob_cache import BlobCache
from device_runtime.device_state import DeviceState
from device_runtime.device_store import DeviceStore
from device_runtime.engine import LiteRtEngine
from device_runtime.examples import SqliteExampleStore
from device_runtime.gateway_client import GatewayClient, open_channel
from device_runtime.leased_task import SharedParts
from device_runtime.loaded_models import LoadedModels
from device_runtime.pacing import Pacing
from device_runtime.protocol import device_pb2 as pb
from device_runtime.request_signer import DeviceDescription
from device_runtime.runner import DeviceRunner
from device_runtime.update_codec import encode_parameters
from modeling.tflite import ModelArtifact, build_artifact
from modeling.zoo import get_model
from tests.device_runtime.records import draw_records
from tests.device_runtime.scripted_gateway import TOKEN, ScriptedGateway

BATCH_SIZE = 20
READY = DeviceState(
    unmetered_network=True,
    battery=0.9,
    charging=True,
    foreground=True,
    local_time=datetime(2026, 5, 1, 3, 0).astimezone(),
)


@pytest.fixture(scope="session", params=["tiny_mlp", "sparse_mlp"])
def spec(request):
    return get_model(request.param)


@pytest.fixture(scope="session")
def tiny():
    return get_model("tiny_mlp")


@pytest.fixture(scope="session")
def artifacts():
    """Builds each artefact once a session."""
    built: dict[tuple[str, bool], ModelArtifact] = {}

    def build(name: str, *, proximal: bool = False) -> ModelArtifact:
        key = (name, proximal)
        if key not in built:
            built[key] = build_artifact(get_model(name), batch_size=BATCH_SIZE, proximal=proximal)
        return built[key]

    return build


@pytest.fixture
def engine(artifacts, spec) -> LiteRtEngine:
    artifact = artifacts(spec.name)
    return LiteRtEngine(artifact.model_bytes, artifact.manifest)


@pytest.fixture
def gateway() -> Iterator[ScriptedGateway]:
    server = ScriptedGateway()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def make_task(gateway, artifacts, tiny):
    """Stores a task's blobs at the gateway and gives the task; ``plan`` changes its plan."""

    def make(task_id: str = "t-1", *, model=tiny, deadline_ms: int = 0, **plan) -> pb.Task:
        artifact = artifacts(model.name)
        base = encode_parameters(model.parameters, model.initial_parameters(seed=1))
        settings = {
            "local_epochs": 2,
            "batch_size": BATCH_SIZE,
            "max_records": 100,
            "learning_rate": 0.1,
            "shuffle_seed": 5,
        }
        return pb.Task(
            task_id=task_id,
            token=f"token of {task_id}".encode(),
            job_id="j-1",
            base_version=3,
            parameters_sha256=gateway.put(base),
            artifact_sha256=gateway.put(artifact.model_bytes),
            manifest_sha256=gateway.put(artifact.manifest.to_json().encode()),
            contract_sha256=b"c" * 32,
            plan=pb.TrainingPlan(**settings | plan),
            deadline_ms=deadline_ms,
        )

    return make


@dataclass
class SetState:
    """A device state reader that a test sets; ``after`` changes it before the n-th reading."""

    state: DeviceState = READY
    after: dict[int, DeviceState] = field(default_factory=dict)
    readings: int = 0

    def read(self) -> DeviceState:
        self.readings += 1
        self.state = self.after.get(self.readings, self.state)
        return self.state


@dataclass
class Device:
    """A device under test and the parts a test looks into."""

    runner: DeviceRunner
    store: DeviceStore
    examples: SqliteExampleStore
    state: SetState
    counts: Counter[str]
    waits: list[float] = field(default_factory=list)

    def step_until(self, condition, limit: int = 200) -> None:
        """Step without waiting; what the runner would have waited is noted."""
        for _ in range(limit):
            if condition():
                return
            self.waits.append(self.runner.step())
        raise AssertionError(f"not reached in {limit} steps; waits {self.waits[-5:]}")

    def step_until_idle(self) -> float:
        """Step until the device would wait, at least once; returns for how long."""
        stepped = len(self.waits)
        self.step_until(lambda: len(self.waits) > stepped and self.waits[-1] > 0)
        return self.waits[-1]


@pytest.fixture
def start_device(gateway, tiny, tmp_path):
    """Makes or reopens the device of a name."""
    channel = open_channel(gateway.address, None)
    stores: list[DeviceStore] = []

    def start(
        name: str = "device",
        *,
        records: int = 50,
        token: str | None = TOKEN,
        source=None,
        runner_type=DeviceRunner,
        trust=None,
        **options,
    ) -> Device:
        counts: Counter[str] = Counter()
        shared = SharedParts(
            GatewayClient(channel),
            BlobCache(tmp_path / "cache", 10 * 2**20),
            LoadedModels(),
            counts,
            trust,
        )
        store = DeviceStore(tmp_path / name)
        store.take()
        stores.append(store)
        examples = SqliteExampleStore(tmp_path / name / "examples.sqlite")
        if records:
            examples.fill(*draw_records(tiny, records))
        state = SetState()
        options.setdefault("pacing", Pacing())
        runner = runner_type(
            store,
            source or examples,
            state,
            shared,
            DeviceDescription("com.example", "Pixel 8", "2024-05", token),
            **options,
        )
        return Device(runner, store, examples, state, counts)

    yield start
    for store in stores:
        store.close()
    channel.close()
