"""The criteria file: which sessions of a log make a device available, and how to read the log."""

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from device_runtime.errors import FlintError
from feature_catalog.strict_yaml import StrictYamlError, load_mapping, read_text
from server.job import StateCriteria, UserCriteria
from server.strict_blocks import BlockProblem, also_to_mend, block_problems, shown

# In the order of their bits in masks.
CRITERIA = (
    "min_os_release",
    "max_train_s",
    "max_memory_mb",
    "wifi",
    "min_battery",
    "foreground",
    "allowed_hours",
    "min_account_age_days",
    "min_reputation",
    "min_hours_between_participations",
)
# What a criterion is judged by; the others need only times.
COLUMN_OF_CRITERION = {
    "min_os_release": "os_release",
    "max_train_s": "device_model",
    "max_memory_mb": "device_model",
    "wifi": "wifi",
    "min_battery": "battery",
    "foreground": "foreground",
    "min_account_age_days": "account_age_days",
    "min_reputation": "reputation",
    "min_hours_between_participations": "last_participation",
}


class CriteriaFileError(FlintError):
    """The file cannot be read as a criteria file at all."""

    code = "FLN-2601"


class InvalidCriteriaValue(CriteriaFileError):
    """A key has an impossible value, or a required key is missing."""

    code = "FLN-2602"


class UnknownCriteriaKey(CriteriaFileError):
    """A key no criteria file has."""

    code = "FLN-2603"


class _Block(BaseModel):
    """A block of the file: immutable, no unknown keys, no silent coercion of types."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class LogColumns(_Block):
    """What the log calls its columns; None: by the usual name, if there is a column of it."""

    device_id: str | None = None
    start: str | None = None
    end: str | None = None
    foreground: str | None = None
    device_model: str | None = None
    os_release: str | None = None
    wifi: str | None = None
    battery: str | None = None
    account_age_days: str | None = None
    reputation: str | None = None
    last_participation: str | None = None
    time_zone: str | None = None


class ComputeCriteria(_Block):
    """What the device must be able to do, by benchmark results of its model.

    Attributes:
        min_os_release: Month in which its operating system was released, ``YYYY-MM``, or later.
        max_train_s: Longest training of ``records`` records.
        max_memory_mb: Most memory that training may take.
        records: Records of a task, for ``max_train_s``; measurements are of 5,000.
    """

    min_os_release: str | None = Field(default=None, pattern=r"^\d{4}-(0[1-9]|1[0-2])$")
    max_train_s: float | None = Field(default=None, gt=0)
    max_memory_mb: float | None = Field(default=None, gt=0)
    records: int = Field(default=5000, ge=1)


class LogUserCriteria(UserCriteria):
    """What the user must be like; reputation is known to logs only."""

    min_reputation: float | None = None


class SessionRules(_Block):
    """From sessions to spans.

    Attributes:
        max_background_gap_s: Longest time in the background, or between two sessions of a device,
            that does not end a session; it is subtracted. None joins nothing.
        min_length_s: Shortest useful span; shorter ones are dropped.
        max_length_s: Longest believable session; None believes all.
        longer: What becomes of longer ones.
    """

    max_background_gap_s: float | None = Field(default=None, ge=0)
    min_length_s: float = Field(default=0.0, ge=0)
    max_length_s: float | None = Field(default=None, gt=0)
    longer: Literal["cut", "drop"] = "cut"


class AvailabilityCriteria(_Block):
    """A whole criteria file, checked.

    Attributes:
        columns: What the log calls its columns.
        only: Rows to read, by column value.
        time_zone: Of rows that name none, IANA; None: there must be a column.
        times: What numbers mean: seconds or milliseconds since 1970 UTC, ``auto`` by size; or
            ``trace``: seconds since the local midnight at which the log began.
        begins: Local date on which a log of ``times: trace`` began.
        measurements: File of benchmark results by device model.
        fold: Lay all days, or all weeks, over one another: a trace that repeats.
    """

    columns: LogColumns = LogColumns()
    only: dict[str, str] = Field(default_factory=dict)
    time_zone: str | None = None
    times: Literal["auto", "epoch_s", "epoch_ms", "trace"] = "auto"
    begins: str | None = Field(default=None, pattern=r"^\d{4}-\d{2}-\d{2}$")
    measurements: str | None = None
    device: ComputeCriteria = ComputeCriteria()
    state: StateCriteria = StateCriteria()
    user: LogUserCriteria = LogUserCriteria()
    sessions: SessionRules = SessionRules()
    fold: Literal["day", "week"] | None = None

    @field_validator("only", mode="before")
    @classmethod
    def _plain_values_as_text(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        # As pyarrow spells what a column holds: true, 7.
        return {k: str(v).lower() if isinstance(v, int) else v for k, v in value.items()}

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str | None) -> str | None:
        if value is not None and not is_time_zone(value):
            raise ValueError(
                f"{shown(value)} is no time zone of the IANA database; write e.g. Europe/Berlin"
            )
        return value

    @field_validator("begins")
    @classmethod
    def _a_date(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                dt.date.fromisoformat(value)
            except ValueError as error:
                raise ValueError(f"{shown(value)} is no date ({error})") from error
        return value

    def thresholds(self) -> dict[str, Any]:
        """Criteria asked for, in the order of their bits, with their thresholds."""
        given = {
            **self.device.model_dump(exclude={"records"}),
            **self.state.model_dump(),
            **self.user.model_dump(),
        }
        # As on the device: "wifi: false" asks for nothing.
        return {
            name: given[name]
            for name in CRITERIA
            if given[name] is not None and (name, given[name]) != ("wifi", False)
        }


def is_time_zone(name: str) -> bool:
    """Whether the IANA database has a zone of this name."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown; no relative path; a folder
        return False
    return True


