"""Which way a job's simulated clients are trained, and why: chosen by what is known beforehand.

The choice depends on model, job and records alone, so every executor makes the same one, and a run
that is resumed makes it again.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from modeling.spec import Dense, ModelSpec
from simulation.executors.compiled.layout import why_not_compiled
from simulation.executors.compiled.training import LANES, why_records_do_not_fit
from simulation.executors.records import ClientRecords
from simulation.executors.training import LocalPlan

_SMALL = 32_768
"""Parameters up to which a client's own weights stay in the nearest caches."""
_PASSES = 25
"""Multiplications in the time that the passes over a client's weights take a parameter: first step,
difference and sum; an estimate from runs on one machine, as the next."""
_SEGMENT = 13
"""The same of adding a segment's product to the sum."""
_SEGMENT_ROWS = 128
"""Rows of a segment."""
_PAIRS = 1.5
"""Products of rows with rows, half of all in forward and in backward, and what is slow in them."""

PathName = Literal["compiled", "layers", "module"]


@dataclass(frozen=True, slots=True)
class TrainingPath:
    """A way of training.

    Attributes:
        name: ``compiled``: machine code for one client's whole task; ``layers``: a torch call a
            layer and step, for any model of known layers; ``module``: autograd through a torch
            module, see `simulation.executors.modules`.
        why: Why it was taken, for users.
        in_samples: Which data clients the compiled kernel trains in sample space, ``(clients,)``.
    """

    name: PathName
    why: str
    in_samples: NDArray[np.bool_]

    @property
    def sentence(self) -> str:
        """What a run says of it."""
        ways = {
            "compiled": "compiled kernel",
            "layers": "layer by layer, the slower way",
            "module": "torch module, the slowest way on a CPU",
        }
        return f"training: {ways[self.name]}, because {self.why}"

    def idle_sentence(self, count: int) -> str | None:
        """What a run says where some of ``count`` executors have less to do than others."""
        share = float(self.in_samples.mean()) if len(self.in_samples) else 0.0
        if not share or count <= LANES:
            return None
        return (
            f"{share:.0%} of the clients are trained in sample space, which {LANES} executors "
            f"at most share; the other {count - LANES} have only the rest"
        )

    def executor_of(self, count: int) -> NDArray[np.int64]:
        """Which of ``count`` executors trains each data client, shape ``(clients,)``."""
        clients = np.arange(len(self.in_samples))
        return np.where(self.in_samples, clients % LANES, clients) % count


def choose_path(model: ModelSpec, plan: LocalPlan, records: ClientRecords) -> TrainingPath:
    """The fastest way that gives a job's updates."""
    nobody = np.zeros(len(records), np.bool_)
    if plan.by_module:
        return TrainingPath("module", f"that was asked for, on {plan.device}", nobody)
    against = why_not_compiled(model) or why_records_do_not_fit(model, records)
    if against is not None:
        return TrainingPath("layers", f"in {model.name} {against}", nobody)
    if plan.codec is not None or model.parameter_count <= _SMALL:
        why = f"every layer of {model.name} has compiled steps"
        if plan.codec is not None:
            why += "; single updates are compressed, so each client has weights of its own"
        return TrainingPath("compiled", why, nobody)
    if not all(isinstance(layer, Dense) for layer in model.layers):
        why = f"every layer of {model.name} has compiled steps, and few rows of its table are used"
        return TrainingPath("compiled", why, nobody)
    in_samples = _is_faster_in_samples(model, plan, np.minimum(records.records, plan.max_records))
    share = float(in_samples.mean()) if len(records) else 0.0
    why = (
        f"every layer of {model.name} has compiled steps; {share:.0%} of its clients take few "
        "enough of them to be trained without weights of their own and summed together"
    )
    return TrainingPath("compiled", why, in_samples)


def _is_faster_in_samples(
    model: ModelSpec, plan: LocalPlan, records: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Cost model, in multiplications: which clients are cheaper in sample space.

    Args:
        records: That a task of each client trains on, shape ``(clients,)``.
    """
    dense = [layer for layer in model.layers if isinstance(layer, Dense)]
    kernels = sum(layer.inputs * layer.outputs for layer in dense)
    first = dense[0].inputs * dense[0].outputs
    widths = sum(layer.inputs + layer.outputs for layer in dense)
    parameters = model.parameter_count
    count = records.astype(np.float64)
    rows = count * plan.local_epochs
    takes_steps = rows > plan.batch_size
    losses = 2.0 * count * kernels if plan.outputs.losses else 0.0
    pairs = _PAIRS * takes_steps + plan.outputs.losses * plan.batch_size / np.maximum(rows, 1.0)
    pairs = pairs + 2.0 * plan.outputs.norms
    with_weights = rows * (3 * kernels - first) + losses + _PASSES * parameters
    in_samples = (
        rows * (3 * kernels - 2 * first)
        + count * first
        + losses
        + pairs * rows**2 * widths
        + _SEGMENT * parameters * rows / _SEGMENT_ROWS
    )
    return np.less(in_samples, with_weights)
