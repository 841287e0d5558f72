"""How fast links are: a link for each client, each with a speed down and a speed up."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from device_runtime.errors import FlintError
from feature_catalog.table_files import MissingColumn, open_table
from simulation.portable_math import Floats, normal_quantile, portable_exp, portable_log
from simulation.random_streams import pick
from simulation.traces.trace_tables import TraceTable, read_trace_table

# FLASH's volunteers' speeds are byte counts divided by 1024: KiB/s, here as 1000 bits a second.
_KBPS_PER_KIB_S = 1024 * 8 / 1000
SAMPLE_COLUMNS = ("kbps", "bandwidth_kbps", "mean_kbps")
_FLASH_COLUMNS = ("down_mean_kbytes_s", "down_sd", "up_mean_kbytes_s", "up_sd")
_PAIRED_COLUMNS = ("down_kbps", "up_kbps")
_PAIRED_STDEVS = ("down_stdev_kbps", "up_stdev_kbps")


class InvalidBandwidth(FlintError):
    """A bandwidth sample that is no speed: not positive, or of no direction."""

    code = "FLN-1706"


@dataclass(frozen=True)
class LinkSpeeds:
    """Measured links in one direction.

    Attributes:
        median_kbps: Of each link's transfers, in 1000 bits a second; shape ``(links,)``.
        log_stdev: Standard deviation of the logarithm of a link's transfers; 0 if each link has one
            speed; shape ``(links,)``.
    """

    median_kbps: Floats
    log_stdev: Floats

    def __len__(self) -> int:
        return len(self.median_kbps)

    def varies(self, link: int) -> bool:
        """Whether transfers over a link have different speeds, so that a draw decides."""
        return bool(self.log_stdev[link] > 0.0)

    def bits_per_s(self, link: int, uniform: float) -> float:
        """Speed of one transfer over a link at a uniform draw."""
        median, spread = float(self.median_kbps[link]), float(self.log_stdev[link])
        if spread == 0.0:
            return median * 1000.0
        return median * portable_exp(spread * normal_quantile(uniform)) * 1000.0

    def bits_per_s_many(self, links: NDArray[np.int32], uniforms: Floats) -> Floats:
        """`bits_per_s` of many transfers, equal to the bit; shapes ``(transfers,)``."""
        spread = self.log_stdev[links] * normal_quantile(uniforms)
        return self.median_kbps[links] * portable_exp(spread) * 1000.0


@dataclass(frozen=True)
class Bandwidth:
    """Measured links in both directions.

    Attributes:
        down: Server to device.
        up: Device to server.
        paired: The same row of both is one link; otherwise directions are drawn apart.
    """

    down: LinkSpeeds
    up: LinkSpeeds
    paired: bool

    def links(
        self, uniforms_down: Floats, uniforms_up: Floats
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Link of each client in each direction, from uniform draws; shapes ``(clients,)``.

        Where links are measured in both directions at once, the first draw chooses both.
        """
        down = pick(uniforms_down, len(self.down)).astype(np.int32)
        if self.paired:
            return down, down
        return down, pick(uniforms_up, len(self.up)).astype(np.int32)


