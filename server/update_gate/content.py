"""The content half of the update gate: what an update says, checked where its plaintext lives.

Of a compressed update the encoded form is checked. The values of a large one are decoded a chunk at
a time, so that what a device sends never becomes more memory than it sent.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from device_runtime.compression import UpdateCodec
from device_runtime.encoded_tensors import (
    EncodedTensor,
    Float32Values,
    SparseTensor,
    Values,
    chunks,
    values_of,
)
from device_runtime.manifest import ParameterSpec
from device_runtime.sparse_positions import InvalidGaps
from device_runtime.update_codec import (
    InvalidScales,
    MalformedPayload,
    WireTensor,
    decode_update,
)
from server.job import Job
from server.update_gate.rejections import Rejection, RejectionReason

SUMMABLE_NORM = 1e30
"""Largest ``c_i * norm`` that is ever added to a float32 sum: 10^8 of them stay finite."""

_SHOWN = 3


_ROW = 8_192
"""Above 10,000 values OpenBLAS would start threads for a dot product."""

_CHUNK = 8 * _ROW
"""Every array operation lets another thread have the interpreter; small chunks are many hand-overs
of it, which cost more than the arithmetic: at 8,192 values half of all that an upload makes."""

_MOST_DECODED = 2**20
"""Values of a compressed update that is decoded whole, 4 MB: once, where a larger one is twice."""


class _Scratch:
    """What one check works in."""

    def __init__(self) -> None:
        self.chunk = np.empty(_CHUNK, np.float64)
        self.values = np.empty(_CHUNK, np.float32)


_idle: list[_Scratch] = []


@contextmanager
def _scratch() -> Iterator[_Scratch]:
    """As many as there are checks at once, however many threads take turns at them."""
    try:
        scratch = _idle.pop()
    except IndexError:
        scratch = _Scratch()
    try:
        yield scratch
    finally:
        _idle.append(scratch)


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
        tensors: Delta in wire order, each raveled; views of the received bytes, or decoded.
        norm: L2 norm over all parameters, of the decoded values.
        loss_before: NaN when the device sent none that is finite.
    """

    tensors: tuple[EncodedTensor, ...]
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
        codec: What devices are asked for; plain float32 is taken from anyone.
    """

    parameters: tuple[ParameterSpec, ...]
    max_norm: float
    max_claimed_examples: int
    codec: UpdateCodec | None = None

    @classmethod
    def of(cls, job: Job, model: WireModel) -> Self:
        """The gate of a job; without a limit of its own the norm must still fit a float32 sum."""
        summable = SUMMABLE_NORM / job.strategy.weight(job.max_claimed_examples)
        limit = job.privacy.robustness.max_update_norm
        return cls(
            model.parameters,
            summable if limit is None else min(limit, summable),
            job.max_claimed_examples,
            job.client.compression.codec,
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
        rejection = self._check_structure(update.tensors) or self.check_examples(
            update.num_examples
        )
        if rejection is not None:
            return rejection
        tensors = _encoded(update.tensors)
        if isinstance(tensors, Rejection):
            return tensors
        if sum(tensor.size for tensor in tensors) <= _MOST_DECODED:
            tensors = tuple(_decoded_once(tensor) for tensor in tensors)
        sent = [values_of(tensor) for tensor in tensors]
        squares = _sum_of_squares(sent)
        # A float32 squared is at most 1.2e77, so the float64 sum is finite exactly when every
        # value is: one pass finds both the norm and what is not finite.
        if not math.isfinite(squares):
            return Rejection(RejectionReason.NOT_FINITE, _name_not_finite(update.tensors, sent))
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
            if tensor.dtype not in self._dtypes:
                return Rejection(
                    RejectionReason.WRONG_DTYPE,
                    f"{parameter.name} is {tensor.dtype[:20]!r}; it must be "
                    f"{' or '.join(map(repr, self._dtypes))}",
                )
            if tensor.shape != parameter.shape:
                return Rejection(
                    RejectionReason.WRONG_SHAPE,
                    f"{parameter.name} has shape {tensor.shape}; it must be {parameter.shape}",
                )
        return self._check_encoding(tensors)

    @property
    def _dtypes(self) -> tuple[str, ...]:
        if self.codec is None or self.codec.value_encoding == "float32":
            return ("float32",)
        return "float32", self.codec.value_encoding

    def _check_encoding(self, tensors: Sequence[WireTensor]) -> Rejection | None:
        """Whether sparse tensors are asked for, and carry no more than was asked for."""
        sparse = [tensor for tensor in tensors if tensor.is_sparse]
        is_asked_for = self.codec is not None and self.codec.is_sparse
        quantised = [t for t in tensors if t.dtype != "float32" and not t.is_sparse]
        unlike = quantised if is_asked_for else sparse
        if unlike:
            found, wanted = ("dense", "sparse") if is_asked_for else ("sparse", "dense")
            return Rejection(
                RejectionReason.WRONG_ENCODING,
                f"{unlike[0].name} is a {found} tensor of {unlike[0].dtype}; the job asks for "
                f"{wanted} ones",
            )
        if self.codec is not None and sparse:
            most = self.codec.sent_of(sum(parameter.size for parameter in self.parameters))
            sent = sum(tensor.value_count for tensor in sparse)
            if sent > most:
                return Rejection(
                    RejectionReason.WRONG_ENCODING,
                    f"update carries {sent} values; the job asks for at most {most}",
                )
        return None

    def check_examples(self, num_examples: int) -> Rejection | None:
        """Whether an update may claim so many examples."""
        if num_examples <= 0:
            return Rejection(
                RejectionReason.NON_POSITIVE_EXAMPLES,
                f"update claims {num_examples} examples; it must be at least 1",
            )
        if num_examples > self.max_claimed_examples:
            return Rejection(
                RejectionReason.TOO_MANY_EXAMPLES,
                f"update claims {num_examples} examples; "
                f"at most {self.max_claimed_examples} are accepted",
            )
        return None


def _encoded(tensors: Sequence[WireTensor]) -> tuple[EncodedTensor, ...] | Rejection:
    try:
        return tuple(tensor.encoded() for tensor in tensors)
    except InvalidGaps as error:
        return Rejection(RejectionReason.BAD_POSITIONS, str(error))
    except InvalidScales as error:
        return Rejection(RejectionReason.BAD_SCALES, str(error))


def _decoded_once(tensor: EncodedTensor) -> EncodedTensor:
    """For the norm and for the sum; a sparse tensor stays, for the sum touches what it carries."""
    if isinstance(tensor, SparseTensor | Float32Values):
        return tensor
    with np.errstate(invalid="ignore", over="ignore"):
        return Float32Values(tensor.decode(0, np.empty(tensor.size, np.float32)))


def sum_of_squares(tensors: Sequence[NDArray[np.float32]]) -> float:
    """Sum of squares over all arrays in float64, in one pass of cache-sized chunks.

    NaN or infinite when any value is; float32 arithmetic would overflow at 1e20 already.

    Args:
        tensors: Arrays of shape ``(size,)``.
    """
    return _sum_of_squares([Float32Values(tensor) for tensor in tensors])


def _sum_of_squares(tensors: Sequence[Values]) -> float:
    total = 0.0
    # A signalling NaN from outside is a NaN, and a scale may lead out of float32: no fault of ours.
    with _scratch() as scratch, np.errstate(invalid="ignore", over="ignore"):
        for tensor in tensors:
            for _, values in chunks(tensor, scratch.values):
                chunk = scratch.chunk[: values.size]
                np.copyto(chunk, values)
                whole = chunk.size - chunk.size % _ROW
                rows, rest = chunk[:whole].reshape(-1, _ROW), chunk[whole:]
                total += float(np.vecdot(rows, rows).sum() + np.vecdot(rest, rest))
    return total


def _name_not_finite(declared: Sequence[WireTensor], tensors: Sequence[Values]) -> str:
    for wire, tensor in zip(declared, tensors, strict=True):
        with _scratch() as scratch, np.errstate(invalid="ignore", over="ignore"):
            bad = sum(
                int(np.count_nonzero(~np.isfinite(values)))
                for _, values in chunks(tensor, scratch.values)
            )
        if bad:
            return f"{wire.name} holds {bad} values that are NaN or infinite"
    return "sum of squares is not finite"


def _finite_or_nan(loss: float) -> float:
    return loss if math.isfinite(loss) else math.nan


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(name[:60] for name in names[:_SHOWN])
    more = len(names) - _SHOWN
    return f"[{shown}, and {more} more]" if more > 0 else f"[{shown}]"
