"""Links have the speeds measured, in kilobits a second, and are never without any."""

import numpy as np
import pytest

from feature_catalog.table_files import MissingColumn
from simulation.random_streams import RandomStreams
from simulation.traces.bandwidth import InvalidBandwidth, read_bandwidth

STREAM = RandomStreams(4)["link"]
CLIENTS = np.arange(20_000)


def drawn_links(bandwidth):
    return bandwidth.links(STREAM.uniforms(CLIENTS), STREAM.uniforms(CLIENTS, draw=1))


def test_a_link_measured_both_ways_keeps_both_speeds(write_table):
    bandwidth = read_bandwidth(write_table("b.csv", down_kbps=[1000, 50], up_kbps=[500, 25]))
    down, up = drawn_links(bandwidth)
    assert np.array_equal(down, up)
    assert np.bincount(down) == pytest.approx([10_000, 10_000], rel=0.05)
    assert bandwidth.down.bits_per_s(0, 0.9) == 1_000_000
    assert bandwidth.up.bits_per_s(1, 0.1) == 25_000


@pytest.mark.parametrize("column", ["kbps", "bandwidth_kbps", "mean_kbps"])
def test_samples_without_direction_serve_both_drawn_apart(write_table, column):
    bandwidth = read_bandwidth(write_table(**{column: [1.0, 2.0, 3.0]}))
    down, up = drawn_links(bandwidth)
    assert abs(np.corrcoef(down, up)[0, 1]) < 0.05
    assert set(np.unique(bandwidth.up.bits_per_s_many(up, STREAM.uniforms(CLIENTS)))) == {
        1000.0,
        2000.0,
        3000.0,
    }


def test_samples_of_a_direction_serve_that_one(write_table):
    path = write_table(direction=["up", "down", "up"], kbps=[1, 100, 2])
    bandwidth = read_bandwidth(path)
    assert bandwidth.down.median_kbps.tolist() == [100]
    assert bandwidth.up.median_kbps.tolist() == [1, 2]


def test_mean_and_deviation_of_a_link_vary_its_transfers(write_table):
    bandwidth = read_bandwidth(
        write_table(down_kbps=[1000], up_kbps=[500], down_stdev_kbps=[300], up_stdev_kbps=[0])
    )
    first = np.zeros(len(CLIENTS), dtype=np.int64)
    uniforms = STREAM.uniforms(CLIENTS, 1)
    speeds = bandwidth.down.bits_per_s_many(first, uniforms)
    assert speeds.mean() == pytest.approx(1e6, rel=0.01)
    assert speeds.std() == pytest.approx(3e5, rel=0.03)
    assert speeds[:500].tolist() == [bandwidth.down.bits_per_s(0, float(u)) for u in uniforms[:500]]
    assert np.ptp(bandwidth.up.bits_per_s_many(first, uniforms)) == 0


def test_flash_speeds_are_kibibytes_a_second(write_table):
    bandwidth = read_bandwidth(
        write_table(
            device_id=[0],
            down_mean_kbytes_s=[1000.0],
            down_sd=[0.0],
            up_mean_kbytes_s=[500.0],
            up_sd=[0.0],
        )
    )
    assert bandwidth.down.bits_per_s(0, 0.5) == pytest.approx(1000 * 1024 * 8)
    assert bandwidth.up.bits_per_s(0, 0.5) == pytest.approx(500 * 1024 * 8)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"kbps": [3.0, 0.0]}, "row 2: kbps is 0, over which no transfer would ever end"),
        ({"down_kbps": [1, 1], "up_kbps": [2, -1]}, "row 2: up_kbps is -1"),
        ({"kbps": [3.0, float("inf")]}, "row 2: kbps is inf"),
        ({"direction": ["up", "left"], "kbps": [1, 1]}, "row 2: direction is 'left'"),
        ({"direction": ["up", "up"], "kbps": [1, 1]}, "no row has direction down"),
        (
            {"down_kbps": [1], "up_kbps": [1], "down_stdev_kbps": [-1], "up_stdev_kbps": [0]},
            "row 1: down_stdev_kbps is -1",
        ),
    ],
)
def test_impossible_speeds_are_refused(write_table, columns, said):
    with pytest.raises(InvalidBandwidth) as caught:
        read_bandwidth(write_table(**columns))
    assert said in str(caught.value)


def test_a_file_without_speeds_is_refused(write_table):
    with pytest.raises(MissingColumn, match="there is no column of speeds"):
        read_bandwidth(write_table(speed=[1]))
    with pytest.raises(MissingColumn, match="up_kbps"):
        read_bandwidth(write_table(down_kbps=[1]))
