"""One executor process: ``python -m simulation.executors.executor_process DESCRIPTOR``.

It trains what it is asked for over an inherited socket until that is closed. Whatever goes wrong
ends it, with the traceback in its log: `simulation.executors.processes` says so to the user.
"""

import contextlib
import signal
import sys
from multiprocessing.connection import Connection

from simulation.executors.local import LocalExecutor
from simulation.executors.messages import (
    Begin,
    Begun,
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


def serve(connection: Connection) -> None:
    """Answer messages until the other side closes the connection."""
    begin: Begin = connection.recv()
    executor = LocalExecutor(begin.model, begin.plan, begin.records)
    connection.send(Begun())
    while True:
        message: Message = connection.recv()
        match message:
            case SetWeights():
                executor.set_weights(message.version, message.weights)
            case ForgetWeights():
                executor.forget_weights(message.before)
            case Train():
                connection.send(executor.train(message.tasks))
            case Reduce():
                connection.send(executor.sum_on_grid(message.tasks))
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


def main() -> None:
    """Serve the connection whose descriptor is the argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the run, which closes us
    with Connection(int(sys.argv[1])) as connection, contextlib.suppress(EOFError):
        serve(connection)


if __name__ == "__main__":
    main()
