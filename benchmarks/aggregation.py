"""Streaming aggregation against memory bandwidth, for 188,141-parameter updates (sparse_mlp).

Compared, one thread each, interleaved in one run, medians:

- ``fold``: the weighted sum alone (`server.aggregation.mean.add_scaled`, weight 3, so with a
  multiply) over updates that are already decoded.
- ``add``: the same with weight 1 (uniform weighting).
- ``gated_fold``: `MeanAggregator.fold` from received bytes: decode, names, shapes, float64 norm and
  finiteness, weighted sum, bookkeeping.
- ``copy``, ``triad``, ``read``: this machine's memory bandwidth by numpy over arrays far larger
  than its L2 cache; bytes read plus bytes written, as STREAM counts them.

Physical limit: every update has to be read once (the sum stays in cache), so an aggregator cannot
take in update data faster than memory can be read. Shares are of the largest of the three.

    python benchmarks/aggregation.py
"""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from device_runtime.update_codec import encode_update
from modeling.zoo import get_model
from server.aggregation.aggregator import Envelope
from server.aggregation.mean import MeanAggregator, add_scaled
from server.coordination.tasks import UpdateReference
from server.job import Job

UPDATES = 128  # 96 MB of distinct updates: none is in the L2 cache when its turn comes
ROUNDS = 7
STREAM_FLOATS = 32 << 20  # 128 MiB an array
SUM_CHUNK = 32_768


def seconds(act: Callable[[], object]) -> float:
    begun_s = time.perf_counter()
    act()
    return time.perf_counter() - begun_s


def job() -> Job:
    return Job.model_validate(
        {
            "name": "benchmark",
            "model": "sparse_mlp",
            "client": {"optimizer": {"learning_rate": 0.1}},
            "strategy": {"name": "fedavg", "cohort_size": UPDATES, "max_examples": 3},
            "stop": {"max_aggregations": 1},
            "privacy": {"robustness": {"max_update_norm": 1e6}},
        }
    )


def main() -> None:
    model = get_model("sparse_mlp")
    generator = np.random.default_rng(0)
    deltas: list[list[NDArray[np.float32]]] = [
        [generator.standard_normal(p.shape, np.float32).ravel() for p in model.parameters]
        for _ in range(UPDATES)
    ]
    payloads = [
        encode_update(
            model.parameters,
            [d.reshape(p.shape) for d, p in zip(delta, model.parameters, strict=True)],
            num_examples=50,
            loss_before=0.7,
            loss_after=0.6,
        )
        for delta in deltas
    ]
    update_bytes = 4 * model.parameter_count
    total = np.zeros(model.parameter_count, np.float32)
    scratch = np.empty(SUM_CHUNK, np.float32)
    a, b, c = (np.ones(STREAM_FLOATS, np.float32) for _ in range(3))
    samples: dict[str, list[float]] = {}

    def triad() -> None:
        for start in range(0, STREAM_FLOATS, SUM_CHUNK):
            part = slice(start, start + SUM_CHUNK)
            np.multiply(c[part], np.float32(3.0), out=scratch)
            np.add(b[part], scratch, out=a[part])

    def read() -> None:
        for start in range(0, STREAM_FLOATS, SUM_CHUNK):
            part = b[start : start + SUM_CHUNK]
            np.maximum.reduce(part)

    def gated_folds() -> list[Callable[[], object]]:
        aggregator = MeanAggregator()
        aggregator.open("j-benchmark", job(), model)
        return [
            partial(_fold, aggregator, Envelope(f"t{number}", f"d{number}", 0, b""), payload)
            for number, payload in enumerate(payloads)
        ]

    folds = [partial(add_scaled, total, delta, 3.0, scratch) for delta in deltas]
    adds = [partial(add_scaled, total, delta, 1.0, scratch) for delta in deltas]
    for round_number in range(ROUNDS + 1):
        taken = {
            "copy": [seconds(lambda: np.copyto(a, b)) / (2 * a.nbytes)],
            "fold": [seconds(act) / update_bytes for act in folds],
            "triad": [seconds(triad) / (3 * a.nbytes)],
            "add": [seconds(act) / update_bytes for act in adds],
            "read": [seconds(read) / a.nbytes],
            "gated_fold": [seconds(act) / update_bytes for act in gated_folds()],
        }
        if round_number:  # the first touches memory for the first time
            for name, values in taken.items():
                samples.setdefault(name, []).extend(values)

    gb_per_s = {name: 1e-9 / statistics.median(values) for name, values in samples.items()}
    bandwidth = max(gb_per_s["copy"], gb_per_s["triad"], gb_per_s["read"])
    print(
        json.dumps(
            {
                "benchmark": "aggregation",
                "parameters": model.parameter_count,
                "update_bytes": update_bytes,
                "updates": UPDATES * ROUNDS,
                "gb_per_s": {name: round(value, 2) for name, value in gb_per_s.items()},
                "share_of_memory_bandwidth": {
                    name: round(gb_per_s[name] / bandwidth, 3)
                    for name in ("fold", "add", "gated_fold")
                },
                "us_per_update": {
                    name: round(update_bytes / gb_per_s[name] / 1e3, 1)
                    for name in ("fold", "add", "gated_fold")
                },
                "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            }
        )
    )


def _fold(aggregator: MeanAggregator, envelope: Envelope, payload: bytes) -> None:
    result = aggregator.fold(envelope, payload)
    if not isinstance(result, UpdateReference):
        raise TypeError(f"an honest update was refused: {result}")


if __name__ == "__main__":
    main()
