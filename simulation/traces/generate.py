"""A whole world without recorded data: availability, devices and links, from one seed.

Defaults follow what was measured on recorded traces: speeds and links of FedScale's first hundred
clients (5 to 95 % of links 1.1 to 42 Mbit/s, of speeds a factor of ten), uploads at 0.7 of
downloads (FLASH's volunteers).
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from simulation.portable_math import portable_exp, portable_log
from simulation.random_streams import RandomStreams
from simulation.traces.generated_sessions import (
    GeneratedAvailability,
    InvalidGeneratedWorld,
    generate_sessions,
)


@dataclass(frozen=True, slots=True)
class GeneratedDevices:
    """Device models of different speeds, each with heavy-tailed seconds per example.

    Attributes:
        models: Number of device models, ``model-01`` the most common.
        median_per_example_s: Seconds per example of the median model.
        log_stdev_between: Standard deviation of the logarithm of speed between models.
        log_stdev_within: The same within a model, from one task to the next: how heavy the tail is.
        share_exponent: The k-th most common model's share is proportional to ``k **
            -share_exponent``.
    """

    models: int = 20
    median_per_example_s: float = 0.02
    log_stdev_between: float = 0.8
    log_stdev_within: float = 0.4
    share_exponent: float = 0.7


@dataclass(frozen=True, slots=True)
class GeneratedBandwidth:
    """Links whose speeds are lognormal.

    Attributes:
        links: Number of samples.
        median_down_kbps: Median speed down, in 1000 bits a second.
        log_stdev: Standard deviation of the logarithm of a link's speed.
        up_over_down: Median ratio of a link's speed up to its speed down.
        log_stdev_ratio: Standard deviation of the logarithm of that ratio.
    """

    links: int = 1000
    median_down_kbps: float = 5500.0
    log_stdev: float = 1.1
    up_over_down: float = 0.7
    log_stdev_ratio: float = 0.3


def generate_device_profiles(settings: GeneratedDevices, *, seed: int) -> pa.Table:
    """Columns ``device_model, mean_s, stdev_s``, of lognormal distributions.

    Raises:
        InvalidGeneratedWorld: If a parameter is out of range.
    """
    _check_devices(settings)
    between = RandomStreams(seed)["generate/models"].normals(np.arange(settings.models))
    median_s = settings.median_per_example_s * portable_exp(settings.log_stdev_between * between)
    variance = settings.log_stdev_within**2
    mean_s = median_s * portable_exp(variance / 2)
    stdev_s = mean_s * math.sqrt(portable_exp(variance) - 1.0)
    return pa.table({"device_model": _names(settings), "mean_s": mean_s, "stdev_s": stdev_s})


def generate_device_population(settings: GeneratedDevices) -> pa.Table:
    """Columns ``device_model, share``.

    Raises:
        InvalidGeneratedWorld: If a parameter is out of range.
    """
    _check_devices(settings)
    rank = np.arange(1, settings.models + 1, dtype=np.float64)
    share = portable_exp(-settings.share_exponent * portable_log(rank))
    return pa.table({"device_model": _names(settings), "share": share / share.sum()})


def generate_bandwidth(settings: GeneratedBandwidth, *, seed: int) -> pa.Table:
    """Columns ``down_kbps, up_kbps``: each row a link.

    Raises:
        InvalidGeneratedWorld: If a parameter is out of range.
    """
    _require(settings.links >= 1, "links", settings.links)
    _require(settings.median_down_kbps > 0, "median_down_kbps", settings.median_down_kbps)
    _require(settings.up_over_down > 0, "up_over_down", settings.up_over_down)
    _require(0 <= settings.log_stdev <= 3, "log_stdev", settings.log_stdev)
    _require(0 <= settings.log_stdev_ratio <= 3, "log_stdev_ratio", settings.log_stdev_ratio)
    streams = RandomStreams(seed)
    links = np.arange(settings.links)
    speed = portable_exp(settings.log_stdev * streams["generate/down"].normals(links))
    ratio = portable_exp(settings.log_stdev_ratio * streams["generate/up"].normals(links))
    down_kbps = settings.median_down_kbps * speed
    up_kbps = down_kbps * (settings.up_over_down * ratio)
    return pa.table({"down_kbps": down_kbps, "up_kbps": up_kbps})


def write_world(
    folder: Path,
    availability: GeneratedAvailability,
    devices: GeneratedDevices | None = None,
    bandwidth: GeneratedBandwidth | None = None,
    *,
    seed: int = 0,
) -> None:
    """Write sessions, device_profiles, device_population and bandwidth, each a ``.parquet``.

    The same arguments write the same values; they are kept in each file's metadata.

    Raises:
        InvalidGeneratedWorld: If a parameter is out of range; nothing is written then.
    """
    devices, bandwidth = devices or GeneratedDevices(), bandwidth or GeneratedBandwidth()
    made: dict[str, tuple[pa.Table, GeneratedAvailability | GeneratedDevices | GeneratedBandwidth]]
    made = {
        "sessions": (generate_sessions(availability, seed=seed), availability),
        "device_profiles": (generate_device_profiles(devices, seed=seed), devices),
        "device_population": (generate_device_population(devices), devices),
        "bandwidth": (generate_bandwidth(bandwidth, seed=seed), bandwidth),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, (table, settings) in made.items():
        said = {"generated_with": type(settings).__name__, "seed": str(seed)}
        said |= {key: str(value) for key, value in asdict(settings).items()}
        path = folder / f"{name}.parquet"
        pq.write_table(table.replace_schema_metadata(said), path, compression="zstd")


def _names(settings: GeneratedDevices) -> list[str]:
    digits = max(2, len(str(settings.models)))
    return [f"model-{rank:0{digits}d}" for rank in range(1, settings.models + 1)]


def _check_devices(settings: GeneratedDevices) -> None:
    _require(settings.models >= 1, "models", settings.models)
    _require(
        settings.median_per_example_s > 0, "median_per_example_s", settings.median_per_example_s
    )
    _require(0 <= settings.log_stdev_between <= 3, "log_stdev_between", settings.log_stdev_between)
    _require(0 <= settings.log_stdev_within <= 3, "log_stdev_within", settings.log_stdev_within)
    _require(0 <= settings.share_exponent <= 10, "share_exponent", settings.share_exponent)


def _require(possible: bool, name: str, value: float) -> None:
    if not possible:
        raise InvalidGeneratedWorld(
            f"{name} = {value} cannot make a world; give counts of at least 1, speeds and ratios "
            "above 0, deviations from 0 to 3 and exponents from 0 to 10"
        )
