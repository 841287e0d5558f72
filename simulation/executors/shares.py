"""Which executor process trains which task: each gets the same work, as far as it is known."""

from heapq import heapreplace

import numpy as np
from numpy.typing import NDArray

from simulation.executors.compiled.training import LANES
from simulation.executors.paths import TrainingPath
from simulation.executors.records import ClientRecords
from simulation.executors.task_columns import TaskColumns
from simulation.executors.training import LocalPlan

OWN_WEIGHTS_ROWS = 13
"""Records whose steps take as long as the passes over a client's own weights: copy, difference,
norm and sum; see `simulation.executors.paths`."""


class Shares:
    """Deals tasks out to processes that can all train any client.

    Records differ a hundredfold between clients, so an even number of clients is not even work:
    of a hundred tasks one of two processes would have an eighth more than its half. So the longest
    are dealt out first, each to whom has the least so far (Graham, SIAM J. Appl. Math. 1969).

    Args:
        processes: How many there are.
        ties_clients: Whether a client's tasks must all go to one process.
    """

    def __init__(
        self,
        processes: int,
        path: TrainingPath,
        plan: LocalPlan,
        records: ClientRecords,
        *,
        ties_clients: bool,
    ) -> None:
        self._processes = processes
        self._in_samples = path.in_samples
        self._ties_clients = ties_clients
        rows = np.minimum(records.records, plan.max_records) * plan.local_epochs
        self._work = np.where(path.in_samples, rows + 1.0, rows + float(OWN_WEIGHTS_ROWS))

    def of(self, tasks: TaskColumns, keeper: NDArray[np.int64], *, kept: bool) -> NDArray[np.int64]:
        """The process of each task, shape ``(tasks,)``.

        Those in sample space that start from one version and are in one lane are rounded together,
        so they go to one process together.

        Args:
            keeper: Process that keeps the update of each task, or -1, shape ``(tasks,)``.
            kept: Whether updates are kept and summed later: lanes are then tied to processes.
        """
        client = tasks.data_client % max(1, len(self._work))
        if self._ties_clients:
            return client % self._processes
        if self._processes == 1:
            return np.zeros(len(tasks), np.int64)
        unit, tied = np.arange(len(tasks)), keeper.copy()
        in_samples = self._in_samples[client]
        if in_samples.any():
            lane = client % LANES
            if kept:
                tied[in_samples] = lane[in_samples] % self._processes
            else:
                # Kept ones are trained again with those that they are summed with.
                group = tasks.base_version * LANES + lane
                _, numbers = np.unique(group[in_samples], return_inverse=True)
                unit[in_samples] = len(tasks) + numbers
                is_kept = in_samples & (keeper >= 0)
                of_kept = np.isin(unit, unit[is_kept])
                tied[of_kept] = (lane % self._processes)[of_kept]
        return self._dealt(self._work[client], unit, tied)

    def _dealt(
        self, work: NDArray[np.float64], unit: NDArray[np.int64], tied: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        loads = np.bincount(tied[tied >= 0], work[tied >= 0], self._processes)
        least = sorted((load, number) for number, load in enumerate(loads.tolist()))
        of_unit = np.bincount(
            unit[tied < 0], work[tied < 0], minlength=int(unit.max(initial=0)) + 1
        )
        process = np.zeros(len(of_unit), np.int64)
        for number in np.argsort(-of_unit, kind="stable")[: np.count_nonzero(of_unit)].tolist():
            load, has_least = least[0]
            process[number] = has_least
            heapreplace(least, (load + float(of_unit[number]), has_least))
        return np.where(tied >= 0, tied, process[unit])
