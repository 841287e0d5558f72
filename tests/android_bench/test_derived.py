"""Derived figures, against formulas written out by hand."""

import math
from dataclasses import replace

import pytest

from android_bench.derived import FleetFigures, across_device_models, derive
from android_bench.protocol import Validity
from tests.android_bench.results import RUN, inference, result


def test_figures_are_those_of_the_raw_runs():
    figures = derive(result())
    assert figures is not None
    assert figures.pass_s == (0.5, 0.75, 1.0)
    assert figures.pass_s_mean == 0.75
    assert figures.pass_s_stdev == pytest.approx(math.sqrt((0.25**2 + 0 + 0.25**2) / 2))
    assert figures.cpu_percent == pytest.approx(100 * 4.5 / 9.0)
    assert figures.memory_mb == 7.5
    assert figures.storage_mb == 0.057
    assert figures.network_mb == figures.checkpoint_mb == 0.01208
    assert figures.records_mb == 0.64
    assert figures.latency_p50_ms is figures.latency_p95_ms is None


def test_memory_is_of_the_repeat_that_needed_most():
    runs = (RUN, replace(RUN, repeat=1, memory_peak_bytes=60_000_000))
    figures = derive(result(runs=runs))
    assert figures is not None
    assert figures.memory_mb == 20.0


def test_a_single_run_has_no_spread():
    figures = derive(result(runs=(RUN,)))
    assert figures is not None
    assert figures.pass_s_stdev is None


def test_latencies_are_ones_that_were_by_the_nearest_rank():
    figures = derive(inference(*(i * 1_000_000 for i in range(1, 101))))
    assert figures is not None
    assert (figures.latency_p50_ms, figures.latency_p95_ms) == (50.0, 95.0)
    single = derive(inference(3_000_000))
    assert single is not None
    assert (single.latency_p50_ms, single.latency_p95_ms) == (3.0, 3.0)


def test_a_throttled_device_has_no_latency_for_only_its_passes_are_slowed_down():
    whole = inference(1_000_000)
    throttled = replace(whole, runs=(replace(whole.runs[0], requested_duty=0.2),))
    figures = derive(throttled)
    assert figures is not None
    assert figures.latency_p50_ms is figures.latency_p95_ms is None
    assert figures.pass_s_mean == 0.5


def test_a_result_that_is_not_ok_gives_no_number():
    assert derive(result(validity=Validity(False, ("throttle missed its target",)))) is None


def test_a_fleet_counts_each_device_model_once():
    values = {"a": [1.0, 3.0], "b": [6.0], "none": []}
    assert across_device_models(values) == FleetFigures(2, 4.0, pytest.approx(math.sqrt(8)))
    assert across_device_models({"a": [1.0]}) == FleetFigures(1, 1.0, None)
    assert across_device_models({}) is None
