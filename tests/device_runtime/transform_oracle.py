"""What every transform must give, value by value, in plain Python and exact rationals.

It shares no code with `device_runtime.transforms`: the hash is transcribed from the published C
code, differences and quotients are computed exactly and then rounded once.
"""

import math
import struct
from fractions import Fraction

from tests.device_runtime.test_hashing import murmur3_32

ZERO_BITS = {"string": "", "int": 0, "float": 0.0}


def transform_value(step: dict, value, assets: dict):
    """One value, None if missing, through one step; ``step`` names every parameter."""
    if isinstance(value, float) and math.isnan(value):
        value = None
    op = step["op"]
    if op == "embed_lookup":
        return _embed(step, value, assets[step["asset"]])
    if value is None:
        return step["missing"]
    if op == "identity":
        return value
    if op == "hash":
        return murmur3_32(str(value).encode("utf-8"), step["seed"]) % step["buckets"]
    if op == "vocab":
        return _vocab(step, str(value), assets[step["asset"]])
    x = float(value)
    if op == "bucketize":
        return _bucket(step, x)
    if op == "normalize":
        return _divide(_subtract(x, step["mean"]), step["stdev"])
    if op == "clip":
        if step["min"] is not None and x < step["min"]:
            return step["min"]
        if step["max"] is not None and x > step["max"]:
            return step["max"]
        return x
    raise AssertionError(op)


def transform_values(steps: list[dict], values: list, assets: dict) -> list:
    """Rows through a chain; embed_lookup may only come last but for steps on each element."""
    for step in steps:
        values = [
            [transform_value(step, element, assets) for element in value]
            if isinstance(value, list)
            else transform_value(step, value, assets)
            for value in values
        ]
    return values


def _vocab(step: dict, token: str, tokens: list[str]) -> int:
    for number, known in enumerate(tokens):
        if known == token:
            return number
    if step["unknown"] is not None:
        return step["unknown"]
    return len(tokens) + murmur3_32(token.encode("utf-8"), step["seed"]) % step["hash_buckets"]


def _bucket(step: dict, x: float) -> int:
    if step["side"] == "right":
        return sum(1 for boundary in step["boundaries"] if boundary <= x)
    return sum(1 for boundary in step["boundaries"] if boundary < x)


def _embed(step: dict, index, table: list[list[float]]) -> list:
    if index is None or not 0 <= index < len(table):
        if step["out_of_range"] == "missing":
            return [None] * len(table[0])
        if step["out_of_range"] == "zeros":
            return [0.0] * len(table[0])
        index = step["row"]
    return [struct.unpack("<f", struct.pack("<f", number))[0] for number in table[index]]


def _subtract(x: float, y: float) -> float:
    if math.isinf(x) or x == y or x == 0 or y == 0:
        return x - y
    return _rounded(Fraction(x) - Fraction(y))


def _divide(x: float, y: float) -> float:
    if math.isinf(x) or x == 0:
        return x
    return _rounded(Fraction(x) / Fraction(y))


def _rounded(exact: Fraction) -> float:
    try:
        nearest = float(exact)
    except OverflowError:
        return math.inf if exact > 0 else -math.inf
    return math.copysign(nearest, exact)
