"""Why a task cannot be done on a device, as the short codes that outcomes are reported with."""

from device_runtime.blob_cache import BlobRefused
from device_runtime.engine import InvalidArtifact, UnsuitableExamples
from device_runtime.examples import UnreadableExamples
from device_runtime.manifest import InvalidManifest
from device_runtime.training_plan import UnsuitablePlan
from device_runtime.update_codec import MalformedPayload

_REASONS: dict[type[Exception], str] = {
    BlobRefused: "blob_mismatch",
    InvalidManifest: "invalid_manifest",
    InvalidArtifact: "invalid_artifact",
    MalformedPayload: "invalid_parameters",
    UnsuitablePlan: "invalid_plan",
    UnsuitableExamples: "unsuitable_examples",
    UnreadableExamples: "unreadable_examples",
}

FAULTS: tuple[type[Exception], ...] = tuple(_REASONS)
"""Errors that end a task, but not the device's work."""


class TaskFault(Exception):
    """This task cannot be done on this device.

    Attributes:
        reason: Short code for `ReportOutcomeRequest.reason`.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason

    @classmethod
    def of(cls, error: Exception) -> "TaskFault":
        """The fault that one of `FAULTS` amounts to."""
        return cls(_REASONS[type(error)], str(error))
