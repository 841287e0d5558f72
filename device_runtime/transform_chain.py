"""Transforms one after the other, their canonical JSON form and its digest.

The canonical form names every parameter, defaults too, keys sorted, without blanks, ASCII only,
floats in Python's shortest form that reads back to the same bits. It is made where a chain is
defined; a device hashes the bytes it was given and never has to write them. The digest says which
processed values are of one chain, so it is part of their cache key.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from device_runtime.columns import Column, Kind
from device_runtime.transform_assets import Assets
from device_runtime.transform_parameters import InvalidTransform, wrong
from device_runtime.transforms import OPS, Transform, asset_of

MAX_STEPS = 16
MAX_JSON_BYTES = 2**19


@dataclass(frozen=True, slots=True)
class TransformChain:
    """What a feature's values go through, in order; no step at all leaves them as they are."""

    steps: tuple[Transform, ...] = ()

    def __post_init__(self) -> None:
        if len(self.steps) > MAX_STEPS:
            raise InvalidTransform(
                f"the chain has {len(self.steps)} transforms; a feature goes through at most "
                f"{MAX_STEPS}"
            )

    def gives(self, kind: Kind) -> Kind:
        """Kind of what comes out when ``kind`` goes in.

        Raises:
            InvalidTransform: If a step cannot take what the one before gives.
        """
        for place, step in enumerate(self.steps):
            if kind not in step.takes:
                takes = " or ".join(sorted(step.takes))
                raise InvalidTransform(
                    f"transform {place + 1}, {step.op}, takes {takes} values but is given {kind} "
                    "ones; change the order or the field's dtype"
                )
            kind = step.gives(kind)
        return kind

    def apply(self, column: Column, assets: Assets | None = None) -> Column:
        """Put a column through every step.

        Raises:
            InvalidTransform: If a step cannot take what the one before gives.
            InvalidAsset: If an asset is not there, or of another sort.
        """
        self.gives(column.kind)
        for step in self.steps:
            column = step.apply(column, assets or {})
        return column

    @property
    def asset_names(self) -> tuple[str, ...]:
        """Assets it reads, each once, in the order of first use."""
        return tuple(dict.fromkeys(name for step in self.steps if (name := asset_of(step))))

    def to_json(self) -> str:
        """The canonical form."""
        steps = [{"op": step.op, **asdict(step)} for step in self.steps]
        return json.dumps(steps, sort_keys=True, separators=(",", ":"), allow_nan=False)

    def sha256(self) -> bytes:
        """Digest of the canonical form."""
        return hashlib.sha256(self.to_json().encode()).digest()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Parse a chain, canonical or not.

        Raises:
            InvalidTransform: If it is no list of transforms this runtime knows.
        """
        if len(text) > MAX_JSON_BYTES:
            raise InvalidTransform(
                f"the chain's JSON has {len(text)} bytes, more than the {MAX_JSON_BYTES} allowed"
            )
        try:
            steps = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidTransform(f"the chain is not JSON ({error})") from None
        if not isinstance(steps, list):
            raise wrong("the chain", steps, "a list of transforms")
        return cls(tuple(parse_transform(step) for step in steps))


def parse_transform(step: Mapping[str, Any]) -> Transform:
    """One transform from its op and parameters, e.g. ``{"op": "hash", "buckets": 1024}``.

    Raises:
        InvalidTransform: If the op is unknown, or a parameter is unknown, left out or wrong.
    """
    if not isinstance(step, Mapping):
        raise wrong("a transform", step, "its op and parameters")
    op = step.get("op")
    if not isinstance(op, str) or op not in OPS:
        raise wrong("op", op, f"one of {', '.join(OPS)}")
    known = {field.name for field in fields(OPS[op])}
    unknown = sorted(str(key) for key in step if key != "op" and key not in known)
    if unknown:
        raise InvalidTransform(
            f"{op}.{unknown[0][:60]} is not a parameter; {op} takes {', '.join(sorted(known))}"
        )
    try:
        return OPS[op](**{str(key): value for key, value in step.items() if key != "op"})
    except TypeError:
        needed = sorted(known - set(step))
        raise InvalidTransform(
            f"{op} lacks a parameter; of {', '.join(needed)} those without a default are needed"
        ) from None
