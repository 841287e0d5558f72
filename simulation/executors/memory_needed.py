"""What training needs of memory at least, and the refusal of what this machine does not have.

Known from model, plan and records before anything is started: weights, buffers and sums. A run may
need more (tasks that start from several versions have a sum for each), so what is refused could
never have been trained. Another path is not taken for want of memory: results would depend on the
machine.
"""

from dataclasses import dataclass

import numpy as np

from device_runtime.errors import FlintError
from modeling.spec import HashedBag, ModelSpec
from simulation.executors.compiled.layout import Layout, padded_columns
from simulation.executors.compiled.sample_buffers import rows_together
from simulation.executors.compiled.versions import version_floats
from simulation.executors.machine_memory import Available, address_space_left, available_memory
from simulation.executors.paths import TrainingPath
from simulation.executors.records import ClientRecords
from simulation.executors.training import LocalPlan

_PROCESS_BYTES = 180 * 2**20
"""Of a process with torch and the kernel, beside what it shares with others; measured."""
_LEADER_COPIES = 3
"""Of a model's weights: a version, the next, and the mean that leads to it."""
_COPIES = 4
"""In training by torch: start, local weights, gradient, difference."""


class NotEnoughMemory(FlintError):
    """Training needs more memory than there is."""

    code = "FLN-3053"


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """What is needed at least.

    Attributes:
        executor_bytes: Of one executor: its buffers and a sum.
        shared_bytes: Of the run and all its executors on a machine: a version, and its mean.
    """

    executor_bytes: int
    shared_bytes: int

    @classmethod
    def of(
        cls, model: ModelSpec, plan: LocalPlan, records: ClientRecords, path: TrainingPath
    ) -> "MemoryNeed":
        """Of a job's training on its path."""
        parameters = model.parameter_count
        executor, version = 8 * parameters, 4 * parameters
        if path.name == "compiled":
            layout, buffers = _kernel(model, plan, records, path)
            executor, version = executor + buffers, 4 * version_floats(layout)
        else:
            on_host = path.name == "layers" or plan.device == "cpu"
            is_cut = path.name == "layers" and isinstance(model.layers[0], HashedBag)
            cut = model.layers[0].parameters[0].size if is_cut else 0  # to rows that are used
            executor += 4 * on_host * _COPIES * (parameters - cut)
        return cls(executor, 4 * _LEADER_COPIES * parameters + version)

    def whole_bytes(self, executors: int) -> int:
        """Of a run with so many executors on this machine, the first in its own process."""
        processes = (executors - 1) * _PROCESS_BYTES
        return self.shared_bytes + executors * self.executor_bytes + processes

    def fitting(self, available_bytes: int) -> int:
        """How many executors that much is enough for."""
        left = available_bytes - self.shared_bytes - self.executor_bytes
        return 0 if left < 0 else 1 + left // (self.executor_bytes + _PROCESS_BYTES)


def require_memory(
    need: MemoryNeed,
    executors: int,
    model: str,
    *,
    node: str | None = None,
    available: Available | None = None,
) -> None:
    """Refuse what would run out of memory for certain.

    Args:
        executors: That share this machine.
        model: Its name.
        node: Of a cluster, for messages; None: this machine.
        available: None: what the kernel says.

    Raises:
        NotEnoughMemory: If there is not enough.
    """
    wanted = need.whole_bytes(executors)
    of_machine = available or available_memory()
    of_process = None if available else address_space_left()
    for found, needed in ((of_machine, wanted), (of_process, need.executor_bytes)):
        if found is None or needed <= found.bytes:
            continue
        fitting = 0 if found is of_process else need.fitting(found.bytes)
        where = "" if node is None else f" on node {node}"
        of = f"{executors} executors" if executors > 1 and found is of_machine else "an executor"
        mend = (
            f"at most {fitting} would fit: lower executors.count or --executors"
            if 0 < fitting < executors
            else "take a smaller model or client.max_records, or give it more memory"
        )
        raise NotEnoughMemory(
            f"training {model} with {of} needs at least {_amount(needed)} of memory{where}, and "
            f"{_amount(found.bytes)} of {found.whose} are left; {mend}"
        )


def _amount(count: int) -> str:
    return f"{count:,} bytes ({count / 2**30:.2f} GiB)"


def _kernel(
    model: ModelSpec, plan: LocalPlan, records: ClientRecords, path: TrainingPath
) -> tuple[Layout, int]:
    """The kernel's layout, and bytes of its buffers."""
    counts = np.minimum(records.records, plan.max_records)
    most = max(1, int(counts.max(initial=1)))
    layout = Layout.of(model, min(plan.batch_size, most))
    used = min(layout.table_rows, most * layout.slots) * layout.table_width
    floats = layout.padded + used + 2 * layout.values + layout.table_rows
    in_samples = int(counts[path.in_samples].max(initial=0))
    if in_samples:
        rows = in_samples * plan.local_epochs
        columns = sum(level.columns for level in layout.levels)
        floats += (2 * rows_together(layout, rows) + in_samples) * columns
        floats += 2 * rows * padded_columns(rows)
    return layout, 4 * floats
