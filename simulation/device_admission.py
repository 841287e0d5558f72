"""`participation.device` in a dry-run: the deployment's rule, judged by the environment's devices.

Speeds are those of the environment's device profiles; memory is what the catalog's benchmarks say;
nobody tells OS releases.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from server.device_criteria import (
    BENCHMARK_RECORDS,
    DeviceCriteria,
    DeviceRefusal,
    MeasuredModel,
)
from server.job import Job
from simulation.world import ClientDevices, World

Mask = NDArray[np.bool_]


def with_device_measurements(
    job: Job, world: World, devices: ClientDevices, memory_mb: Mapping[str, float]
) -> Job:
    """The job with what its clients' devices are judged by; itself if it asks for nothing.

    Args:
        memory_mb: That training the job's model takes, by device model, where it was measured.
    """
    criteria = job.participation.device
    if criteria is None or not criteria.asks_for_measurements:
        return job
    mean_s = world.profiles.mean_s()
    measured = {
        world.profiles.device_models[model]: MeasuredModel(
            train_s=float(mean_s[model]) * BENCHMARK_RECORDS,
            memory_mb=memory_mb.get(world.profiles.device_models[model]),
        )
        for model in np.unique(devices.device_model).tolist()
    }
    participation = job.participation.model_copy(
        update={"device": criteria.with_measured(measured)}
    )
    return job.model_copy(update={"participation": participation})


def clients_passing(
    refusal: DeviceRefusal, criteria: DeviceCriteria | None, world: World, devices: ClientDevices
) -> Mask:
    """Which clients' devices are not refused for one reason, shape ``(clients,)``."""
    return _passing(criteria, world, devices, lambda found: found is not refusal)


def admitted_clients(job: Job, world: World, devices: ClientDevices) -> Mask:
    """Which clients' devices the job admits, shape ``(clients,)``."""
    return _passing(job.participation.device, world, devices, lambda found: found is None)


def device_notes(job: Job, world: World, devices: ClientDevices) -> list[str]:
    """How many clients the job's device criteria admit, and which an environment cannot tell.

    Args:
        job: From `with_device_measurements`.
    """
    criteria = job.participation.device
    if criteria is None:
        return []
    notes = []
    if criteria.asks_for_measurements:
        admitted = admitted_clients(job, world, devices)
        notes.append(
            f"participation.device admits the devices of {int(admitted.sum())} of {len(admitted)} "
            "clients"
        )
    if criteria.min_os_release is not None:
        notes.append(
            "participation.device.min_os_release cannot be judged, as an environment tells no OS "
            "releases: give a population of devices that meet it"
        )
    measured = criteria.measured or {}
    unknown = [name for name, found in measured.items() if found.memory_mb is None]
    if criteria.max_memory_mb is not None and unknown:
        notes.append(
            f"participation.device.max_memory_mb cannot be judged for {len(unknown)} of "
            f"{len(measured)} device models, the first {unknown[0]}, on which {job.model} was not "
            "benchmarked: their devices take part here, and a deployment turns them away"
        )
    return notes


def _passing(
    criteria: DeviceCriteria | None,
    world: World,
    devices: ClientDevices,
    passes: Callable[[DeviceRefusal | None], bool],
) -> Mask:
    if criteria is None:
        return np.ones(len(devices.device_model), dtype=np.bool_)
    by_model = np.zeros(len(world.profiles.device_models), dtype=np.bool_)
    for model in np.unique(devices.device_model).tolist():
        name = world.profiles.device_models[model]
        by_model[model] = passes(criteria.refusal(name, os_release=None))
    return by_model[devices.device_model]
