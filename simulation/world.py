"""The world of a dry-run: all traces of an environment, read, and checked against each other."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulation.environment import Environment, InvalidEnvironmentValue
from simulation.inputs import InputResolver, ResolvedInput
from simulation.population import Counts, Indices, PopulationMapping, assign_population
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


@dataclass(frozen=True)
class World:
    """What an environment describes, without its data set.

    Attributes:
        device_population: None if the trace names each device's model.
        inputs: Where each trace came from, by key of the environment.
    """

    trace: AvailabilityTrace
    profiles: DeviceProfiles
    device_population: DevicePopulation | None
    bandwidth: Bandwidth
    inputs: Mapping[str, ResolvedInput]


@dataclass(frozen=True)
class ClientDevices:
    """What each simulated client holds in its hands; all shapes ``(clients,)``.

    Attributes:
        device: Index into `World.trace`.
        device_model: Index into `World.profiles`.
        down_link: Index into `World.bandwidth.down`.
        up_link: Index into `World.bandwidth.up`.
    """

    device: Indices
    device_model: NDArray[np.int32]
    down_link: Indices
    up_link: Indices


@dataclass(frozen=True)
class SimulatedPopulation:
    """The clients of a dry-run, numbered from 0: who they are and when they are there.

    Attributes:
        mapping: Which data client lives on which traced device.
        devices: What each client holds in its hands.
        records: Records each client holds, shape ``(clients,)``.
    """

    world: World
    mapping: PopulationMapping
    devices: ClientDevices
    records: Counts

    def __len__(self) -> int:
        """Number of clients."""
        return len(self.records)

    def count_available(self, times_s: NDArray[np.float64]) -> NDArray[np.int64]:
        """Clients inside a window at each virtual time, shape of ``times_s``."""
        trace = self.world.trace
        clients_of_device = np.bincount(self.mapping.device, minlength=len(trace))
        return trace.count_available(times_s, clients_of_device)

    def median_per_example_s(self) -> NDArray[np.float64]:
        """Median seconds per example of each client's device model, shape ``(clients,)``."""
        model = self.devices.device_model
        return self.world.profiles.per_example_s_many(model, np.full(len(model), 0.5))


def load_world(environment: Environment, resolver: InputResolver) -> World:
    """Read all traces of an environment.

    Raises:
        UnresolvedInput: If one is not there.
        UnknownDeviceModel: If the trace or the population names a device model without profile.
        InvalidEnvironmentValue: If device models are named by both trace and population, or by
            neither.
        FlintError: What the readers raise.
    """
    inputs = {
        "availability": resolver.resolve("availability", environment.availability.source),
        "device_profiles": resolver.resolve("device_profiles", environment.device_profiles),
        "bandwidth": resolver.resolve("bandwidth", environment.bandwidth),
    }
    shares = None
    if environment.device_population is not None:
        found = resolver.resolve("device_population", environment.device_population)
        inputs["device_population"] = found
        shares = read_device_population(found.path)
    trace = read_sessions(
        inputs["availability"].path,
        environment.availability.rules,
        only=environment.availability.only,
    )
    if trace.device_model is not None and shares is not None:
        raise InvalidEnvironmentValue(
            f"device_population: {environment.availability.source} already names each client's "
            "device_model; remove device_population, or that column"
        )
    if trace.device_model is None and shares is None:
        raise InvalidEnvironmentValue(
            f"device_population is missing: {environment.availability.source} has no column "
            "device_model, so nobody says which devices clients have; add shares of device models"
        )
    profiles = read_device_profiles(inputs["device_profiles"].path)
    named = shares.device_models if shares is not None else trace.device_models
    profiles.codes(named, source="device_population" if shares is not None else "availability")
    return World(trace, profiles, shares, read_bandwidth(inputs["bandwidth"].path), inputs)


def populate(
    world: World, environment: Environment, records: Counts
) -> tuple[PopulationMapping, ClientDevices]:
    """Decide who lives on which device, with which model and link.

    All of it hangs on ``population.seed`` alone, so the trials of a run share their population.

    Args:
        records: Records of each data client, shape ``(data clients,)``.

    Raises:
        PopulationTooLarge: See `assign_population`.
    """
    settings = environment.population
    mapping = assign_population(
        records,
        world.trace.available_share(),
        clients=settings.clients,
        assignment=settings.assignment,
        resample_availability=settings.resample.availability,
        resample_data=settings.resample.data,
        seed=settings.seed,
    )
    streams = RandomStreams(settings.seed)
    clients = np.arange(len(mapping))
    if world.device_population is not None:
        names = world.device_population.device_models
        code = world.profiles.codes(names, source="device_population")
        drawn = world.device_population.draw(streams["population/device_model"].uniforms(clients))
        device_model = code[drawn]
    else:
        device_model = _traced_models(world)[mapping.device]
    link = streams["population/link"]
    downwards = link.uniforms(clients)
    upwards = downwards if world.bandwidth.paired else link.uniforms(clients, draw=1)
    down, up = world.bandwidth.links(downwards, upwards)
    return mapping, ClientDevices(mapping.device, device_model, down, up)


def _traced_models(world: World) -> NDArray[np.int32]:
    code = world.profiles.codes(world.trace.device_models, source="availability")
    if world.trace.device_model is None:
        raise ValueError("a world without device population has a trace that names device models")
    return code[world.trace.device_model]
