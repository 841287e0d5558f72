"""Conditions imposed on the identities of a fleet, from numbers or from the files of a dry-run.

Identity ``i`` holds the records of training client ``i``. With an environment it also gets the
device model, the links and the windows that the simulated client with those records gets, so the
same world can be lived in reality and on the virtual clock. Only constant speeds can be imposed:
where a device model or a link varies from task to task, its median is taken.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from device_runtime.imposed_conditions import AvailabilityWindows, ImposedConditions
from simulation.environment import Environment, is_file_reference, load_environment
from simulation.inputs import InputResolver
from simulation.population import Indices, assign_population
from simulation.random_streams import RandomStreams
from simulation.traces.bandwidth import Bandwidth, read_bandwidth
from simulation.traces.device_profiles import (
    DevicePopulation,
    DeviceProfiles,
    read_device_population,
    read_device_profiles,
)
from simulation.traces.session_files import read_sessions
from simulation.traces.sessions import AvailabilityTrace
from simulation.world import load_world, populate

_MEDIAN = 0.5
_BITS_PER_MBIT = 1e6


class InvalidConditionOption(FlintError):
    """An option of imposed conditions with an impossible value, or one that contradicts another."""

    code = "FLN-1258"


class UnimposableEnvironment(FlintError):
    """An environment whose clients cannot be lived by one identity each."""

    code = "FLN-1259"


@dataclass(frozen=True, slots=True)
class ConditionOptions:
    """What a user asks for; all None imposes nothing.

    Attributes:
        slowdown: Seconds per example, or a file of device profiles.
        device_population: Shares of the device models of that file; None: all alike, or as the
            windows' file names them.
        bandwidth: Mbit/s in both directions, or a file of bandwidth.
        windows: A file of availability.
        environment: An environment file, in place of the four.
        seed: Of who gets which device, link and windows.
    """

    slowdown: str | None = None
    device_population: Path | None = None
    bandwidth: str | None = None
    windows: Path | None = None
    environment: Path | None = None
    seed: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing is asked for."""
        asked = (self.slowdown, self.bandwidth, self.windows, self.environment)
        return all(value is None for value in asked)

    def check(self, *, epoch: float | None = None) -> None:
        """Refuse what contradicts itself, before anything is started.

        Args:
            epoch: When windows are to begin to count; None: when all devices are ready.

        Raises:
            InvalidConditionOption: Names the options.
        """
        if self.environment is not None:
            given = {
                "--slowdown": self.slowdown,
                "--device-population": self.device_population,
                "--bandwidth": self.bandwidth,
                "--windows": self.windows,
                "--conditions-seed": self.seed or None,
            }
            also = [option for option, value in given.items() if value is not None]
            if also:
                raise InvalidConditionOption(
                    f"--environment says what {also[0]} says too; give one of them"
                )
        elif self.is_empty and (self.device_population is not None or epoch is not None):
            option = "--epoch" if epoch is not None else "--device-population"
            raise InvalidConditionOption(
                f"{option} is for devices under conditions; give --slowdown, --bandwidth, "
                f"--windows or --environment too, or leave {option} out"
            )
        if epoch is not None and not math.isfinite(epoch):
            raise InvalidConditionOption(f"--epoch is {epoch}; give a moment as unix seconds")

    def dataset(self) -> str | None:
        """Data set the environment names in the catalog, if any.

        Raises:
            EnvironmentFileError: If the environment cannot be read.
        """
        if self.environment is None:
            return None
        named = load_environment(self.environment).dataset
        return None if named is None or is_file_reference(named.source) else named.source

    def conditions(
        self, records: NDArray[np.int64], resolver: Callable[[Path], InputResolver]
    ) -> list[ImposedConditions] | None:
        """Conditions of each training client's identity; None if nothing is asked for.

        Args:
            records: Of each training client, shape ``(clients,)``.
            resolver: Finds inputs of an environment file in a folder.

        Raises:
            FlintError: See `conditions_of_options` and `conditions_of_environment`.
        """
        if self.is_empty:
            return None
        if self.environment is not None:
            found = resolver(self.environment.parent)
            return conditions_of_environment(self.environment, found, records)
        return conditions_of_options(self, records)


def conditions_of_options(
    options: ConditionOptions, records: NDArray[np.int64]
) -> list[ImposedConditions]:
    """Conditions of each training client's identity.

    Draws are those of a population of the same seed in a dry-run, with re-sampled availability.

    Args:
        records: Of each training client, shape ``(clients,)``.

    Raises:
        InvalidConditionOption: If a value is neither a number above 0 nor a file.
        FlintError: What the readers of the files raise.
    """
    count = len(records)
    trace = None if options.windows is None else read_sessions(options.windows)
    device = None
    if trace is not None:
        device = assign_population(
            records, trace.available_share(), resample_availability=True, seed=options.seed
        ).device
    per_example_s = _per_example_s(options, count, trace, device)
    down, up = _links(options, count)
    return [
        ImposedConditions(
            None if per_example_s is None else per_example_s[i],
            None if down is None else down[i],
            None if up is None else up[i],
            None if trace is None or device is None else windows_of(trace, int(device[i])),
        )
        for i in range(count)
    ]


