"""Tasks fit into spans as arithmetic says."""

import numpy as np
import pyarrow as pa
import pytest

from simulation.availability.completion import (
    AvailableSpans,
    NoDeviceToMeasure,
    completion,
    population_of_clients,
    share_outlasting,
    spans_of_histogram,
    spans_of_trace,
)
from simulation.availability.statistics import LengthHistogram, length_edges_s
from simulation.durations import TaskWork
from simulation.traces.bandwidth import Bandwidth, LinkSpeeds
from simulation.traces.device_profiles import DevicePopulation, profiles_of_samples
from simulation.traces.session_files import trace_of_table
from simulation.traces.spans import SpanRules
from simulation.traces.trace_tables import TraceTable

# 1 MB down and up over 8 Mbit/s takes a second each way; 100 records of 0.1 s take ten.
WORK = TaskWork(local_epochs=1, max_records=100, download_bytes=10**6, upload_bytes=10**6)
LINKS = LinkSpeeds(np.array([8000.0]), np.zeros(1))
LINK = Bandwidth(LINKS, LINKS, paired=True)
PROFILES = profiles_of_samples(pa.array(["quick", "slow"]), np.array([0.1, 1.0]))


def spans(lengths_s, models=None, names=("quick", "slow", "exotic")):
    count = len(lengths_s)
    codes = np.array(models if models is not None else [0] * count, dtype=np.int64)
    return AvailableSpans(np.array(lengths_s, dtype=float), codes, names, np.ones(count))


def run(given, **options):
    return completion(given, WORK, PROFILES, LINK, records=100, draws=20_000, **options)


def test_a_span_is_enough_if_it_lasts_as_long_as_the_task():
    found = run(spans([11.99, 12.0, 30.0, 60.0]))
    assert found.duration_s == pytest.approx(np.full(20_000, 12.0))
    assert found.share_from_start == pytest.approx(0.75, abs=0.01)
    assert found.train_share == pytest.approx(10 / 12)
    # Of 114 s available, (30 - 12) + (60 - 12) come 12 s before an end.
    assert found.share_from_check_in == pytest.approx(66 / 113.99, abs=0.01)


def test_each_span_is_judged_by_the_speed_of_its_device():
    found = run(spans([50.0, 50.0], models=[0, 1]))  # slow: 102 s
    assert found.share_from_start == pytest.approx(0.5, abs=0.01)
    assert list(found.by_tier.values()) == [1.0, 0.0]  # faster tiers first


def test_devices_without_a_speed_are_left_out_and_told():
    found = run(spans([50.0, 1.0], models=[0, 2]))
    assert found.unmeasured_share == pytest.approx(0.5, abs=0.02)
    assert found.share_from_start == 1.0
    with pytest.raises(NoDeviceToMeasure, match="no span names a device model"):
        run(spans([50.0], models=[2]))
    with pytest.raises(NoDeviceToMeasure, match="give --population"):
        run(spans([50.0], models=[-1]))


def test_spans_without_a_device_take_it_from_the_population():
    population = DevicePopulation(("quick", "slow"), np.array([0.3, 0.7]))
    found = run(spans([50.0], models=[-1]), population=population)
    assert found.share_from_start == pytest.approx(0.3, abs=0.02)


def test_the_same_seed_draws_the_same():
    given = spans([5.0, 50.0, 500.0], models=[0, 1, 0])
    first, again, other = (run(given, seed=seed).as_json() for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_spans_of_a_trace_know_their_devices_and_endless_ones_are_always_enough():
    table = pa.table(
        {
            "client_id": [1, 1, 2],
            "start_s": [0, 100, 0],
            "end_s": [50, 130, 1000],
            "device_model": ["quick", "quick", "slow"],
            "repeat_every_s": [1000, 1000, 1000],
        }
    )
    trace = trace_of_table(TraceTable("t", table, np.arange(1, 4)), SpanRules())
    found = spans_of_trace(trace)
    assert found.length_s.tolist() == [50.0, 30.0, np.inf]
    assert [found.device_models[code] for code in found.device_model] == ["quick", "quick", "slow"]
    done = run(found)
    assert done.share_from_start == 1.0
    assert done.share_from_check_in > 0.99
    assert done.as_json()["span_s"]["p95"] is None


def test_a_histogram_gives_back_the_lengths_it_was_made_of():
    edges = np.array(length_edges_s())
    lengths = np.exp(np.random.default_rng(0).normal(6.0, 1.5, 100_000)).clip(1.0, 1e6)
    counts = np.histogram(lengths, np.append(edges, np.inf))[0]
    found = spans_of_histogram(LengthHistogram(tuple(edges), tuple(counts), tuple(counts)))
    for limit_s in (20.0, 60.0, 600.0, 3600.0):
        share = found.weight[found.length_s >= limit_s].sum() / found.weight.sum()
        assert share == pytest.approx((lengths >= limit_s).mean(), abs=0.01)


def test_sessions_of_the_log_are_set_against_the_same_tasks():
    edges = tuple(length_edges_s())
    sessions = [0] * len(edges)
    for length_s, count in ((10.0, 30), (100.0, 70)):
        sessions[int(np.searchsorted(edges, length_s, side="right")) - 1] = count
    lengths = LengthHistogram(edges, tuple(sessions), tuple(sessions))
    assert share_outlasting(lengths, np.array([50.0])) == pytest.approx(0.7)
    assert share_outlasting(lengths, np.array([1.0, 50.0, 500.0])) == pytest.approx((1 + 0.7) / 3)


def test_clients_spans_weigh_their_device_models():
    found = population_of_clients(
        np.array(["a", "b", None, "a", "c"], dtype=object), np.array([1, 3, 9, 2, 0])
    )
    assert found is not None
    assert found.device_models == ("a", "b")
    assert found.share == pytest.approx([0.5, 0.5])
    assert population_of_clients(np.array([None], dtype=object), np.array([1])) is None
