"""The generated clicks have the shape FLINT's Table 2 and Figure 5 describe."""

import hashlib

import numpy as np
import pyarrow.parquet as pq
import pytest

from flint.demo.click_data import ClickDataShape, Clicks, generate_clicks, write_click_data
from flint.demo.data import generate_demo_data


def every_fifth(client: str) -> bool:
    return int(hashlib.sha256(client.encode()).hexdigest(), 16) % 5 == 0


@pytest.fixture(scope="module")
def clicks() -> Clicks:
    return generate_clicks(200, seed=7, is_held_out=every_fifth)


def records_per_client(clicks: Clicks):
    return np.unique(clicks.client_id, return_counts=True)[1]


def test_as_many_clients_train_as_were_asked_for_and_a_fifth_more_is_held_out(clicks):
    names = np.unique(clicks.client_id)
    held_out = sum(every_fifth(name) for name in names)
    assert len(names) - held_out == 200
    assert 25 <= held_out <= 75


def test_the_label_ratio_is_between_a_tenth_and_three_tenths(clicks):
    assert clicks.clicked.mean() == pytest.approx(0.2, abs=0.02)


def test_the_label_ratio_is_the_one_asked_for():
    shape = ClickDataShape(label_ratio=0.1)
    clicks = generate_clicks(200, seed=3, is_held_out=every_fifth, shape=shape)
    assert clicks.clicked.mean() == pytest.approx(0.1, abs=0.02)


def test_a_tenth_of_the_clients_holds_more_than_a_third_of_the_records(clicks):
    counts = np.sort(records_per_client(clicks))[::-1]
    assert counts[: len(counts) // 10].sum() > counts.sum() / 3
    assert counts.std() > counts.mean()
    assert counts.max() > 8 * counts.mean()


def test_every_client_has_records_and_its_rows_are_contiguous(clicks):
    assert records_per_client(clicks).min() >= 2
    changes = np.flatnonzero(clicks.client_id[1:] != clicks.client_id[:-1]) + 1
    assert len(changes) + 1 == len(np.unique(clicks.client_id))


def test_clients_are_shown_different_topics(clicks):
    """Mean total variation distance of a client's topics from everybody's: 0 if all were alike."""
    topics, codes = np.unique(clicks.columns["topic"], return_inverse=True)
    everybody = np.bincount(codes, minlength=len(topics)) / len(codes)
    distances = []
    for client in np.unique(clicks.client_id):
        own = codes[clicks.client_id == client]
        if len(own) >= 50:
            share = np.bincount(own, minlength=len(topics)) / len(own)
            distances.append(0.5 * np.abs(share - everybody).sum())
    # 50 records drawn from everybody's 20 topics would be 0.2 away by chance.
    assert np.mean(distances) > 0.4


def test_clicks_follow_the_probability_they_were_drawn_with(clicks):
    order = np.argsort(clicks.probability)
    for tenth in np.array_split(order, 10):
        expected = clicks.probability[tenth].mean()
        tolerance = 4 * np.sqrt(expected * (1 - expected) / len(tenth))
        assert clicks.clicked[tenth].mean() == pytest.approx(expected, abs=tolerance)


def test_the_same_seed_gives_the_same_records_and_another_seed_others(clicks):
    again = generate_clicks(200, seed=7, is_held_out=every_fifth)
    other = generate_clicks(200, seed=8, is_held_out=every_fifth)
    assert np.array_equal(again.clicked, clicks.clicked)
    assert all(np.array_equal(again.columns[k], clicks.columns[k]) for k in clicks.columns)
    assert again.interests == clicks.interests
    assert len(other.clicked) != len(clicks.clicked)


def test_the_file_holds_what_was_generated(clicks, tmp_path):
    path = tmp_path / "clicks.parquet"
    write_click_data(clicks, path)
    table = pq.read_table(path)
    assert table.num_rows == len(clicks.clicked)
    assert table["clicked"].to_pylist() == clicks.clicked.tolist()
    assert table["interests"][0].as_py() == list(clicks.interests[0])
    assert {"ad", "topic", "publisher", "position", "hour"} <= set(table.column_names)


def test_the_demos_data_have_200_clients_that_train(tmp_path):
    data = generate_demo_data(tmp_path, training_clients=200, seed=1)
    from feature_catalog.splits import is_heldout

    names = pq.read_table(data.path)[data.roles.client_field].unique().to_pylist()
    assert sum(not is_heldout("clicks", name) for name in names) == 200
