"""The two places where Flower's strategies are told of the virtual grid; all else is unmodified.

``sample_nodes`` prints and sleeps a second at a time while nodes are missing; here time passes at
once until there are enough, then the original draws them. ``start``, that of `Strategy` and those
of strategies with one of their own, hands what the server evaluates, and the result, on to the
record of the run.
"""

import contextlib
import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any

from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy, strategy_utils

from simulation.flower.grid import VirtualGrid

Evaluate = Callable[[int, ArrayRecord], MetricRecord | None]
Start = Callable[..., Result]

_SAMPLE_NODES = strategy_utils.sample_nodes


def _sample_nodes(
    grid: Grid, min_available_nodes: int, sample_size: int
) -> tuple[list[int], list[int]]:
    if isinstance(grid, VirtualGrid):
        grid.wait_for_nodes(max(min_available_nodes, sample_size))
    return _SAMPLE_NODES(grid, min_available_nodes, sample_size)


def _told(start: Start) -> Start:
    signature = inspect.signature(start)

    @functools.wraps(start)
    def told(*args: Any, **kwargs: Any) -> Result:  # noqa: ANN401 - handed on as they are
        given = signature.bind(*args, **kwargs)
        grid, measure = given.arguments.get("grid"), given.arguments.get("evaluate_fn")
        if not isinstance(grid, VirtualGrid):
            return start(*args, **kwargs)
        if measure is not None:
            given.arguments["evaluate_fn"] = _noted(measure, grid)
        grid.result = start(*given.args, **given.kwargs)
        return grid.result

    return told


def _noted(measure: Evaluate, grid: VirtualGrid) -> Evaluate:
    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        metrics = measure(server_round, arrays)
        if metrics is not None:
            grid.note_server_metrics(metrics)
        return metrics

    return evaluate


@contextlib.contextmanager
def strategy_hooks() -> Iterator[None]:
    """Hook Flower's strategies, also those an app imports or derives inside; undone afterwards."""
    hooked = []
    for name, module in list(sys.modules.items()):
        if name.startswith("flwr.") and vars(module).get("sample_nodes") is _SAMPLE_NODES:
            hooked.append(module)
            module.sample_nodes = _sample_nodes  # type: ignore[attr-defined]
    starts: list[tuple[type[Strategy], Start]] = []

    def hook(strategy: type[Strategy]) -> None:
        start = vars(strategy).get("start")
        if inspect.isfunction(start):
            starts.append((strategy, start))
            strategy.start = _told(start)  # type: ignore[method-assign]

    hook(Strategy)  # type: ignore[type-abstract]
    for strategy in _derived(Strategy):  # type: ignore[type-abstract]
        hook(strategy)
    Strategy.__init_subclass__ = classmethod(hook)  # type: ignore[assignment]
    try:
        yield
    finally:
        del Strategy.__init_subclass__
        for strategy, start in starts:
            strategy.start = start  # type: ignore[method-assign]
        for module in hooked:
            module.sample_nodes = _SAMPLE_NODES  # type: ignore[attr-defined]


def _derived(strategy: type[Strategy]) -> Iterator[type[Strategy]]:
    for derived in strategy.__subclasses__():
        yield derived
        yield from _derived(derived)
