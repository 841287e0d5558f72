"""Holds a device's model and OS release, as it enrolled, against the open job's device criteria."""

import threading
from collections import OrderedDict
from typing import Protocol

from server.device_criteria import DeviceCriteria, DeviceRefusal
from server.gateway.held_back import HeldBack, HeldBackReason

_MOST_DEVICES = 200_000
_WAIT_S = 3600.0
_REASONS = {refusal: HeldBackReason[refusal.upper()] for refusal in DeviceRefusal}


class DeviceRegister(Protocol):
    """Where it is kept what devices said of themselves when they enrolled."""

    def hardware(self, device_id: str) -> tuple[str, str] | None:
        """Model and OS release of a device; None if it is not enrolled.

        Raises:
            OutcomesUnreachable: If that cannot be told now.
        """
        ...


class DeviceScreen:
    """Turns devices away that the open job's ``participation.device`` does not admit.

    The register is asked once a device, and only while a job has such criteria: what a device said
    at enrolment never changes. Bounded: devices met longest ago are asked for again. Safe for
    several threads.
    """

    def __init__(self, register: DeviceRegister, most_devices: int = _MOST_DEVICES) -> None:
        self._register = register
        self._most_devices = most_devices
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[str, str]] = OrderedDict()

    def check(self, criteria: DeviceCriteria | None, device_id: str) -> HeldBack | None:
        """Why a device is given no task of a job with these criteria; None if it may have one.

        It is asked back in an hour: the next job may want it.

        Raises:
            OutcomesUnreachable: If that cannot be told now.
        """
        if criteria is None:
            return None
        refusal = criteria.refusal(*self._hardware(device_id))
        return None if refusal is None else HeldBack(_REASONS[refusal], _WAIT_S)

    def _hardware(self, device_id: str) -> tuple[str, str]:
        with self._lock:
            known = self._known.get(device_id)
            if known is not None:
                self._known.move_to_end(device_id)
                return known
        found = self._register.hardware(device_id)
        if found is None:  # of a deployment restored from an older backup: it said nothing here
            return "", ""
        with self._lock:
            self._known[device_id] = found
            if len(self._known) > self._most_devices:
                self._known.popitem(last=False)
        return found
