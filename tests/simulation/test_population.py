"""Every client gets a device, none more than its share, and the join can be written down."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulation.population import PopulationMapping, PopulationTooLarge, assign_population

RECORDS = np.array([5, 900, 30, 1, 77])
SHARES = np.array([0.1, 0.9, 0.3, 0.2, 0.5, 0.4])


def test_without_re_sampling_nobody_is_used_twice():
    mapping = assign_population(RECORDS, SHARES)
    assert mapping.data_client.tolist() == [0, 1, 2, 3, 4]
    assert len(set(mapping.device.tolist())) == 5


def test_a_smaller_population_is_a_random_choice():
    chosen = {
        tuple(assign_population(RECORDS, SHARES, clients=2, seed=seed).data_client.tolist())
        for seed in range(60)
    }
    assert len(chosen) == 10  # all pairs of five


def test_the_most_active_clients_live_on_the_most_available_devices():
    mapping = assign_population(RECORDS, SHARES, assignment="by_activity", clients=5)
    by_records = mapping.device[np.argsort(-RECORDS[mapping.data_client])]
    assert np.all(np.diff(SHARES[by_records]) < 0)


def test_equally_active_clients_are_matched_by_chance():
    firsts = {
        int(assign_population(np.ones(3), np.ones(3), assignment="by_activity", seed=s).device[0])
        for s in range(30)
    }
    assert firsts == {0, 1, 2}


@given(
    clients=st.integers(1, 60),
    seed=st.integers(0, 2**40),
    assignment=st.sampled_from(["random", "by_activity"]),
)
def test_re_sampling_uses_everyone_equally_often_or_once_more(clients, seed, assignment):
    mapping = assign_population(
        RECORDS,
        SHARES,
        clients=clients,
        assignment=assignment,
        resample_availability=True,
        resample_data=True,
        seed=seed,
    )
    for used, available in ((mapping.data_client, 5), (mapping.device, 6)):
        counts = np.bincount(used, minlength=available)
        assert counts.sum() == clients
        assert counts.max() - counts.min() <= 1
    assert np.all(np.diff(mapping.data_client) >= 0)


def test_the_seed_alone_decides():
    first, again, other = (
        assign_population(RECORDS, SHARES, clients=4, seed=seed).device.tolist()
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"clients": 6, "resample_availability": True}, "only 5 data clients"),
        ({"clients": 7, "resample_data": True}, "only 6 devices"),
    ],
)
def test_more_clients_than_there_are_need_re_sampling(asked, said):
    with pytest.raises(PopulationTooLarge) as caught:
        assign_population(RECORDS, SHARES, **asked)
    assert said in str(caught.value)
    assert "population.resample." in str(caught.value)


def test_nobody_at_all_cannot_be_re_sampled():
    with pytest.raises(PopulationTooLarge, match="there are no devices at all"):
        assign_population(RECORDS, np.empty(0), resample_availability=True)


def test_the_record_of_a_population_gives_it_back():
    mapping = assign_population(
        RECORDS, SHARES, clients=12, resample_availability=True, resample_data=True
    )
    data_ids = pa.array([f"user-{i}" for i in range(5)], pa.large_string())
    device_ids = pa.array(np.arange(100, 106))
    table = mapping.to_table(data_ids, device_ids)
    assert table.column_names == ["client", "data_client_id", "device_id"]
    again = PopulationMapping.from_table(table, data_ids, device_ids)
    assert np.array_equal(again.data_client, mapping.data_client)
    assert np.array_equal(again.device, mapping.device)
    with pytest.raises(ValueError, match="device_id of the recorded population"):
        PopulationMapping.from_table(table, data_ids, pa.array([1, 2]))
