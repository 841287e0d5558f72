"""WiFi and battery where only a sample of sessions says: shares by hour of week, and coins."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from simulation.availability.client_keys import Keys
from simulation.availability.statistics import HOURS_OF_WEEK, Estimate
from simulation.random_streams import RandomStreams

Counts = NDArray[np.int64]
_HOURS_OF_DAY = 24
# The generator's intermediate words stay in the processor's cache.
_DRAWN_AT_ONCE = 16_384


class NoSample(FlintError):
    """A criterion asks for what no session of the log says."""

    code = "FLN-2611"


def _counts() -> Counts:
    return np.zeros(HOURS_OF_WEEK, dtype=np.int64)


@dataclass(slots=True)
class HourlySample:
    """Sessions that say, by the local hour of the week in which they start.

    Attributes:
        known: Shape ``(168,)``.
        passing: Those that meet the criterion, shape ``(168,)``.
        unknown: Number of sessions that do not say.
    """

    known: Counts = field(default_factory=_counts)
    passing: Counts = field(default_factory=_counts)
    unknown: int = 0

    def add(
        self, hour: NDArray[np.int64], unknown: NDArray[np.bool_], passes: NDArray[np.bool_]
    ) -> None:
        """Count sessions; shapes ``(sessions,)``."""
        self.known += np.bincount(hour[~unknown], minlength=HOURS_OF_WEEK)
        self.passing += np.bincount(hour[passes & ~unknown], minlength=HOURS_OF_WEEK)
        self.unknown += int(np.count_nonzero(unknown))

    def probabilities(self) -> NDArray[np.float64]:
        """Chance to pass by hour of the week, shape ``(168,)``.

        An hour without a sample has that of the same hour on the other days, else of all hours.
        """
        known, passing = self.known.sum(), self.passing.sum()
        chance = np.full(HOURS_OF_WEEK, passing / max(known, 1))
        by_day = self.known.reshape(-1, _HOURS_OF_DAY).sum(axis=0)
        passing_by_day = self.passing.reshape(-1, _HOURS_OF_DAY).sum(axis=0)
        daily = np.tile(passing_by_day / np.maximum(by_day, 1), HOURS_OF_WEEK // _HOURS_OF_DAY)
        sampled_daily = np.tile(by_day > 0, HOURS_OF_WEEK // _HOURS_OF_DAY)
        chance = np.where(sampled_daily, daily, chance)
        own = self.passing / np.maximum(self.known, 1)
        return np.where(self.known > 0, own, chance)

    def estimate(self, coins_passing: int) -> Estimate:
        """What was estimated; for a sample that is not empty."""
        known = int(self.known.sum())
        return Estimate(
            known=known,
            unknown=self.unknown,
            known_passing_share=float(self.passing.sum() / known),
            coin_passing_share=coins_passing / self.unknown if self.unknown else None,
            hours_without_sample=int(np.count_nonzero(self.known == 0)),
        )


def coins(
    seed: int,
    criterion: str,
    chance: NDArray[np.float64],
    keys: Keys,
    start_s: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Whether each session passes: a coin of its chance, keyed by its device and its start.

    The same session has the same coin in whatever order, file or batch it comes.

    Args:
        chance: Shape ``(sessions,)``, as all others.
        start_s: The session's own start, an instant.
    """
    stream = RandomStreams(seed)[f"availability/{criterion}"]
    second = np.mod(np.floor(start_s), 2.0**32).astype(np.uint64)
    passes = np.empty(len(keys), dtype=np.bool_)
    for first in range(0, len(keys), _DRAWN_AT_ONCE):
        some = slice(first, first + _DRAWN_AT_ONCE)
        passes[some] = stream.uniforms(keys[some], second[some]) < chance[some]
    return passes
