"""What a fetch over the network takes, by figures that are given and named."""

import math
from dataclasses import dataclass

from device_runtime.errors import FlintError

DEFAULT_SOURCE = (
    "downlink: median of FedScale's device capacities, as the emulated phones have it; round trip: "
    "assumed"
)


class InvalidNetworkFigures(FlintError):
    """A round trip or a link speed that cannot be."""

    code = "FLN-3000"


@dataclass(frozen=True, slots=True)
class NetworkFigures:
    """A device's network.

    Attributes:
        round_trip_ms: From asking to the first byte.
        downlink_mbps: Megabits per second.
        source: Where the figures are from.
    """

    round_trip_ms: float = 50.0
    downlink_mbps: float = 5.5
    source: str = DEFAULT_SOURCE

    def __post_init__(self) -> None:
        if not (math.isfinite(self.round_trip_ms) and self.round_trip_ms >= 0):
            raise InvalidNetworkFigures(
                f"the round trip is {self.round_trip_ms} ms; give 0 or more"
            )
        if not (math.isfinite(self.downlink_mbps) and self.downlink_mbps > 0):
            raise InvalidNetworkFigures(
                f"the downlink is {self.downlink_mbps} Mbit/s; give more than 0"
            )

    def request_ms(self, answer_bytes: float) -> float:
        """Milliseconds of one request.

        >>> NetworkFigures(50.0, 8.0).request_ms(1000)
        51.0
        """
        return self.round_trip_ms + answer_bytes * 8e-3 / self.downlink_mbps