def category_of(criterion: str) -> str:
    """Block of the criteria file, and of a job's ``participation``, that a criterion is in."""
    if criterion in ComputeCriteria.model_fields:
        return "device"
    return "state" if criterion in StateCriteria.model_fields else "user"


_FORMS = {"only": "a block of column: value", "columns": "a block of what: column"}


def load_criteria(path: Path) -> AvailabilityCriteria:
    """Read and check a criteria file; an empty one asks for nothing.

    A relative ``measurements`` is meant from the file's folder, and comes back so.

    Raises:
        CriteriaFileError: Or a subclass; one sentence naming file, key, value and mend.
    """
    try:
        text = read_text(path, what="criteria file")
    except StrictYamlError as error:
        raise CriteriaFileError(str(error)) from error
    criteria = parse_criteria(text, source=path.name)
    if criteria.measurements is None:
        return criteria
    return criteria.model_copy(update={"measurements": str(path.parent / criteria.measurements)})


def parse_criteria(text: str, *, source: str = "criteria.yaml") -> AvailabilityCriteria:
    """Check the text of a criteria file.

    Args:
        source: What the sentence calls the file.

    Raises:
        CriteriaFileError: As `load_criteria`.
    """
    raw: dict[str, Any] = {}
    if any(line.strip() and not line.strip().startswith("#") for line in text.splitlines()):
        try:
            raw = load_mapping(text)
        except StrictYamlError as error:
            raise CriteriaFileError(f"{source}: {error}; mend the YAML") from error
    try:
        criteria = AvailabilityCriteria.model_validate(raw, strict=True)
    except ValidationError as error:
        problems = block_problems(
            error, raw, AvailabilityCriteria, forms=_FORMS, foreign_key=_foreign_key
        )
        raise _as_error(source, problems) from error
    _refuse_contradictions(criteria, source)
    return criteria


def _refuse_contradictions(criteria: AvailabilityCriteria, source: str) -> None:
    needs = [
        name
        for name in ("max_train_s", "max_memory_mb")
        if getattr(criteria.device, name) is not None
    ]
    if needs and criteria.measurements is None:
        raise InvalidCriteriaValue(
            f"{source}: device.{needs[0]} is judged by benchmark results; add measurements: FILE "
            "with columns device_model, train_s_per_5000, memory_mb"
        )
    rules = criteria.sessions
    if rules.max_length_s is not None and rules.min_length_s > rules.max_length_s:
        raise InvalidCriteriaValue(
            f"{source}: sessions.min_length_s {rules.min_length_s:g} is above "
            f"sessions.max_length_s {rules.max_length_s:g}, so no span would be left; lower it"
        )
    if criteria.begins is not None and criteria.times in {"epoch_s", "epoch_ms"}:
        raise InvalidCriteriaValue(
            f"{source}: begins is for logs of times: trace; a log of real times tells it; remove it"
        )


def _as_error(source: str, problems: Sequence[BlockProblem]) -> CriteriaFileError:
    first = problems[0]
    kind = UnknownCriteriaKey if first.unknown_key else InvalidCriteriaValue
    return kind(f"{source}: {first.sentence}{also_to_mend(problems)}")


def _foreign_key(keys: Sequence[str]) -> str | None:
    """Say where a criterion given in the wrong place belongs."""
    if keys[-1] == "participation" and len(keys) == 1:
        return (
            "participation is a job file's block; write its device, state and user at the top of "
            "the criteria file."
        )
    if len(keys) == 1 and keys[0] in CRITERIA:
        return f"{keys[0]} belongs into the block {category_of(keys[0])}; write it there."
    return None
