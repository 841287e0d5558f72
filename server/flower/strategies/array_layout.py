"""An app's arrays as one vector: what they are called, shaped and made of, in a fixed order."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray

from device_runtime.manifest import ParameterSpec
from device_runtime.update_codec import MAX_RANK, MAX_TENSORS, flatten, unflatten
from server.flower.node_tasks import Parameters
from server.flower.strategies.errors import UnusableArrays

_EXACT_IN_FLOAT64 = 2**53
_FLOAT_BYTES = (2, 4, 8)


def is_real_number(dtype: np.dtype[Any]) -> bool:
    """Whether an array of this dtype can be averaged: plain floats and integers."""
    is_float = dtype.kind == "f" and dtype.itemsize in _FLOAT_BYTES
    return is_float or dtype.kind in "iu"


@dataclass(frozen=True)
class ArrayLayout:
    """Names, shapes and dtypes of an app's arrays; a `WireModel`.

    All arithmetic is on one float32 vector. What is sent has the dtypes the app chose, integers
    rounded to the nearest.

    Attributes:
        parameters: Names and shapes, in the app's order.
        dtypes: Of the arrays the app gave, in the same order.
    """

    parameters: tuple[ParameterSpec, ...]
    dtypes: tuple[np.dtype[Any], ...]

    @cached_property
    def parameter_count(self) -> int:
        """Number of scalars."""
        return sum(parameter.size for parameter in self.parameters)

    @cached_property
    def array_bytes(self) -> int:
        """Bytes of all arrays as they are sent."""
        sizes = zip(self.parameters, self.dtypes, strict=True)
        return sum(parameter.size * dtype.itemsize for parameter, dtype in sizes)

    @classmethod
    def of(cls, record: ArrayRecord) -> tuple[Self, NDArray[np.float32]]:
        """Layout and values, shape ``(parameters,)``, of initial arrays.

        Raises:
            UnusableArrays: If there are none, or one cannot be averaged; names the first.
        """
        if not record:
            raise UnusableArrays("initial_arrays is empty; give the arrays of your model")
        if len(record) > MAX_TENSORS:
            raise UnusableArrays(
                f"initial_arrays has {len(record)} arrays and {MAX_TENSORS} is the most that are "
                "taken; put small ones together"
            )
        arrays = [_readable(name, array) for name, array in record.items()]
        parameters = tuple(
            ParameterSpec(name, array.shape) for name, array in zip(record, arrays, strict=True)
        )
        return cls(parameters, tuple(array.dtype for array in arrays)), flatten(arrays)

    def arrays(self, vector: NDArray[np.float32]) -> Parameters:
        """Arrays by name, as they are sent.

        Args:
            vector: Shape ``(parameters,)``.
        """
        parts = zip(self.parameters, self.dtypes, unflatten(self.parameters, vector), strict=True)
        return {spec.name: _as_sent(part, dtype) for spec, dtype, part in parts}


def record_of(arrays: Parameters) -> ArrayRecord:
    """Arrays as Flower sends them."""
    return ArrayRecord({name: Array(np.asarray(a, order="C")) for name, a in arrays.items()})


def _readable(name: str, array: Array) -> NDArray[Any]:
    try:
        values: NDArray[Any] = array.numpy()
    except (TypeError, ValueError) as error:
        raise UnusableArrays(
            f"initial_arrays[{name!r}] is no NumPy array ({' '.join(str(error).split())}); only "
            "arrays of numbers can be averaged"
        ) from error
    if not is_real_number(values.dtype):
        raise UnusableArrays(
            f"initial_arrays[{name!r}] is of dtype {values.dtype}; only floats of 16 to 64 bits "
            "and integers can be averaged, so leave it out or convert it"
        )
    if values.ndim > MAX_RANK:
        raise UnusableArrays(
            f"initial_arrays[{name!r}] has {values.ndim} dimensions and {MAX_RANK} is the most "
            "that are taken; reshape it"
        )
    with np.errstate(over="ignore"):
        is_finite = bool(np.isfinite(values.astype(np.float32)).all())
    if not is_finite:
        raise UnusableArrays(
            f"initial_arrays[{name!r}] holds values that are NaN, infinite or beyond float32; "
            "begin with finite ones"
        )
    return values


def _as_sent(values: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return values.astype(dtype, copy=False)
    info = np.iinfo(dtype)
    low, high = max(info.min, -_EXACT_IN_FLOAT64), min(info.max, _EXACT_IN_FLOAT64)
    return np.clip(np.rint(values.astype(np.float64)), low, high).astype(dtype)


def total_bytes(arrays: Sequence[Array]) -> int:
    """Bytes of serialised arrays."""
    return sum(len(array.data) for array in arrays)
