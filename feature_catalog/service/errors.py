"""Why a device does not get what it asks of the feature catalog."""

from device_runtime.errors import FlintError


class NotServedToDevices(FlintError):
    """A feature service that devices may not read here."""

    code = "FLN-2941"


class OutdatedManifest(FlintError):
    """A contract or view that is not served any more: the device's manifest is of the past."""

    code = "FLN-2942"


class UnservableService(FlintError):
    """A feature service of which no manifest can be made."""

    code = "FLN-2943"


class InvalidFeatureRequest(FlintError):
    """A request that is out of bounds, or whose keys are none."""

    code = "FLN-2944"


class UnknownAsset(FlintError):
    """A digest of no asset that the service's features need on a device."""

    code = "FLN-2946"


class FeaturesUnavailable(FlintError):
    """The database or the blob store does not answer."""

    code = "FLN-2947"
    exit_code = 1
