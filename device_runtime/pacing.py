"""When a device tries again: jittered, so that a fleet that failed together returns apart."""

import math
import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pacing:
    """How long a device waits and works, in seconds.

    Attributes:
        slice_s: Training between two looks at the device's state.
        recheck_s: Between two looks at a device that may not take part now.
        backoff_s: First wait after a gateway did not answer; doubles up to ``max_backoff_s``.
        refused_s: Wait after a gateway refused what it will refuse again.
        max_come_back_s: A gateway cannot send a device away for longer.
    """

    slice_s: float = 0.5
    recheck_s: float = 900.0
    backoff_s: float = 1.0
    max_backoff_s: float = 900.0
    refused_s: float = 4 * 3600.0
    max_come_back_s: float = 24 * 3600.0

    def after_failures(self, failures: int, source: random.Random) -> float:
        """Wait after the ``failures``-th failure in a row: 50 to 150 % of the doubled back-off."""
        doubled = self.backoff_s * 2.0 ** min(failures - 1, 60)
        return min(doubled, self.max_backoff_s) * source.uniform(0.5, 1.5)

    def after_refusal(self, source: random.Random) -> float:
        """Wait after a permanent refusal: 75 to 125 % of ``refused_s``."""
        return self.refused_s * source.uniform(0.75, 1.25)

    def after_recheck(self, source: random.Random) -> float:
        """Wait before looking at the device again: 75 to 125 % of ``recheck_s``."""
        return self.recheck_s * source.uniform(0.75, 1.25)

    def as_told(self, come_back_after_s: float) -> float:
        """A gateway's word, which is jittered already; what is no time at all counts as soon."""
        if not math.isfinite(come_back_after_s) or come_back_after_s <= 0:
            return self.backoff_s
        return min(come_back_after_s, self.max_come_back_s)
