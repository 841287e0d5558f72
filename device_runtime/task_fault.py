"""Why a task cannot be done on a device, as the short codes that outcomes are reported with."""

from device_runtime.blob_cache import BlobRefused
from device_runtime.columns import UnsuitableColumn
from device_runtime.engine import InvalidArtifact, UnsuitableExamples
from device_runtime.examples import UnreadableExamples
from device_runtime.feature_client import DamagedAsset
from device_runtime.feature_database import UnreadableFeatureDatabase
from device_runtime.feature_inputs import UnsuitableFeatures, UnsuitableFeatureValue
from device_runtime.feature_manifest import InvalidFeatureManifest
from device_runtime.feature_values import UnreadableFeatureValue
from device_runtime.labelled_events import UnsuitableLabelledEvent
from device_runtime.manifest import InvalidManifest
from device_runtime.training_plan import UnsuitablePlan
from device_runtime.transform_assets import InvalidAsset
from device_runtime.transform_parameters import InvalidTransform
from device_runtime.update_codec import MalformedPayload
from device_runtime.user_activity import UnreadableActivity

_REASONS: dict[type[Exception], str] = {
    BlobRefused: "blob_mismatch",
    InvalidManifest: "invalid_manifest",
    InvalidArtifact: "invalid_artifact",
    MalformedPayload: "invalid_parameters",
    UnsuitablePlan: "invalid_plan",
    UnsuitableExamples: "unsuitable_examples",
    UnreadableExamples: "unreadable_examples",
    InvalidFeatureManifest: "invalid_feature_manifest",
    InvalidAsset: "invalid_asset",
    DamagedAsset: "invalid_asset",
    InvalidTransform: "invalid_feature_manifest",
    UnsuitableFeatures: "unsuitable_features",
    UnsuitableFeatureValue: "unsuitable_features",
    UnsuitableColumn: "unsuitable_features",
    UnsuitableLabelledEvent: "unreadable_examples",
    UnreadableActivity: "unreadable_examples",
    UnreadableFeatureValue: "unreadable_features",
    UnreadableFeatureDatabase: "unreadable_features",
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


class TaskDeclined(TaskFault):
    """Nothing is wrong with task or device, but this device does not do this task."""
