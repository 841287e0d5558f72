"""Counting over sessions and spans, compared with counting one by one."""

import numpy as np
import pyarrow as pa
import pytest

from simulation.availability.client_keys import client_keys
from simulation.availability.hours_of_week import seconds_by_hour
from simulation.availability.spill import session_order
from simulation.availability.tally import Tally, passed_combinations
from simulation.availability.windows import merge_overlaps, overlaps_one_before, subtract_gaps
from simulation.traces.spans import Spans
from tests.simulation.availability import oracle


@pytest.mark.parametrize("criteria", [0, 1, 3, 6, 7, 10])
def test_combinations_that_a_client_ever_passes(criteria):
    generator = np.random.default_rng(criteria)
    counts = generator.integers(1, 6, 40)
    first = np.concatenate(([0], np.cumsum(counts)[:-1]))
    passes = generator.integers(0, 2**criteria, counts.sum()).astype(np.uint16)
    words = passed_combinations(passes, first, criteria)
    for client, own in enumerate(np.split(passes, first[1:])):
        for combination in range(2**criteria):
            has = bool(int(words[client, combination >> 6]) >> (combination & 63) & 1)
            assert has == any(int(mask) & combination == combination for mask in own)
    tally = Tally(tuple("abcdefghij"[:criteria]))
    every = tally.add_sessions(passes, np.ones(len(passes)), first)
    assert every.sum() == tally.facts().clients_by_combination[-1]
    assert tally.facts().clients_by_combination[0] == 40


def test_seconds_of_spans_in_each_hour_of_the_week():
    generator = np.random.default_rng(0)
    start_s = generator.integers(0, 3 * 604_800, 300).astype(float)
    lengths_s = np.exp(generator.normal(8, 2.5, 300)) // 1
    zone = generator.integers(0, 3, 300).astype(np.int16)
    found = seconds_by_hour(zone, start_s, start_s + lengths_s, 3)
    for each in range(3):
        own = zone == each
        spans = np.stack((start_s[own], (start_s + lengths_s)[own]), axis=1) - 3 * 86_400
        assert found[each] == pytest.approx(oracle.seconds_by_hour(spans.tolist()))


def test_spans_are_united_as_one_by_one():
    generator = np.random.default_rng(3)
    client = np.sort(generator.integers(0, 50, 800))
    start_s = generator.integers(0, 5000, 800).astype(float)
    order = np.lexsort((start_s, client))
    spans = Spans(client, start_s[order], start_s[order] + generator.integers(1, 90, 800))
    merged, _ = merge_overlaps(spans)
    assert not overlaps_one_before(merged).any()
    joined, _ = subtract_gaps(merged, 20)
    for who in np.unique(client):
        own = spans.client == who
        pieces = list(zip(spans.start_s[own], spans.end_s[own], strict=True))
        for found, gap_s in ((merged, None), (joined, 20)):
            mine = found.client == who
            assert [
                [start, end]
                for start, end in zip(found.start_s[mine], found.end_s[mine], strict=True)
            ] == oracle.united(pieces, gap_s)


@pytest.mark.parametrize("spread_s", [3.0, 1e6, 2e18])
def test_sessions_are_ordered_as_by_a_sort_of_all_keys(spread_s):
    generator = np.random.default_rng(5)
    client = generator.integers(0, 9, 500)
    start_s = np.round(generator.uniform(-spread_s, spread_s, 500) * 4) / 4
    end_s = start_s + generator.integers(1, 3, 500)
    row = generator.permutation(500)
    found = session_order(client, start_s, end_s, row)
    assert np.array_equal(found, np.lexsort((row, end_s, start_s, client)))


def test_a_device_has_one_key_whoever_stands_beside_it():
    ids = ["a", "device-1", "0123456789abcdef" * 3, "ü", "a\0"]
    together = client_keys(pa.array(ids, pa.large_string()))
    alone = [client_keys(pa.array([each], pa.large_string()))[0] for each in ids]
    assert together.tolist() == alone
    assert len(set(alone)) == len(ids)
    sliced = client_keys(pa.array(ids, pa.large_string())[2:])
    assert sliced.tolist() == alone[2:]
    numbers = client_keys(pa.array(np.arange(100_000)))
    assert len(np.unique(numbers)) == 100_000
    # Spread evenly over parts: a hundred of 1000, four standard deviations.
    assert np.bincount(numbers % np.uint64(100)).std() < 40
