"""Measurement files of any layout become one link a client and direction."""

import math

import numpy as np
import pytest

from simulation.fitting.bandwidth_measurements import (
    AmbiguousMeasurementColumns,
    MeasurementColumns,
    UnusableMeasurements,
    read_measurements,
)


def test_bytes_and_seconds_are_kilobits_a_second(write_table):
    path = write_table("m.csv", size=[1000, 500], took=[2.0, 1.0])
    found = read_measurements(
        [path], MeasurementColumns(transferred_bytes="size", transfer_s="took")
    )
    assert np.exp(found.down.log_kbps) == pytest.approx([4.0, 4.0])
    assert found.up is not None
    assert not found.has_directions


def test_transfers_of_a_client_are_one_link_of_their_geometric_mean(write_table):
    path = write_table(client=["a", "a", "b"], kbps=[100.0, 400.0, 50.0])
    found = read_measurements([path], MeasurementColumns(client="client")).down
    assert found.clients.to_pylist() == ["a", "b"]
    assert np.exp(found.log_kbps) == pytest.approx([200.0, 50.0])
    # Two values d apart have variance d**2 / 2.
    assert found.log_variance == pytest.approx([math.log(4.0) ** 2 / 2, 0.0])
    assert (found.transfers.tolist(), found.freedom.tolist()) == ([2, 1], [1, 0])


def test_a_client_in_two_files_is_the_link_it_would_be_in_one(write_table):
    kbps = [100.0, 400.0, 50.0, 70.0, 20.0]
    clients = ["a", "a", "b", "a", "b"]
    whole = write_table("whole.parquet", client=clients, kbps=kbps)
    first = write_table("first.parquet", client=clients[:3], kbps=kbps[:3])
    second = write_table("second.parquet", client=clients[3:], kbps=kbps[3:])
    columns = MeasurementColumns(client="client")
    one = read_measurements([whole], columns).down
    two = read_measurements([first, second], columns).down
    assert np.allclose(one.log_kbps, two.log_kbps)
    assert np.allclose(one.log_variance, two.log_variance)
    assert one.freedom.tolist() == two.freedom.tolist() == [2, 1]
    assert one.transfers.tolist() == two.transfers.tolist() == [3, 2]


def test_directions_are_told_apart_by_their_own_words(write_table):
    path = write_table(dir=["rx", "tx", "rx"], kbps=[100.0, 10.0, 200.0])
    columns = MeasurementColumns(direction="dir", down_value="rx", up_value="tx")
    found = read_measurements([path], columns)
    assert found.has_directions
    assert (len(found.down), len(found.up)) == (2, 1)
    with pytest.raises(UnusableMeasurements, match=r"row 1: dir is 'rx'.*--down-value"):
        read_measurements([path], MeasurementColumns(direction="dir"))


def test_files_of_one_direction_are_joined_by_client(write_table):
    down = write_table("down.csv", client=["a", "b"], kbps=[100, 200])
    up = write_table("up.csv", client=["b", "a"], kbps=[20, 10])
    found = read_measurements([], MeasurementColumns(client="client"), down=[down], up=[up])
    assert found.down.clients.to_pylist() == found.up.clients.to_pylist() == ["a", "b"]
    with pytest.raises(UnusableMeasurements, match=r"none is up; add a file.*--up FILE"):
        read_measurements([], MeasurementColumns(client="client"), down=[down])


def test_layouts_of_a_bandwidth_file_are_read_as_it_reads_them(write_table):
    path = write_table(down_kbps=[100.0, 400.0], up_kbps=[10.0, 20.0],
                       down_stdev_kbps=[0.0, 400.0], up_stdev_kbps=[0.0, 0.0])  # fmt: skip
    found = read_measurements([path])
    assert found.has_directions
    assert np.exp(found.down.log_kbps) == pytest.approx([100.0, 400.0 / math.sqrt(2.0)])
    assert found.down.log_variance == pytest.approx([0.0, math.log(2.0)])
    assert found.down.clients.equals(found.up.clients)


def test_stalled_transfers_are_counted_and_left_out(write_table):
    path = write_table(kbps=[100.0, 0.0, None, 200.0, float("nan")])
    found = read_measurements([path, write_table("good.csv", kbps=[1] * 9)])
    assert (found.rows, found.unusable_rows, len(found.down)) == (14, 3, 11)
    assert found.first_unusable == f"{path}: row 2: kbps is 0"
    with pytest.raises(UnusableMeasurements, match="3 of 5 rows have no speed above 0"):
        read_measurements([path])


def test_transfers_that_do_not_say_whose_or_which_way_are_counted_and_left_out(write_table):
    path = write_table(
        kbps=[1.0, 2.0, 3.0, 4.0, 0.0, 6.0, 7.0, 8.0],
        direction=["down", None, "up", "down", "up", "", "up", "down"],
        client=["a", "a", "a", None, "b", "b", "b", "b"],
    )
    found = read_measurements([path], MeasurementColumns(client="client"))
    assert (found.rows, found.unusable_rows) == (8, 4)
    assert found.first_unusable == f"{path}: row 2: direction is empty"
    assert np.exp(found.down.log_kbps) == pytest.approx([1.0, 8.0])
    assert np.exp(found.up.log_kbps) == pytest.approx([3.0, 7.0])


def test_a_file_without_a_known_column_of_speeds_asks_which_it_is(write_table):
    path = write_table("m.csv", rate=[1, 2])
    with pytest.raises(AmbiguousMeasurementColumns, match=r"--kbps-column.*columns are rate"):
        read_measurements([path])
    with pytest.raises(AmbiguousMeasurementColumns, match="holds string, not numbers"):
        read_measurements([write_table("t.csv", kbps=["fast", "slow"])])


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"transferred_bytes": "b"}, "--seconds-column"),
        ({"transfer_s": "s"}, "--bytes-column"),
        ({"kbps": "k", "transferred_bytes": "b", "transfer_s": "s"}, "given twice"),
    ],
)
def test_columns_that_do_not_make_a_speed_are_refused(columns, said):
    with pytest.raises(AmbiguousMeasurementColumns, match=said):
        MeasurementColumns(**columns)
