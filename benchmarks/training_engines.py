"""Training with LiteRT, TensorFlow and torch on the same batches: time of a step, and memory.

What is compared: one SGD step on 20 records of models A to E, from the same parameters on the same
batches, each engine on one thread. LiteRT is what devices run (`LiteRtEngine.train_batch`).
TensorFlow differentiates the same layers with ``GradientTape`` in a ``tf.function``; torch is the
twin with autograd and ``torch.optim.SGD``; both as one writes them. Losses must agree.

How: every measurement is a fresh process; engines take turns within each of the rounds, and figures
are medians over rounds, ratios medians of those within a round. Time is that of whole passes over
the batches, warmed up, until a second has passed; CPU time beside it, since others use this machine
too. Memory is the peak resident size (``VmHWM``) of the whole process, and how far it grew beyond
that after imports.

The limit is arithmetic for D and E, where matrix products decide; for A it is what a call costs, 20
records being some 0.2 MFLOP. D's artefact has to write convolutions as slices and products, builtin
operators having no gradient of a convolution; TensorFlow and torch need not, and are faster there.

    python benchmarks/training_engines.py [--rounds 5]
"""

import argparse
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

ENGINES = ("litert", "tensorflow", "torch")
BATCH_SIZE = 20
BATCHES = 20
LEARNING_RATE = 0.05
MEASURED_S = 1.0
AGREE = 1e-4
RATIOS = ("step_ms", "step_cpu_ms", "memory_mb")

Step = Callable[[Any, Any], float]


def litert_step(folder: Path, _model: str) -> tuple[Callable[[], Step], int]:
    from device_runtime.engine import LiteRtEngine
    from device_runtime.manifest import ArtifactManifest

    def build() -> Step:
        manifest = ArtifactManifest.from_json((folder / "manifest.json").read_text())
        engine = LiteRtEngine(folder / "model.tflite", manifest)
        engine.restore(start_of(folder))
        return lambda x, y: engine.train_batch(x, y, LEARNING_RATE)

    return build, peak_bytes()


def tensorflow_step(folder: Path, model: str) -> tuple[Callable[[], Step], int]:
    from modeling.quiet_tensorflow import tf
    from modeling.tf_models import infer_logits
    from modeling.zoo import MODELS

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)

    def build() -> Step:
        spec = MODELS[model]
        variables = [tf.Variable(array) for array in start_of(folder)]
        frozen = [tf.constant(array) for array in spec.frozen_arrays()]

        @tf.function(autograph=False)
        def train(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape() as tape:
                logits = infer_logits(spec, variables, x, frozen)
                by_task = tf.nn.sigmoid_cross_entropy_with_logits(labels=y, logits=logits)
                loss = tf.reduce_mean(tf.reduce_sum(by_task, axis=1))
            gradients = tape.gradient(loss, variables)
            for variable, gradient in zip(variables, gradients, strict=True):
                if isinstance(gradient, tf.IndexedSlices):  # of an embedding: only the rows used
                    step = tf.IndexedSlices(LEARNING_RATE * gradient.values, gradient.indices)
                    variable.scatter_sub(step)
                else:
                    variable.assign_sub(LEARNING_RATE * gradient)
            return loss

        return lambda x, y: float(train(tf.constant(x), tf.constant(y)))

    return build, peak_bytes()


def torch_step(folder: Path, model: str) -> tuple[Callable[[], Step], int]:
    import torch

    from modeling.torch_models import build_torch, load_parameters, weighted_loss
    from modeling.zoo import MODELS

    torch.set_num_threads(1)

    def build() -> Step:
        module = build_torch(MODELS[model])
        load_parameters(module, start_of(folder))
        optimizer = torch.optim.SGD(module.parameters(), lr=LEARNING_RATE)
        weight = torch.ones(BATCH_SIZE)

        def step(x: NDArray[Any], y: NDArray[np.float32]) -> float:
            loss = weighted_loss(module(torch.from_numpy(x)), torch.from_numpy(y), weight)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return float(loss.item())

        return step

    return build, peak_bytes()


def start_of(folder: Path) -> list[Any]:
    with np.load(folder / "start.npz", allow_pickle=False) as stored:
        return [stored[name] for name in stored.files]


def peak_bytes() -> int:
    from device_runtime.training import peak_memory_bytes

    return peak_memory_bytes()


def measure_one(engine: str, model: str, folder: Path) -> dict[str, float]:
    """In a process of its own."""
    with contextlib.suppress(OSError):  # before other programs, where this user may
        os.setpriority(os.PRIO_PROCESS, 0, -15)
        Path("/proc/self/autogroup").write_text("-15")
    builders = {"litert": litert_step, "tensorflow": tensorflow_step, "torch": torch_step}
    build, imported_bytes = builders[engine](folder, model)
    step = build()
    with np.load(folder / "batches.npz", allow_pickle=False) as stored:
        batches = [(stored[f"x{i}"], stored[f"y{i}"]) for i in range(BATCHES)]
    losses = [step(x, y) for x, y in batches]
    for x, y in batches * 4:  # warm-up: TensorFlow optimises a graph within its first calls
        step(x, y)
    steps, started_s, cpu_started_s = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - started_s < MEASURED_S:
        for x, y in batches:
            step(x, y)
        steps += BATCHES
    cpu_s, wall_s = time.process_time() - cpu_started_s, time.perf_counter() - started_s
    peak = peak_bytes()
    return {
        "step_ms": wall_s / steps * 1e3,
        "step_cpu_ms": cpu_s / steps * 1e3,
        "memory_mb": peak / 1e6,
        "memory_beyond_imports_mb": (peak - imported_bytes) / 1e6,
        "first_loss": losses[0],
        "last_loss": losses[-1],
    }


def prepare(model: str, folder: Path) -> None:
    """Artefact, batches and start; in a process of its own, for it needs both frameworks."""
    from modeling.parity import random_batches
    from modeling.tflite import build_artifact
    from modeling.zoo import MODELS

    spec = MODELS[model]
    artifact = build_artifact(spec, batch_size=BATCH_SIZE)
    (folder / "model.tflite").write_bytes(artifact.model_bytes)
    (folder / "manifest.json").write_text(artifact.manifest.to_json())
    # The last batch that `random_batches` draws is short: all engines take whole ones here.
    whole = list(random_batches(spec, BATCHES + 1, batch_size=BATCH_SIZE, seed=0))[:BATCHES]
    batches = {f"x{i}": x for i, (x, _) in enumerate(whole)}
    np.savez(folder / "batches.npz", **batches, **{f"y{i}": y for i, (_, y) in enumerate(whole)})
    start = spec.initial_parameters(0)
    np.savez(folder / "start.npz", **{f"p{i:03d}": array for i, array in enumerate(start)})


def in_a_process(*arguments: str) -> dict[str, float]:
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    finished = subprocess.run(
        [sys.executable, __file__, *arguments],
        check=True,
        stdout=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, **threads},
    )
    found: dict[str, float] = json.loads(finished.stdout)
    return found


