"""Which criteria each session of a batch passes, and which a coin has to decide."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from simulation.availability.device_models import NO_MODEL
from simulation.availability.foreground import ForegroundSpans, read_foreground
from simulation.availability.instants import LOCAL, NOT_A_TIME, read_instants
from simulation.availability.log_context import LogContext
from simulation.availability.log_values import (
    UNKNOWN_MONTH,
    month_number,
    read_flags,
    read_months,
    read_numbers,
)
from simulation.availability.session_log import LogFile
from simulation.traces.criteria import DailyHours

Mask = NDArray[np.bool_]
# Criteria that a log may know for a sample of sessions only; a coin decides the others.
SAMPLED = ("wifi", "min_battery")


class JudgedSessions:
    """The criteria of one batch of sessions.

    What is asked for but not known says no, as on the device, and is counted; only ``wifi`` and
    ``min_battery`` are left to a coin then.

    Attributes:
        passes: Bit ``i``: the ``i``-th criterion asked for; shape ``(sessions,)``.
        unknown: The same bits where a coin is to decide.
        model: Code of the device model.
        os_month: As `read_months`.
        foreground: None if it plays no part.
    """

    def __init__(
        self,
        log: LogContext,
        columns: Mapping[str, pa.Array],
        file: LogFile,
        row: NDArray[np.int64],
        start_s: NDArray[np.float64],
        end_s: NDArray[np.float64],
        zone: NDArray[np.int16],
    ) -> None:
        """Judge a batch.

        Args:
            columns: By role; shapes ``(sessions,)`` as of all other arguments.
            row: Numbers over all files.
            start_s: Instants.
            end_s: Instants.
            zone: Codes.
        """
        self._log, self._columns, self._file, self._row = log, columns, file, row
        self._start_s, self._end_s, self._zone = start_s, end_s, zone
        count = len(row)
        self.passes = np.zeros(count, dtype=np.uint16)
        self.unknown = np.zeros(count, dtype=np.uint16)
        self.model = np.full(count, NO_MODEL, dtype=np.int32)
        if "device_model" in columns:
            self.model = log.models.of_column(
                columns["device_model"], **self._where("device_model")
            )
        self.os_month = np.full(count, UNKNOWN_MONTH, dtype=np.int32)
        if "os_release" in columns:
            self.os_month = read_months(columns["os_release"], **self._where("os_release"))
        self.foreground = self._read_foreground()
        for bit, (name, threshold) in enumerate(log.thresholds.items()):
            passes = getattr(self, f"_{name}")(threshold)
            self.passes |= passes.astype(np.uint16) << np.uint16(bit)
        self._count_models()

    def _where(self, role: str) -> dict[str, Any]:
        return {"column": self._file.columns[role], "path": self._file.path}

    def _problem(self, kind: str, wrong: Mask, role: str | None = None) -> None:
        def describe(at: int) -> str:
            place = self._log.places(int(self._row[at]))
            if role is None:
                return place
            return f"{str(self._columns[role][at].as_py())[:60]!r} in {place}"

        self._log.problems.add_rows(kind, wrong, self._row, describe)

    # ------------------------------------------------------------------ compute capability

    def _min_os_release(self, month: str) -> Mask:
        self._problem("os_release_unknown", self.os_month == UNKNOWN_MONTH, "os_release")
        recent: Mask = self.os_month >= month_number(month)
        return recent

    def _max_train_s(self, _: float) -> Mask:
        return self._log.models.is_fast_enough(self.model)

    def _max_memory_mb(self, _: float) -> Mask:
        return self._log.models.is_small_enough(self.model)

    def _count_models(self) -> None:
        if self._log.models.measured is None:
            return
        measured = self._log.models.is_measured(self.model)
        named = self.model >= 0
        self._problem("model_not_measured", named & ~measured, "device_model")
        self._problem("no_device_model", ~named)

    # ------------------------------------------------------------------ device state

    def _wifi(self, _: bool) -> Mask:
        flags, not_understood = read_flags(self._columns["wifi"], **self._where("wifi"))
        self._problem("wifi_not_understood", not_understood, "wifi")
        self._leave_to_coin("wifi", flags < 0)
        on_wifi: Mask = flags == 1
        return on_wifi

    def _min_battery(self, least: float) -> Mask:
        charge, not_understood = read_numbers(self._columns["battery"], **self._where("battery"))
        self._problem("battery_not_understood", not_understood, "battery")
        outside = (charge < 0) | (charge > 1)
        self._problem("battery_out_of_range", outside, "battery")
        known = ~np.isnan(charge) & ~outside
        self._leave_to_coin("min_battery", ~known)
        return known & (charge >= least)

    def _leave_to_coin(self, criterion: str, unknown: Mask) -> None:
        bit = list(self._log.thresholds).index(criterion)
        self.unknown |= unknown.astype(np.uint16) << np.uint16(bit)

    def _foreground(self, wanted: bool) -> Mask:
        spans = self.foreground
        if spans is None:  # the column is there, so it has been read
            return np.zeros(len(self._row), dtype=np.bool_)
        self._problem("foreground_unknown", ~spans.known & ~spans.not_understood)
        seconds = spans.seconds()
        some = seconds > 0 if wanted else seconds < self._end_s - self._start_s
        passes: Mask = spans.known & some
        return passes

    def _read_foreground(self) -> ForegroundSpans | None:
        if "foreground" not in self._columns:
            return None
        spans = read_foreground(
            self._columns["foreground"],
            self._start_s,
            self._end_s,
            self._zone,
            self._log.zones,
            self._log.form,
            **self._where("foreground"),
        )
        self._problem("foreground_not_understood", spans.not_understood)
        self._problem("foreground_outside", spans.outside)
        return spans

    def _allowed_hours(self, hours: str) -> Mask:
        daily = DailyHours.parse(hours)
        local_s = self._start_s + self._log.zones.offset_s(self._zone, self._start_s)
        return daily.next_allowed_many(local_s) < local_s + (self._end_s - self._start_s)

    # ------------------------------------------------------------------ user

    def _min_account_age_days(self, least: int) -> Mask:
        return self._at_least("account_age_days", "account_age_unknown", least)

    def _min_reputation(self, least: float) -> Mask:
        return self._at_least("reputation", "reputation_unknown", least)

    def _at_least(self, role: str, kind: str, least: float) -> Mask:
        values, _ = read_numbers(self._columns[role], **self._where(role))
        self._problem(kind, np.isnan(values), role)
        return np.nan_to_num(values, nan=-np.inf) >= least

    def _min_hours_between_participations(self, hours: float) -> Mask:
        values = self._columns["last_participation"]
        last = read_instants(values, self._log.form, **self._where("last_participation"))
        there = values.is_valid().to_numpy(zero_copy_only=False)
        self._problem(
            "last_participation_not_a_time",
            there & (last.kind == NOT_A_TIME),
            "last_participation",
        )
        last_s = last.seconds
        local = last.kind == LOCAL
        if local.any():
            last_s = np.where(local, self._log.zones.utc_s(self._zone, last_s), last_s)
        since_s = self._start_s - last_s
        # As on the device: never, or by a clock that was set back, is no obstacle.
        too_soon = (last.kind != NOT_A_TIME) & (since_s >= 0) & (since_s < hours * 3600.0)
        late_enough: Mask = ~too_soon
        return late_enough
