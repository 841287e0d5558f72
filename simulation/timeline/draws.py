"""Compiled draws: the run's random streams, and the gateway's draws for a device's check-in.

The same numbers as `simulation.random_streams` (Philox4x32-10) and `server.coordination.selection`
(Philox4x64-10; Salmon et al., SC 2011) give, to the bit.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from simulation import portable_math
from simulation.timeline.compilation import compiled

_Of = Any
"""Something of Numba's or LLVM's, which are not typed."""

_U = np.uint64
_WORD = np.uint64(0xFFFFFFFF)
_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_WIDE_M0, _WIDE_M1 = np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157)
_WIDE_W0, _WIDE_W1 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBB67AE8584CAA73B)
_S12, _S20, _S32, _S11 = np.uint64(12), np.uint64(20), np.uint64(32), np.uint64(11)


_MANTISSA, _HALF = (1 << 52) - 1, 1022 << 52


def _constants() -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """SHA-256's: fractions of the cube roots of the first 64 primes, of square roots of 8."""
    primes = [n for n in range(2, 312) if all(n % d for d in range(2, int(n**0.5) + 1))]
    return (
        np.array([_root_fraction(prime, 3) for prime in primes], np.uint32),
        np.array([_root_fraction(prime, 2) for prime in primes[:8]], np.uint32),
    )


def _root_fraction(number: int, degree: int) -> int:
    """First 32 bits of the fraction of a root, in whole numbers."""
    target, low, high = number << (32 * degree), 0, number << 32
    while low < high:
        middle = (low + high + 1) >> 1
        low, high = (middle, high) if middle**degree <= target else (low, middle - 1)
    return low & 0xFFFFFFFF


SHA_ROUNDS, SHA_START = _constants()


def _multiplication(_context: _Of, _left: _Of, _right: _Of) -> tuple[_Of, Callable[..., _Of]]:
    """Upper 64 bits of a product of two whole numbers of 64 bits."""

    def generate(_context: _Of, builder: _Of, _signature: _Of, arguments: _Of) -> _Of:
        wide = ir.IntType(128)
        product = builder.mul(*(builder.zext(each, wide) for each in arguments))
        return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), generate


_high_word: _Of = intrinsic(_multiplication)


def _bits_as_number(_context: _Of, _bits: _Of) -> tuple[_Of, Callable[..., _Of]]:
    """The number of 64 bits that has these."""

    def generate(_context: _Of, builder: _Of, _signature: _Of, arguments: _Of) -> _Of:
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.int64), generate


def _number_as_bits(_context: _Of, _number: _Of) -> tuple[_Of, Callable[..., _Of]]:
    """The bits of a number of 64."""

    def generate(_context: _Of, builder: _Of, _signature: _Of, arguments: _Of) -> _Of:
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.int64(types.float64), generate


_number_of_bits: _Of = intrinsic(_bits_as_number)
_bits_of_number: _Of = intrinsic(_number_as_bits)


def _normal_frexp(x: float) -> tuple[float, int]:
    """`math.frexp` of a positive normal number, without a call."""
    bits = _bits_of_number(x)
    mantissa = _number_of_bits((bits & _MANTISSA) | _HALF)
    return mantissa, (bits >> 52) - 1022


def _normal_ldexp(x: float, power: int) -> float:
    """`math.ldexp` of a normal number to a normal one, without a call: exact."""
    return float(x * _number_of_bits((power + 1023) << 52))


def _uniform(key: NDArray[np.uint32], client: int, task: int, draw: int) -> float:
    return uniform_of(_U(key[0]), _U(key[1]), client, task, draw)


def _uniform_of(k0: np.uint64, k1: np.uint64, client: int, task: int, draw: int) -> float:
    """The ten rounds are written out: so loops over clients become loops in vectors."""
    c0, c1 = _U(draw >> 1), _U(task) & _WORD
    c2, c3 = _U(client) & _WORD, _U(client) >> _S32
    c0, c1, c2, c3, k0, k1 = _philox_round(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = _philox_round(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = _philox_round(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = _philox_round(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = _philox_round(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = _philox_round(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = _philox_round(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = _philox_round(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = _philox_round(c0, c1, c2, c3, k0, k1)
    c0, c1, c2, c3, k0, k1 = _philox_round(c0, c1, c2, c3, k0, k1)
    low, high = (c2, c3) if draw & 1 else (c0, c1)
    return (np.float64((high << _S20) | (low >> _S12)) + 0.5) * 2.0**-52


def _mixed(
    c0: np.uint64, c1: np.uint64, c2: np.uint64, c3: np.uint64, k0: np.uint64, k1: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64, np.uint64, np.uint64]:
    """A round of Philox4x32, and the keys of the next; words of 32 bits in numbers of 64."""
    product_0, product_1 = c0 * _M0, c2 * _M1
    return (
        (product_1 >> _S32) ^ c1 ^ k0,
        product_1 & _WORD,
        (product_0 >> _S32) ^ c3 ^ k1,
        product_0 & _WORD,
        (k0 + _W0) & _WORD,
        (k1 + _W1) & _WORD,
    )


def _device_draw(seed: np.uint64, device_key: np.uint64, check_in: int) -> float:
    """See `server.coordination.selection.draw`."""
    word_0, word_1, word_2, word_3 = _U(check_in + 1), _U(0), _U(0), _U(0)
    key_0, key_1 = _U(seed), _U(device_key)
    for _ in range(10):
        high_0, low_0 = _high_word(_WIDE_M0, word_0), _WIDE_M0 * word_0
        high_2, low_2 = _high_word(_WIDE_M1, word_2), _WIDE_M1 * word_2
        word_0, word_1 = high_2 ^ word_1 ^ key_0, low_2
        word_2, word_3 = high_0 ^ word_3 ^ key_1, low_0
        key_0, key_1 = key_0 + _WIDE_W0, key_1 + _WIDE_W1
    return np.float64(word_0 >> _S11) * 2.0**-53


_philox_round = compiled(_mixed)
uniform_of = compiled(_uniform_of)
uniform = compiled(_uniform)
device_draw = compiled(_device_draw)

log_of = compiled(
    portable_math.log_of,
    _log_reduced=compiled(portable_math._log_reduced),
    frexp=compiled(_normal_frexp),
)
exp_of = compiled(
    portable_math.exp_of,
    _exp_reduced=compiled(portable_math._exp_reduced),
    ldexp=compiled(_normal_ldexp),
)
_ratio = compiled(portable_math._ratio, _polynomial=compiled(portable_math._polynomial))
quantile_near_centre = compiled(portable_math._near_centre, _ratio=_ratio)
quantile_of = compiled(
    portable_math.quantile_of,
    _near_centre=quantile_near_centre,
    _ratio=_ratio,
    log_of=log_of,
)


def _usual_tail(p: float) -> float:
    """`quantile_of` below 0.075 or above 0.925, between `LEAST_USUAL` and 1 less it.

    Without branches, for loops in vectors, as `quantile_near_centre` is for the rest.
    """
    z = _ratio(portable_math._TAIL, math.sqrt(-log_of(p if p < 0.5 else 1.0 - p)) - 1.6)
    return -z if p < 0.5 else z


LEAST_USUAL = 1e-10
"""Nearer to 0 and to 1, `quantile_of` takes the far tail: ``sqrt(-log(p)) > 5`` below 1.4e-11."""

usual_tail = compiled(_usual_tail)
