"""Who may take part and when: the job's criteria and the user's settings, judged on the device."""

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from datetime import datetime, time
from typing import Self

from device_runtime.device_state import DeviceState
from device_runtime.errors import FlintError

_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


class InvalidParticipation(FlintError):
    """A participation criterion or user setting that this device cannot evaluate."""

    code = "FLN-1405"


@dataclass(frozen=True, slots=True)
class ParticipationPolicy:
    """A job's criteria a device can tell by itself (FLINT, Table 1). None: not asked for.

    Attributes:
        wifi: Needs an unmetered network.
        min_battery: Least charge, 0 to 1.
        foreground: The host app must (true) or must not (false) be in the foreground.
        allowed_hours: Local time window ``"HH:MM-HH:MM"``; may cross midnight.
        min_account_age_days: Age of the user's account.
        min_hours_between_participations: Since this device's last finished task.
    """

    wifi: bool | None = None
    min_battery: float | None = None
    foreground: bool | None = None
    allowed_hours: str | None = None
    min_account_age_days: int | None = None
    min_hours_between_participations: float | None = None

    def to_json(self) -> str:
        """Serialise canonically, so equal policies have equal digests."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    def sha256(self) -> bytes:
        """Digest a device names when it satisfies this policy."""
        return hashlib.sha256(self.to_json().encode()).digest()

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Parse `to_json` output; unknown keys are an error, so no criterion is ever ignored.

        Raises:
            InvalidParticipation: If a criterion is unknown to this runtime, or no policy at all.
        """
        try:
            policy = cls(**json.loads(text))
            policy._check()
        except (TypeError, ValueError) as error:
            raise InvalidParticipation(
                f"the job's participation policy has a criterion this runtime cannot evaluate "
                f"({error}); update the app that carries it"
            ) from error
        return policy

    def _check(self) -> None:
        for value in (self.wifi, self.foreground):
            if value is not None and not isinstance(value, bool):
                raise TypeError(f"{value!r} is not true or false")
        hours = self.min_hours_between_participations
        for number in (self.min_battery, self.min_account_age_days, hours):
            if number is not None and (
                isinstance(number, bool) or not isinstance(number, int | float)
            ):
                raise TypeError(f"{number!r} is not a number")
        if self.allowed_hours is not None:
            parse_hours(self.allowed_hours)


@dataclass(frozen=True, slots=True)
class UserSettings:
    """The user's own word, before any job's. None: no wish.

    Attributes:
        opted_out: Take part in nothing.
        allowed_hours: Local time window ``"HH:MM-HH:MM"``; may cross midnight.
        min_battery: Least charge, 0 to 1.
    """

    opted_out: bool = False
    allowed_hours: str | None = None
    min_battery: float | None = None

    def __post_init__(self) -> None:
        if self.allowed_hours is not None:
            parse_hours(self.allowed_hours)
        if self.min_battery is not None and not 0 <= self.min_battery <= 1:
            raise InvalidParticipation(
                f"user setting min_battery is {self.min_battery}; give a share from 0 to 1"
            )


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to take part now.

    Attributes:
        reason_code: First criterion that says no, e.g. ``"user_hours"``; empty when allowed.
    """

    allowed: bool
    reason_code: str = ""


def decide(
    policy: ParticipationPolicy | None, settings: UserSettings, state: DeviceState
) -> Decision:
    """Judge the user's settings, then the job's criteria; what is asked for but unknown says no.

    Args:
        policy: The job's criteria; None judges the user's settings alone.
        settings: The user's own.
        state: The device now.
    """
    reason = _user_refusal(settings, state) or (policy and _job_refusal(policy, state)) or ""
    return Decision(allowed=not reason, reason_code=reason)


def parse_hours(window: str) -> tuple[time, time]:
    """First minute inside and first minute outside of ``"HH:MM-HH:MM"``.

    Raises:
        InvalidParticipation: If the text has another form.
    """
    match = _HOURS.fullmatch(window) if isinstance(window, str) else None
    if match is None:
        raise InvalidParticipation(
            f"allowed_hours is {window!r}; write a window of local time as HH:MM-HH:MM"
        )
    first_hour, first_minute, last_hour, last_minute = (int(part) for part in match.groups())
    return time(first_hour, first_minute), time(last_hour, last_minute)


def within_hours(window: str, local_time: datetime) -> bool:
    """Whether a local time lies in a window; one that ends before it starts crosses midnight.

    >>> within_hours("22:00-06:00", datetime(2026, 1, 1, 23, 30))
    True

    A window that ends when it starts is the whole day.
    """
    start, end = parse_hours(window)
    now = local_time.time()
    if start < end:
        return start <= now < end
    return now >= start or now < end


def _user_refusal(settings: UserSettings, state: DeviceState) -> str:
    if settings.opted_out:
        return "opted_out"
    if settings.allowed_hours is not None and not within_hours(
        settings.allowed_hours, state.local_time
    ):
        return "user_hours"
    if settings.min_battery is not None and not _at_least(state.battery, settings.min_battery):
        return "user_battery"
    return ""


def _job_refusal(policy: ParticipationPolicy, state: DeviceState) -> str:
    refusals = (
        ("network", policy.wifi is not None and policy.wifi and not state.unmetered_network),
        (
            "battery",
            policy.min_battery is not None and not _at_least(state.battery, policy.min_battery),
        ),
        (
            "foreground",
            policy.foreground is not None and state.foreground is not policy.foreground,
        ),
        (
            "hours",
            policy.allowed_hours is not None
            and not within_hours(policy.allowed_hours, state.local_time),
        ),
        (
            "account_age",
            policy.min_account_age_days is not None
            and not _at_least(state.account_age_days, policy.min_account_age_days),
        ),
        ("participated", _too_soon(policy.min_hours_between_participations, state)),
    )
    return next((reason for reason, refused in refusals if refused), "")


def _at_least(value: float | None, least: float) -> bool:
    return value is not None and value >= least


def _too_soon(min_hours: float | None, state: DeviceState) -> bool:
    if min_hours is None or state.last_participation is None:
        return False
    since_s = (state.local_time - state.last_participation).total_seconds()
    # Negative: the clock was set back; waiting for it to catch up could take years.
    return 0 <= since_s < min_hours * 3600
