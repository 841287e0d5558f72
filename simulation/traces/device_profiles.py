"""How fast devices train: seconds per example, as a distribution for each device model."""

import difflib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from feature_catalog.table_files import open_table
from simulation.portable_math import Floats, normal_quantile, portable_exp, portable_log
from simulation.random_streams import pick
from simulation.traces.trace_tables import TraceTable, read_trace_table

# FedScale measures inference and charges three times as much for training (forward, and backward
# at twice its cost): fedscale/cloud/execution, `computation` in ms per sample.
FEDSCALE_TRAINING_FACTOR = 3.0


class UnknownDeviceModel(FlintError):
    """A device model of the trace or population has no measured speed."""

    code = "FLN-1703"


class InvalidDeviceProfile(FlintError):
    """A row of device profiles that no device can have."""

    code = "FLN-1704"


class InvalidDeviceShare(FlintError):
    """A row of the device population that is no share."""

    code = "FLN-1705"


@dataclass(frozen=True)
class DeviceProfiles:
    """Seconds per example of each device model: measured samples, or a lognormal distribution.

    Attributes:
        device_models: Names, ascending.
        offsets: Samples of model ``i`` are ``offsets[i]`` to ``offsets[i + 1]``; empty for a
            lognormal one; shape ``(models + 1,)``.
        samples_s: Ascending within a model, shape ``(samples,)``.
        median_s: Of lognormal models, else 0; shape ``(models,)``.
        log_stdev: Standard deviation of the logarithm, of lognormal models; shape ``(models,)``.
    """

    device_models: tuple[str, ...]
    offsets: NDArray[np.int64]
    samples_s: Floats
    median_s: Floats
    log_stdev: Floats

    def codes(self, device_models: Sequence[str], *, source: str) -> NDArray[np.int32]:
        """Index of each name, shape ``(names,)``.

        Args:
            source: Where the names come from, for the message.

        Raises:
            UnknownDeviceModel: Names the first unknown model and what it may have meant.
        """
        code = {name: index for index, name in enumerate(self.device_models)}
        unknown = [name for name in device_models if name not in code]
        if unknown:
            raise UnknownDeviceModel(_unknown(unknown, self.device_models, source))
        return np.array([code[name] for name in device_models], dtype=np.int32)

    def per_example_s(self, model: int, uniform: float) -> float:
        """Seconds per example at a uniform draw: the quantile of the model's distribution."""
        first, beyond = int(self.offsets[model]), int(self.offsets[model + 1])
        if first < beyond:
            return float(self.samples_s[first + pick(uniform, beyond - first)])
        spread = float(self.log_stdev[model]) * normal_quantile(uniform)
        return float(self.median_s[model]) * portable_exp(spread)

    def per_example_s_many(self, models: NDArray[np.int32], uniforms: Floats) -> Floats:
        """`per_example_s` of many draws, equal to the bit; shapes ``(draws,)``."""
        first = self.offsets[models]
        count = self.offsets[models + 1] - first
        sampled = count > 0
        seconds = np.empty(uniforms.shape)
        within = (uniforms[sampled] * count[sampled]).astype(np.int64)
        within = np.minimum(within, count[sampled] - 1)
        seconds[sampled] = self.samples_s[first[sampled] + within]
        spread = self.log_stdev[models[~sampled]] * normal_quantile(uniforms[~sampled])
        seconds[~sampled] = self.median_s[models[~sampled]] * portable_exp(spread)
        return seconds

    def mean_s(self) -> Floats:
        """Mean seconds per example of each model, shape ``(models,)``."""
        means = self.median_s * portable_exp(0.5 * self.log_stdev**2)
        for model in np.flatnonzero(np.diff(self.offsets)).tolist():
            samples = self.samples_s[self.offsets[model] : self.offsets[model + 1]]
            means[model] = math.fsum(samples.tolist()) / len(samples)
        return means

    def fastest_s(self) -> Floats:
        """Least seconds per example of each model (its 1e-4 quantile), shape ``(models,)``."""
        models = np.arange(len(self.device_models), dtype=np.int32)
        return self.per_example_s_many(models, np.full(len(models), 1e-4))


@dataclass(frozen=True, slots=True)
class DevicePopulation:
    """Share of each device model among all devices.

    Attributes:
        device_models: Names, ascending.
        share: Positive, summing to 1; shape ``(models,)``.
    """

    device_models: tuple[str, ...]
    share: Floats

    def draw(self, uniforms: Floats) -> NDArray[np.int32]:
        """Index of a device model at each uniform draw, shape ``(draws,)``."""
        bounds = np.cumsum(self.share)
        found = np.searchsorted(bounds, uniforms, side="right")
        return np.minimum(found, len(bounds) - 1).astype(np.int32)


