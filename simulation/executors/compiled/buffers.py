"""Memory for the kernel, begun where a line of the cache begins: no vector lies across two."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_LINE_BYTES = 64


def zeros(count: int, dtype: Any) -> NDArray[Any]:  # noqa: ANN401 - what numpy takes for one
    """Zeros, shape ``(count,)``; no memory is used before it is written to."""
    item_bytes = np.dtype(dtype).itemsize
    whole = np.zeros(count * item_bytes + _LINE_BYTES, np.uint8)
    begin = -whole.ctypes.data % _LINE_BYTES
    return whole[begin : begin + count * item_bytes].view(dtype)
