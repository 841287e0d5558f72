"""The content half of the update gate: what an update says, checked where its plaintext lives."""

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from device_runtime.manifest import ParameterSpec
from device_runtime.update_codec import MalformedPayload, WireTensor, WireUpdate, decode_update
from server.job import Job
from server.update_gate.rejections import Rejection, RejectionReason

SUMMABLE_NORM = 1e30
"""Largest ``c_i * norm`` that is ever added to a float32 sum: 10^8 of them stay finite."""

_CHUNK = 8_192  # 96 KiB with its float64 copy; above 10,000 OpenBLAS would start threads
_SHOWN = 3


class _Scratch(threading.local):
    """One float64 chunk a thread."""

    def __init__(self) -> None:
        self.chunk = np.empty(_CHUNK, np.float64)


_scratch = _Scratch()


class WireModel(Protocol):
    """What gate and sums need to know of a model, whichever framework it is of.

    `modeling.spec.ModelSpec` is one; the arrays of somebody's own Flower app are another.
    """

    @property
    def parameters(self) -> tuple[ParameterSpec, ...]:
        """Trainable arrays in wire order."""
        ...

    @property
    def parameter_count(self) -> int:
        """Number of trainable scalars."""
        ...


@dataclass(frozen=True, slots=True)
class GatedUpdate:
    """An update that may be counted.

    Attributes:
        tensors: Delta in wire order, each raveled; views of the received bytes.
        norm: L2 norm over all parameters.
        loss_before: NaN when the device sent none that is finite.
    """

    tensors: tuple[NDArray[np.float32], ...]
    num_examples: int
    norm: float
    loss_before: float
    loss_after: float


@dataclass(frozen=True, slots=True)
class ContentGate:
    """What one job accepts as an update.

    Attributes:
        parameters: Names and shapes in wire order.
        max_norm: Largest L2 norm; norm 0 is legal.
        max_claimed_examples: Largest example count.
    """

    parameters: tuple[ParameterSpec, ...]
    max_norm: float
    max_claimed_examples: int

    @classmethod
    def of(cls, job: Job, model: WireModel) -> Self:
        """The gate of a job; without a limit of its own the norm must still fit a float32 sum."""
        summable = SUMMABLE_NORM / job.strategy.weight(job.max_claimed_examples)
        limit = job.privacy.robustness.max_update_norm
        return cls(
            model.parameters,
            summable if limit is None else min(limit, summable),
            job.max_claimed_examples,
        )

    def check(self, payload: bytes) -> GatedUpdate | Rejection:
        """Check a serialised ``Update`` without touching any shared state.

        Structure first, so that arithmetic only ever sees arrays of the model's own shapes; then
        one pass over the values.
        """
        try:
            update = decode_update(payload)
        except MalformedPayload as error:
            return Rejection(RejectionReason.MALFORMED, str(error))
        rejection = self._check_structure(update.tensors) or self._check_examples(update)
        if rejection is not None:
            return rejection
        tensors = tuple(np.frombuffer(t.data, dtype="<f4") for t in update.tensors)
        squares = sum_of_squares(tensors)
        # A float32 squared is at most 1.2e77, so the float64 sum is finite exactly when every
        # value is: one pass finds both the norm and what is not finite.
        if not math.isfinite(squares):
            return Rejection(RejectionReason.NOT_FINITE, _name_not_finite(update.tensors, tensors))
        norm = math.sqrt(squares)
        if norm > self.max_norm:
            return Rejection(
                RejectionReason.NORM_EXCEEDED,
                f"update has L2 norm {norm:.6g}; at most {self.max_norm:.6g} is accepted",
            )
        return GatedUpdate(
            tensors,
            update.num_examples,
            norm,
            _finite_or_nan(update.loss_before),
            _finite_or_nan(update.loss_after),
        )

    def _check_structure(self, tensors: Sequence[WireTensor]) -> Rejection | None:
        wanted = self.parameters
        if len(tensors) != len(wanted) or any(
            t.name != p.name for t, p in zip(tensors, wanted, strict=True)
        ):
            return Rejection(
                RejectionReason.WRONG_NAMES,
                f"tensors are {_listed([t.name for t in tensors])}; "
                f"the model has {_listed([p.name for p in wanted])} in this order",
            )
        for tensor, parameter in zip(tensors, wanted, strict=True):
            if tensor.dtype != "float32":
                return Rejection(
                    RejectionReason.WRONG_DTYPE,
                    f"{parameter.name} is {tensor.dtype[:20]!r}; it must be 'float32'",
                )
            if tensor.shape != parameter.shape:
                return Rejection(
                    RejectionReason.WRONG_SHAPE,
                    f"{parameter.name} has shape {tensor.shape}; it must be {parameter.shape}",
                )
        return None

    def _check_examples(self, update: WireUpdate) -> Rejection | None:
        if update.num_examples <= 0:
            return Rejection(
                RejectionReason.NON_POSITIVE_EXAMPLES,
                f"update claims {update.num_examples} examples; it must be at least 1",
            )
        if update.num_examples > self.max_claimed_examples:
            return Rejection(
                RejectionReason.TOO_MANY_EXAMPLES,
                f"update claims {update.num_examples} examples; "
                f"at most {self.max_claimed_examples} are accepted",
            )
        return None


def sum_of_squares(tensors: Sequence[NDArray[np.float32]]) -> float:
    """Sum of squares over all arrays in float64, in one pass of cache-sized chunks.

    NaN or infinite when any value is; float32 arithmetic would overflow at 1e20 already.

    Args:
        tensors: Arrays of shape ``(size,)``.
    """
    scratch, total = _scratch.chunk, 0.0
    with np.errstate(invalid="ignore"):  # a signalling NaN from outside is a NaN, no fault of ours
        for tensor in tensors:
            for start in range(0, tensor.size, _CHUNK):
                values = tensor[start : start + _CHUNK]
                chunk = scratch[: values.size]
                np.copyto(chunk, values)
                total += float(chunk.dot(chunk))
    return total


def _name_not_finite(declared: Sequence[WireTensor], tensors: Sequence[NDArray[np.float32]]) -> str:
    for wire, tensor in zip(declared, tensors, strict=True):
        bad = int(np.count_nonzero(~np.isfinite(tensor)))
        if bad:
            return f"{wire.name} holds {bad} values that are NaN or infinite"
    return "sum of squares is not finite"


def _finite_or_nan(loss: float) -> float:
    return loss if math.isfinite(loss) else math.nan


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(name[:60] for name in names[:_SHOWN])
    more = len(names) - _SHOWN
    return f"[{shown}, and {more} more]" if more > 0 else f"[{shown}]"
