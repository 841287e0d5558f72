"""Which way a job's simulated clients are trained, and why: chosen by what is known beforehand."""

from dataclasses import dataclass
from typing import Literal

from modeling.spec import ModelSpec
from simulation.executors.compiled.layout import why_not_compiled
from simulation.executors.compiled.training import why_records_do_not_fit
from simulation.executors.records import ClientRecords

PathName = Literal["compiled", "layers"]


@dataclass(frozen=True, slots=True)
class TrainingPath:
    """A way of training.

    Attributes:
        name: ``compiled``: machine code for one client's whole task; ``layers``: a torch call a
            layer and step, for any model.
        why: Why it was taken, for users.
    """

    name: PathName
    why: str

    @property
    def sentence(self) -> str:
        """What a run says of it."""
        ways = {
            "compiled": "clients are trained by the compiled kernel",
            "layers": "clients are trained layer by layer, the slower way",
        }
        return f"{ways[self.name]}: {self.why}"


def choose_path(model: ModelSpec, records: ClientRecords) -> TrainingPath:
    """The fastest way that gives a job's updates; the same for any number of executors."""
    against = why_not_compiled(model) or why_records_do_not_fit(records)
    if against is not None:
        return TrainingPath("layers", f"in {model.name} {against}")
    return TrainingPath("compiled", f"all layers of {model.name} have compiled steps")
