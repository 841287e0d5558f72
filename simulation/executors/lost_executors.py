"""What a user is told of executor processes that end, where replacing them is no use."""

import signal

from device_runtime.errors import FlintError
from simulation.executors.process_link import Ending

DEATHS = 3
"""After so many on one share of the work, the run stops: the next process would die of it too."""

STALLS = 2
"""After so many on one share of the work, likewise."""


class ExecutorLost(FlintError):
    """A process that trains simulated clients has ended, and another one would not help."""

    code = "FLN-1721"


class ExecutorOutOfMemory(ExecutorLost):
    """Processes that train simulated clients end again and again, probably for want of memory."""

    code = "FLN-3055"


class ExecutorStalled(ExecutorLost):
    """A process that trains simulated clients finishes nothing, and nor does another one."""

    code = "FLN-3057"


def lost(ending: Ending, deaths: int, executors: int, *, feeds_back: bool) -> ExecutorLost:
    """The error of a run that cannot go on.

    Args:
        deaths: How often a process has ended like this with the same tasks.
        executors: How many processes there are.
        feeds_back: Whether clients' error feedback was in it.
    """
    said = ending.sentence
    if deaths > 1:
        said += f", {deaths} times on the same tasks"
    several = executors > 1
    fewer = (
        f"go on with fewer executors (there are {executors})"
        if several
        else "go on with a smaller client.max_records or batch, or on a larger machine"
    )
    if feeds_back:
        return ExecutorLost(
            f"{said}; what its clients' compressed updates had left out is lost with it; go on "
            f"from the last checkpoint{', with fewer executors if memory ran out' * several}"
        )
    if ending.stalled_s is not None:
        return ExecutorStalled(
            f"{said}; if its tasks may take longer, set executors.stall_timeout_s in the "
            f"environment to more, and go on{_tail(ending)}"
        )
    if ending.for_want_of_memory:
        likely = "" if ending.exit_code else ", most likely because memory ran out"
        return ExecutorOutOfMemory(f"{said}{likely}; {fewer}{_tail(ending)}")
    if ending.signal is signal.SIGBUS:
        return ExecutorLost(
            f"{said}: a file of records it reads may have been cut off meanwhile, or its disk has "
            f"failed; put the file back and go on{_tail(ending)}"
        )
    if ending.exit_code is not None:
        return ExecutorLost(f"{said}; mend what its log names, and go on{_tail(ending)}")
    return ExecutorLost(f"{said}; {fewer} if memory ran out{_tail(ending)}")


def _tail(ending: Ending) -> str:
    if not ending.log:
        return ""
    return "; its log ends with:\n" + "\n".join(f"  {line}" for line in ending.log) + "\n"
