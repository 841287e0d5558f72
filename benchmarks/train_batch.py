"""Milliseconds of one training batch on the device engine, one thread, batches of 20.

What is compared: `LiteRtEngine.train_batch` and `infer` for each registered model, and what a
task pays besides (`restore`, `parameters`). How: medians over repeats of a warm engine, on records
with 30 used slots of 64 on average.

The limit is memory: one step of sparse_mlp reads and writes its 0.75 MB of parameters about four
times (variable out, gradient, difference, variable in) and the 20 x 64 gathered rows of 0.92 MB
about five times, some 8 MB; at the 10 to 20 GB/s of one core beyond its second-level cache that is
0.4 to 0.8 ms. tiny_mlp fits in the first-level cache; its batch is interpreter overhead.

    python benchmarks/train_batch.py
"""

import json
import time
from collections.abc import Callable
from statistics import median

import numpy as np

from device_runtime.engine import LiteRtEngine
from modeling.parity import random_batches
from modeling.spec import ModelSpec
from modeling.tflite import build_artifact
from modeling.zoo import MODELS

BATCH_SIZE = 20
REPEATS = 30
CALLS = 40


def median_ms(call: Callable[[], object]) -> float:
    call()
    times_ms = []
    for _ in range(REPEATS):
        started_s = time.perf_counter()
        for _ in range(CALLS):
            call()
        times_ms.append((time.perf_counter() - started_s) / CALLS * 1e3)
    return round(median(times_ms), 4)


def measure(spec: ModelSpec) -> dict[str, object]:
    artifact = build_artifact(spec, batch_size=BATCH_SIZE)
    engine = LiteRtEngine(artifact.model_bytes, artifact.manifest)
    start = [np.array(array) for array in spec.initial_parameters(0)]
    engine.restore(start)
    [(x, y), *_] = random_batches(spec, 2, batch_size=BATCH_SIZE, seed=0)
    return {
        "parameters": spec.parameter_count,
        "artifact_bytes": len(artifact.model_bytes),
        "train_batch_ms": median_ms(lambda: engine.train_batch(x, y, 0.01)),
        "infer_batch_ms": median_ms(lambda: engine.infer(x)),
        "restore_ms": median_ms(lambda: engine.restore(start)),
        "parameters_ms": median_ms(engine.parameters),
    }


def main() -> None:
    figures = {spec.name: measure(spec) for spec in MODELS.values()}
    print(json.dumps({"figure": "train_batch", "batch_size": BATCH_SIZE, "models": figures}))


if __name__ == "__main__":
    main()
