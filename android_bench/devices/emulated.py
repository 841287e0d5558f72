"""An emulated fleet: this machine, slowed down to the speeds that phones have among each other.

A profile says what share of a core a phone gets. The shares are quantiles of a public benchmark's
scores of phones (AI-Benchmark's float CPU score, its 2020 ranking of 333 phones), the fastest being
1; so the *spread* of a fleet is real, and no single time is a phone's. Every figure is marked
emulated.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources

from android_bench.devices.cores import Cores
from android_bench.devices.local_worker import Conditions, LocalWorker, WorkerFailed
from android_bench.devices.repeats import answer_of_repeats
from android_bench.package import BenchPackage
from android_bench.protocol import BenchResult, BenchSpec, DeviceInfo
from android_bench.strict_json import Fields, read_object
from android_bench.worker import describe_host
from device_runtime.errors import FlintError

ATTEMPTS = 3
DUTY_TOLERANCE = 0.2
"""A run whose achieved share is further from the requested one, relatively, is thrown away."""

_NAME = "[a-z][a-z0-9-]{0,40}"
_MOST_PROFILES = 1000


class InvalidProfiles(FlintError):
    """A file of emulated profiles cannot be read."""

    code = "FLN-2506"


@dataclass(frozen=True, slots=True)
class EmulatedProfile:
    """A phone that is imitated.

    Attributes:
        duty: Share of one core of this machine, above 0, at most 1.
        memory_mb: Of the phone.
        app_memory_mb: Above which an app is killed; imposed where the machine lets us.
        downlink_mbps: Megabits per second; reckoned with, not imposed.
        uplink_mbps: The same.
    """

    name: str
    device_model: str
    duty: float
    cores: int
    memory_mb: float
    app_memory_mb: float
    downlink_mbps: float
    uplink_mbps: float
    os_version: str
    os_release: str

    def transfer_s(self, down_bytes: int, up_bytes: int) -> float:
        """Seconds that bytes take on the phone's link.

        >>> shipped_profiles()["tier-01"].transfer_s(0, 0)
        0.0
        """
        return 8e-6 * (down_bytes / self.downlink_mbps + up_bytes / self.uplink_mbps)


def read_profiles(data: bytes, source: str) -> Mapping[str, EmulatedProfile]:
    """Profiles by name, in the file's order.

    Raises:
        InvalidProfiles: Naming the first thing that is wrong.
    """
    fields = read_object(data, max_bytes=2**20, error=InvalidProfiles, source=source)
    fields.text("source", max_length=2000)
    profiles = [_profile(raw) for raw in fields.nested_list("profiles", most=_MOST_PROFILES)]
    fields.finish()
    by_name = {profile.name: profile for profile in profiles}
    if len(by_name) < len(profiles) or not profiles:
        fields.refuse("profiles", "is empty or names a profile twice; give each a name of its own")
    return by_name


@cache
def shipped_profiles() -> Mapping[str, EmulatedProfile]:
    """The 27 profiles that FLINT ships, the fastest first; as many as FLINT measured phones."""
    file = resources.files("android_bench.devices") / "profiles.json"
    return read_profiles(file.read_bytes(), "profiles.json")


def _profile(fields: Fields) -> EmulatedProfile:
    profile = EmulatedProfile(
        name=fields.text("name", pattern=_NAME),
        device_model=fields.text("device_model", max_length=100, pattern=r"\S(.*\S)?"),
        duty=fields.number("duty", low=0.01, high=1.0),
        cores=fields.integer("cores", low=1, high=64),
        memory_mb=fields.number("memory_mb", low=1.0, high=1e6),
        app_memory_mb=fields.number("app_memory_mb", low=1.0, high=1e6),
        downlink_mbps=fields.number("downlink_mbps", low=0.001, high=1e6),
        uplink_mbps=fields.number("uplink_mbps", low=0.001, high=1e6),
        os_version=fields.text("os_version"),
        os_release=fields.text("os_release", pattern=r"20\d\d-(0[1-9]|1[0-2])"),
    )
    fields.finish()
    return profile


class EmulatedDevice:
    """One profile, on this machine.

    Args:
        profile: Who is imitated.
        cores: Where workers may run; shared by all devices that run here.
        worker: What runs them.
    """

    def __init__(
        self, profile: EmulatedProfile, cores: Cores, worker: LocalWorker | None = None
    ) -> None:
        self._profile = profile
        self._cores = cores
        self._worker = worker or LocalWorker()

    def describe(self) -> DeviceInfo:
        """See `Device.describe`."""
        host, profile = describe_host(), self._profile
        return replace(
            host,
            id=f"{host.id}/{profile.name}"[:200],
            device_model=profile.device_model,
            soc=f"{profile.duty:g} of a core of {host.soc}"[:200],
            os_version=profile.os_version,
            os_release=profile.os_release,
            cores=profile.cores,
            memory_mb=profile.memory_mb,
            backend="emulated",
            emulated=True,
            profile=profile.name,
        )

    def run(self, spec: BenchSpec, package: BenchPackage) -> bytes:
        """See `Device.run`."""
        duty = self._profile.duty
        with self._cores.lent(duty) as core:
            conditions = Conditions(core, duty, self._profile.app_memory_mb)
            return answer_of_repeats(
                self.describe(),
                spec,
                lambda one: on_target(duty, lambda: self._worker.run(one, package, conditions)),
            )

    def close(self) -> None:
        """See `Device.close`."""
        self._worker.close()


def on_target(duty: float, run: Callable[[], BenchResult]) -> BenchResult:
    """Run until the throttle has met its target, `ATTEMPTS` times at most.

    Returns:
        The first result on target, with the shares asked for and reached, and the attempts.

    Raises:
        WorkerFailed: If none was; says what was reached. Or if a run failed by itself.
    """
    reached = []
    for attempt in range(1, ATTEMPTS + 1):
        result = run()
        [measured] = result.runs
        achieved = measured.cpu_s / measured.wall_s
        reached.append(achieved)
        if abs(achieved / duty - 1.0) <= DUTY_TOLERANCE:
            noted = replace(measured, requested_duty=duty, achieved_duty=achieved, attempts=attempt)
            return replace(result, runs=(noted,))
    raise WorkerFailed(
        f"the throttle was to allow {duty:.3g} of a core and {ATTEMPTS} attempts had "
        f"{', '.join(f'{share:.3g}' for share in reached)}; the machine is too busy"
    )
