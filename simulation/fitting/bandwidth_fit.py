"""A distribution of link speeds from measurements, how well it fits, and links drawn from it."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from simulation.fitting.bandwidth_measurements import (
    DIRECTIONS,
    Direction,
    MeasuredLinks,
    Measurements,
    UnusableMeasurements,
)
from simulation.portable_math import Floats, normal_quantile, portable_exp
from simulation.random_streams import RandomStreams

Family = Literal["lognormal", "quantiles"]
LEAST_LINKS = 10
QUANTILES = (0.01, 0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99)
POOR_KS = 0.05
_FOLDS = 5
# Asymptotic 5 % point of Kolmogorov's distribution: small samples are far from any distribution.
_KOLMOGOROV_5_PERCENT = 1.358


@dataclass(frozen=True)
class DirectionFit:
    """Link speeds in one direction.

    Attributes:
        links: Links measured.
        transfers: Transfers behind them, as far as their number was told.
        median_kbps: Of the fitted lognormal.
        log_stdev: Standard deviation of the logarithm between links, without what transfers add.
        log_stdev_within: The same within a link, from one transfer to the next; 0 if no link has
            several.
        ks_lognormal: Kolmogorov-Smirnov distance of held-out links from the lognormal.
        ks_quantiles: The same from the table of quantiles.
        ks_chance: Distance that links drawn from the very distribution exceed one time in twenty.
        quantiles_kbps: Measured, by probability.
        sorted_log_kbps: Ascending, shape ``(links,)``: what the quantiles are of.
    """

    links: int
    transfers: int
    median_kbps: float
    log_stdev: float
    log_stdev_within: float
    ks_lognormal: float
    ks_quantiles: float
    ks_chance: float
    quantiles_kbps: dict[float, float]
    sorted_log_kbps: Floats

    @property
    def is_lognormal_poor(self) -> bool:
        """Whether held-out links lie farther from the lognormal than 0.05, and than chance."""
        return self.ks_lognormal > max(POOR_KS, self.ks_chance)

    def as_json(self) -> dict[str, Any]:
        """All but the sample."""
        said = {k: v for k, v in asdict(self).items() if k != "sorted_log_kbps"}
        said["quantiles_kbps"] = {f"p{100 * p:g}": v for p, v in self.quantiles_kbps.items()}
        return said | {"is_lognormal_poor": self.is_lognormal_poor}


@dataclass(frozen=True)
class BandwidthFit:
    """Link speeds in both directions.

    Attributes:
        correlation: Of the logarithms of speeds down and up of one link; 0 where fewer than
            `LEAST_LINKS` links were measured both ways, or no direction was told.
        paired_links: Links measured both ways.
    """

    down: DirectionFit
    up: DirectionFit
    correlation: float
    paired_links: int

    def preferred_family(self) -> Family:
        """Lognormal, unless it is poor in a direction."""
        poor = self.down.is_lognormal_poor or self.up.is_lognormal_poor
        return "quantiles" if poor else "lognormal"

    def sample(self, links: int, family: Family, *, seed: int) -> pa.Table:
        """Draw links; the same arguments draw the same.

        Speeds down and up of a link are joined by a normal copula of the measured correlation.

        Args:
            links: How many, at least 1.

        Returns:
            ``down_kbps, up_kbps``, and ``down_stdev_kbps, up_stdev_kbps`` where transfers over a
            link vary: a bandwidth file, each row a link.
        """
        streams = RandomStreams(seed)
        rows = np.arange(links)
        down = streams["fit/down"].normals(rows)
        own = streams["fit/up"].normals(rows)
        rho = self.correlation
        up = rho * down + math.sqrt(max(0.0, 1.0 - rho * rho)) * own
        columns: dict[str, Floats] = {}
        for direction, normal in zip(DIRECTIONS, (down, up), strict=True):
            fit = self._of(direction)
            log_kbps = _drawn_log_kbps(fit, normal, family)
            columns[f"{direction}_kbps"] = portable_exp(log_kbps + fit.log_stdev_within**2 / 2)
        for direction in DIRECTIONS:
            within = self._of(direction).log_stdev_within
            if self.down.log_stdev_within or self.up.log_stdev_within:
                factor = math.sqrt(portable_exp(within**2) - 1.0)
                columns[f"{direction}_stdev_kbps"] = factor * columns[f"{direction}_kbps"]
        return pa.table(columns)

    def _of(self, direction: Direction) -> DirectionFit:
        return self.down if direction == "down" else self.up


def fit_bandwidth(measurements: Measurements, *, seed: int = 0) -> BandwidthFit:
    """Fit lognormals and tables of quantiles to measured links.

    Each link counts once, however many transfers it had. The distance is that of links that were
    held out: each fifth of them is compared with what the other four give.

    Args:
        seed: Decides which links are held out together.

    Raises:
        UnusableMeasurements: If a direction has fewer than `LEAST_LINKS` links.
    """
    down = _fit(measurements.down, "down", seed)
    up = _fit(measurements.up, "up", seed)
    correlation, paired = _correlation(measurements)
    return BandwidthFit(down, up, correlation, paired)


def _fit(links: MeasuredLinks, direction: Direction, seed: int) -> DirectionFit:
    count = len(links)
    if count < LEAST_LINKS:
        raise UnusableMeasurements(
            f"too few links were measured {direction} to tell a distribution: {count}; give "
            f"measurements of at least {LEAST_LINKS}"
        )
    log_kbps = np.sort(links.log_kbps)
    within = _variance_within(links)
    # A link's mean over n transfers scatters by within / n more than links do.
    known = links.transfers > 0
    noise = float(np.sum(within / links.transfers[known]) / count)
    between = max(0.0, float(np.var(log_kbps, ddof=1)) - noise)
    order = RandomStreams(seed)[f"fit/folds/{direction}"].permutation(count)
    median = float(np.mean(log_kbps))
    quantiles = np.quantile(log_kbps, QUANTILES, method="hazen")
    return DirectionFit(
        links=count,
        transfers=int(links.transfers.sum()),
        median_kbps=float(portable_exp(median)),
        log_stdev=math.sqrt(between),
        log_stdev_within=math.sqrt(within),
        ks_lognormal=_held_out_distance(links.log_kbps[order], "lognormal"),
        ks_quantiles=_held_out_distance(links.log_kbps[order], "quantiles"),
        ks_chance=_KOLMOGOROV_5_PERCENT / math.sqrt(count),
        quantiles_kbps={
            p: float(portable_exp(float(q))) for p, q in zip(QUANTILES, quantiles, strict=True)
        },
        sorted_log_kbps=log_kbps,
    )


def _variance_within(links: MeasuredLinks) -> float:
    """Variance of the logarithms within links, pooled over those where it is known."""
    freedom = links.freedom.astype(np.float64)
    return float(np.sum(freedom * links.log_variance) / max(1.0, freedom.sum()))


def _held_out_distance(log_kbps: Floats, family: Family) -> float:
    """Kolmogorov-Smirnov distance of each fold from the distribution of the others, all together.

    A distribution that fits makes the probabilities it gives to held-out values uniform.
    """
    fold = np.arange(len(log_kbps)) % _FOLDS
    probability = np.empty(len(log_kbps))
    for held_out in range(_FOLDS):
        chosen = fold == held_out
        rest = log_kbps[~chosen]
        if family == "lognormal":
            probability[chosen] = _normal_cdf(log_kbps[chosen], rest)
        else:
            ordered = np.sort(rest)
            at = (np.arange(len(ordered)) + 0.5) / len(ordered)
            probability[chosen] = np.interp(log_kbps[chosen], ordered, at, left=0.0, right=1.0)
    ordered = np.sort(probability)
    count = len(ordered)
    above = np.arange(1, count + 1) / count - ordered
    below = ordered - np.arange(count) / count
    return float(max(above.max(), below.max()))


def _normal_cdf(values: Floats, sample: Floats) -> Floats:
    """Probability below each value, under the normal of a sample's mean and deviation."""
    mean, stdev = float(np.mean(sample)), float(np.std(sample, ddof=1))
    if stdev == 0.0:
        return np.where(values < mean, 0.0, np.where(values > mean, 1.0, 0.5))
    scaled = (mean - values) / (stdev * math.sqrt(2.0))
    return np.array([0.5 * math.erfc(z) for z in scaled.tolist()])


def _correlation(measurements: Measurements) -> tuple[float, int]:
    if not measurements.has_directions:
        return 0.0, 0  # drawn apart, as the reader of a file without directions does
    down, up = measurements.down, measurements.up
    place = pc.index_in(down.clients, value_set=up.clients)
    is_paired = place.is_valid().to_numpy(zero_copy_only=False)
    in_down, in_up = np.flatnonzero(is_paired), place.drop_null().to_numpy()
    if len(in_down) < LEAST_LINKS:
        return 0.0, len(in_down)
    x, y = down.log_kbps[in_down], up.log_kbps[in_up]
    if np.std(x) == 0 or np.std(y) == 0:
        return 0.0, len(in_down)
    return float(np.corrcoef(x, y)[0, 1]), len(in_down)


def _drawn_log_kbps(fit: DirectionFit, normal: NDArray[np.float64], family: Family) -> Floats:
    if family == "lognormal":
        return math.log(fit.median_kbps) + fit.log_stdev * normal
    ordered = fit.sorted_log_kbps
    at = normal_quantile((np.arange(len(ordered)) + 0.5) / len(ordered))
    drawn: Floats = np.interp(normal, at, ordered)
    return drawn
