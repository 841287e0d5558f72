"""What can be wrong with a strategy, its arguments, its arrays or all of its nodes."""

from device_runtime.errors import FlintError


class InvalidStrategyArgument(FlintError):
    """A constructor or `start` argument has an impossible value."""

    code = "FLN-1620"


class UnusableArrays(FlintError):
    """The initial arrays cannot be averaged."""

    code = "FLN-1621"


class NotRoundBased(FlintError):
    """Flower's round loop, which belongs to other strategies, was begun with one of ours."""

    code = "FLN-1622"


class UnusedRoundMethod(FlintError):
    """A subclass overrides a method of Flower's round loop that would never be called."""

    code = "FLN-1623"


class EveryNodeFails(FlintError):
    """Every node fails again and again, so no update will ever come."""

    code = "FLN-1624"
