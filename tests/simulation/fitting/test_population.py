"""Shares of measured models; whom nobody measured stands under what is most like it, or apart."""

import math

import pytest

from simulation.fitting.device_log import DeviceCounts
from simulation.fitting.hardware import InvalidHardwareTable, read_hardware
from simulation.fitting.input_file import UnwritableInputFile, write_input
from simulation.fitting.matched_profiles import matched_profiles
from simulation.fitting.population import NoModelMatched, build_population
from simulation.traces.device_profiles import read_device_population, read_device_profiles


def counts(without_model=0, **devices):
    return DeviceCounts(devices, without_model, 0, rows=100, without_device=0)


@pytest.fixture
def hardware(write_table):
    """Scores are evenly apart in logarithms, years as they are: at -d, 0 and d, of deviation
    sqrt(2 / 3) d."""
    return read_hardware(
        write_table(
            "hardware.csv",
            device_model=["slow", "middle", "fast"],
            score=[1, 10, 100],
            year=[2018, 2020, 2022],
            note=["text", "is", "left out"],
        )
    )


def test_features_are_standardised_where_values_differ_by_factors_in_logarithms(hardware):
    assert hardware.features == ("score", "year")
    step = math.sqrt(1.5)
    assert hardware.standardised[hardware.device_models.index("slow")] == pytest.approx([-step] * 2)
    assert hardware.standardised[hardware.device_models.index("middle")] == pytest.approx([0, 0])


def test_distance_is_the_root_mean_square_of_standard_deviations(hardware):
    assert hardware.nearest("slow", ["middle", "fast"]) == ("middle", pytest.approx(math.sqrt(1.5)))
    assert hardware.nearest("slow", ["fast"]) == ("fast", pytest.approx(2 * math.sqrt(1.5)))
    assert hardware.nearest("unheard of", ["fast"]) is None
    assert hardware.nearest("slow", ["unheard of"]) is None


def test_shares_are_of_devices_and_names_may_differ_in_case(hardware):
    built = build_population(counts(Fast=3, slow=1), ["fast", "slow"], hardware)
    assert built.table().to_pydict() == {"device_model": ["fast", "slow"], "share": [0.75, 0.25]}
    assert [(m.log_model, m.device_model, m.how) for m in built.matches] == [
        ("Fast", "fast", "same"),
        ("slow", "slow", "same"),
    ]
    assert built.unmatched_share == 0.0


def test_an_unknown_model_adds_to_the_share_of_its_nearest(hardware):
    built = build_population(counts(middle=2, slow=6), ["slow", "fast"], hardware, max_distance=1.5)
    # The middle is as far from both: the first by name.
    assert built.matches[1].device_model == "fast"
    assert built.matches[1].distance == pytest.approx(math.sqrt(1.5))
    assert built.table().to_pydict() == {"device_model": ["slow", "fast"], "share": [0.75, 0.25]}


def test_a_model_beyond_the_limit_has_no_share_and_is_told(hardware):
    built = build_population(counts(without_model=1, middle=1, slow=6), ["slow"], hardware)
    assert built.table().to_pydict() == {"device_model": ["slow"], "share": [1.0]}
    said = built.as_json()
    assert said["unmatched_share"] == pytest.approx(2 / 8)
    assert said["devices_by_match"] == {"same": 6, "alias": 0, "nearest": 0, "unmatched": 1}
    (example,) = said["unmatched_examples"]
    assert example["reason"] == "the nearest measured model, slow, is 1.22 away"
    mapping = built.mapping().to_pylist()
    assert mapping[1]["device_model"] is None
    assert mapping[1]["share"] == pytest.approx(1 / 8)


def test_other_names_of_a_phone_are_the_same_phone(write_table):
    hardware = read_hardware(
        write_table(
            device_model=["Galaxy", "Galaxy Plus"], score=[5.0, 50.0],
            trace_model_codes=["SM-1, SM-2", None],
        )
    )  # fmt: skip
    built = build_population(DeviceCounts({"SM-2": 1}, 0, 0, 1, 0), ["Galaxy"], hardware)
    assert (built.matches[0].device_model, built.matches[0].how) == ("Galaxy", "alias")


