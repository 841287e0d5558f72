"""What all batches of a log share while it is read."""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from simulation.availability.criteria_file import AvailabilityCriteria
from simulation.availability.device_models import DeviceModels
from simulation.availability.instants import TimeForm
from simulation.availability.problems import Problems, RowPlaces
from simulation.availability.time_zones import TimeZones


@dataclass(slots=True)
class LogContext:
    """A log being read.

    Attributes:
        criteria: The criteria file.
        source: What messages call it.
        form: What numbers in columns of times mean.
        now_s: Sessions that end later are in the future; infinite for traces.
        models: Device models met.
        thresholds: Criteria asked for, in the order of their bits.
    """

    criteria: AvailabilityCriteria
    source: str
    form: TimeForm
    now_s: float
    models: DeviceModels
    zones: TimeZones = field(default_factory=TimeZones)
    problems: Problems = field(default_factory=Problems)
    places: RowPlaces = field(default_factory=RowPlaces)
    thresholds: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.thresholds = self.criteria.thresholds()

    @property
    def uses_foreground(self) -> bool:
        """Whether spans in the foreground matter, given that the log has them."""
        return (
            self.criteria.state.foreground is not None
            or self.criteria.sessions.max_background_gap_s is not None
        )

    def clock(self, seconds: float) -> str:
        """An instant as messages show it."""
        if self.form == "trace":
            return f"{seconds:g} s"
        try:
            moment = dt.datetime.fromtimestamp(float(seconds), tz=dt.UTC)
        except (OverflowError, ValueError, OSError):  # beyond year 9999
            return f"{seconds:g}"
        return moment.isoformat().replace("+00:00", "Z")