def read_bandwidth(path: Path) -> Bandwidth:
    """Read link speeds from Parquet or CSV, in one of four layouts.

    - ``down_kbps, up_kbps`` and, optionally, ``down_stdev_kbps, up_stdev_kbps``: each row one link,
      its transfers lognormal of this mean and deviation.
    - ``direction, kbps``: each row a sample; ``direction`` is ``down`` or ``up``.
    - ``kbps``, or FedScale's ``bandwidth_kbps``, or ``mean_kbps`` of measured sessions: each row a
      sample for both directions, which are drawn apart.
    - ``down_mean_kbytes_s, down_sd, up_mean_kbytes_s, up_sd`` (FLASH's volunteers; KiB/s).

    ``kbps`` are 1000 bits a second.

    Raises:
        UnreadableDataFile: Or another error of `feature_catalog.table_files`.
        InvalidBandwidth: If a speed is not positive, or a direction has no sample; names the row.
    """
    columns = open_table(path).schema.names
    if _FLASH_COLUMNS[0] in columns:
        return _paired(
            read_trace_table(path, _FLASH_COLUMNS),
            (_FLASH_COLUMNS[0], _FLASH_COLUMNS[2]),
            (_FLASH_COLUMNS[1], _FLASH_COLUMNS[3]),
            _KBPS_PER_KIB_S,
        )
    if _PAIRED_COLUMNS[0] in columns or _PAIRED_COLUMNS[1] in columns:
        table = read_trace_table(path, _PAIRED_COLUMNS, optional=_PAIRED_STDEVS)
        return _paired(table, _PAIRED_COLUMNS, _PAIRED_STDEVS, 1.0)
    if "direction" in columns:
        return _by_direction(read_trace_table(path, ["direction", "kbps"]))
    named = next((name for name in SAMPLE_COLUMNS if name in columns), None)
    if named is None:
        raise MissingColumn(
            f"{path}: there is no column of speeds; give kbps, or down_kbps and up_kbps; its "
            f"columns are {', '.join(columns)}"
        )
    table = read_trace_table(path, [named])
    speeds = _speeds(_positive(table, named))
    return Bandwidth(speeds, speeds, paired=False)


def _paired(
    table: TraceTable, means: tuple[str, str], stdevs: tuple[str, str], factor: float
) -> Bandwidth:
    both = []
    for mean_column, stdev_column in zip(means, stdevs, strict=True):
        mean_kbps = _positive(table, mean_column) * factor
        if not table.has(stdev_column):
            both.append(_speeds(mean_kbps))
            continue
        stdev_kbps = table.numbers(stdev_column, InvalidBandwidth) * factor
        _refuse_negative(table, stdev_column, stdev_kbps)
        # A lognormal of mean m and deviation s has variance of logarithm log(1 + (s / m) ** 2).
        growth = 1.0 + (stdev_kbps / mean_kbps) ** 2
        both.append(LinkSpeeds(mean_kbps / np.sqrt(growth), np.sqrt(portable_log(growth))))
    return Bandwidth(both[0], both[1], paired=True)


def _by_direction(table: TraceTable) -> Bandwidth:
    kbps = _positive(table, "kbps")
    directions = table.texts("direction", InvalidBandwidth)
    is_down = pc.equal(directions, "down").to_numpy(zero_copy_only=False)
    is_up = pc.equal(directions, "up").to_numpy(zero_copy_only=False)
    table.refuse(
        ~(is_down | is_up),
        lambda row: f"direction is {directions[row].as_py()!r}; write down or up",
        InvalidBandwidth,
    )
    for name, chosen in (("down", is_down), ("up", is_up)):
        if not chosen.any():
            raise InvalidBandwidth(
                f"{table.source}: no row has direction {name}; give samples of both directions, or "
                "leave the column out if they are alike"
            )
    return Bandwidth(_speeds(kbps[is_down]), _speeds(kbps[is_up]), paired=False)


def _speeds(kbps: Floats) -> LinkSpeeds:
    return LinkSpeeds(kbps, np.zeros(len(kbps)))


def _positive(table: TraceTable, column: str) -> Floats:
    kbps = table.numbers(column, InvalidBandwidth)
    table.refuse(
        kbps <= 0,
        lambda row: (
            f"{column} is {kbps[row]:g}, over which no transfer would ever end; give a speed above "
            "0 or remove the row"
        ),
        InvalidBandwidth,
    )
    return kbps


def _refuse_negative(table: TraceTable, column: str, values: Floats) -> None:
    table.refuse(
        values < 0,
        lambda row: f"{column} is {values[row]:g}; give a standard deviation, not below 0",
        InvalidBandwidth,
    )
