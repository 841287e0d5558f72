"""The actor of a Ray cluster that trains the clients of one executor; Ray itself is not needed.

What it imports at the top is light, so that it says where it runs before torch is loaded there.
"""

import hashlib
import platform
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from device_runtime.errors import named_in

if TYPE_CHECKING:
    from modeling.spec import ModelSpec
    from simulation.executors.local import LocalExecutor
    from simulation.executors.paths import TrainingPath
    from simulation.executors.ray_records import SentRecords, SharedRecords
    from simulation.executors.task_columns import StatisticsColumns, TaskColumns
    from simulation.executors.training import LocalPlan

_TRAINS = ("numpy", "torch", "numba", "llvmlite")
_PACKAGES = ("device_runtime", "modeling", "server", "simulation")


@dataclass(frozen=True, slots=True)
class Software:
    """What decides about the bits of an update.

    Attributes:
        code: Digest of FLINT's own source.
        versions: Of Python and the packages that compute, by name.
        processor: Its kind; another one may round otherwise.
    """

    code: str
    versions: Mapping[str, str]
    processor: str

    @classmethod
    def here(cls) -> "Software":
        """Of this process, once what trains is loaded."""
        import torch  # noqa: F401 - here, where nobody waits for an answer yet

        import simulation.executors.local  # noqa: F401
        from feature_catalog.code_version import package_versions

        return cls(_code_digest(), package_versions(_TRAINS), _processor())

    def difference(self, here: "Software") -> str | None:
        """In what this differs from ``here`` so that results could, in words; None: in nothing."""
        if self.code != here.code:
            return "another version of FLINT's code"
        for name, version in here.versions.items():
            found = self.versions.get(name)
            if found != version:
                return f"{name} {found or '(none)'}, here {version}"
        return None


@dataclass(frozen=True, slots=True)
class Assignment:
    """What an executor trains: everything but records."""

    model: "ModelSpec"
    plan: "LocalPlan"
    path: "TrainingPath"


Instruction = tuple[str, tuple[Any, ...]]
"""Method of `LocalExecutor` without an answer, and its arguments."""


class PartitionActor:
    """One executor: a `LocalExecutor` of its partition, on one thread."""

    _executor: "LocalExecutor"

    def __init__(self) -> None:
        self._progress = np.zeros(1, np.int64)

    def finished(self) -> int:
        """Tasks trained so far; answered while others are."""
        return int(self._progress[0])

    def place(self) -> str:
        """Address and name of the node."""
        import ray

        return f"{ray.util.get_node_ip_address()} ({socket.gethostname()})"

    def software(self) -> Software:
        """Load what trains, and say what it is."""
        return Software.here()

    def begin(self, assignment: Assignment, records: "SharedRecords | SentRecords") -> None:
        """Open the records and get ready to train.

        Raises:
            RecordsMissingOnNode: If they are not on this node.
            NotEnoughMemory: If this node has not enough for one executor.
            FlintError: If it cannot train the model for another reason; names the node.
        """
        from simulation.executors.local import LocalExecutor
        from simulation.executors.memory_needed import MemoryNeed, require_memory

        opened = records.open(self.place())
        need = MemoryNeed.of(assignment.model, assignment.plan, opened, assignment.path)
        require_memory(need, 1, assignment.model.name, node=self.place())
        with named_in(f"node {self.place()}"):
            self._executor = LocalExecutor(
                assignment.model,
                assignment.plan,
                opened,
                assignment.path,
                progress=self._progress,
            )

    def train(
        self,
        instructions: Sequence[Instruction],
        tasks: "TaskColumns",
        *weights: NDArray[np.float32],
    ) -> "tuple[dict[int, NDArray[np.float64]], StatisticsColumns]":
        """Follow the instructions, then `Executor.train`; there are no sums.

        Args:
            weights: Of each instruction ``set_weights``, in their order.
        """
        from simulation.executors.task_columns import StatisticsColumns

        self._follow(instructions, weights)
        return {}, StatisticsColumns.of(self._executor.train(tasks))

    def reduce(
        self,
        instructions: Sequence[Instruction],
        tasks: "TaskColumns",
        *weights: NDArray[np.float32],
    ) -> "tuple[dict[int, NDArray[np.float64]], StatisticsColumns]":
        """Follow the instructions, then sum; a sum per base version, shape ``(parameters,)``."""
        self._follow(instructions, weights)
        return self._executor.sum_on_grid(tasks)

    def residuals(
        self, instructions: Sequence[Instruction], *weights: NDArray[np.float32]
    ) -> Mapping[str, Any]:
        """Follow the instructions, then `Executor.residuals`."""
        self._follow(instructions, weights)
        return self._executor.residuals()

    def _follow(
        self, instructions: Sequence[Instruction], weights: Sequence[NDArray[np.float32]]
    ) -> None:
        coming = iter(weights)
        for name, arguments in instructions:
            if name == "set_weights":
                (version,) = arguments
                self._executor.set_weights(version, next(coming))
            elif name == "restore_residuals":
                state, share, of = arguments
                self._executor.restore_residuals(state, share=share, of=of)
            else:
                getattr(self._executor, name)(*arguments)


def _code_digest() -> str:
    root = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for package in _PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            digest.update(str(path.relative_to(root)).encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
