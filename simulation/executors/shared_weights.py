"""Versions' weights in memory that all executor processes map."""

import numpy as np
from numpy.typing import NDArray

from modeling.spec import ModelSpec
from simulation.executors.compiled.layout import Layout
from simulation.executors.compiled.versions import version_floats
from simulation.executors.local import LocalExecutor
from simulation.executors.paths import TrainingPath
from simulation.executors.shared_rows import SharedRows


class SharedWeights:
    """Weights as executors train from them: for the kernel put in place once, by the run.

    Args:
        path: That all take.
        descriptor: Of the run's memory; None: the run makes it.
    """

    def __init__(self, model: ModelSpec, path: TrainingPath, descriptor: int | None = None) -> None:
        self._is_kernels = path.name == "compiled"
        floats = version_floats(Layout.of(model, 1)) if self._is_kernels else model.parameter_count
        self._rows = (
            SharedRows.create(floats, np.float32)
            if descriptor is None
            else SharedRows(descriptor, floats, np.float32)
        )
        self._rooms = 0
        self._row_of: dict[int, int] = {}

    @property
    def descriptor(self) -> int:
        """Of the memory."""
        return self._rows.descriptor

    @property
    def row_of(self) -> dict[int, int]:
        """By version, where its weights are."""
        return self._row_of

    def new_room(self) -> NDArray[np.float32]:
        """The next row, for the kernel's versions."""
        self._rooms += 1
        return self._rows.row(self._rooms - 1)

    def set(
        self, own: LocalExecutor, version: int, weights: NDArray[np.float32], *, is_kept: bool
    ) -> int:
        """Write a version's weights, and have the run's own executor know them.

        Args:
            is_kept: Whether others of this version may still be trained from.

        Returns:
            The row they are in.
        """
        if own.kernel is not None:
            own.kernel.versions.set(version, weights, is_replaced=not is_kept)
            row = own.kernel.versions.place(version)
        else:
            own.set_weights(version, weights)
            taken = set(self._row_of.values())
            row = self._row_of.get(
                version, next(i for i in range(len(taken) + 1) if i not in taken)
            )
            self._rows.row(row)[:] = weights
        self._row_of[version] = row
        return row

    def adopt(self, executor: LocalExecutor, version: int, row: int) -> None:
        """Have another process's executor know a version that the run has written."""
        if executor.kernel is not None:
            executor.kernel.versions.adopt(version, row)
        else:
            executor.set_weights(version, self._rows.row(row))

    def forget(self, before: int) -> None:
        """Smaller versions are not needed any more."""
        for version in [version for version in self._row_of if version < before]:
            del self._row_of[version]

    def close(self) -> None:
        """Let go of the memory."""
        self._rows.close()
