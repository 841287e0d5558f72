"""Writes the golden files of all transforms, from the oracle: one file an op, one for chains.

A file is JSON: ``cases``, each with ``chain`` (canonical JSON text), ``sha256`` of it, ``kind`` of
the inputs, ``assets`` by name (a list of tokens, or rows of float32 bits), ``inputs`` and
``outputs``. A float is its 64 bits in 16 hexadecimal digits, so infinities and the last bit are
told too; a missing value is null. An embedding's row is a list.

    python -m tests.device_runtime.transform_golden
"""

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

from tests.device_runtime.transform_oracle import transform_values

FOLDER = Path(__file__).parent / "golden" / "transforms"

TEXTS = [
    "",
    "a",
    "hello",
    "Hello",
    "ünïcode",
    "u\u0308ni",
    "日本語",
    "😀",
    "\x00",
    " a ",
    "a\nb",
    "0",
    "-1",
]
TEXTS += ["x" * 300, "<unk>", "\u202eabc", "\ufeff", None]
INTS = [
    0,
    1,
    -1,
    42,
    2**31 - 1,
    -(2**31),
    2**53,
    2**53 + 1,
    -(2**53) - 1,
    2**63 - 1,
    -(2**63),
    None,
]
FLOATS = [0.0, -0.0, 1.0, -1.0, 0.1, 0.2, 1 / 3, 2.5, 3.5, 1e300, -1e300, 1.7976931348623157e308]
FLOATS += [-1.7976931348623157e308, 5e-324, -5e-324, 2.2250738585072014e-308, float("inf")]
FLOATS += [float("-inf"), float("nan"), 9007199254740993.0, None]
TOKENS = ["<unk>", "hello", "日本語", "0", "a", "42", "u\u0308ni"]
TABLE = [[0.5, -1.25, 0.1], [3.0e38, -1.0e-40, 1.0e-45], [-0.0, 7.0, 1 / 3], [1e-7, 1.0, 2.0]]

HASH = {"op": "hash", "seed": 0, "missing": None}
VOCAB = {"op": "vocab", "asset": "words", "hash_buckets": None, "unknown": None, "seed": 0}
VOCAB |= {"missing": None}
BUCKETIZE = {"op": "bucketize", "side": "right", "missing": None}
NORMALIZE = {"op": "normalize", "missing": None}
CLIP = {"op": "clip", "min": None, "max": None, "missing": None}
EMBED = {"op": "embed_lookup", "asset": "table", "out_of_range": "zeros", "row": None}
EDGES = [-1e300, -1.0, 0.0, 0.1, 1.0, 9007199254740992.0, 1e300]

