"""Logarithm, exponential and normal quantile with the same bits everywhere.

numpy and libm compute these differently from one processor and version to the next, and numpy even
differently for an array than for one value. The order of events hangs on the last bit, so they are
built here from what IEEE 754 fixes exactly: ``+ - * /``, square root, and scaling by powers of two.
Each works on a float or an array, with equal bits; errors stay below 1e-15 relative (log, exp:
fdlibm's reductions and polynomials; quantile: Wichura, AS 241, 1988).
"""

import math
from collections.abc import Sequence
from math import frexp, ldexp
from typing import TypeVar, overload

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
FloatOrFloats = TypeVar("FloatOrFloats", float, Floats)

_LN2_HIGH = 6.93147180369123816490e-01
_LN2_LOW = 1.90821492927058770002e-10
_SQRT_HALF = 0.7071067811865476
_LOG_ODD = (6.666666666666735130e-01, 2.857142874366239149e-01, 1.818357216161805012e-01)
_LOG_ODD_LAST = 1.479819860511658591e-01
_LOG_EVEN = (3.999999999940941908e-01, 2.222219843214978396e-01, 1.531383769920937332e-01)
_EXP = (
    1.66666666666666019037e-01,
    -2.77777777770155933842e-03,
    6.61375632143793436117e-05,
    -1.65339022054652515390e-06,
    4.13813679705723846039e-08,
)
_INVERSE_LN2 = 1.44269504088896338700
_EXP_LIMIT = 700.0

# AS 241, PPND16: |p - 0.5| <= 0.425; then r = sqrt(-log(p)) <= 5; then beyond.
_CENTRE = (
    (
        3.3871328727963666080e0,
        1.3314166789178437745e2,
        1.9715909503065514427e3,
        1.3731693765509461125e4,
        4.5921953931549871457e4,
        6.7265770927008700853e4,
        3.3430575583588128105e4,
        2.5090809287301226727e3,
    ),
    (
        1.0,
        4.2313330701600911252e1,
        6.8718700749205790830e2,
        5.3941960214247511077e3,
        2.1213794301586595867e4,
        3.9307895800092710610e4,
        2.8729085735721942674e4,
        5.2264952788528545610e3,
    ),
)
_TAIL = (
    (
        1.42343711074968357734e0,
        4.63033784615654529590e0,
        5.76949722146069140550e0,
        3.64784832476320460504e0,
        1.27045825245236838258e0,
        2.41780725177450611770e-1,
        2.27238449892691845833e-2,
        7.74545014278341407640e-4,
    ),
    (
        1.0,
        2.05319162663775882187e0,
        1.67638483018380384940e0,
        6.89767334985100004550e-1,
        1.48103976427480074590e-1,
        1.51986665636164571966e-2,
        5.47593808499534494600e-4,
        1.05075007164441684324e-9,
    ),
)
_FAR_TAIL = (
    (
        6.65790464350110377720e0,
        5.46378491116411436990e0,
        1.78482653991729133580e0,
        2.96560571828504891230e-1,
        2.65321895265761230930e-2,
        1.24266094738807843860e-3,
        2.71155556874348757815e-5,
        2.01033439929228813265e-7,
    ),
    (
        1.0,
        5.99832206555887937690e-1,
        1.36929880922735805310e-1,
        1.48753612908506148525e-2,
        7.86869131145613259100e-4,
        1.84631831751005468180e-5,
        1.42151175831644588870e-7,
        2.04426310338993978564e-15,
    ),
)


@overload
def portable_log(x: float) -> float: ...
@overload
def portable_log(x: Floats) -> Floats: ...
def portable_log(x: float | Floats) -> float | Floats:
    """Natural logarithm of positive, finite, normal numbers.

    >>> portable_log(1.0)
    0.0
    """
    if isinstance(x, np.ndarray):
        mantissa, exponent = np.frexp(x)
        low = mantissa < _SQRT_HALF
        mantissa = np.where(low, mantissa * 2.0, mantissa)
        exponents = (exponent - low).astype(np.float64)
        return _log_reduced(mantissa - 1.0, exponents)
    return log_of(x)


def log_of(x: float) -> float:
    """`portable_log` of one number; the event engine compiles it."""
    mantissa, exponent = frexp(x)
    if mantissa < _SQRT_HALF:
        mantissa, exponent = mantissa * 2.0, exponent - 1
    return _log_reduced(mantissa - 1.0, float(exponent))


