"""What users of online values can get wrong."""

from device_runtime.errors import FlintError


class InvalidInterval(FlintError):
    """An interval that cannot be materialised: empty, turned round, or not over yet."""

    code = "FLN-2920"


class UnfitKey(FlintError):
    """A source's join key that is out of its type's range, too long, or with a NUL."""

    code = "FLN-2921"


class TooManyKeys(FlintError):
    """More or longer keys in one read than are answered."""

    code = "FLN-2922"


class InvalidEntityRow(FlintError):
    """An entity row that lacks a join key, or whose join key is of another type."""

    code = "FLN-2923"


class NotServedOnline(FlintError):
    """A name of nothing that has online values."""

    code = "FLN-2924"


class AlreadyMaterializing(FlintError):
    """Another process is materialising the same view."""

    code = "FLN-2925"
    exit_code = 1


class UnreadableOnlineValue(FlintError):
    """Stored bytes that are no row of their view."""

    code = "FLN-2926"
    exit_code = 1
