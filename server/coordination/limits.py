"""Which of a job's limits has been reached: `stop` of the job file."""

import math

from server.job import Stop

NO_LIMIT = 2**62
NOT_REACHED, AGGREGATIONS, UPDATES, HOURS = range(4)


def limit_reached(
    version: int,
    updates: int,
    elapsed_s: float,
    max_aggregations: int,
    max_updates: int,
    max_hours: float,
) -> int:
    """The first limit reached, in the order of the job file; coordinator and event engine ask it.

    Args:
        version: Newest model version, counted in aggregations.
        updates: Aggregated so far.
        elapsed_s: On the fleet's clock.
        max_aggregations: `NO_LIMIT` if there is none; so too ``max_updates``.
        max_hours: Infinite if there is no limit.

    Returns:
        `NOT_REACHED`, `AGGREGATIONS`, `UPDATES` or `HOURS`.
    """
    if version >= max_aggregations:
        return AGGREGATIONS
    if updates >= max_updates:
        return UPDATES
    if elapsed_s >= max_hours * 3600:
        return HOURS
    return NOT_REACHED


def limits_of(stop: Stop) -> tuple[int, int, float]:
    """The last three arguments of `limit_reached`."""
    return (
        NO_LIMIT if stop.max_aggregations is None else stop.max_aggregations,
        NO_LIMIT if stop.max_updates is None else stop.max_updates,
        math.inf if stop.max_hours is None else stop.max_hours,
    )


def limit_in_words(stop: Stop, limit: int) -> str:
    """Why a job ended that reached a limit."""
    name = {AGGREGATIONS: "max_aggregations", UPDATES: "max_updates", HOURS: "max_hours"}[limit]
    return f"{name} {getattr(stop, name)} reached"


def target_reached(stop: Stop, metric: float | None) -> str | None:
    """Why a job ends whose newest metric is good enough; None if it is not, or nothing is asked.

    Args:
        metric: Of the newest version that was measured; None if none was.
    """
    if stop.target is not None and metric is not None and metric >= stop.target:
        return f"target {stop.target} reached"
    return None
