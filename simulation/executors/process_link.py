"""One executor process as the run sees it: its start, the connection to it, its log, its end."""

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from modeling.spec import ModelSpec
from simulation.executors.messages import (
    OUT_OF_MEMORY,
    Begin,
    ForgetWeights,
    Message,
    Refused,
    Rung,
    SetWeights,
)
from simulation.executors.records import ClientRecords
from simulation.executors.shared_rows import SharedRows
from simulation.executors.shared_sums import SumRows
from simulation.executors.shared_weights import SharedWeights
from simulation.executors.task_board import TaskBoard
from simulation.executors.training import LocalPlan

_LAUNCHER = Path(__file__).parents[2] / "server" / "operations" / "launch.py"
_TAIL_LINES = 20
_END_S = 30.0
"""That a process may take to end once it has let go of its connection."""
_START_S = 300.0
"""That a process may take at least to load everything."""
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


@dataclass(frozen=True, slots=True)
class Ending:
    """How a process ended.

    Attributes:
        name: Which one.
        signal: That ended it; None if it ended by itself, or does not answer.
        exit_code: Its own; None if a signal ended it.
        log: Last lines of its log.
        stalled_s: Seconds without a finished task, after which it was stopped; None if it ended.
    """

    name: str
    signal: signal.Signals | None
    exit_code: int | None
    log: tuple[str, ...]
    stalled_s: float | None = None

    @property
    def for_want_of_memory(self) -> bool:
        """Whether memory ran out: it was refused, or the kernel took the process for it."""
        is_killed = self.signal is signal.SIGKILL and self.stalled_s is None
        return is_killed or self.exit_code == OUT_OF_MEMORY

    @property
    def would_come_again(self) -> bool:
        """Whether a new process would end likewise: it met an error that is no want of memory."""
        return self.exit_code is not None and self.exit_code != OUT_OF_MEMORY

    @property
    def sentence(self) -> str:
        """Who ended, and how."""
        if self.stalled_s is not None:
            return f"{self.name} finished no task for {self.stalled_s:g} s and was stopped"
        if self.exit_code == OUT_OF_MEMORY:
            return f"{self.name} was refused memory"
        if self.exit_code is not None:
            return f"{self.name} ended with exit code {self.exit_code}"
        if self.signal is None:
            return f"{self.name} does not answer"
        return f"{self.name} was ended by {self.signal.name}"