def conditions_of_environment(
    path: Path, resolver: InputResolver, records: NDArray[np.int64]
) -> list[ImposedConditions]:
    """Conditions of each training client's identity: those of the client simulated with its data.

    Args:
        path: The environment file.
        records: Of each training client of the environment's data set, shape ``(clients,)``.

    Raises:
        UnimposableEnvironment: If its population leaves clients out or uses some twice, or its
            devices drop out at random.
        FlintError: What reading the environment raises.
    """
    environment = load_environment(path)
    _check_imposable(environment, path.name)
    world = load_world(environment, resolver)
    mapping, devices = populate(world, environment, records)
    if not np.array_equal(mapping.data_client, np.arange(len(records))):
        raise UnimposableEnvironment(
            f"{path.name}: population.clients is {len(mapping)} and the data set has "
            f"{len(records)} training clients, each of them one identity; leave "
            "population.clients out"
        )
    return [
        ImposedConditions(
            world.profiles.per_example_s(int(devices.device_model[i]), _MEDIAN),
            world.bandwidth.down.bits_per_s(int(devices.down_link[i]), _MEDIAN),
            world.bandwidth.up.bits_per_s(int(devices.up_link[i]), _MEDIAN),
            windows_of(world.trace, int(devices.device[i])),
        )
        for i in range(len(records))
    ]


def windows_of(trace: AvailabilityTrace, device: int) -> AvailabilityWindows | None:
    """Windows of one traced device; None if it is always available."""
    first, beyond = int(trace.offsets[device]), int(trace.offsets[device + 1])
    starts_s, ends_s = trace.start_s[first:beyond].tolist(), trace.end_s[first:beyond].tolist()
    if math.inf in ends_s:
        return None
    period_s = float(trace.period_s[device])
    return AvailabilityWindows(
        tuple(zip(starts_s, ends_s, strict=True)), None if period_s == math.inf else period_s
    )


def _check_imposable(environment: Environment, name: str) -> None:
    if environment.dropout is not None and environment.dropout.hazard_per_hour > 0:
        raise UnimposableEnvironment(
            f"{name}: dropout.hazard_per_hour is {environment.dropout.hazard_per_hour:g}, and "
            "dropping out at random cannot be imposed on devices; remove dropout"
        )


def _per_example_s(
    options: ConditionOptions,
    count: int,
    trace: AvailabilityTrace | None,
    device: Indices | None,
) -> list[float] | None:
    if options.slowdown is None:
        _refuse_population(options)
        return None
    number = _number(options.slowdown)
    if number is not None:
        _refuse_population(options)
        return [_positive(number, "--slowdown", "seconds per example")] * count
    profiles = read_device_profiles(_file(options.slowdown, "--slowdown", "seconds per example"))
    model = _device_models(options, count, profiles, trace, device)
    return [profiles.per_example_s(int(code), _MEDIAN) for code in model]


def _device_models(
    options: ConditionOptions,
    count: int,
    profiles: DeviceProfiles,
    trace: AvailabilityTrace | None,
    device: Indices | None,
) -> NDArray[np.int32]:
    if trace is not None and device is not None and trace.device_model is not None:
        if options.device_population is not None:
            raise InvalidConditionOption(
                f"{options.windows} names each client's device_model, and --device-population "
                "would name another; leave --device-population out, or that column"
            )
        code = profiles.codes(trace.device_models, source=str(options.windows))
        return code[trace.device_model[device]]
    if options.device_population is None:
        models = len(profiles.device_models)
        shares = DevicePopulation(profiles.device_models, np.full(models, 1.0 / models))
    else:
        shares = read_device_population(options.device_population)
    code = profiles.codes(shares.device_models, source="--device-population")
    stream = RandomStreams(options.seed)["population/device_model"]
    return code[shares.draw(stream.uniforms(np.arange(count)))]


def _links(
    options: ConditionOptions, count: int
) -> tuple[Sequence[float] | None, Sequence[float] | None]:
    if options.bandwidth is None:
        return None, None
    number = _number(options.bandwidth)
    if number is not None:
        bits_per_s = _positive(number, "--bandwidth", "Mbit/s") * _BITS_PER_MBIT
        return [bits_per_s] * count, [bits_per_s] * count
    bandwidth: Bandwidth = read_bandwidth(_file(options.bandwidth, "--bandwidth", "Mbit/s"))
    link = RandomStreams(options.seed)["population/link"]
    clients = np.arange(count)
    down, up = bandwidth.links(link.uniforms(clients), link.uniforms(clients, draw=1))
    return (
        [bandwidth.down.bits_per_s(int(chosen), _MEDIAN) for chosen in down],
        [bandwidth.up.bits_per_s(int(chosen), _MEDIAN) for chosen in up],
    )


def _refuse_population(options: ConditionOptions) -> None:
    if options.device_population is not None:
        raise InvalidConditionOption(
            "--device-population gives shares of the device models in a file; give that file with "
            "--slowdown, or leave --device-population out"
        )


def _number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def _positive(number: float, option: str, unit: str) -> float:
    if not 0 < number < math.inf:
        raise InvalidConditionOption(f"{option} is {number:g} {unit}; give a number above 0")
    return number


def _file(value: str, option: str, unit: str) -> Path:
    path = Path(value).expanduser()
    if not path.is_file():
        raise InvalidConditionOption(
            f"{option} {value} is neither a number of {unit} nor a file; give one of them"
        )
    return path
