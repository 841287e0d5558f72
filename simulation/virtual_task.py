"""A task on a virtual device."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class VirtualTask:
    """A task whose course was decided at its start.

    Attributes:
        number: From 1, in order of start.
        examples: Records it trains on in each epoch.
        end_s: When its device is done with it.
        reason: Why it does not complete; empty if it does.
        given_up_s: When the server takes a silent device's task for interrupted.
        bytes_down: That reach the device by ``end_s``.
        bytes_up: That reach the server by then.
    """

    number: int
    client: int
    grant_id: str
    base_version: int
    started_s: float
    examples: int
    end_s: float
    reason: str
    given_up_s: float
    bytes_down: int
    bytes_up: int

    @property
    def task_id(self) -> str:
        """As coordinator and executors know it."""
        return f"t{self.number}"

    @property
    def is_silent(self) -> bool:
        """Whether the device will drop out of it without a word."""
        return self.reason == "dropout"

    def bytes_by(self, at_s: float) -> tuple[int, int]:
        """Bytes down and up if it is cut off at a time, in proportion to its seconds."""
        if at_s >= self.end_s:
            return self.bytes_down, self.bytes_up
        share = (at_s - self.started_s) / (self.end_s - self.started_s)
        return int(self.bytes_down * share), int(self.bytes_up * share)
