"""One executor process: ``python -m simulation.executors.executor_process DESCRIPTOR``.

It trains what the run posts (`simulation.executors.task_board`), and what it is asked for over an
inherited socket, until that is closed. Whatever goes wrong
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
    Rung,
    SetWeights,
    Summed,
    Train,
)
from simulation.executors.shared_rows import SharedRows
from simulation.executors.shared_sums import SumRows
from simulation.executors.task_board import TaskBoard
from simulation.executors.task_columns import StatisticsColumns, TaskColumns

_ALL = 2**62
"""Beyond the last version."""


class ExecutorProcess:
    """An executor that does what the run posts on the board, and what it says.

    Args:
        connection: To the run.
    """

    def __init__(self, connection: Connection, begin: Begin) -> None:
        parameters = begin.model.parameter_count
        self._connection = connection
        self._weights = SharedRows(begin.weights, parameters, np.float32)
        self._sums = SumRows(SharedRows(begin.sums, parameters, np.float64))
        self._board = TaskBoard(begin.number, begin.executors, begin.plan.outputs, begin.board)
        self._executor = LocalExecutor(
            *(begin.model, begin.plan, begin.records),
            new_total=self._sums.new_total,
            progress=self._board.progress,
        )
        self._stamps: dict[int, int] = {}
        self._oldest = 0

    def serve(self) -> None:
        """Work until the other side closes the connection."""
        self._connection.send(Begun())
        follows = False
        while True:
            if self._board.is_news(look=follows):
                self._take_posted()
                follows = True
                continue
            messages: list[Message] = []
            if self._board.must_sleep():
                messages = self._connection.recv()
            self._board.wake()
            follows = False
            for message in messages:
                self._answer(message)

    def _take_posted(self) -> None:
        """Train what this executor can get hold of."""
        posted = self._board.posted()
        if posted.oldest != self._oldest:
            # Smaller than before: another trial has begun, whose versions are all new.
            before = posted.oldest if posted.oldest > self._oldest else _ALL
            self._executor.forget_weights(before)
            self._stamps = {v: stamp for v, stamp in self._stamps.items() if v >= before}
            self._oldest = posted.oldest
        for version, (row, stamp) in posted.weights_of.items():
            if self._stamps.get(version) != stamp:
                self._executor.set_weights(version, self._weights.row(row))
                self._stamps[version] = stamp
        self._sums.begin(posted.first_sum)
        self._executor.sum_claimed(posted.tasks, posted.statistics, posted.claims)
        if self._board.finish():
            self._connection.send(Rung())

    def _answer(self, message: Message) -> None:
        executor, connection = self._executor, self._connection
        match message:
            case SetWeights():
                executor.set_weights(message.version, self._weights.row(message.row))
            case ForgetWeights():
                executor.forget_weights(message.before)
            case Train():
                connection.send(StatisticsColumns.of(executor.train(message.tasks)))
            case Reduce():
                connection.send(self._summed(message.tasks))
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

    def _summed(self, tasks: TaskColumns) -> Summed:
        self._sums.begin()
        totals, statistics = self._executor.sum_on_grid(tasks)
        return Summed({v: self._sums.row_of(total) for v, total in totals.items()}, statistics)


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
            ExecutorProcess(connection, connection.recv()).serve()
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
