"""A million values through every transform, on the device's side and the cloud's: equal, how fast?

What is compared: the outputs of `TransformChain.apply` over a numpy column (device) with those of
`transform_array` over a chunked Arrow column with nulls (cloud), to the bit; and each with a scalar
oracle in plain Python on the first values. Seconds are processor time, one thread, the least of the
repeats, since others use the machine too; the cloud's include what Arrow's form costs.

The limit: arithmetic on float64 moves 16 bytes a value, at some GB/s of one core half a billion
values a second; text is Python strings, and to call the hash or look into a dictionary for one
takes 50 to 300 ns. The cloud transforms each distinct text of a chunk once; some 38,000 are drawn.

    python benchmarks/transforms.py --values 1000000
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from device_runtime.columns import Column, Kind
from device_runtime.transform_assets import EmbeddingTable, Vocabulary
from device_runtime.transform_chain import TransformChain
from feature_catalog.transform_columns import column_of, transform_array
from tests.device_runtime.transform_oracle import transform_values

WORDS = 20_000
ROWS, DIMENSIONS = 5_000, 16
ORACLE_VALUES = 2_000
CHAINS: dict[str, tuple[Kind, list[dict[str, Any]]]] = {
    "identity": (Kind.FLOAT, [{"op": "identity", "missing": 0.0}]),
    "hash": (Kind.STRING, [{"op": "hash", "buckets": 65536, "seed": 7}]),
    "vocab": (Kind.STRING, [{"op": "vocab", "asset": "words", "unknown": 0}]),
    "vocab_hashed": (Kind.STRING, [{"op": "vocab", "asset": "words", "hash_buckets": 1024}]),
    "bucketize": (
        Kind.FLOAT,
        [{"op": "bucketize", "boundaries": [float(b) for b in range(-50, 50)]}],
    ),
    "normalize": (Kind.FLOAT, [{"op": "normalize", "mean": 1.5, "stdev": 3.7}]),
    "clip": (Kind.FLOAT, [{"op": "clip", "min": -10.0, "max": 10.0}]),
    "embed_lookup": (Kind.INT, [{"op": "embed_lookup", "asset": "table"}]),
}


def draw(kind: Kind, count: int, seed: int) -> pa.ChunkedArray:
    """Values with nulls, in chunks of uneven length."""
    draws = np.random.default_rng(seed)
    if kind is Kind.STRING:
        numbers = draws.zipf(1.2, count) % (2 * WORDS)
        values: Any = np.array([f"wörd{n}" for n in numbers.tolist()], object)
    elif kind is Kind.INT:
        values = draws.integers(-5, ROWS + 5, count)
    else:
        values = draws.standard_normal(count) * 20
    whole = pa.array(values, mask=draws.random(count) < 0.02)
    edges = np.sort(draws.integers(0, count, 7)).tolist()
    return pa.chunked_array(
        [whole.slice(a, b - a) for a, b in zip([0, *edges], [*edges, count], strict=True)]
    )


def timed(call: Callable[[], Any], repeats: int) -> tuple[Any, float]:
    times_s = []
    for _ in range(repeats):
        started_s = time.process_time()
        result = call()
        times_s.append(time.process_time() - started_s)
    return result, min(times_s)


def same_bits(a: Column, b: Column) -> bool:
    return a.values.tobytes() == b.values.tobytes() and bool((a.missing == b.missing).all())


def measure(name: str, count: int, repeats: int) -> dict[str, Any]:
    kind, steps = CHAINS[name]
    tokens = [f"wörd{n}" for n in range(WORDS)]
    table = np.random.default_rng(1).standard_normal((ROWS, DIMENSIONS)).astype(np.float32)
    assets = {"words": Vocabulary.of(tuple(tokens)), "table": EmbeddingTable.of(table)}
    chain = TransformChain.from_json(json.dumps(steps))
    arrow = draw(kind, count, seed=len(name))
    column = column_of(arrow.combine_chunks())
    device, device_s = timed(lambda: chain.apply(column, assets), repeats)
    cloud, cloud_s = timed(lambda: transform_array(arrow, chain, assets), repeats)
    head = arrow[:ORACLE_VALUES].to_pylist()
    known = {"words": tokens, "table": table.tolist()}
    oracle = transform_values(json.loads(chain.to_json()), head, known)
    outputs = cloud.combine_chunks()
    return {
        "equal": same_bits(column_of(outputs), device),
        "oracle_equal": outputs[:ORACLE_VALUES].to_pylist() == oracle,
        "device_values_per_s": round(count / device_s),
        "cloud_values_per_s": round(count / cloud_s),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--values", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    figures = {name: measure(name, options.values, options.repeats) for name in CHAINS}
    print(json.dumps({"figure": "transforms", "values": options.values, "transforms": figures}))


if __name__ == "__main__":
    main()
