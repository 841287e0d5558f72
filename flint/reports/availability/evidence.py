"""What a report on availability is about."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from simulation.availability.completion import Completion, share_outlasting
from simulation.availability.criteria_file import category_of
from simulation.availability.fairness import ALL_CRITERIA, GroupShift
from simulation.availability.kept_facts import KeptFacts

_CATEGORIES = {"device": "compute capability", "state": "device state", "user": "user attributes"}
_WORDS = {
    "min_os_release": "operating system recent enough",
    "max_train_s": "trains fast enough",
    "max_memory_mb": "training takes little enough memory",
    "wifi": "on WiFi",
    "min_battery": "battery full enough",
    "foreground": "app in the foreground",
    "allowed_hours": "within the allowed hours",
    "min_account_age_days": "account old enough",
    "min_reputation": "reputation high enough",
    "min_hours_between_participations": "took part long enough ago",
}
_UNITS = {
    "max_train_s": " s",
    "max_memory_mb": " MB",
    "min_account_age_days": " days",
    "min_hours_between_participations": " h",
}


@dataclass(frozen=True)
class AvailabilityEvidence:
    """A build, and what was set against it.

    Attributes:
        name: Of the trace or the file.
        least_ratio: Below it a group counts as shifted out.
        task: What the task is, in words; empty if none was set against the trace.
        not_told: Why a section has nothing to show, by its key.
    """

    name: str
    facts: KeptFacts
    least_ratio: float
    completion: Completion | None = None
    task: str = ""
    shifts: tuple[GroupShift, ...] = ()
    not_told: dict[str, str] = field(default_factory=dict)

    @property
    def sessions_outlasting(self) -> float | None:
        """Share of all sessions of the log that last as long as the task; None without one."""
        lengths = self.facts.criteria.lengths
        if self.completion is None or not sum(lengths.sessions):
            return None
        return share_outlasting(lengths, self.completion.duration_s)

    @property
    def warned(self) -> tuple[GroupShift, ...]:
        """Groups that a criterion shifts out, worst first."""
        below = [shift for shift in self.shifts if shift.is_below and shift.ratio is not None]
        return tuple(sorted(below, key=lambda shift: shift.ratio or 0.0))

    def said_criterion(self, name: str) -> str:
        """A criterion in words, with its threshold where it is kept; ``all`` is all together."""
        if name == ALL_CRITERIA:
            return "all together"
        threshold = self._threshold(name)
        shown = f" ({threshold}{_UNITS.get(name, '')})" if threshold not in {None, "True"} else ""
        return f"{_WORDS.get(name, name)}{shown}"

    def _threshold(self, name: str) -> str | None:
        value = (self.facts.build.get("thresholds") or {}).get(name)
        return None if value is None else f"{value:g}" if isinstance(value, float) else str(value)

    def hour_names(self) -> list[str]:
        """The 168 hours of the week; by weekday where the trace's date is known."""
        days: Sequence[str] = (
            ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
            if self.facts.build.get("has_weekdays")
            else [f"day {n}" for n in range(1, 8)]
        )
        return [f"{day}, {hour:02d}:00" for day in days for hour in range(24)]


def criteria_rows(evidence: AvailabilityEvidence) -> list[dict[str, Any]]:
    """FLINT's Table 1: what passes each criterion, alone and without it; last all together.

    Keys: ``criterion``, ``category``, and shares ``clients``, ``sessions`` and ``time`` that pass
    it; ``clients_without``, ``sessions_without``, ``time_without``: that pass all the others.
    """
    facts = evidence.facts.criteria
    every = 2 ** len(facts.criteria) - 1
    shares = {
        "clients": facts.client_share,
        "sessions": facts.session_share,
        "time": facts.time_share,
    }
    rows: list[dict[str, Any]] = []
    for bit, name in enumerate(facts.criteria):
        row: dict[str, Any] = {"criterion": name, "category": _CATEGORIES[category_of(name)]}
        row |= {of: share(1 << bit) for of, share in shares.items()}
        row |= {f"{of}_without": share(every & ~(1 << bit)) for of, share in shares.items()}
        rows.append(row)
    rows.append(
        {"criterion": "all", "category": ""} | {of: share(every) for of, share in shares.items()}
    )
    return rows


def if_independent(evidence: AvailabilityEvidence) -> dict[str, float]:
    """Shares that would pass all criteria, if passing one told nothing of passing another."""
    rows = criteria_rows(evidence)[:-1]
    return {of: float(np.prod([row[of] for row in rows])) for of in ("clients", "sessions", "time")}
