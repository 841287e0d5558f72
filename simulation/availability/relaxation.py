"""What relaxed criteria would gain: one threshold at a time, evaluated on the log itself."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulation.availability.build import build_availability
from simulation.availability.criteria_file import AvailabilityCriteria, category_of
from simulation.availability.device_sample import sample_devices
from simulation.availability.statistics import AvailabilityStatistics, CriteriaFacts
from simulation.traces.criteria import DAY_S, DailyHours

_BATTERY_STEPS = (0.8, 0.5, 0.2)
_UPPER_FACTORS = (1.5, 2.0, 4.0)
_LOWER_FACTORS = (0.5, 0.25)
_YEARS_EARLIER = (1, 2)
_HOURS_WIDER = (1, 2, 4)
DEFAULT_MAX_SESSIONS = 2_000_000

Threshold = float | int | str | bool | None
VariantProgress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Relaxation:
    """One threshold relaxed.

    Attributes:
        threshold: As the criteria have it.
        relaxed: Instead; None: the criterion is dropped.
    """

    criterion: str
    threshold: Threshold
    relaxed: Threshold

    def apply(self, criteria: AvailabilityCriteria) -> AvailabilityCriteria:
        """The criteria with this one relaxed."""
        category = category_of(self.criterion)
        block = getattr(criteria, category)
        changed = block.model_copy(update={self.criterion: self.relaxed})
        return criteria.model_copy(update={category: changed})


@dataclass(frozen=True, slots=True)
class EligibleShares:
    """How many may take part under some criteria.

    Attributes:
        mean: Of all clients, available at an average moment; None where no hour was observed.
        peak: The same in the busiest hour of the week.
        clients: Of all, with one session that passes.
        sessions: Of all, that pass.
    """

    mean: float | None
    peak: float | None
    clients: float
    sessions: float

    @classmethod
    def of(cls, statistics: AvailabilityStatistics) -> "EligibleShares":
        """Shares of a build."""
        every = 2 ** len(statistics.facts.criteria) - 1
        return cls(
            statistics.eligible_mean_share,
            statistics.eligible_peak_share,
            statistics.facts.client_share(every),
            statistics.facts.session_share(every),
        )

    @classmethod
    def of_facts(cls, facts: CriteriaFacts, combination: int) -> "EligibleShares":
        """Shares of what passes at least these bits; when it does, facts do not tell."""
        return cls(None, None, facts.client_share(combination), facts.session_share(combination))


@dataclass(frozen=True, slots=True)
class RelaxedShares:
    """A relaxation and the shares under it."""

    relaxation: Relaxation
    shares: EligibleShares


@dataclass(frozen=True, slots=True)
class Tuning:
    """What each relaxation would gain.

    Attributes:
        before: Under the criteria as they are.
        relaxed: Most gained first: by mean share, where it is known, else by clients.
        clients: Evaluated.
        sampled_share: Of the log's devices, that were evaluated.
    """

    before: EligibleShares
    relaxed: tuple[RelaxedShares, ...]
    clients: int
    sampled_share: float = 1.0

    def as_json(self) -> dict[str, Any]:
        """Plain values; gains are differences of shares."""
        return {
            "clients": self.clients,
            "sampled_share": self.sampled_share,
            "before": _shares_json(self.before),
            "relaxations": [
                {
                    "criterion": each.relaxation.criterion,
                    "threshold": each.relaxation.threshold,
                    "relaxed": each.relaxation.relaxed,
                    **_shares_json(each.shares),
                    "gain_mean_share": _gain(each.shares.mean, self.before.mean),
                    "gain_peak_share": _gain(each.shares.peak, self.before.peak),
                    "gain_client_share": each.shares.clients - self.before.clients,
                    "gain_session_share": each.shares.sessions - self.before.sessions,
                }
                for each in self.relaxed
            ],
        }


def relaxations(criteria: AvailabilityCriteria) -> tuple[Relaxation, ...]:
    """Each criterion a few steps weaker, and dropped altogether, in the order of the criteria.

    >>> from simulation.availability.criteria_file import parse_criteria
    >>> [r.relaxed for r in relaxations(parse_criteria("state: {min_battery: 0.8}"))]
    [0.5, 0.2, None]
    """
    return tuple(
        Relaxation(name, threshold, relaxed)
        for name, threshold in criteria.thresholds().items()
        for relaxed in [*_steps(name, threshold), None]
    )


def tune_on_log(
    files: Sequence[Path],
    criteria: AvailabilityCriteria,
    *,
    seed: int = 0,
    now_s: float | None = None,
    source: str = "the criteria",
    max_sessions: int = DEFAULT_MAX_SESSIONS,
    progress: VariantProgress = lambda *_: None,
) -> Tuning:
    """Build with every relaxation, without writing a trace, and compare.

    Sessions whose WiFi or battery the log does not say keep their coins from build to build, so
    what differs is the criterion. A log of more than ``max_sessions`` rows is sampled by device.

    Args:
        seed: Of the coins, as `build_availability`.
        progress: Called with what is evaluated next, the number done, and how many there are.

    Raises:
        FlintError: As `build_availability`.
    """
    every = relaxations(criteria)

    def shares(number: int, said: str, chosen: AvailabilityCriteria) -> AvailabilityStatistics:
        progress(said, number, len(every) + 1)
        return build_availability(sampled, chosen, None, seed=seed, now_s=now_s, source=source)

    with tempfile.TemporaryDirectory(prefix="flint-tune-") as folder:
        sampled, share = sample_devices(
            files, criteria, Path(folder), max_sessions=max_sessions, source=source
        )
        before = shares(0, "as they are", criteria)
        found = [
            RelaxedShares(each, EligibleShares.of(shares(n, said(each), each.apply(criteria))))
            for n, each in enumerate(every, start=1)
        ]
    progress("done", len(every) + 1, len(every) + 1)
    return Tuning(EligibleShares.of(before), _ordered(found), before.clients, share)


def tune_on_facts(facts: CriteriaFacts) -> Tuning:
    """What dropping each criterion would gain, exactly, from the joint counts of a build."""
    every = 2 ** len(facts.criteria) - 1
    found = [
        RelaxedShares(
            Relaxation(name, None, None),
            EligibleShares.of_facts(facts, every & ~(1 << bit)),
        )
        for bit, name in enumerate(facts.criteria)
    ]
    before = EligibleShares.of_facts(facts, every)
    return Tuning(before, _ordered(found), facts.clients_by_combination[0])


def said(relaxation: Relaxation) -> str:
    """A relaxation in words.

    >>> said(Relaxation("min_battery", 0.8, 0.5)), said(Relaxation("wifi", True, None))
    ('min_battery 0.8 → 0.5', 'without wifi')
    """
    if relaxation.relaxed is None:
        return f"without {relaxation.criterion}"
    before, after = (
        f"{value:g}" if isinstance(value, float) else str(value)
        for value in (relaxation.threshold, relaxation.relaxed)
    )
    return f"{relaxation.criterion} {before} → {after}"


def _ordered(found: Sequence[RelaxedShares]) -> tuple[RelaxedShares, ...]:
    def gained(each: RelaxedShares) -> tuple[float, float]:
        return each.shares.mean or 0.0, each.shares.clients

    return tuple(sorted(found, key=gained, reverse=True))


def _steps(name: str, threshold: Any) -> list[Threshold]:  # noqa: ANN401 - a criterion's own type
    steps: list[Threshold] = []  # wifi and foreground can only be dropped
    if name == "min_battery":
        steps = [step for step in _BATTERY_STEPS if step < threshold]
    elif name == "min_os_release":
        year, month = threshold.split("-")
        steps = [f"{int(year) - earlier:04d}-{month}" for earlier in _YEARS_EARLIER]
    elif name in {"max_train_s", "max_memory_mb"}:
        steps = [threshold * factor for factor in _UPPER_FACTORS]
    elif name == "min_account_age_days":
        lower = dict.fromkeys(int(threshold * factor) for factor in _LOWER_FACTORS)
        steps = [days for days in lower if 0 < days < threshold]
    elif name in {"min_reputation", "min_hours_between_participations"} and threshold > 0:
        steps = [threshold * factor for factor in _LOWER_FACTORS]
    elif name == "allowed_hours":
        wider = (_wider(threshold, by) for by in _HOURS_WIDER)
        steps = [hours for hours in wider if hours is not None]
    return steps


def _wider(hours: str, by_hours: int) -> str | None:
    """A window with hours more at both ends; None if it would be the whole day."""
    window = DailyHours.parse(hours)
    length_s = window.length_s + 2 * by_hours * 3600.0
    if length_s >= DAY_S:
        return None
    start_s = (window.start_s - by_hours * 3600.0) % DAY_S
    return "-".join(_clock(at_s % DAY_S) for at_s in (start_s, start_s + length_s))


def _clock(since_midnight_s: float) -> str:
    hours, minutes = divmod(int(since_midnight_s) // 60, 60)
    return f"{hours:02d}:{minutes:02d}"


def _shares_json(shares: EligibleShares) -> dict[str, float | None]:
    return {
        "eligible_mean_share": shares.mean,
        "eligible_peak_share": shares.peak,
        "client_share": shares.clients,
        "session_share": shares.sessions,
    }


def _gain(after: float | None, before: float | None) -> float | None:
    return None if after is None or before is None else after - before
