"""`participation.device`: which devices may take part, by what was measured of their model.

FLINT's first category of participation criteria, "compute capability from benchmark results"
(section 3.3). One rule serves `flint submit`, the gateway and the dry-run.
"""

import re
from collections.abc import Mapping
from enum import StrEnum

from pydantic import Field

from server.job_block import Block

BENCHMARK_RECORDS = 5000
"""Records of one benchmark, over which `max_train_s` counts (FLINT, Table 5)."""

MONTH_PATTERN = r"^\d{4}-(0[1-9]|1[0-2])$"
_MONTH = re.compile(MONTH_PATTERN)


class DeviceRefusal(StrEnum):
    """Why a device is not given a job's tasks."""

    UNMEASURED = "device_unmeasured"
    TRAINS_TOO_LONG = "device_trains_too_long"
    NEEDS_TOO_MUCH_MEMORY = "device_needs_too_much_memory"
    OS_TOO_OLD = "os_release_too_old"


class MeasuredModel(Block):
    """What a benchmark found of one device model, for the job's model.

    Attributes:
        train_s: Mean training seconds for `BENCHMARK_RECORDS` records.
        memory_mb: Memory that training takes, 10^6 bytes; None if that was not measured.
        emulated: Whether the device was emulated.
    """

    train_s: float = Field(gt=0)
    memory_mb: float | None = Field(default=None, ge=0)
    emulated: bool = False


class DeviceCriteria(Block):
    """What a device must be like.

    Attributes:
        min_os_release: Month of the oldest OS release, ``YYYY-MM``, as devices say at enrolment.
        max_train_s: Mean training seconds for `BENCHMARK_RECORDS` records of the job's model on the
            device's model.
        max_memory_mb: Memory that training takes there, 10^6 bytes.
        measured: By device model, what the criteria are judged by; not a key of the job file, but
            written when the job is submitted or dry-run, so a later benchmark changes no job.
    """

    min_os_release: str | None = Field(default=None, pattern=MONTH_PATTERN)
    max_train_s: float | None = Field(default=None, gt=0)
    max_memory_mb: float | None = Field(default=None, gt=0)
    measured: Mapping[str, MeasuredModel] | None = Field(
        default=None, json_schema_extra={"written_at_submission": True}
    )

    @property
    def asks_for_measurements(self) -> bool:
        """Whether a device model must have been measured."""
        return self.max_train_s is not None or self.max_memory_mb is not None

    def with_measured(self, measured: Mapping[str, MeasuredModel]) -> "DeviceCriteria":
        """These criteria, to be judged by these measurements for good."""
        return self.model_copy(update={"measured": dict(sorted(measured.items()))})

    def refusal(self, device_model: str, os_release: str | None) -> DeviceRefusal | None:
        """Why a device may not take part; None if it may.

        Args:
            device_model: As it says.
            os_release: As it says; anything but a month is refused where a month is asked for. None
                where nobody can tell: then it is not judged.
        """
        if self.min_os_release is not None and not self._is_recent(os_release):
            return DeviceRefusal.OS_TOO_OLD
        if not self.asks_for_measurements:
            return None
        found = (self.measured or {}).get(device_model)
        return DeviceRefusal.UNMEASURED if found is None else self.model_refusal(found)

    def model_refusal(self, found: MeasuredModel) -> DeviceRefusal | None:
        """Why devices of a measured model may not take part; memory only where it is known."""
        if self.max_train_s is not None and found.train_s > self.max_train_s:
            return DeviceRefusal.TRAINS_TOO_LONG
        if self.max_memory_mb is not None and (found.memory_mb or 0.0) > self.max_memory_mb:
            return DeviceRefusal.NEEDS_TOO_MUCH_MEMORY
        return None

    def _is_recent(self, os_release: str | None) -> bool:
        if os_release is None or self.min_os_release is None:
            return True
        # Months in this form sort as text.
        return _MONTH.match(os_release) is not None and os_release >= self.min_os_release

    @property
    def admitted_models(self) -> tuple[str, ...]:
        """The measured device models that pass, ascending."""
        measured = self.measured or {}
        return tuple(name for name in measured if self.model_refusal(measured[name]) is None)
