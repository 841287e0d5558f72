"""What a user is told of a process that ended; deaths are in test_dead_executors.py."""

import signal
import socket
import sys
from multiprocessing.connection import Connection

import pytest

from simulation.executors import executor_process
from simulation.executors.lost_executors import ExecutorLost, ExecutorOutOfMemory, lost
from simulation.executors.messages import OUT_OF_MEMORY, Begin
from simulation.executors.process_link import Ending
from simulation.executors.whole_files import UnusableRecords
from tests.simulation.executors.child_processes import MODEL
from tests.simulation.executors.conftest import PLAN


def ending(number=None, code=None, log=()) -> Ending:
    return Ending("executor process 1 of 4", number, code, log)


@pytest.mark.parametrize(
    ("found", "kind", "said"),
    [
        (
            ending(code=OUT_OF_MEMORY),
            ExecutorOutOfMemory,
            "was refused memory, 3 times on the same tasks; go on with fewer executors (there",
        ),
        (ending(signal.SIGBUS), ExecutorLost, "by SIGBUS, 3 times on the same tasks: a file of"),
        (ending(signal.SIGSEGV), ExecutorLost, "are 4) if memory ran out"),
        (ending(), ExecutorLost, "does not answer"),
        (
            ending(code=1, log=("Traceback", "KeyError: 7")),
            ExecutorLost,
            "mend what its log names, and go on; its log ends with:\n  Traceback\n  KeyError: 7\n",
        ),
    ],
)
def test_the_sentence_says_who_how_often_why_and_the_mend(found, kind, said):
    error = lost(found, 3, 4, feeds_back=False)
    assert type(error) is kind
    assert said in str(error)
    assert str(error).startswith("executor process 1 of 4 ")


def test_only_one_executor_is_not_told_to_become_fewer():
    assert "larger machine" in str(lost(ending(signal.SIGKILL), 3, 1, feeds_back=False))


@pytest.mark.parametrize("code", [1, 0, OUT_OF_MEMORY])
def test_an_error_would_come_again_and_want_of_memory_need_not(code):
    assert ending(code=code).would_come_again == (code != OUT_OF_MEMORY)
    assert not ending(signal.SIGKILL).would_come_again


@pytest.fixture
def _interrupts():
    """What a process does with Ctrl-C is for that process."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interrupts")
def test_what_the_user_has_to_mend_is_told_to_the_run_as_it_is(mapped, monkeypatch):
    ours, theirs = socket.socketpair()
    monkeypatch.setattr(sys, "argv", ["executor_process", str(theirs.detach())])
    with Connection(ours.detach()) as run:
        run.send(Begin(MODEL, PLAN, mapped, 1, 2, -1, -1, (-1, -1)))
        mapped.path.unlink()
        executor_process.main()
        refused = run.recv()
    with pytest.raises(UnusableRecords, match=r"records\.arrow of \d+ bytes cannot be opened"):
        raise refused.error
