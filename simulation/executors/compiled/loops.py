"""Loops over numbers in a row, at their addresses; compiled to vector instructions."""

import math

import numpy as np

from simulation.executors.compiled.compiling import (
    compiled,
    compiled_exactly,
    compiled_reordered,
)
from simulation.executors.compiled.memory import (
    get,
    get_double,
    get_index,
    move,
    put,
    put_double,
)
from simulation.executors.grid_sum import TO_GRID

_ZERO = np.float32(0.0)
_GRID = np.float64(TO_GRID)
_MOST_FACTORS = 1000
"""Of numbers up to 2, whose product is then a finite float64."""


@compiled
def fill(values: int, number: float, count: int) -> None:
    """``values = number``."""
    for i in range(count):
        put(values, i, np.float32(number))


@compiled
def fill_doubles(values: int, number: float, count: int) -> None:
    """``values = number``, of float64."""
    for i in range(count):
        put_double(values, i, number)


@compiled
def add_doubles(to: int, values: int, count: int) -> None:
    """``to += values``, of float64."""
    for i in range(count):
        put_double(to, i, get_double(to, i) + get_double(values, i))


@compiled
def put_sum(total: int, terms: int, count: int, is_summed: bool) -> None:
    """``total += terms``, both float64; or ``total = terms`` if there is no sum yet."""
    if is_summed:
        add_doubles(total, terms, count)
    else:
        move(total, terms, 8 * count)


@compiled
def round_doubles(to: int, values: int, count: int) -> None:
    """``to = values``, of float64, rounded to float32."""
    for i in range(count):
        put(to, i, np.float32(get_double(values, i)))


@compiled
def add(to: int, source: int, factor: float, count: int) -> None:
    """``to += factor * source``."""
    by = np.float32(factor)
    for i in range(count):
        put(to, i, get(to, i) + by * get(source, i))


@compiled
def add_number(values: int, number: float, count: int) -> None:
    """``values += number``."""
    for i in range(count):
        put(values, i, get(values, i) + np.float32(number))


@compiled
def multiply(values: int, factor: float, count: int) -> None:
    """``values *= factor``."""
    by = np.float32(factor)
    for i in range(count):
        put(values, i, by * get(values, i))


@compiled
def cut_off_negative(values: int, count: int) -> None:
    """ReLU; NaN stays."""
    for i in range(count):
        value = get(values, i)
        put(values, i, _ZERO if value < _ZERO else value)


@compiled
def mask(gradient: int, values: int, count: int) -> None:
    """Nothing goes back through what ReLU cut off."""
    for i in range(count):
        put(gradient, i, get(gradient, i) if get(values, i) > _ZERO else _ZERO)


@compiled
def pull_back(weights: int, base: int, pull: float, count: int) -> None:
    """FedProx (Li et al., MLSys 2020): ``weights -= pull * (weights - base)``."""
    strength = np.float32(pull)
    for i in range(count):
        weight = get(weights, i)
        put(weights, i, weight - strength * (weight - get(base, i)))


@compiled
def add_rows(to: int, rows: int, columns: int, count: int) -> None:
    """``to += rows.sum(0)``, of ``count`` rows."""
    for i in range(count):
        add(to, rows + 4 * i * columns, 1.0, columns)


@compiled_reordered
def subtract(local: int, base: int, count: int) -> float:
    """``local -= base``; returns the sum of squares of what is left."""
    total = 0.0
    for i in range(count):
        change = get(local, i) - get(base, i)
        put(local, i, change)
        total += np.float64(change) * np.float64(change)
    return total


@compiled_reordered
def dot(left: int, right: int, count: int) -> float:
    """``(left * right).sum()`` in float64."""
    total = 0.0
    for i in range(count):
        total += np.float64(get(left, i)) * np.float64(get(right, i))
    return total


@compiled_exactly
def add_on_grid(total: int, update: int, weight: float, count: int) -> None:
    """``total += weight * update``, as `simulation.executors.grid_sum.add_update` does."""
    for i in range(count):
        term = np.float64(get(update, i)) * weight
        put_double(total, i, get_double(total, i) + ((term + _GRID) - _GRID))


@compiled
def loss(logits: int, columns: int, labels: int, tasks: int, count: int) -> float:
    """Sum over ``count`` records and their tasks of ``log(1 + exp(z)) - y z``."""
    total = 0.0
    for i in range(count):
        for task in range(tasks):
            z = np.float64(get(logits, i * columns + task))
            y = np.float64(get(labels, i * tasks + task))
            total += max(z, 0.0) - y * z + math.log1p(math.exp(-abs(z)))
    return total


@compiled
def logit_gradient(
    gradient: int, logits: int, columns: int, labels: int, tasks: int, count: int, rate: float
) -> float:
    """Write ``rate * (y - sigmoid(z))``; returns `loss`, not finite if any logit is not.

    The logarithms are of products, so the loss costs no more than the gradient.
    """
    total, product, factors = 0.0, 1.0, 0
    for i in range(count):
        for task in range(tasks):
            z = np.float64(get(logits, i * columns + task))
            y = np.float64(get(labels, i * tasks + task))
            small = math.exp(-abs(z))
            inverse = 1.0 / (1.0 + small)
            put(
                gradient,
                i * columns + task,
                np.float32(rate * (y - (inverse if z >= 0.0 else small * inverse))),
            )
            total += max(z, 0.0) - y * z
            product *= 1.0 + small
            factors += 1
            if factors == _MOST_FACTORS:
                total += math.log(product)
                product, factors = 1.0, 0
    return total + math.log(product)


@compiled_reordered
def squares(values: int, count: int) -> float:
    """``(values ** 2).sum()`` in float32; not finite if a value is not."""
    total = _ZERO
    for i in range(count):
        value = get(values, i)
        total += value * value
    return np.float64(total)


@compiled_exactly
def add_change_on_grid(total: int, local: int, base: int, weight: float, count: int) -> None:
    """``total += weight * (local - base)``, as `subtract` and `add_on_grid` do."""
    for i in range(count):
        term = np.float64(get(local, i) - get(base, i)) * weight
        put_double(total, i, get_double(total, i) + ((term + _GRID) - _GRID))


@compiled
def gather(to: int, source: int, row_bytes: int, order: int, count: int) -> None:
    """``to[i] = source[order[i]]`` for ``count`` rows."""
    for i in range(count):
        move(to + i * row_bytes, source + row_bytes * get_index(order, i), row_bytes)