def compare(model: str, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="flint-engines-") as folder:
        in_a_process("--prepare", model, "--folder", folder)
        sha256 = hashlib.sha256((Path(folder) / "model.tflite").read_bytes()).hexdigest()
        runs: dict[str, list[dict[str, float]]] = {engine: [] for engine in ENGINES}
        for turn in range(rounds):
            for place in range(len(ENGINES)):
                engine = ENGINES[(turn + place) % len(ENGINES)]
                runs[engine].append(in_a_process("--engine", engine, model, "--folder", folder))
    for name in ("first_loss", "last_loss"):
        losses = [run[name] for of_engine in runs.values() for run in of_engine]
        if max(losses) - min(losses) > AGREE:
            raise SystemExit(f"{model}: {name} differs between engines: {losses}")

    def middle(engine: str, name: str, digits: int) -> float:
        return round(median(run[name] for run in runs[engine]), digits)

    figures = {
        engine: {
            "step_ms": middle(engine, "step_ms", 4),
            "step_cpu_ms": middle(engine, "step_cpu_ms", 4),
            "step_cpu_ms_range": [
                round(pick(run["step_cpu_ms"] for run in of_engine), 4) for pick in (min, max)
            ],
            "record_us": round(middle(engine, "step_ms", 6) / BATCH_SIZE * 1e3, 2),
            "memory_mb": middle(engine, "memory_mb", 1),
            "memory_beyond_imports_mb": middle(engine, "memory_beyond_imports_mb", 1),
        }
        for engine, of_engine in runs.items()
    }

    def ratio(other: str, name: str) -> float:
        pairs = zip(runs[other], runs["litert"], strict=True)
        return round(median(theirs[name] / ours[name] for theirs, ours in pairs), 2)

    return {
        "model_sha256": sha256,
        "engines": figures,
        "over_litert": {
            other: {name: ratio(other, name) for name in RATIOS} for other in ENGINES[1:]
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", help="parted by commas; default: all registered ones")
    parser.add_argument("--prepare", metavar="MODEL", help=argparse.SUPPRESS)
    parser.add_argument("--engine", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.prepare:
        prepare(options.prepare, options.folder)
        print("{}")
        return
    if options.engine:
        print(json.dumps(measure_one(*options.engine, options.folder)))
        return
    from modeling.zoo import MODELS

    names = options.models.split(",") if options.models else list(MODELS)
    models = {name: compare(name, options.rounds) for name in names}
    print(
        json.dumps(
            {
                "figure": "training_engines",
                "batch_size": BATCH_SIZE,
                "rounds": options.rounds,
                "models": models,
            }
        )
    )


if __name__ == "__main__":
    main()