def test_memory_may_be_written_with_its_unit(write_table):
    path = write_table("h.csv", device_model=["a", "b", "c"], ram=["2GB", "4 GB", "512MB"])
    hardware = read_hardware(path, ["ram"])
    a, b, c = hardware.standardised[:, 0]
    assert (b - a) / (a - c) == pytest.approx(math.log(2) / math.log(2 / 0.512))
    with pytest.raises(InvalidHardwareTable, match=r"row 2: ram is 'lots', which is no number"):
        read_hardware(write_table("h.csv", device_model=["a", "b"], ram=["2GB", "lots"]), ["ram"])


def test_a_model_of_which_a_fact_is_missing_is_not_guessed(write_table):
    hardware = read_hardware(
        write_table(device_model=["a", "b", "c"], score=[1.0, 2.0, 4.0], year=[2018, 2020, None])
    )
    built = build_population(counts(a=1, c=1), ["a"], hardware, max_distance=99.0)
    assert built.matches[1].how == "unmatched"
    assert "is not known" in built.matches[1].reason


def test_a_hardware_table_that_tells_no_models_apart_is_refused(write_table):
    with pytest.raises(InvalidHardwareTable, match="the same value for all models"):
        read_hardware(write_table(device_model=["a", "b"], score=[1, 1]))
    with pytest.raises(InvalidHardwareTable, match="no column holds numbers"):
        read_hardware(write_table(device_model=["a", "b"], soc=["x", "y"]))


def test_without_any_match_nothing_is_made_up(hardware):
    with pytest.raises(NoModelMatched, match=r"none of the 1 .*'unheard'.*--hardware"):
        build_population(DeviceCounts({"unheard": 4}, 0, 0, 4, 0), ["fast"], hardware)
    with pytest.raises(NoModelMatched, match="there is no hardware table"):
        build_population(DeviceCounts({"unheard": 4}, 0, 0, 4, 0), ["fast"])


def test_the_file_is_what_a_dry_run_reads(hardware, tmp_path):
    built = build_population(counts(fast=3, slow=1), ["fast", "slow"], hardware)
    for name in ("p.parquet", "p.csv"):
        write_input(tmp_path / name, built.table(), {"seed": 1})
        read = read_device_population(tmp_path / name)
        assert read.device_models == ("fast", "slow")
        assert read.share == pytest.approx([0.75, 0.25])
    assert sorted(p.name for p in tmp_path.glob("p.*")) == ["p.csv", "p.parquet"]
    with pytest.raises(UnwritableInputFile, match=r"give a name that ends in \.parquet or \.csv"):
        write_input(tmp_path / "p.txt", built.table(), {})
    with pytest.raises(UnwritableInputFile, match="there is no folder"):
        write_input(tmp_path / "none" / "p.csv", built.table(), {})


def test_matched_models_get_the_profile_of_their_match(write_table, hardware, tmp_path):
    built = build_population(
        counts(middle=2, slow=6, exotic=1), ["slow", "fast"], hardware, max_distance=1.5
    )
    samples = write_table(device_model=["slow", "slow", "fast"], per_example_s=[3.0, 4.0, 0.5])
    write_input(
        tmp_path / "more.csv", matched_profiles(read_device_profiles(samples), built.matches), {}
    )
    read = read_device_profiles(tmp_path / "more.csv")
    assert read.device_models == ("fast", "middle", "slow")  # the exotic one has none
    assert read.samples_s.tolist() == [0.5, 0.5, 3.0, 4.0]


def test_lognormal_profiles_stay_what_they_were(write_table, hardware, tmp_path):
    built = build_population(counts(Slow=1), ["slow", "fast"], hardware)
    path = write_table(device_model=["slow", "fast"], mean_s=[2.0, 0.1], stdev_s=[1.0, 0.0])
    table = matched_profiles(read_device_profiles(path), built.matches)
    assert table["device_model"].to_pylist() == ["Slow", "fast", "slow"]
    assert table["mean_s"].to_pylist() == pytest.approx([2.0, 0.1, 2.0])
    assert table["stdev_s"].to_pylist() == pytest.approx([1.0, 0.0, 1.0])
