"""The figures of a report on availability, for programs, and its warnings."""

from typing import Any

import numpy as np

from flint.reports.availability.evidence import (
    AvailabilityEvidence,
    criteria_rows,
    if_independent,
)
from flint.reports.wording import said_number, said_share
from simulation.availability.fairness import ALL_CRITERIA, GroupShift


def availability_figures(evidence: AvailabilityEvidence) -> dict[str, Any]:
    """The page's figures, for programs."""
    build = evidence.facts.build
    hourly = evidence.facts.hourly
    return {
        "name": evidence.name,
        **{key: build.get(key) for key in _BUILD_KEYS},
        "criteria": criteria_rows(evidence),
        "if_independent": if_independent(evidence),
        "hourly": [float(v) if np.isfinite(v) else None for v in hourly],
        "task": _task(evidence),
        "fairness": {
            "least_ratio": evidence.least_ratio,
            "warnings": [warning_sentence(evidence, shift) for shift in evidence.warned],
            "groups": [shift.as_json() for shift in evidence.shifts],
        },
        "not_told": dict(evidence.not_told),
    }


def _task(evidence: AvailabilityEvidence) -> dict[str, Any] | None:
    if evidence.completion is None:
        return None
    outlasting = {"share_of_all_sessions": evidence.sessions_outlasting}
    return {"task": evidence.task} | evidence.completion.as_json() | outlasting


_BUILD_KEYS = ("sessions_in", "sessions_valid", "sessions_out", "clients", "clients_out",
               "eligible_peak_share", "eligible_mean_share", "trough_peak_ratio", "begins",
               "has_weekdays", "estimated", "problems", "seed")  # fmt: skip


def warning_sentence(evidence: AvailabilityEvidence, shift: GroupShift) -> str:
    """What a criterion does to a group, in a sentence."""
    by = (
        "All criteria together shrink"
        if shift.criterion == ALL_CRITERIA
        else f"“{evidence.said_criterion(shift.criterion)}” shrinks"
    )
    return (
        f"{by} {shift.dimension} “{shift.group}” from {said_share(shift.share)} of all "
        f"devices to {said_share(shift.passing_share)} of those that pass "
        f"({said_number(shift.ratio, 2)} of its share, below {evidence.least_ratio:g})."
    )
