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


LARGER = ("embedding_mlp", "text_cnn", "multitask_mlp")


@pytest.fixture(scope="session", params=LARGER)
def larger(request):
    """A model whose conversion takes seconds."""
    return get_model(request.param)


@pytest.fixture(scope="session")
def larger_artifact(larger) -> ModelArtifact:
    return build_artifact(larger, batch_size=BATCH_SIZE)
