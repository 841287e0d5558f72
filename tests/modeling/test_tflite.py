import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from device_runtime.manifest import ArtifactManifest
from modeling.parity import random_batches
from modeling.quiet_tensorflow import tf
from modeling.tflite import (
    UnsupportedOperators,
    UnsupportedTraining,
    build_artifact,
    convert,
)
from modeling.torch_models import build_torch, load_parameters
from modeling.zoo import SPARSE_MLP, TINY_MLP
from tests.modeling.conftest import BATCH_SIZE


def custom_operators(model_bytes: bytes) -> list[str]:
    model = schema.Model.GetRootAs(model_bytes, 0)
    codes = [model.OperatorCodes(index) for index in range(model.OperatorCodesLength())]
    return [str(code.CustomCode()) for code in codes if code.CustomCode() is not None]


def test_an_artefact_has_builtin_operators_only(artifact, proximal_artifact):
    assert custom_operators(artifact.model_bytes) == []
    assert custom_operators(proximal_artifact.model_bytes) == []


def test_the_manifest_names_the_digest_and_size_of_its_file(spec, artifact):
    assert artifact.manifest.model_sha256 == hashlib.sha256(artifact.model_bytes).hexdigest()
    assert artifact.manifest.model_bytes == len(artifact.model_bytes)
    assert artifact.manifest.parameters == spec.parameters
    assert ArtifactManifest.from_json(artifact.manifest.to_json()) == artifact.manifest


def test_signatures_take_and_give_what_the_manifest_says(spec, artifact, proximal_artifact):
    arrays = sorted(artifact.manifest.tensor_names)
    batch_inputs = ["learning_rate", "sample_weight", "x", "y"]
    plain = {
        "train": {"inputs": batch_inputs, "outputs": ["loss"]},
        "infer": {"inputs": ["x"], "outputs": ["logits"]},
        "parameters": {"inputs": [], "outputs": arrays},
        "restore": {"inputs": arrays, "outputs": ["restored"]},
    }
    assert signatures_of(artifact) == plain
    proximal = {
        **plain,
        "train": {"inputs": sorted([*batch_inputs, "proximal_mu"]), "outputs": ["loss"]},
        "resume": {"inputs": arrays, "outputs": ["restored"]},
    }
    assert signatures_of(proximal_artifact) == proximal


def signatures_of(artifact) -> dict[str, dict[str, list[str]]]:
    listed = Interpreter(model_content=artifact.model_bytes).get_signature_list()
    return {
        name: {direction: sorted(names) for direction, names in sides.items()}
        for name, sides in listed.items()
    }


def test_restored_parameters_come_back_bit_for_bit(spec, engine):
    generator = np.random.default_rng(0)
    patterns = [generator.integers(0, 2**32, p.shape, np.uint32) for p in spec.parameters]
    arrays = [np.nan_to_num(pattern.view(np.float32)) for pattern in patterns]
    engine.restore(arrays)
    for restored, array in zip(engine.parameters(), arrays, strict=True):
        np.testing.assert_array_equal(restored.view(np.uint32), array.view(np.uint32))


def test_a_new_artefact_holds_zeros_unless_given_weights(spec, engine):
    assert not any(array.any() for array in engine.parameters())


def test_given_weights_are_inside_the_file_and_infer_as_torch_does(spec):
    weights = spec.initial_parameters(7)
    artifact = build_artifact(spec, batch_size=BATCH_SIZE, initial_parameters=weights)
    [(x, _), *_] = random_batches(spec, 2, batch_size=BATCH_SIZE, seed=7)
    infer = Interpreter(model_content=artifact.model_bytes).get_signature_runner("infer")
    model = build_torch(spec)
    load_parameters(model, weights)
    expected = model(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(infer(x=x)["logits"], expected, atol=1e-5)


def test_a_batch_of_masked_records_alone_changes_nothing(spec, artifact):
    interpreter = Interpreter(model_content=artifact.model_bytes)
    names = artifact.manifest.tensor_names
    start = dict(zip(names, spec.initial_parameters(1), strict=True))
    interpreter.get_signature_runner("restore")(**start)
    [(x, y), *_] = random_batches(spec, 2, batch_size=BATCH_SIZE, seed=1)
    nothing = np.zeros(BATCH_SIZE, np.float32)
    loss = interpreter.get_signature_runner("train")(
        x=x, y=y, sample_weight=nothing, learning_rate=np.float32(1)
    )["loss"]
    after = interpreter.get_signature_runner("parameters")()
    assert loss == 0
    assert all(np.array_equal(after[name], start[name]) for name in names)


def test_resuming_leaves_the_reference_that_restoring_set(spec, proximal_artifact):
    """Without a gradient (all masked), a step of rate 1 and strength 1 goes to the reference."""
    interpreter = Interpreter(model_content=proximal_artifact.model_bytes)
    names = proximal_artifact.manifest.tensor_names
    base, local = (dict(zip(names, spec.initial_parameters(s), strict=True)) for s in (1, 2))
    interpreter.get_signature_runner("restore")(**base)
    interpreter.get_signature_runner("resume")(**local)
    [(x, y), *_] = random_batches(spec, 2, batch_size=BATCH_SIZE, seed=1)
    interpreter.get_signature_runner("train")(
        x=x,
        y=y,
        sample_weight=np.zeros(BATCH_SIZE, np.float32),
        learning_rate=np.float32(1),
        proximal_mu=np.float32(1),
    )
    after = interpreter.get_signature_runner("parameters")()
    for name in names:
        np.testing.assert_allclose(after[name], base[name], atol=1e-6)


def test_equal_arguments_give_equal_bytes_also_in_another_process(spec, artifact):
    again = build_artifact(spec, batch_size=BATCH_SIZE)
    assert again == artifact
    code = (
        "from modeling.tflite import build_artifact; from modeling.zoo import MODELS; "
        "build_artifact(MODELS['tiny_mlp'], batch_size=3, proximal=True); "
        f"a = build_artifact(MODELS[{spec.name!r}], batch_size={BATCH_SIZE}); "
        "print(a.manifest.model_sha256)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert result.stdout.decode().strip() == artifact.manifest.model_sha256
    assert result.stderr.decode() == "", "building an artefact says nothing"


def test_another_batch_size_or_term_is_another_artefact(spec, artifact, proximal_artifact):
    smaller = build_artifact(spec, batch_size=BATCH_SIZE // 2)
    digests = {a.manifest.model_sha256 for a in (artifact, proximal_artifact, smaller)}
    assert len(digests) == 3


def test_an_operator_without_builtin_form_is_refused_by_name():
    module = tf.Module()
    module.kernel = tf.Variable(tf.ones([3, 2]), name="kernel")

    def train(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.nn.relu(x @ module.kernel))
        module.kernel.assign_sub(tape.gradient(loss, module.kernel))
        return {"loss": loss}

    function = tf.function(train, input_signature=[tf.TensorSpec([4, 3], name="x")])
    with pytest.raises(UnsupportedOperators, match=r"taped needs .*: ReluGrad; .*FLN-1502"):
        convert("taped", module, {"train": function.get_concrete_function()})


def test_what_cannot_be_built_is_refused_with_the_mend():
    with pytest.raises(UnsupportedTraining, match=r"'adam' cannot .* choose sgd .*FLN-1503"):
        build_artifact(TINY_MLP, batch_size=BATCH_SIZE, optimizer="adam")
    with pytest.raises(UnsupportedTraining, match=r"batch_size is 0; set at least 1"):
        build_artifact(SPARSE_MLP, batch_size=0)
