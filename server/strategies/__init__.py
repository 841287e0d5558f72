"""Clock-free strategies: one file an algorithm, one function to make one from a job's settings."""

from server.job import FedAvgSettings, FedBuffSettings
from server.strategies.fedavg import FedAvg
from server.strategies.fedbuff import FedBuff
from server.strategies.strategy import RoundState, Step, Strategy

__all__ = ["FedAvg", "FedBuff", "RoundState", "Step", "Strategy", "make_strategy"]


def make_strategy(settings: FedAvgSettings | FedBuffSettings) -> Strategy:
    """The strategy a job asks for."""
    if isinstance(settings, FedAvgSettings):
        return FedAvg(
            cohort_size=settings.cohort_size,
            over_commitment=settings.over_commitment,
            round_deadline_s=settings.round_deadline_s,
            min_updates=settings.min_updates,
        )
    return FedBuff(
        buffer_size=settings.buffer_size,
        concurrency=settings.concurrency,
        max_staleness=settings.max_staleness,
        staleness_exponent=settings.staleness_weight.exponent,
    )
