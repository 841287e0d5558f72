"""Device speeds have the distributions measured, and unknown devices are refused."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats

from feature_catalog.table_files import MissingColumn
from simulation.random_streams import RandomStreams
from simulation.traces.ai_benchmark import profiles_from_scores
from simulation.traces.device_profiles import (
    InvalidDeviceProfile,
    InvalidDeviceShare,
    UnknownDeviceModel,
    read_device_population,
    read_device_profiles,
)

UNIFORMS = RandomStreams(1)["per_example_s"].uniforms(np.arange(100_000))


def test_measured_samples_are_drawn_equally_often(write_table):
    path = write_table(
        "profiles.csv", device_model=["b", "a", "a", "a"], per_example_s=[9, 0.3, 0.1, 0.2]
    )
    profiles = read_device_profiles(path)
    assert profiles.device_models == ("a", "b")
    codes = profiles.codes(["a"] * len(UNIFORMS), source="test")
    drawn = profiles.per_example_s_many(codes, UNIFORMS)
    values, counts = np.unique(drawn, return_counts=True)
    assert values.tolist() == [0.1, 0.2, 0.3]
    assert stats.chisquare(counts).pvalue > 0.001
    assert profiles.per_example_s(1, 0.7) == 9


def test_mean_and_deviation_make_the_lognormal_of_that_mean_and_deviation(write_table):
    path = write_table(device_model=["x", "steady"], mean_s=[0.05, 2.0], stdev_s=[0.04, 0.0])
    profiles = read_device_profiles(path)
    assert profiles.device_models == ("steady", "x")
    drawn = profiles.per_example_s_many(np.ones(len(UNIFORMS), dtype=np.int32), UNIFORMS)
    assert drawn.mean() == pytest.approx(0.05, rel=0.02)
    assert drawn.std() == pytest.approx(0.04, rel=0.05)
    sigma = np.sqrt(np.log(1 + (0.04 / 0.05) ** 2))
    expected = stats.lognorm(s=sigma, scale=0.05 * np.exp(-(sigma**2) / 2))
    assert stats.kstest(drawn, expected.cdf).pvalue > 0.001
    assert profiles.per_example_s(0, 0.999) == 2.0


def test_one_draw_and_many_agree_to_the_bit(write_table):
    samples = write_table("s.parquet", device_model=["a", "a", "b"], per_example_s=[0.1, 0.7, 3.0])
    lognormal = write_table("l.parquet", device_model=["a", "b"], mean_s=[1, 3], stdev_s=[2, 1])
    for path in (samples, lognormal):
        profiles = read_device_profiles(path)
        codes = np.arange(1000, dtype=np.int32) % 2
        many = profiles.per_example_s_many(codes, UNIFORMS[:1000])
        singly = [profiles.per_example_s(i % 2, float(UNIFORMS[i])) for i in range(1000)]
        assert many.tolist() == singly


def test_fedscale_capacities_are_charged_three_times_for_training(write_table):
    path = write_table(
        client_id=[1, 2],
        phone_model=["SM-A207F", "LG-K350"],
        inference_ms_per_sample=[149.0, 153.0],
        bandwidth_kbps=[1.0, 2.0],
    )
    profiles = read_device_profiles(path)
    assert profiles.device_models == ("LG-K350", "SM-A207F")
    assert profiles.samples_s.tolist() == pytest.approx([0.459, 0.447])


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"per_example_s": [0.1, 0.0]}, "row 2: per_example_s is 0; training takes time"),
        ({"per_example_s": [0.1, float("nan")]}, "row 2: per_example_s is nan"),
        ({"mean_s": [0.1, 1.0], "stdev_s": [0.1, -1.0]}, "row 2: stdev_s is -1"),
        ({"mean_s": [0.1, -1.0], "stdev_s": [0.1, 1.0]}, "row 2: mean_s is -1"),
    ],
)
def test_impossible_speeds_are_refused(write_table, columns, said):
    path = write_table(device_model=["a", "b"], **columns)
    with pytest.raises(InvalidDeviceProfile) as caught:
        read_device_profiles(path)
    assert said in str(caught.value)


def test_a_model_with_two_means_is_refused(write_table):
    path = write_table(device_model=["a", "b", "a"], mean_s=[1, 2, 3], stdev_s=[0, 0, 0])
    with pytest.raises(
        InvalidDeviceProfile, match=r"row 3: device model a has a mean already.*row 1"
    ):
        read_device_profiles(path)


def test_a_mean_without_deviation_is_a_missing_column(write_table):
    with pytest.raises(MissingColumn, match="stdev_s"):
        read_device_profiles(write_table(device_model=["a"], mean_s=[1]))


def test_an_unknown_device_model_is_refused_with_what_it_may_have_meant(write_table):
    path = write_table(device_model=["Pixel 7", "Pixel 7a", "Mi 9"], per_example_s=[1, 1, 1])
    profiles = read_device_profiles(path)
    with pytest.raises(UnknownDeviceModel) as caught:
        profiles.codes(["Mi 9", "pixel7", "Nokia"], source="device_population")
    message = str(caught.value)
    assert "device_population: device model 'pixel7' has no profile" in message
    assert "did you mean Pixel 7 or Pixel 7a?" in message
    assert "nor of 1 more of its models" in message


def test_devices_are_drawn_in_proportion_to_their_shares(write_table):
    path = write_table("p.csv", device_model=["a", "b", "a", "never"], share=[20, 60, 20, 0])
    population = read_device_population(path)
    assert population.device_models == ("a", "b")
    assert population.share.tolist() == pytest.approx([0.4, 0.6])
    counts = np.bincount(population.draw(UNIFORMS))
    assert stats.chisquare(counts, [40_000, 60_000]).pvalue > 0.001


def test_the_devices_of_a_capacity_file_are_counted(write_table):
    path = write_table(phone_model=["a", "b", "a", "a"], client_id=[1, 2, 3, 4])
    assert read_device_population(path).share.tolist() == [0.75, 0.25]


@pytest.mark.parametrize(
    ("shares", "said"), [([1, -1], "row 2: share is -1"), ([0, 0], "all shares are zero")]
)
def test_impossible_shares_are_refused(write_table, shares, said):
    with pytest.raises(InvalidDeviceShare, match=said):
        read_device_population(write_table(device_model=["a", "b"], share=shares))


def test_scores_scale_one_measured_phone_to_all(write_table, tmp_path):
    scores = write_table(
        device_model=["reference", "twice as fast", "listed twice", "listed twice"],
        cpu_float_score=[1000.0, 2000.0, 250.0, 750.0],
        trace_model_codes=["", "SM-1, SM-2", "", None],
    )
    table = profiles_from_scores(
        scores, reference_model="reference", reference_s=0.01, relative_stdev=0.1
    )
    path = tmp_path / "profiles.parquet"
    pq.write_table(table, path)
    profiles = read_device_profiles(path)
    by_name = {row["device_model"]: row["mean_s"] for row in table.to_pylist()}
    assert by_name == pytest.approx(
        {
            "SM-1": 0.005,
            "SM-2": 0.005,
            "listed twice": 0.02,
            "reference": 0.01,
            "twice as fast": 0.005,
        }
    )
    assert profiles.device_models == tuple(sorted(by_name))
    with pytest.raises(InvalidDeviceProfile, match="is not among its device models"):
        profiles_from_scores(scores, reference_model="other", reference_s=0.01)