class ProcessEnded(Exception):
    """A process is no more, where its answer was wanted."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.sentence)
        self.ending = ending


class ProcessLink:
    """A process that is started, told to begin, and answers.

    Args:
        number: From 1; the run itself is executor 0.
        of: How many executors there are.
        parameters: Of the model.
        weights: The run's.
        board: The run's.
        stall_timeout_s: Without a finished task for so long, it is taken to be stuck.

    Attributes:
        number: From 1.
        sums: Rows that it writes sums to.
    """

    def __init__(
        self,
        number: int,
        of: int,
        parameters: int,
        weights: SharedWeights,
        board: TaskBoard,
        stall_timeout_s: float,
    ) -> None:
        self.number, self._of = number, of
        self._name = f"executor process {number + 1} of {of}"
        self._board, self._stall_timeout_s = board, stall_timeout_s
        self._log = tempfile.TemporaryFile(prefix="flint-executor-")  # noqa: SIM115 - see end
        rows = SharedRows.create(parameters, np.float64)
        self.sums, self._sums = SumRows(rows), rows.descriptor
        self._weights = weights
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-P", "-m", "simulation.executors.executor_process"]
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - the command is our own
                [
                    *(sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid())),
                    *(*command, str(theirs.fileno())),
                ],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **_ONE_THREAD},
                pass_fds=(theirs.fileno(), weights.descriptor, self._sums, *board.descriptors),
                process_group=0,  # a Ctrl-C is for the run, which ends its executors
            )
        self._connection = Connection(ours.detach())
        self._takes_s = max(_START_S, stall_timeout_s)
        _let_block(self._connection, self._takes_s)
        self._unsent: list[Message] = []

    def begin(self, model: ModelSpec, plan: LocalPlan, records: ClientRecords) -> None:
        """Send the first message; it is answered when all is loaded.

        Raises:
            ProcessEnded: If the process has.
        """
        weights, board = self._weights.descriptor, self._board.descriptors
        self._send(Begin(model, plan, records, self.number, self._of, weights, self._sums, board))

    def tell(self, message: Message) -> None:
        """Send what is not answered with the next `ask`.

        A process that is asked for nothing is not told of versions that are forgotten already.
        """
        if isinstance(message, ForgetWeights):
            self._unsent = [
                each
                for each in self._unsent
                if not (isinstance(each, SetWeights) and each.version < message.before)
                and not (isinstance(each, ForgetWeights) and each.before <= message.before)
            ]
        self._unsent.append(message)

    def ask(self, message: Message) -> None:
        """Send what is answered, after all that it was told.

        Raises:
            ProcessEnded: If the process has.
        """
        messages, self._unsent = [*self._unsent, message], []
        self._send(messages)

    def ring(self) -> None:
        """Have it look at the board.

        It may have ended; whoever waits for it then will be told.
        """
        if self._board.is_asleep(self.number):
            with contextlib.suppress(OSError):
                self._connection.send([Rung()])

    def finish(self) -> None:
        """Wait until it finds nothing more to take on the board.

        Raises:
            ProcessEnded: If the process ends before, or is stuck.
            FlintError: What the user has to mend, if the process says so.
        """
        while not self._board.is_done(self.number):
            if self._board.must_be_awaited(self.number):
                self._next(self._stall_timeout_s)

    def await_start(self) -> None:
        """Wait until it is ready, which takes a while that is no standstill.

        Raises:
            ProcessEnded: If the process ends instead, or is stuck.
            FlintError: What the user has to mend, if the process says so.
        """
        self._next(self._takes_s)
        self._takes_s = self._stall_timeout_s
        _let_block(self._connection, self._takes_s)

    def receive(self) -> Any:  # noqa: ANN401 - the answer to what was sent
        """Wait for the answer.

        Raises:
            ProcessEnded: If the process ends instead, or is stuck.
            FlintError: What the user has to mend, if the process says so.
        """
        while isinstance(answer := self._next(self._stall_timeout_s), Rung):
            pass  # that the board was done with
        return answer

    def _next(self, timeout_s: float) -> Any:  # noqa: ANN401
        """Whatever it says next; it may take so long for each task."""
        look_s = min(1.0, timeout_s / 4)
        progress, since_s = self._board.progress_of(self.number), time.monotonic()
        try:
            while not self._connection.poll(look_s):
                now = self._board.progress_of(self.number)
                if now != progress:
                    progress, since_s = now, time.monotonic()
                elif time.monotonic() - since_s > timeout_s:
                    raise ProcessEnded(self._stalled(timeout_s))
            answer = self._connection.recv()
        except (EOFError, OSError) as error:
            raise ProcessEnded(self._ending()) from error
        if isinstance(answer, Refused):
            raise answer.error
        return answer

    def end(self) -> None:
        """Kill it; it holds nothing that lasts."""
        self._connection.close()
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # it waits for a disk, and then ends
            self._process.wait(timeout=_END_S)
        self._log.close()
        self.sums.close()

    def _send(self, message: Begin | Sequence[Message]) -> None:
        try:
            self._connection.send(message)
        except BlockingIOError as error:
            raise ProcessEnded(self._stalled(self._takes_s)) from error
        except OSError as error:
            raise ProcessEnded(self._ending()) from error

    def _stalled(self, after_s: float) -> Ending:
        self._process.kill()
        return replace(self._ending(), stalled_s=after_s)

    def _ending(self) -> Ending:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=_END_S)
        code = self._process.poll()
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").splitlines()[-_TAIL_LINES:]
        killed = signal.Signals(-code) if code is not None and code < 0 else None
        exit_code = code if code is not None and code >= 0 else None
        return Ending(self._name, killed, exit_code, tuple(lines))


def _let_block(connection: Connection, seconds: float) -> None:
    """Have sending fail when nothing is read for so long: a message may be more than it holds."""
    whole = int(seconds)
    timeval = struct.pack("@ll", whole, max(1, int((seconds - whole) * 1e6)))  # 0 is for ever
    with socket.socket(fileno=os.dup(connection.fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
