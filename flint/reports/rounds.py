"""The tasks of one aggregation, for the straggler timeline (FedScale, Fig. 12)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flint.reports.intervals import Reals
from flint.reports.trials import Trial
from flint.reports.wording import OUTCOMES

_SUCCEEDED = OUTCOMES.index("succeeded")


@dataclass(frozen=True, slots=True)
class AggregationWindow:
    """From one version to the next, and the tasks that belong to it, in order of their end.

    Attributes:
        version: That the window led to.
        begun_s: When the version before was stored, virtual seconds.
        ended_s: When this one was.
        is_round: Whether its tasks are those of a synchronous round: all that started from the
            version before. Else they are those aggregated, and those that ended otherwise in the
            window.
        boundaries_s: Of each task, start, end of download, end of training and end, as far as it
            got: shape ``(tasks, 4)``, virtual seconds.
        outcome: Of each task, see `Trial.outcome`.
    """

    version: int
    begun_s: float
    ended_s: float
    is_round: bool
    boundaries_s: Reals
    outcome: NDArray[np.int64]

    @property
    def duration_s(self) -> float:
        """Virtual seconds from version to version."""
        return self.ended_s - self.begun_s


def typical_window(trial: Trial) -> AggregationWindow | None:
    """The window of median duration among those whose tasks are known; None if there is none."""
    versions, stored_s = trial.trajectory["version"], trial.trajectory["virtual_s"]
    durations = np.diff(stored_s)
    aggregated = np.unique(trial.tasks["version"])
    candidates = np.flatnonzero(np.isfinite(durations) & np.isin(versions[1:], aggregated))
    if not candidates.size:
        return None
    order = candidates[np.argsort(durations[candidates], kind="stable")]
    row = int(order[(order.size - 1) // 2])
    return aggregation_window(trial, row + 1)


def aggregation_window(trial: Trial, row: int) -> AggregationWindow:
    """The window that ends with a row of the trajectory, from 1."""
    versions, stored_s = trial.trajectory["version"], trial.trajectory["virtual_s"]
    version, begun_s, ended_s = versions[row], stored_s[row - 1], stored_s[row]
    tasks = trial.tasks
    is_round = are_rounds(trial)
    if is_round:
        belongs = tasks["base_version"] == version - 1
    else:
        ended_here = (tasks["ended_s"] > begun_s) & (tasks["ended_s"] <= ended_s)
        belongs = (tasks["version"] == version) | ((trial.outcome != _SUCCEEDED) & ended_here)
    belongs &= np.isfinite(tasks["started_s"])
    start = tasks["started_s"][belongs]
    end = np.where(np.isnan(tasks["ended_s"][belongs]), ended_s, tasks["ended_s"][belongs])
    downloaded = start + np.nan_to_num(tasks["download_s"][belongs])
    trained = downloaded + np.nan_to_num(tasks["train_s"][belongs])
    boundaries = np.stack([start, np.minimum(downloaded, end), np.minimum(trained, end), end], 1)
    order = np.lexsort((start, end))
    return AggregationWindow(
        int(version),
        float(begun_s),
        float(ended_s),
        is_round,
        boundaries[order],
        trial.outcome[belongs][order],
    )


def are_rounds(trial: Trial) -> bool:
    """Whether every aggregated update was trained from the version before: synchronous rounds."""
    staleness = staleness_of(trial)
    return bool(staleness.size) and not staleness.any()


def staleness_of(trial: Trial) -> Reals:
    """Versions the model had moved on when each aggregated update was used, shape ``(updates,)``.

    An update in version v was applied to version v - 1: its staleness is v - 1 - base version.
    """
    staleness = trial.tasks["version"] - 1 - trial.tasks["base_version"]
    return staleness[np.isfinite(staleness)]
