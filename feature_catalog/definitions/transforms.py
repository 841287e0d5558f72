"""Transforms of a served feature: an operation of the closed list, and where it runs."""

import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import Any

from device_runtime.columns import Kind
from device_runtime.transform_parameters import InvalidTransform as InvalidParameters
from device_runtime.transforms import OPS, asset_of
from device_runtime.transforms import Transform as Operation
from feature_catalog.definitions.bounds import checked_choice, checked_name
from feature_catalog.definitions.errors import InvalidTransform, did_you_mean, shown, spelt, within

_OF_ONE_PARAMETER = re.compile(r"\w+\.(\w+) (.*)", re.DOTALL)
_ASSET_FORM = {
    "vocab": "a vocabulary, whose line numbers are the ids",
    "embed_lookup": "an embedding, whose rows are looked up",
}


class RunAt(StrEnum):
    """Where a transform runs.

    ``cloud``: before a device gets the value. ``device_ingest``: when a device stores it.
    ``device_read``: each time it is read.
    """

    CLOUD = "cloud"
    DEVICE_INGEST = "device_ingest"
    DEVICE_READ = "device_read"


STAGES = tuple(RunAt)
"""In the order a value passes them."""


@dataclass(frozen=True)
class Transform:
    """One step of what a feature's values go through.

    Attributes:
        op: Of the closed list: identity, hash, vocab, bucketize, normalize, clip, embed_lookup.
        parameters: Of the operation (`device_runtime.transforms`); those left out have its
            defaults, and are filled in here.

    Raises:
        InvalidTransform: If there is no such operation, or not with such parameters.
    """

    op: str
    run_at: RunAt
    parameters: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.op, str) or self.op not in OPS:
            raise InvalidTransform(
                f"= {shown(self.op)} is no transform{did_you_mean(self.op, list(OPS))}; use one of "
                f"{', '.join(OPS)}",
                key="op",
            )
        object.__setattr__(self, "run_at", checked_choice(self.run_at, "run_at", RunAt))
        operation = _operation(self.op, self.parameters)
        given = {each.name: getattr(operation, each.name) for each in fields(operation)}
        known = {name: value for name, value in sorted(given.items()) if value is not None}
        object.__setattr__(self, "parameters", MappingProxyType(known))

    @cached_property
    def operation(self) -> Operation:
        """What runs."""
        return _operation(self.op, self.parameters)

    @cached_property
    def asset(self) -> str | None:
        """Name of the asset it reads, if it reads one."""
        return asset_of(self.operation)

    def gives(self, kind: Kind) -> Kind:
        """Kind of what comes out for ``kind``.

        Raises:
            InvalidTransform: If it does not take such values.
        """
        operation = self.operation
        if kind not in operation.takes:
            takes = " or ".join(sorted(operation.takes))
            mend = "bucketize them first" if kind is Kind.FLOAT else "use another op"
            raise InvalidTransform(
                f"= {self.op} takes {takes} values, and what comes to it is {kind}; {mend}, or "
                "change the order or the field's dtype",
                key="op",
            )
        try:
            return operation.gives(kind)
        except InvalidParameters as error:
            raise InvalidTransform(f"do not fit: {error.sentence}", key="parameters") from error

    def __hash__(self) -> int:
        return hash((self.op, self.run_at, tuple(self.parameters.items())))


def _operation(op: str, parameters: object) -> Operation:
    cls = OPS[op]
    if not isinstance(parameters, Mapping):
        raise InvalidTransform(f"= {shown(parameters)} is no block of keys", key="parameters")
    known = [each.name for each in fields(cls)]
    needed = [each.name for each in fields(cls) if each.default is MISSING]
    for name in parameters:
        if name not in known:
            raise InvalidTransform(
                f"is no parameter of {op}{did_you_mean(name, known)}; it has {', '.join(known)}",
                key=f"parameters.{spelt(name)}",
            )
    for name in needed:
        if name not in parameters:
            what = f": name {_ASSET_FORM[op]}" if name == "asset" else ""
            raise InvalidTransform(
                f"is missing, and {op} needs it{what}; add it", key=f"parameters.{name}"
            )
    if "asset" in known:
        with within("parameters"):
            checked_name(parameters["asset"], "asset")
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in parameters.items()
    }
    try:
        return cls(**given)
    except InvalidParameters as error:
        match = _OF_ONE_PARAMETER.fullmatch(error.sentence)
        if match is not None and match[1] in known:
            raise InvalidTransform(match[2], key=f"parameters.{match[1]}") from error
        raise InvalidTransform(f"are not possible: {error.sentence}", key="parameters") from error