def read_device_profiles(path: Path) -> DeviceProfiles:
    """Read speeds of device models from Parquet or CSV, in one of three layouts.

    - ``device_model, per_example_s``: each row one measured sample.
    - ``device_model, mean_s, stdev_s``: each row one model, lognormal of this mean and deviation.
    - ``phone_model, inference_ms_per_sample`` (FedScale's device capacities): each row one sample
      of inference, charged three times for training, as FedScale does.

    Raises:
        UnreadableDataFile: Or another error of `feature_catalog.table_files`.
        InvalidDeviceProfile: If a value is not positive (``stdev_s``: negative), or a model has two
            means.
    """
    columns = open_table(path).schema.names
    if "inference_ms_per_sample" in columns:
        table = read_trace_table(path, ["phone_model", "inference_ms_per_sample"])
        inference_s = _positive(table, "inference_ms_per_sample") / 1000.0
        models = table.texts("phone_model", InvalidDeviceProfile)
        return profiles_of_samples(models, inference_s * FEDSCALE_TRAINING_FACTOR)
    if "mean_s" in columns:
        return _lognormal(read_trace_table(path, ["device_model", "mean_s", "stdev_s"]))
    table = read_trace_table(path, ["device_model", "per_example_s"])
    seconds = _positive(table, "per_example_s")
    return profiles_of_samples(table.texts("device_model", InvalidDeviceProfile), seconds)


def profiles_of_samples(device_models: pa.Array, seconds: Floats) -> DeviceProfiles:
    """Profiles of measured samples.

    Args:
        device_models: Model of each sample, text, shape ``(samples,)``.
        seconds: Per example, positive, shape ``(samples,)``.
    """
    names, code = _coded(device_models)
    order = np.lexsort((seconds, code))
    counts = np.bincount(code, minlength=len(names))
    none = np.zeros(len(names))
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    return DeviceProfiles(names, offsets, seconds[order], none, none)


def read_device_population(path: Path) -> DevicePopulation:
    """Read shares of device models from Parquet or CSV.

    Columns ``device_model, share`` (shares or counts: only their proportions matter; rows of the
    same model add up), or FedScale's device capacities, whose rows are devices with a
    ``phone_model``.

    Raises:
        UnreadableDataFile: Or another error of `feature_catalog.table_files`.
        InvalidDeviceShare: If a share is negative, or all are zero.
    """
    columns = open_table(path).schema.names
    if "phone_model" in columns and "share" not in columns:
        table = read_trace_table(path, ["phone_model"])
        names, code = _coded(table.texts("phone_model", InvalidDeviceShare))
        weights = np.ones(len(code))
    else:
        table = read_trace_table(path, ["device_model", "share"])
        names, code = _coded(table.texts("device_model", InvalidDeviceShare))
        weights = table.numbers("share", InvalidDeviceShare)
    table.refuse(
        weights < 0,
        lambda row: f"share is {weights[row]:g}; give a share or a count, not below 0",
        InvalidDeviceShare,
    )
    total = np.bincount(code, weights=weights, minlength=len(names))
    if not total.sum() > 0:
        raise InvalidDeviceShare(
            f"{path}: all shares are zero; give at least one device model a share above 0"
        )
    some = np.flatnonzero(total)
    kept = tuple(names[index] for index in some)
    return DevicePopulation(kept, total[some] / total.sum())


def _lognormal(table: TraceTable) -> DeviceProfiles:
    mean_s = _positive(table, "mean_s")
    stdev_s = table.numbers("stdev_s", InvalidDeviceProfile)
    table.refuse(
        stdev_s < 0,
        lambda row: f"stdev_s is {stdev_s[row]:g}; give a standard deviation, not below 0",
        InvalidDeviceProfile,
    )
    models = table.texts("device_model", InvalidDeviceProfile)
    names, code = _coded(models)
    first_row = np.full(len(names), len(code))
    np.minimum.at(first_row, code, np.arange(len(code)))
    table.refuse(
        first_row[code] < np.arange(len(code)),
        lambda row: (
            f"device model {models[row].as_py()} has a mean already (row "
            f"{table.rows[first_row[code[row]]]}); keep one, or give samples as per_example_s"
        ),
        InvalidDeviceProfile,
    )
    # A lognormal of mean m and deviation s has variance of logarithm log(1 + (s / m) ** 2).
    growth = 1.0 + (stdev_s / mean_s) ** 2
    median_s, log_stdev = np.empty(len(names)), np.empty(len(names))
    median_s[code] = mean_s / np.sqrt(growth)
    log_stdev[code] = np.sqrt(portable_log(growth))
    offsets = np.zeros(len(names) + 1, dtype=np.int64)
    return DeviceProfiles(names, offsets, np.empty(0), median_s, log_stdev)


def _positive(table: TraceTable, column: str) -> Floats:
    values = table.numbers(column, InvalidDeviceProfile)
    table.refuse(
        values <= 0,
        lambda row: f"{column} is {values[row]:g}; training takes time, give a value above 0",
        InvalidDeviceProfile,
    )
    return values


def _coded(names: pa.Array) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Distinct names, ascending, and the index of each."""
    distinct = pc.unique(names).sort()
    code = pc.index_in(names, value_set=distinct).to_numpy(zero_copy_only=False)
    return tuple(distinct.to_pylist()), code.astype(np.int64)


def _unknown(unknown: Sequence[str], known: Iterable[str], source: str) -> str:
    folded = {name.lower(): name for name in known}
    near = difflib.get_close_matches(unknown[0].lower(), folded, n=3, cutoff=0.6)
    meant = f" (did you mean {' or '.join(folded[n] for n in near)}?)" if near else ""
    others = f", nor of {len(unknown) - 1} more of its models" if len(unknown) > 1 else ""
    return (
        f"{source}: device model {unknown[0]!r} has no profile{meant}{others}; add its seconds per "
        "example to the device profiles, or rename it"
    )
