"""How a dry-run's events go through the compiled engine, and why."""

from dataclasses import dataclass

from server.job import Job
from server.strategies import Strategy, make_strategy
from simulation.update_training import decides_on_results


@dataclass(frozen=True, slots=True)
class EventPath:
    """A way through a run's events; all give the run of the plain loop, to the bit.

    That loop, the production coordinator itself on the virtual fleet, is `simulation.trial.Trial`.

    Attributes:
        is_compiled: The strategy's decisions are compiled with the engine; else it is asked.
        in_lock_step: Each update that arrives is trained, before what hangs on it is decided; else
            events run ahead, and training comes behind.
        why: For users.
    """

    is_compiled: bool
    in_lock_step: bool
    why: str

    @property
    def sentence(self) -> str:
        """What a run says of it."""
        way = "compiled engine"
        if not self.is_compiled:
            way += ", which asks the strategy in Python"
        if self.in_lock_step:
            way += ", in lock-step with training"
        return f"events: {way}, because {self.why}"


def choose_event_path(job: Job, *, trains: bool, own_strategy: Strategy | None = None) -> EventPath:
    """Ahead of training and with compiled decisions, unless one of these cannot be.

    Args:
        trains: Whether updates are trained; what hangs on trained updates is not decided else.
        own_strategy: In place of the strategy that the job names; its decisions are Python.
    """
    strategy = own_strategy or make_strategy(job.strategy)
    name = job.strategy.name if own_strategy is None else type(own_strategy).__name__
    said: list[str] = []
    if own_strategy is not None:
        said.append(f"the decisions of {name} are not compiled")
    in_lock_step = trains and (decides_on_results(job) or strategy.needs_training_results)
    if in_lock_step and decides_on_results(job):
        said.append(
            "privacy.robustness.max_update_norm decides on trained updates, so every update that "
            "arrives is trained, not only those that are aggregated"
        )
    elif in_lock_step:
        said.append(f"{name} decides on what clients learned")
    elif not said:
        said.append(
            "nothing that decides about tasks hangs on what is learnt; updates are trained behind "
            "it"
            if trains
            else f"the decisions of {name} are compiled"
        )
    return EventPath(own_strategy is None, in_lock_step, ", and ".join(said))
