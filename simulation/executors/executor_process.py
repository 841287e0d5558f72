"""One executor process: ``python -m simulation.executors.executor_process DESCRIPTOR``.

It trains what the run posts (`simulation.executors.task_board`), and what it is asked for over an
inherited socket, until that is closed. Whatever goes wrong ends it: a user's mistake is told to the
run first, the traceback of anything else is in its log, and `simulation.executors.processes` says
so to the user.
"""

import contextlib
import errno
import os
import signal
import sys
import traceback
from multiprocessing.connection import Connection

import numpy as np

from device_runtime.errors import FlintError
from simulation.executors.compiled.arranging import GROUPS
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
from simulation.executors.paths import choose_path
from simulation.executors.shared_rows import SharedRows
from simulation.executors.shared_sums import SumRows
from simulation.executors.shared_weights import SharedWeights
from simulation.executors.task_board import TaskBoard
from simulation.executors.task_columns import StatisticsColumns, TaskColumns


class ExecutorProcess:
    """An executor that does what the run posts on the board, and what it says.

    Args:
        connection: To the run.
    """

    def __init__(self, connection: Connection, begin: Begin) -> None:
        model, plan, records = begin.model, begin.plan, begin.records
        self._connection, self._number = connection, begin.number
        path = choose_path(model, plan, records)
        self._weights = SharedWeights(model, path, begin.weights)
        self._sums = SumRows(SharedRows(begin.sums, model.parameter_count, np.float64))
        self._board = TaskBoard(begin.number, begin.executors, plan.outputs, begin.board)
        self._executor = LocalExecutor(
            *(model, plan, records, path),
            new_total=self._sums.new_total,
            new_room=self._weights.new_room,
            progress=self._board.progress,
        )
        self._is_summed = np.zeros(0, np.bool_)

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
        board, kernel = self._board, self._executor.kernel
        goes_on = board.read()
        if len(self._is_summed) < board.block.capacity:
            self._is_summed = np.zeros(board.block.capacity, np.bool_)
        groups = int(board.block.words[GROUPS])
        if not goes_on:
            self._is_summed[:groups] = False
        if kernel is not None:
            kernel.versions.adopt_all(board.posted_versions)
        self._executor.take_turns(
            *(board.block, board.outcomes, self._sums.addresses(groups), self._is_summed),
            number=self._number,
        )
        if board.finish():
            self._connection.send(Rung())

    def _answer(self, message: Message) -> None:
        executor, connection = self._executor, self._connection
        match message:
            case SetWeights():
                self._weights.adopt(executor, message.version, message.row)
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