def _log_reduced(f: FloatOrFloats, k: FloatOrFloats) -> FloatOrFloats:
    """``log(1 + f) + k * log(2)`` for sqrt(1/2) <= 1 + f < sqrt(2)."""
    s = f / (2.0 + f)
    z = s * s
    w = z * z
    odd = z * (_LOG_ODD[0] + w * (_LOG_ODD[1] + w * (_LOG_ODD[2] + w * _LOG_ODD_LAST)))
    even = w * (_LOG_EVEN[0] + w * (_LOG_EVEN[1] + w * _LOG_EVEN[2]))
    half = 0.5 * f * f
    return k * _LN2_HIGH - ((half - (s * (half + odd + even) + k * _LN2_LOW)) - f)


@overload
def portable_exp(x: float) -> float: ...
@overload
def portable_exp(x: Floats) -> Floats: ...
def portable_exp(x: float | Floats) -> float | Floats:
    """``e ** x``; beyond -700 and 700 it stays at the value there.

    >>> portable_exp(0.0)
    1.0
    """
    if isinstance(x, np.ndarray):
        bounded = np.clip(x, -_EXP_LIMIT, _EXP_LIMIT)
        powers = np.floor(bounded * _INVERSE_LN2 + 0.5)
        return np.ldexp(_exp_reduced(bounded, powers), powers.astype(np.int32))
    return exp_of(x)


def exp_of(x: float) -> float:
    """`portable_exp` of one number; the event engine compiles it."""
    bounded = min(max(x, -_EXP_LIMIT), _EXP_LIMIT)
    power = float(math.floor(bounded * _INVERSE_LN2 + 0.5))
    return ldexp(_exp_reduced(bounded, power), int(power))


def _exp_reduced(x: FloatOrFloats, power: FloatOrFloats) -> FloatOrFloats:
    """``exp(x - power * log(2))``, between sqrt(1/2) and sqrt(2)."""
    high = x - power * _LN2_HIGH
    low = power * _LN2_LOW
    r = high - low
    t = r * r
    c = r - t * (_EXP[0] + t * (_EXP[1] + t * (_EXP[2] + t * (_EXP[3] + t * _EXP[4]))))
    return 1.0 - ((low - (r * c) / (2.0 - c)) - high)


@overload
def normal_quantile(p: float) -> float: ...
@overload
def normal_quantile(p: Floats) -> Floats: ...
def normal_quantile(p: float | Floats) -> float | Floats:
    """Value below which a standard normal lies with probability ``p``, 0 < p < 1.

    >>> normal_quantile(0.5)
    0.0
    """
    if isinstance(p, np.ndarray):
        return _quantiles(p)
    return quantile_of(p)


def quantile_of(p: float) -> float:
    """`normal_quantile` of one number; the event engine compiles it."""
    q = p - 0.5
    if abs(q) <= 0.425:
        return _near_centre(q)
    r = math.sqrt(-log_of(p if q < 0.0 else 1.0 - p))
    z = _ratio(_TAIL, r - 1.6) if r <= 5.0 else _ratio(_FAR_TAIL, r - 5.0)
    return -z if q < 0.0 else z


def _quantiles(p: Floats) -> Floats:
    q = p - 0.5
    central = np.abs(q) <= 0.425
    z = np.empty_like(q)
    z[central] = _near_centre(q[central])
    lower = q[~central] < 0.0
    outer = p[~central]
    r = np.sqrt(-portable_log(np.where(lower, outer, 1.0 - outer)))
    tail = np.where(r <= 5.0, _ratio(_TAIL, r - 1.6), _ratio(_FAR_TAIL, r - 5.0))
    z[~central] = np.where(lower, -tail, tail)
    return z


def _near_centre(q: FloatOrFloats) -> FloatOrFloats:
    return q * _ratio(_CENTRE, 0.180625 - q * q)


def _ratio(
    coefficients: tuple[Sequence[float], Sequence[float]], r: FloatOrFloats
) -> FloatOrFloats:
    return _polynomial(coefficients[0], r) / _polynomial(coefficients[1], r)


def _polynomial(coefficients: Sequence[float], r: FloatOrFloats) -> FloatOrFloats:
    """Lowest power first, by Horner's rule: one fixed order of roundings."""
    a, b, c, d, e, f, g, h = coefficients  # written out, so that compiled code holds them
    return ((((((r * h + g) * r + f) * r + e) * r + d) * r + c) * r + b) * r + a
