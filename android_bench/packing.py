"""From a model to what devices are sent: artefact, records and parameters, all from one seed."""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from android_bench.package import BenchPackage
from android_bench.protocol import BenchSpec, Task
from modeling.model_file import load_model_file
from modeling.model_reading import Arrays
from modeling.spec import ModelSpec
from modeling.zoo import MODELS, get_model

_PACKED = "packed.json"


@dataclass(frozen=True, slots=True, eq=False)
class BenchModel:
    """A model to be measured, and where training starts.

    Attributes:
        parameters: In wire order.
        frozen: In the order of ``spec.frozen_parameters``.
    """

    spec: ModelSpec
    parameters: Arrays
    frozen: Arrays


def load_model(path_or_name: str, seed: int = 0) -> BenchModel:
    """A registered model, or the one a user's Python file defines, as `flint model check` takes it.

    Args:
        seed: Of a registered model's start.

    Raises:
        UnreadableModelFile: If the file cannot be run or defines no model.
        UnsupportedLayer: If devices cannot train one of its layers.
        UnknownModel: If it is the name of neither a file nor a model.
    """
    is_path = path_or_name.endswith(".py") or "/" in path_or_name or Path(path_or_name).exists()
    if path_or_name in MODELS or not is_path:
        spec = get_model(path_or_name)
        return BenchModel(spec, spec.initial_parameters(seed), spec.frozen_arrays())
    user = load_model_file(Path(path_or_name))
    if user.framework == "torch":
        from modeling.torch_reading import read_torch

        read = read_torch(user.name, user.model, user.input_shape)
    else:
        from modeling.keras_reading import read_keras

        read = read_keras(user.name, user.model)
    return BenchModel(read.spec, read.parameters(), read.frozen)


def pack(
    model: BenchModel,
    folder: Path,
    *,
    task: Task = "train",
    records: int = 5000,
    batch_size: int = 20,
    repeats: int = 5,
    seed: int = 0,
    min_pass_s: float = 2.0,
) -> tuple[BenchSpec, BenchPackage]:
    """Write what a benchmark needs into a folder; takes a second or two, for the conversion.

    The same arguments give the same bytes. A folder that holds just that already, as when a run is
    resumed, is left as it is.

    Args:
        folder: Made where there is none.

    Raises:
        InvalidBenchSpec: If no worker could run it.
        UnsupportedOperators: If the model needs other than builtin operators.
    """
    draft = BenchSpec(
        model=model.spec.name,
        model_sha256="0" * 64,
        manifest_sha256="0" * 64,
        task=task,
        records=records,
        batch_size=batch_size,
        repeats=repeats,
        seed=seed,
        min_pass_s=min_pass_s,
    ).checked()  # before the conversion
    package = BenchPackage(folder)
    source = _digest_of(draft, model)
    if not _is_packed(package, source):
        _write(package, draft, model)
        content = {"source": source, "files": _digests(package)}
        (folder / _PACKED).write_text(json.dumps(content))
    files = _digests(package)
    spec = replace(
        draft,
        model_sha256=files[package.model_path.name],
        manifest_sha256=files[package.manifest_path.name],
    )
    return spec, package


def _write(package: BenchPackage, spec: BenchSpec, model: BenchModel) -> None:
    from modeling.tflite import build_artifact

    artifact = build_artifact(model.spec, batch_size=spec.batch_size, frozen=model.frozen)
    x, y = random_records(model.spec, spec.records, spec.seed)
    package.folder.mkdir(parents=True, exist_ok=True)
    package.model_path.write_bytes(artifact.model_bytes)
    package.manifest_path.write_text(artifact.manifest.to_json())
    package.records_path.write_bytes(
        x.astype(x.dtype.newbyteorder("<")).tobytes() + y.astype("<f4").tobytes()
    )
    package.parameters_path.write_bytes(
        b"".join(array.astype("<f4").tobytes() for array in model.parameters)
    )


def _digest_of(spec: BenchSpec, model: BenchModel) -> str:
    """Of all that a package is made from."""
    digest = hashlib.sha256(f"{spec.to_json()}\n{model.spec.to_json()}\n".encode())
    for array in (*model.parameters, *model.frozen):
        digest.update(array.astype("<f4").tobytes())
    return digest.hexdigest()


def _digests(package: BenchPackage) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in package.paths}


def _is_packed(package: BenchPackage, source: str) -> bool:
    """Whether a folder holds what was made from ``source``, whole."""
    try:
        content = json.loads((package.folder / _PACKED).read_bytes())
        return bool(content == {"source": source, "files": _digests(package)})
    except (OSError, ValueError, RecursionError):
        return False


def random_records(
    spec: ModelSpec, records: int, seed: int
) -> tuple[NDArray[np.int32] | NDArray[np.float32], NDArray[np.float32]]:
    """Records of the form a model takes, with labels that can be learnt from them.

    Ids are uniform, with 1 to all slots used where a model marks unused ones; numbers are normal.
    A label is 1 where a random direction of the record is high: in 3 of 10, so that a loss that
    falls shows a model that learns.

    Returns:
        ``x`` of shape ``(records, *input shape)`` and ``y`` of shape ``(records, *label shape)``.
    """
    generator = np.random.Generator(np.random.Philox(seed))
    shape = (records, *spec.input.shape)
    x: NDArray[np.int32] | NDArray[np.float32]
    if spec.ids is not None:
        ids = generator.integers(0, spec.ids, shape, np.int32)
        value = generator.standard_normal(spec.ids, np.float32)
        signal = value[ids]
        if spec.input.padding is not None:
            used = generator.integers(1, shape[1] + 1, (records, 1))
            unused = np.arange(shape[1]) >= used
            ids[unused], signal[unused] = spec.input.padding, 0.0
        x = ids
    else:
        x = generator.standard_normal(shape, np.float32)
        signal = x.reshape(records, -1)
    flat = signal.reshape(records, -1)
    direction = generator.standard_normal((flat.shape[1], *spec.label_shape), np.float32)
    if spec.ids is not None:
        direction[:] = 1.0  # what an id is worth does not depend on its place
    score = flat @ direction
    threshold = np.quantile(score, 0.7, axis=0, keepdims=True)
    return x, (score > threshold).astype(np.float32)
