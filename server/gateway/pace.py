"""Pace steering: when a device should check in again (Bonawitz et al., MLSys 2019, section 2.3)."""

from dataclasses import dataclass


def mean_interval_s(
    recent_devices: int,
    open_slots: int,
    check_ins_per_s: float,
    soonest_s: float,
    idle_soonest_s: float,
    longest_s: float,
    idle_factor: float,
) -> float:
    """Mean interval between two check-ins of one device; arguments as in `PaceSteering`."""
    even_s = recent_devices / check_ins_per_s
    if open_slots > 0:
        return min(max(even_s, soonest_s), longest_s)
    return min(max(even_s * idle_factor, idle_soonest_s), longest_s)


def spread_s(interval_s: float, jitter: float, draw: float) -> float:
    """An interval, spread evenly over ``1 - jitter`` to ``1 + jitter`` times itself."""
    return interval_s * (1.0 + jitter * (2.0 * draw - 1.0))


@dataclass(frozen=True, slots=True)
class PaceSteering:
    """Spreads check-ins so that all devices together come at about the rate aimed at.

    A large population is spread wide, so that a million idle devices cost little; a small one
    comes back soon, the sooner when there is work to hand out.

    Attributes:
        check_ins_per_s: Rate aimed at, all devices together.
        soonest_s: Least interval while slots are open.
        idle_soonest_s: Least interval while none is.
        longest_s: Largest interval.
        idle_factor: How many times wider devices are spread while no slot is open.
        jitter: Half-width of the spread around the interval, as a share of it; below 1.
    """

    check_ins_per_s: float
    soonest_s: float = 1.0
    idle_soonest_s: float = 4.0
    longest_s: float = 6 * 3600.0
    idle_factor: float = 4.0
    jitter: float = 0.3

    def interval_s(self, *, recent_devices: int, open_slots: int) -> float:
        """Mean interval between two check-ins of one device.

        Args:
            recent_devices: Distinct devices seen lately.
            open_slots: Tasks that may be leased now.

        >>> PaceSteering(check_ins_per_s=200).interval_s(recent_devices=10**6, open_slots=50)
        5000.0
        """
        return mean_interval_s(
            recent_devices,
            open_slots,
            self.check_ins_per_s,
            self.soonest_s,
            self.idle_soonest_s,
            self.longest_s,
            self.idle_factor,
        )

    def come_back_after_s(self, *, recent_devices: int, open_slots: int, draw: float) -> float:
        """What one device is told: the interval, jittered so that devices do not come together.

        Args:
            recent_devices: Distinct devices seen lately.
            open_slots: Tasks that may be leased now.
            draw: Uniform in [0, 1).
        """
        interval_s = self.interval_s(recent_devices=recent_devices, open_slots=open_slots)
        return self.jittered(interval_s, draw)

    def jittered(self, interval_s: float, draw: float) -> float:
        """Spread an interval evenly over ``1 - jitter`` to ``1 + jitter`` times itself."""
        return spread_s(interval_s, self.jitter, draw)
