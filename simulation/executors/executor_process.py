"""One executor process: ``python -m simulation.executors.executor_process DESCRIPTOR``.

It trains what it is asked for over an inherited socket until that is closed. Whatever goes wrong
ends it: a user's mistake is told to the run first, the traceback of anything else is in its log,
and `simulation.executors.processes` says so to the user.
"""

import contextlib
import errno
import os
import signal
import sys
import traceback
from multiprocessing.connection import Connection

import numpy as np
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from simulation.executors.local import LocalExecutor
from simulation.executors.messages import (
    OUT_OF_MEMORY,
    Begin,
    Begun,
    CarryOver,
    Forget,
    ForgetResiduals,
    ForgetWeights,
    Message,
    Reduce,
    Refused,
    Residuals,
    RestoreResiduals,
    SetWeights,
    Summed,
    Train,
)
from simulation.executors.shared_rows import SharedRows
from simulation.executors.task_columns import StatisticsColumns, TaskColumns


class Sums:
    """Rows that the run sees, given out one after the other to be summed in."""

    def __init__(self, rows: SharedRows) -> None:
        self._rows = rows
        self._given: list[NDArray[np.float64]] = []

    def begin(self) -> None:
        """The run has read all rows."""
        self._given.clear()

    def new_total(self) -> NDArray[np.float64]:
        """A row of zeros."""
        row: NDArray[np.float64] = self._rows.row(len(self._given))
        row.fill(0.0)
        self._given.append(row)
        return row

    def row_of(self, total: NDArray[np.float64]) -> int:
        """Which row `new_total` gave."""
        return next(number for number, row in enumerate(self._given) if row is total)


def serve(connection: Connection) -> None:
    """Answer messages until the other side closes the connection."""
    begin: Begin = connection.recv()
    parameters = begin.model.parameter_count
    weights = SharedRows(begin.weights, parameters, np.float32)
    sums = Sums(SharedRows(begin.sums, parameters, np.float64))
    executor = LocalExecutor(begin.model, begin.plan, begin.records, new_total=sums.new_total)
    connection.send(Begun())
    while True:
        messages: list[Message] = connection.recv()
        for message in messages:
            match message:
                case SetWeights():
                    executor.set_weights(message.version, weights.row(message.row))
                case ForgetWeights():
                    executor.forget_weights(message.before)
                case Train():
                    connection.send(StatisticsColumns.of(executor.train(message.tasks)))
                case Reduce():
                    connection.send(_summed(executor, sums, message.tasks))
                case Forget():
                    executor.forget(message.task_ids)
                case CarryOver():
                    executor.carry_over(message.task_ids)
                case ForgetResiduals():
                    executor.forget_residuals(message.clients)
                case Residuals():
                    connection.send(executor.residuals())
                case RestoreResiduals():
                    executor.restore_residuals(message.state, share=message.share, of=message.of)


def _summed(executor: LocalExecutor, sums: Sums, tasks: TaskColumns) -> Summed:
    sums.begin()
    totals, statistics = executor.sum_on_grid(tasks)
    return Summed({v: sums.row_of(total) for v, total in totals.items()}, statistics)


def _is_want_of_memory(error: Exception) -> bool:
    """Python, the kernel and torch each say it in their own way."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or "can't allocate memory" in str(error)


def main() -> None:
    """Serve the connection whose descriptor is the argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the run, which closes us
    with Connection(int(sys.argv[1])) as connection:
        try:
            serve(connection)
        except EOFError:
            return
        except FlintError as error:
            with contextlib.suppress(OSError):
                connection.send(Refused(error))
        except Exception as error:
            if not _is_want_of_memory(error):
                raise
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(OUT_OF_MEMORY)  # without memory there is no orderly end


if __name__ == "__main__":
    main()
