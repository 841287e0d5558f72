"""Executors in processes of their own: as many cores as there are, results that do not change."""

import contextlib
import functools
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from modeling.spec import ModelSpec
from simulation.executors.client_residuals import merged
from simulation.executors.executor import Reduced, TrainingTask, UpdateStatistics
from simulation.executors.grid_sum import GridSums
from simulation.executors.messages import (
    Begin,
    CarryOver,
    Forget,
    ForgetResiduals,
    ForgetWeights,
    Message,
    Reduce,
    Residuals,
    RestoreResiduals,
    SetWeights,
    Train,
)
from simulation.executors.paths import choose_path
from simulation.executors.records import ClientRecords
from simulation.executors.training import LocalPlan

_LAUNCHER = Path(__file__).parents[2] / "server" / "operations" / "launch.py"
_TAIL_LINES = 20
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


class ExecutorLost(FlintError):
    """A process that trains simulated clients has ended before its time."""

    code = "FLN-1721"


class ProcessExecutors:
    """An `Executor` that spreads tasks over processes, each a `LocalExecutor` on one thread.

    All tasks of a data client go to one process, so that its records are read there only, and each
    process answers with one sum per base version: traffic is O(processes x model). Sums and
    statistics are the same to the bit for any number of processes (`GridSum`).

    The processes die with this one. To be used from the thread that created it, which must live as
    long: the kernel ties them to it.
    """

    def __init__(
        self, count: int, model: ModelSpec, plan: LocalPlan, records: ClientRecords
    ) -> None:
        """Start the processes and wait until all are ready.

        Args:
            count: Number of processes, at least 1.

        Raises:
            ExecutorLost: If one does not start.
        """
        self._feeds_back = plan.codec is not None and plan.codec.error_feedback
        self.path = choose_path(model, plan, records)
        self._executor_of = self.path.executor_of(count).tolist()
        self._versions: set[int] = set()
        self._processes: list[_ExecutorProcess] = []
        with self._or_none():
            for number in range(count):
                self._processes.append(_ExecutorProcess(number, count))
            begin = Begin(model, plan, records)
            for process in self._processes:
                process.send(begin)
            for process in self._processes:
                process.receive()

    def set_weights(self, version: int, weights: NDArray[np.float32]) -> None:
        """Send a version to every process, once."""
        self._tell_all(SetWeights(version, weights))
        self._versions.add(version)

    def forget_weights(self, before: int) -> None:
        """Forget versions and what was trained from them; see `Executor.forget_weights`."""
        self._tell_all(ForgetWeights(before))
        self._versions = {version for version in self._versions if version >= before}

    def train(self, tasks: Sequence[TrainingTask]) -> Sequence[UpdateStatistics]:
        """Train now, each process its clients; see `Executor.train`."""
        answers = self._ask(tasks, Train)
        return _in_order(tasks, [found for answer in answers for found in answer])

    def reduce(self, tasks: Sequence[TrainingTask]) -> Reduced:
        """Sum the tasks' updates, each process its clients'; see `Executor.reduce`."""
        answers: list[GridSums] = self._ask(tasks, Reduce)
        return functools.reduce(GridSums.merge, answers, GridSums({}, ())).reduced(tasks)

    def forget(self, task_ids: Sequence[str]) -> None:
        """Let go of updates, wherever they are."""
        if task_ids:
            self._tell_all(Forget(tuple(task_ids)))

    def carry_over(self, task_ids: Sequence[str]) -> None:
        """These updates count; see `Executor.carry_over`."""
        if self._feeds_back:
            self._tell_all(CarryOver(tuple(task_ids)))

    def forget_residuals(self, clients: Sequence[int]) -> None:
        """Nothing that these clients' updates left out is to be sent."""
        if self._feeds_back:
            self._tell_all(ForgetResiduals(tuple(clients)))

    def residuals(self) -> Mapping[str, Any]:
        """What clients' updates have left out, for a checkpoint."""
        with self._or_none():
            for process in self._processes:
                process.send(Residuals())
            return merged([process.receive() for process in self._processes])

    def restore_residuals(self, state: Mapping[str, Any]) -> None:
        """Go on after `residuals`, each process with its clients'."""
        with self._or_none():
            for number, process in enumerate(self._processes):
                process.send(RestoreResiduals(state, number, len(self._processes)))

    def close(self) -> None:
        """End the processes at once; what they have not answered is lost."""
        while self._processes:
            self._processes.pop().end()

    def _ask(self, tasks: Sequence[TrainingTask], message: type[Train | Reduce]) -> list[Any]:
        """Have each process do its share, all at a time; answers in the order of processes."""
        for task in tasks:
            if task.base_version not in self._versions:
                raise KeyError(task.base_version)
        count = len(self._processes)
        shares: list[list[TrainingTask]] = [[] for _ in range(count)]
        for task in tasks:
            shares[self._executor_of[task.data_client % len(self._executor_of)]].append(task)
        with self._or_none():
            asked = [(p, share) for p, share in zip(self._processes, shares, strict=True) if share]
            for process, share in asked:
                process.send(message(tuple(share)))
            return [process.receive() for process, _ in asked]

    def _tell_all(self, message: Message) -> None:
        with self._or_none():
            for process in self._processes:
                process.send(message)

    @contextlib.contextmanager
    def _or_none(self) -> Iterator[None]:
        """End all processes when an exchange is broken off: their answers would be out of step."""
        try:
            yield
        except BaseException:
            self.close()
            raise


class _ExecutorProcess:
    """One process, the connection to it, and its log."""

    def __init__(self, number: int, count: int) -> None:
        self._name = f"executor process {number + 1} of {count}"
        self._log = tempfile.TemporaryFile(prefix="flint-executor-")  # noqa: SIM115 - see end
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
                pass_fds=(theirs.fileno(),),
                process_group=0,  # a Ctrl-C is for the run, which ends its executors
            )
        self._connection = Connection(ours.detach())

    def send(self, message: object) -> None:
        """Send a message.

        Raises:
            ExecutorLost: If the process has ended.
        """
        try:
            self._connection.send(message)
        except OSError as error:
            raise self._lost() from error

    def receive(self) -> Any:  # noqa: ANN401 - the answer to what was sent
        """Wait for the answer.

        Raises:
            ExecutorLost: If the process ends instead.
        """
        try:
            return self._connection.recv()
        except (EOFError, OSError) as error:
            raise self._lost() from error

    def end(self) -> None:
        """Kill it; it holds nothing that lasts."""
        self._connection.close()
        self._process.kill()
        self._process.wait()
        self._log.close()

    def _lost(self) -> ExecutorLost:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5.0)
        code = self._process.poll()
        if code is None:
            end = "does not answer"
        elif code < 0:
            end = f"was ended by {signal.Signals(-code).name}"
        else:
            end = f"ended with exit code {code}"
        lines = self._log_text().splitlines()[-_TAIL_LINES:]
        tail = "\n".join(f"  {line}" for line in lines) or "  (nothing)"
        return ExecutorLost(
            f"{self._name} {end}; start the run again, with fewer executors if memory ran out; "
            f"its log ends with:\n{tail}\n"
        )

    def _log_text(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")


def _in_order(
    tasks: Sequence[TrainingTask], found: Sequence[UpdateStatistics]
) -> list[UpdateStatistics]:
    by_id = {statistics.task_id: statistics for statistics in found}
    return [by_id[task.task_id] for task in tasks]
