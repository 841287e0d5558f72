"""Local training of one task in slices, interleaved with other identities on a shared engine."""

import resource
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device_runtime.engine import LiteRtEngine
from device_runtime.examples import Records
from device_runtime.manifest import ArtifactManifest
from device_runtime.training_plan import TrainingPlan, epoch_order

_PROC_STATUS = "/proc/self/status"


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What one task taught, and what it cost.

    Attributes:
        parameters: Local parameters, in wire order.
        delta: Local minus base parameters, in wire order.
        loss_before: Mean loss over the local records at the base parameters.
        loss_after: The same at the local parameters.
        train_s: Wall-clock seconds inside slices.
        cpu_s: CPU seconds of the training thread.
        peak_memory_bytes: Largest resident size of this process so far.
    """

    parameters: tuple[NDArray[np.float32], ...]
    delta: tuple[NDArray[np.float32], ...]
    num_examples: int
    loss_before: float
    loss_after: float
    train_s: float
    cpu_s: float
    peak_memory_bytes: int

    @property
    def is_finite(self) -> bool:
        """Whether training stayed in numbers: neither losses nor delta overflowed."""
        losses = np.isfinite(self.loss_before) and np.isfinite(self.loss_after)
        return bool(losses) and all(bool(np.isfinite(array).all()) for array in self.delta)


class TrainingSession:
    """Epochs over the local records, from base parameters, a slice at a time.

    However the work is cut into slices, the result is the same to the bit: the session carries its
    parameters itself and restores them when somebody else used the engine in between.

    Attributes:
        done: Nothing is left to do.
        train_s: Wall-clock seconds inside slices so far.
        cpu_s: CPU seconds of the training thread so far.
    """

    def __init__(
        self,
        engine: LiteRtEngine,
        plan: TrainingPlan,
        base: Sequence[NDArray[np.float32]],
        x: Records,
        y: Records,
    ) -> None:
        """Prepare; nothing runs yet.

        Args:
            engine: Of the artefact that ``plan`` was made for.
            plan: What to do.
            base: Parameters to start from, in wire order. They are not changed.
            x: Local records, shape ``(records, *input shape)``; at least one.
            y: Labels, shape ``(records, *label shape)``.

        Raises:
            UnsuitableExamples: If the records are not what the model takes.
        """
        engine.check_examples(x, y)
        self._engine = engine
        self._plan = plan
        self._base = base
        self._parameters = list(base)
        self._x, self._y = x, y
        self._loss_before = self._loss_after = 0.0
        self.train_s = self.cpu_s = 0.0
        self._work = self._steps()
        self.done = False

    @property
    def manifest(self) -> ArtifactManifest:
        """Of the artefact that is trained."""
        return self._engine.manifest

    def run(self, budget_s: float = float("inf")) -> bool:
        """Work until done or until ``budget_s`` seconds have passed; at least one batch.

        Returns:
            Whether the training is done.
        """
        if self.done:
            return True
        started_s, cpu_started_s = time.perf_counter(), time.thread_time()
        if self._engine.holder is not self:
            self._engine.resume(self._base, self._parameters, holder=self)
        for _ in self._work:
            if time.perf_counter() - started_s >= budget_s:
                break
        else:
            self.done = True
        self._parameters = self._engine.parameters()
        self.cpu_s += time.thread_time() - cpu_started_s
        self.train_s += time.perf_counter() - started_s
        return self.done

    def result(self) -> TrainingResult:
        """The update and its cost, once `run` has said it is done.

        Raises:
            RuntimeError: If training is not done.
        """
        if not self.done:
            raise RuntimeError("result() before the training is done")
        return TrainingResult(
            parameters=tuple(self._parameters),
            delta=tuple(new - old for new, old in zip(self._parameters, self._base, strict=True)),
            num_examples=len(self._x),
            loss_before=self._loss_before,
            loss_after=self._loss_after,
            train_s=self.train_s,
            cpu_s=self.cpu_s,
            peak_memory_bytes=peak_memory_bytes(),
        )

    def _steps(self) -> Iterator[None]:
        """The whole task; yields where it may be interrupted."""
        x, y, plan, engine = self._x, self._y, self._plan, self._engine
        count, batch = len(x), engine.manifest.batch_size
        starts = range(0, count, batch)
        for start in starts:
            part = slice(start, start + batch)
            self._loss_before += engine.total_loss(x[part], y[part]) / count
            yield
        for epoch in range(plan.local_epochs):
            order = epoch_order(count, plan.shuffle_seed, epoch)
            for start in starts:
                chosen = order[start : start + batch]
                engine.train_batch(x[chosen], y[chosen], plan.learning_rate, plan.proximal_mu)
                yield
        for start in starts:
            part = slice(start, start + batch)
            self._loss_after += engine.total_loss(x[part], y[part]) / count
            yield


def train(
    engine: LiteRtEngine,
    plan: TrainingPlan,
    base: Sequence[NDArray[np.float32]],
    x: Records,
    y: Records,
) -> TrainingResult:
    """A whole task in one go; see `TrainingSession`."""
    session = TrainingSession(engine, plan, base, x, y)
    session.run()
    return session.result()


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far (``VmHWM`` on Linux)."""
    if sys.platform == "linux":
        with open(_PROC_STATUS, "rb") as file:  # noqa: PTH123 (hot path)
            for line in file:
                if line.startswith(b"VmHWM:"):
                    return int(line.split()[1]) * 1024
    unit_bytes = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit_bytes
