"""The two places where Flower's strategies are told of the virtual grid; all else is unmodified.

``sample_nodes`` prints and sleeps a second at a time while nodes are missing; here time passes at
once until there are enough, then the original draws them. ``Strategy.start`` hands what the server
evaluates, and the result, on to the record of the run.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy, strategy_utils

from simulation.flower.grid import VirtualGrid

Evaluate = Callable[[int, ArrayRecord], MetricRecord | None]

_SAMPLE_NODES = strategy_utils.sample_nodes


def _sample_nodes(
    grid: Grid, min_available_nodes: int, sample_size: int
) -> tuple[list[int], list[int]]:
    if isinstance(grid, VirtualGrid):
        grid.wait_for_nodes(max(min_available_nodes, sample_size))
    return _SAMPLE_NODES(grid, min_available_nodes, sample_size)


def _started(start: Callable[..., Result]) -> Callable[..., Result]:
    def started(
        self: Strategy,
        grid: Grid,
        initial_arrays: ArrayRecord,
        *args: Any,  # noqa: ANN401 - handed on as they are
        evaluate_fn: Evaluate | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> Result:
        if not isinstance(grid, VirtualGrid):
            return start(self, grid, initial_arrays, *args, evaluate_fn=evaluate_fn, **kwargs)
        positional = list(args)
        if len(positional) > _EVALUATE_FN_AT:
            evaluate_fn = positional.pop(_EVALUATE_FN_AT)
        measured = evaluate_fn

        def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
            metrics = measured(server_round, arrays) if measured is not None else None
            if metrics is not None:
                grid.note_server_metrics(metrics)
            return metrics

        given = None if measured is None else evaluate
        grid.result = start(self, grid, initial_arrays, *positional, evaluate_fn=given, **kwargs)
        return grid.result

    return started


_EVALUATE_FN_AT = 4
"""Its place among the positional arguments after ``initial_arrays``."""


@contextlib.contextmanager
def strategy_hooks() -> Iterator[None]:
    """Hook Flower's strategies, also those an app imports or derives inside; undone afterwards."""
    hooked = []
    for name, module in list(sys.modules.items()):
        if name.startswith("flwr.") and vars(module).get("sample_nodes") is _SAMPLE_NODES:
            hooked.append(module)
            module.sample_nodes = _sample_nodes  # type: ignore[attr-defined]
    start = Strategy.start
    Strategy.start = _started(start)  # type: ignore[method-assign]
    try:
        yield
    finally:
        Strategy.start = start  # type: ignore[method-assign]
        for module in hooked:
            module.sample_nodes = _SAMPLE_NODES  # type: ignore[attr-defined]
