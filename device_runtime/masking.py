"""Masked updates: fixed point plus a one-time pad, so that a host may sum what it cannot read.

All arithmetic is modulo 2**32, in which sums of padded values less the sum of the pads are sums of
the values, exactly (PAPAYA, MLSys 2022, section 5; Bonawitz et al., CCS 2017, section 4.2).
"""

from collections.abc import Sequence

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from device_runtime.release_policy import ReleasePolicy

SEED_BYTES = 16


def pad(seed: bytes, size: int) -> NDArray[np.uint32]:
    """The pad of a seed, shape ``(size,)``: AES-128 in counter mode, little endian.

    A seed is used once: two updates under one pad would tell their difference.

    Raises:
        ValueError: If the seed has not 16 bytes.
    """
    if len(seed) != SEED_BYTES:
        raise ValueError(f"a pad's seed has {SEED_BYTES} bytes, this one {len(seed)}")
    cipher = Cipher(algorithms.AES(seed), modes.CTR(bytes(16))).encryptor()
    return np.frombuffer(cipher.update(bytes(4 * size)), "<u4").astype(np.uint32, copy=False)


def to_fixed_point(values: NDArray[np.float32], policy: ReleasePolicy) -> NDArray[np.uint32]:
    """Values in fixed point, two's complement, rounded to nearest and clipped.

    Args:
        values: Finite, shape ``(parameters,)``.
        policy: Its scale, and how large a value may be.
    """
    steps = np.rint(values.astype(np.float64) * policy.scale)
    most = policy.most_steps
    return np.clip(steps, -most, most).astype(np.int32).view(np.uint32)


def from_fixed_point(total: NDArray[np.uint32], policy: ReleasePolicy) -> NDArray[np.float64]:
    """The real number each sum of fixed-point values, times ``staleness_steps``, stands for."""
    return total.view(np.int32) / (policy.scale * policy.staleness_steps)


def mask(
    delta: Sequence[NDArray[np.float32]], seed: bytes, policy: ReleasePolicy
) -> NDArray[np.uint32]:
    """An update as it goes to the host.

    Args:
        delta: Arrays in wire order, finite.
        seed: 16 random bytes, used for this update alone.
        policy: Of the job.

    Returns:
        Shape ``(parameters,)``.
    """
    flat = np.concatenate([tensor.ravel() for tensor in delta])
    return to_fixed_point(flat, policy) + pad(seed, flat.size)
