"""Whether a process runs, as the system says it."""

import os
import subprocess
import sys

from feature_catalog.postmaster import is_alive


def test_who_runs_is_alive():
    assert is_alive(os.getpid())
    assert is_alive(os.getppid())


def test_who_has_ended_and_is_not_waited_for_is_not_alive():
    child = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.read()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(child.pid)
    child.wait()
    assert not is_alive(child.pid)