CASES: dict[str, list[tuple[str, list[dict], list]]] = {
    "identity": [
        ("string", [{"op": "identity", "missing": None}], TEXTS),
        ("string", [{"op": "identity", "missing": "?"}], TEXTS),
        ("int", [{"op": "identity", "missing": -(2**63)}], INTS),
        ("float", [{"op": "identity", "missing": None}], FLOATS),
        ("float", [{"op": "identity", "missing": 0.1}], FLOATS),
    ],
    "hash": [
        ("string", [HASH | {"buckets": 2**31 - 1}], TEXTS),
        ("string", [HASH | {"buckets": 1024, "seed": 7, "missing": 0}], TEXTS),
        ("string", [HASH | {"buckets": 1, "seed": 2**32 - 1}], TEXTS),
        ("int", [HASH | {"buckets": 1000003, "seed": 2**31, "missing": -1}], INTS),
    ],
    "vocab": [
        ("string", [VOCAB | {"unknown": 0}], TEXTS),
        ("string", [VOCAB | {"unknown": -1, "missing": 7}], TEXTS),
        ("string", [VOCAB | {"hash_buckets": 100, "seed": 3}], TEXTS),
        ("int", [VOCAB | {"hash_buckets": 2**31 - 1, "missing": 0}], INTS),
    ],
    "bucketize": [
        ("float", [BUCKETIZE | {"boundaries": EDGES}], FLOATS),
        ("float", [BUCKETIZE | {"boundaries": EDGES, "side": "left", "missing": -1}], FLOATS),
        ("float", [BUCKETIZE | {"boundaries": [0.0]}], FLOATS),
        ("int", [BUCKETIZE | {"boundaries": EDGES}], INTS),
        ("int", [BUCKETIZE | {"boundaries": EDGES, "side": "left"}], INTS),
    ],
    "normalize": [
        ("float", [NORMALIZE | {"mean": 0.0, "stdev": 1.0}], FLOATS),
        ("float", [NORMALIZE | {"mean": 0.1, "stdev": 0.3, "missing": 0.0}], FLOATS),
        ("float", [NORMALIZE | {"mean": -1e308, "stdev": 1e-3}], FLOATS),
        ("float", [NORMALIZE | {"mean": 3.5, "stdev": 5e-324}], FLOATS),
        ("int", [NORMALIZE | {"mean": 1.5, "stdev": 7.0, "missing": -2.5}], INTS),
    ],
    "clip": [
        ("float", [CLIP | {"min": -1.0, "max": 0.2}], FLOATS),
        ("float", [CLIP | {"min": 0.0, "missing": 0.5}], FLOATS),
        ("float", [CLIP | {"max": 0.0}], FLOATS),
        ("int", [CLIP | {"min": -5.5, "max": 9007199254740993.0}], INTS),
    ],
    "embed_lookup": [
        ("int", [EMBED], [0, 1, 2, 3, 4, -1, 2**63 - 1, None]),
        ("int", [EMBED | {"out_of_range": "missing"}], [0, 1, 2, 3, 4, -1, -(2**63), None]),
        ("int", [EMBED | {"out_of_range": "row", "row": 3}], [0, 1, 2, 3, 4, -1, None]),
    ],
    "chains": [
        ("string", [], TEXTS),
        (
            "float",
            [
                CLIP | {"min": -1000.0, "max": 1000.0},
                NORMALIZE | {"mean": 0.1, "stdev": 250.0, "missing": 0.0},
            ],
            FLOATS,
        ),
        ("string", [VOCAB | {"unknown": 99}, EMBED | {"out_of_range": "missing"}], TEXTS),
        (
            "int",
            [
                BUCKETIZE | {"boundaries": [0.0, 1.0, 100.0]},
                EMBED | {"out_of_range": "row", "row": 0},
                CLIP | {"min": -1.0, "max": 1.0},
            ],
            INTS,
        ),
        (
            "float",
            [BUCKETIZE | {"boundaries": EDGES}, HASH | {"buckets": 50, "missing": 0}],
            FLOATS,
        ),
    ],
}


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in CASES:
        (FOLDER / f"{name}.json").write_text(golden_text(name))


def golden_text(name: str) -> str:
    cases = [_case(*case) for case in CASES[name]]
    lines = ",\n".join(json.dumps(case, sort_keys=True) for case in cases)
    return f'{{"cases": [\n{lines}\n]}}\n'


def coded(value: Any) -> Any:
    if isinstance(value, list):
        return [coded(element) for element in value]
    return struct.pack(">d", value).hex() if isinstance(value, float) else value


def decoded(value: Any, kind: str) -> Any:
    if isinstance(value, list):
        return [decoded(element, kind) for element in value]
    if kind == "float" and value is not None:
        return struct.unpack(">d", bytes.fromhex(value))[0]
    return value


def _case(kind: str, steps: list[dict], inputs: list) -> dict:
    known = {"words": TOKENS, "table": TABLE}
    chain = json.dumps(steps, sort_keys=True, separators=(",", ":"))
    used = {step["asset"] for step in steps if "asset" in step}
    bits = {"words": TOKENS, "table": [[struct.pack(">f", x).hex() for x in row] for row in TABLE]}
    return {
        "kind": kind,
        "chain": chain,
        "sha256": hashlib.sha256(chain.encode()).hexdigest(),
        "assets": {name: bits[name] for name in sorted(used)},
        "inputs": coded(inputs),
        "outputs": coded(transform_values(steps, inputs, known)),
    }


if __name__ == "__main__":
    main()
