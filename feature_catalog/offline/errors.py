"""Mistakes in what training data are joined from: entity rows, sources, assets."""

from device_runtime.errors import FlintError


class InvalidEntityRows(FlintError):
    """The entity rows cannot be joined: not a table, or a moment that is missing or impossible."""

    code = "FLN-2900"


class MissingEntityColumn(FlintError):
    """The entity rows lack a column: the moment, a join key, or a value of the device."""

    code = "FLN-2901"


class NaiveTimestamps(FlintError):
    """Timestamps without a time zone, or dates, which are no moments."""

    code = "FLN-2902"


class MismatchedKeys(FlintError):
    """A join key is of another type than the entity says."""

    code = "FLN-2903"


class UnreadableSource(FlintError):
    """A source that is not there, or cannot be read."""

    code = "FLN-2904"


class MissingSourceColumn(FlintError):
    """A source lacks a column that its view names."""

    code = "FLN-2905"


class UnfitValues(FlintError):
    """Values that are not of the type or shape their field says."""

    code = "FLN-2906"


class MissingAsset(FlintError):
    """The bytes of a vocabulary or embedding that a feature needs are not there."""

    code = "FLN-2907"


class AmbiguousColumns(FlintError):
    """Two columns of the result would have one name, or a device's value could be of two views."""

    code = "FLN-2908"


class UnwritableFeatures(FlintError):
    """The file of training data cannot be written where it should go."""

    code = "FLN-2909"
