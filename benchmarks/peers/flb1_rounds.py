"""What drivers of FLB-1 share: the workload, read from files, and rounds that are done when asked.

A driver is started in its peer's environment with a folder that `flb1_workload.write_workload` has
filled. It says ``{"ready": versions}``, then reads a number of rounds a line, does them, and
answers with the seconds that they took, its own and those of all processes under it. So rounds of a
peer and of ours can take turns, and what a peer does once (imports, compilation, processes, its
population) is not measured. Standard library and numpy only.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Workload:
    """What `flb1_workload.Workload` is, in numpy alone; `cohort` begins anew when all were had.

    Attributes:
        parameters: Kernel, ``(inputs, outputs)``, and bias of each layer.
    """

    x: np.ndarray
    y: np.ndarray
    first_row: np.ndarray
    records: np.ndarray
    cohorts: np.ndarray
    parameters: list[tuple[np.ndarray, np.ndarray]]
    batch_size: int
    local_epochs: int
    learning_rate: float

    @classmethod
    def load(cls, folder: Path) -> "Workload":
        arrays = {path.stem: np.load(path) for path in folder.glob("*.npy")}
        about = json.loads((folder / "about.json").read_text())
        layers = range(about.pop("layers"))
        del about["model"]
        parameters = [(arrays.pop(f"kernel_{n}"), arrays.pop(f"bias_{n}")) for n in layers]
        return cls(parameters=parameters, **arrays, **about)

    def rows(self, client: int) -> slice:
        begin = int(self.first_row[client])
        return slice(begin, begin + int(self.records[client]))

    def cohort(self, number: int) -> list[int]:
        return self.cohorts[number % len(self.cohorts)].tolist()


class Rounds:
    """Says when to do the next round; what is done between two calls of `go_on` is one.

    Args:
        packages: Whose versions are told.
        speaks: Whether this process reads and answers; of several that work together, one does.
        wait_for_others: Called at the begin of a request and before its end is told.
    """

    def __init__(
        self,
        *packages: str,
        speaks: bool = True,
        wait_for_others: Callable[[], object] = lambda: None,
    ) -> None:
        self._versions = {name: version(name) for name in packages}
        self._speaks, self._wait_for_others = speaks, wait_for_others
        self._left: int | None = None
        self._begun = (0.0, 0.0)
        # What a peer prints is for its log: answers have the output for themselves.
        self._answers = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)

    def go_on(self) -> bool:
        """To be called before every round; waits until one is wanted. False: none is any more."""
        if not self._speaks:
            self._wait_for_others()
            return True
        if self._left:
            self._left -= 1
            self._wait_for_others()
            return True
        if self._left is None:
            self._answer({"ready": self._versions})
        else:
            cpu_s, wall_s = (
                tree_cpu_s(os.getpid()) - self._begun[0],
                time.perf_counter() - self._begun[1],
            )
            self._answer({"cpu_s": cpu_s, "wall_s": wall_s})
        asked = sys.stdin.readline()
        if not asked:
            return False
        self._left = int(asked) - 1
        self._wait_for_others()
        self._begun = (tree_cpu_s(os.getpid()), time.perf_counter())
        return True

    def _answer(self, value: dict) -> None:
        self._answers.write(json.dumps(value) + "\n")


def tree_cpu_s(root: int) -> float:
    """CPU seconds, user and system, of a process and all under it, those that have ended too."""
    children: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        pid = int(stat.parent.name)
        children.setdefault(int(fields[1]), []).append(pid)
        ticks[pid] = sum(map(int, fields[11:15]))
    total, waiting = 0, [root]
    while waiting:
        pid = waiting.pop()
        total += ticks.get(pid, 0)
        waiting += children.get(pid, [])
    return total / _TICKS_A_SECOND
