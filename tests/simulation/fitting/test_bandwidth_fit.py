"""A fit finds the distribution that measurements were drawn from, and says when it is another."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats

from simulation.fitting.bandwidth_fit import QUANTILES, fit_bandwidth
from simulation.fitting.bandwidth_measurements import (
    MeasurementColumns,
    UnusableMeasurements,
    read_measurements,
)
from simulation.traces.bandwidth import read_bandwidth

CLIENT = MeasurementColumns(client="client")


@pytest.fixture
def links(write_table):
    """Links of known lognormals: medians 5000 and 2000, log stdev 1.0 and 0.6, correlation 0.7."""
    draw = np.random.default_rng(5)
    normals = draw.multivariate_normal([0, 0], [[1, 0.7], [0.7, 1]], size=4000)
    return write_table(
        down_kbps=5000 * np.exp(normals[:, 0]), up_kbps=2000 * np.exp(0.6 * normals[:, 1])
    )


def test_a_lognormal_of_known_parameters_is_recovered(links):
    fit = fit_bandwidth(read_measurements([links]))
    # Standard errors at 4000 links: of the median 1.6 % and 1 %, of the deviation 1.1 %.
    assert fit.down.median_kbps == pytest.approx(5000, rel=0.05)
    assert fit.up.median_kbps == pytest.approx(2000, rel=0.03)
    assert fit.down.log_stdev == pytest.approx(1.0, rel=0.04)
    assert fit.up.log_stdev == pytest.approx(0.6, rel=0.04)
    assert fit.correlation == pytest.approx(0.7, abs=0.03)
    assert fit.paired_links == 4000
    for p in QUANTILES:
        closed_form = stats.lognorm(s=1.0, scale=5000).ppf(p)
        assert fit.down.quantiles_kbps[p] == pytest.approx(closed_form, rel=0.15)
    assert max(fit.down.ks_lognormal, fit.up.ks_lognormal) < 0.03
    assert fit.preferred_family() == "lognormal"


def test_spread_between_links_is_told_from_that_within(write_table):
    draw = np.random.default_rng(1)
    speed = np.repeat(0.8 * draw.standard_normal(1000), 4) + 0.5 * draw.standard_normal(4000)
    path = write_table(client=np.repeat(np.arange(1000), 4), kbps=3000 * np.exp(speed))
    fit = fit_bandwidth(read_measurements([path], CLIENT)).down
    assert (fit.links, fit.transfers) == (1000, 4000)
    assert fit.log_stdev == pytest.approx(0.8, rel=0.06)
    assert fit.log_stdev_within == pytest.approx(0.5, rel=0.04)


def test_two_kinds_of_links_are_no_lognormal_and_their_quantiles_stand_for_them(write_table):
    draw = np.random.default_rng(2)
    slow, fast = 300 * np.exp(0.2 * draw.standard_normal((2, 1000)) + [[0.0], [5.0]])
    fit = fit_bandwidth(read_measurements([write_table(kbps=np.concatenate([slow, fast]))]))
    assert fit.down.is_lognormal_poor
    assert fit.down.ks_lognormal > 0.2
    assert fit.down.ks_quantiles < 0.05
    assert fit.preferred_family() == "quantiles"
    drawn = fit.sample(5000, "quantiles", seed=0)["down_kbps"].to_numpy()
    assert (drawn < 1000).mean() == pytest.approx(0.5, abs=0.03)
    assert drawn.min() >= min(slow.min(), fast.min()) * 0.999
    assert drawn.max() <= max(slow.max(), fast.max()) * 1.001


def test_the_held_out_distance_is_scipys_for_one_fold(write_table):
    draw = np.random.default_rng(3)
    speeds = 100 * (1 + draw.exponential(size=2000))
    fit = fit_bandwidth(read_measurements([write_table(kbps=speeds)])).down
    logs = np.log(speeds)
    whole = stats.kstest(logs, "norm", args=(logs.mean(), logs.std(ddof=1))).statistic
    # With 2000 links, what a fifth adds to the fit is little.
    assert fit.ks_lognormal == pytest.approx(whole, abs=0.01)


def test_a_small_sample_is_not_called_poor_for_chance_alone(write_table):
    draw = np.random.default_rng(4)
    fit = fit_bandwidth(
        read_measurements([write_table(kbps=np.exp(draw.standard_normal(20)))])
    ).down
    assert fit.ks_chance == pytest.approx(1.358 / np.sqrt(20))
    assert not fit.is_lognormal_poor


def test_drawn_links_have_the_fitted_distribution_and_are_a_bandwidth_file(links, tmp_path):
    fit = fit_bandwidth(read_measurements([links]))
    table = fit.sample(4000, "lognormal", seed=3)
    again, other = (fit.sample(4000, "lognormal", seed=seed) for seed in (3, 4))
    assert table.equals(again)
    assert not table.equals(other)
    down, up = (np.log(table[f"{d}_kbps"].to_numpy()) for d in ("down", "up"))
    assert (
        stats.kstest(down, "norm", args=(np.log(fit.down.median_kbps), fit.down.log_stdev))[1]
        > 0.01
    )
    assert stats.kstest(up, "norm", args=(np.log(fit.up.median_kbps), fit.up.log_stdev))[1] > 0.01
    assert np.corrcoef(down, up)[0, 1] == pytest.approx(fit.correlation, abs=0.03)
    pq.write_table(table, tmp_path / "links.parquet")
    read = read_bandwidth(tmp_path / "links.parquet")
    assert read.paired
    assert np.array_equal(read.down.median_kbps, table["down_kbps"].to_numpy())


def test_transfers_over_a_drawn_link_vary_as_measured(write_table, tmp_path):
    draw = np.random.default_rng(6)
    speed = np.repeat(draw.standard_normal(500), 5) + 0.5 * draw.standard_normal(2500)
    path = write_table(client=np.repeat(np.arange(500), 5), kbps=3000 * np.exp(speed))
    fit = fit_bandwidth(read_measurements([path], CLIENT))
    pq.write_table(fit.sample(2000, "lognormal", seed=1), tmp_path / "links.parquet")
    read = read_bandwidth(tmp_path / "links.parquet").down
    assert read.log_stdev == pytest.approx(np.full(2000, fit.down.log_stdev_within))
    assert np.exp(np.log(read.median_kbps).mean()) == pytest.approx(fit.down.median_kbps, rel=0.08)


def test_links_without_a_direction_are_drawn_apart(write_table):
    draw = np.random.default_rng(7)
    fit = fit_bandwidth(read_measurements([write_table(kbps=np.exp(draw.standard_normal(300)))]))
    assert (fit.correlation, fit.paired_links) == (0.0, 0)
    table = fit.sample(3000, "lognormal", seed=0)
    down, up = (np.log(table[f"{d}_kbps"].to_numpy()) for d in ("down", "up"))
    assert np.corrcoef(down, up)[0, 1] == pytest.approx(0.0, abs=0.06)


def test_links_of_one_speed_are_fitted_as_that_speed(write_table):
    fit = fit_bandwidth(read_measurements([write_table(kbps=[5000.0] * 12)]))
    assert (fit.down.median_kbps, fit.down.log_stdev) == pytest.approx((5000.0, 0.0))
    for family in ("lognormal", "quantiles"):
        drawn = fit.sample(5, family, seed=0)["up_kbps"].to_numpy()
        assert drawn == pytest.approx(np.full(5, 5000.0))


def test_too_few_links_are_refused(write_table):
    with pytest.raises(
        UnusableMeasurements, match="too few links were measured down to tell a distribution: 9"
    ):
        fit_bandwidth(read_measurements([write_table(kbps=np.arange(1.0, 10.0))]))
