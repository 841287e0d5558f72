import pytest

from device_runtime.engine import LiteRtEngine
from modeling.tflite import ModelArtifact, build_artifact
from modeling.zoo import get_model

BATCH_SIZE = 20


@pytest.fixture(scope="session", params=["tiny_mlp", "sparse_mlp"])
def spec(request):
    return get_model(request.param)


@pytest.fixture(scope="session")
def artifact(spec) -> ModelArtifact:
    return build_artifact(spec, batch_size=BATCH_SIZE)


@pytest.fixture(scope="session")
def proximal_artifact(spec) -> ModelArtifact:
    return build_artifact(spec, batch_size=BATCH_SIZE, proximal=True)


@pytest.fixture
def engine(artifact) -> LiteRtEngine:
    return LiteRtEngine(artifact.model_bytes, artifact.manifest)
