"""What a dry-run says of the enclave's traffic: FLINT's arithmetic, from rows of tasks."""

import numpy as np
import pyarrow as pa
import pytest

from modeling.zoo import get_model
from server.job import Job
from simulation.enclave_load import enclave_load
from simulation.update_bytes import enclave_bytes, update_bytes

MODEL = get_model("sparse_mlp")


def tasks_at(times_s, outcomes=None):
    outcomes = ["succeeded"] * len(times_s) if outcomes is None else outcomes
    columns = {"ended_s": np.asarray(times_s, float), "outcome": pa.array(outcomes, pa.string())}
    return pa.table(columns)


def job(mode=None, **more):
    privacy = {}
    if mode:
        privacy["secure_aggregation"] = {
            "mode": mode,
            "release_threshold": 20,
            "allowed_measurements": ["ab" * 32],
        }
    return Job.model_validate(
        {
            "name": "j",
            "model": MODEL.name,
            "client": {"optimizer": {"learning_rate": 0.1}},
            "strategy": {"name": "fedbuff", "buffer_size": 20, "concurrency": 100},
            "stop": {"max_hours": 1},
            "privacy": privacy,
        }
        | more
    )


def test_flints_rate_and_size_make_flints_megabytes():
    hours = 10
    times_s = np.arange(0, hours * 3600, 1 / 3.53)
    load = enclave_load(760_000, tasks_at(times_s), hours * 3600.0, 3.0)
    assert load.updates_per_s == pytest.approx(3.53, rel=1e-3)
    assert load.mb_per_s == pytest.approx(2.68, abs=0.005)
    assert load.busiest_mb_per_s == pytest.approx(2.68, abs=0.02)
    assert load.within_budget


def test_the_busiest_ten_minutes_count_against_the_budget():
    times_s = [*np.linspace(0, 36_000, 360), *np.linspace(7_200, 7_799, 600)]
    load = enclave_load(1_000_000, tasks_at(times_s), 36_000.0, 0.5)
    assert load.mb_per_s == pytest.approx(960 / 36_000)
    assert load.busiest_mb_per_s == pytest.approx(606 / 600, abs=0.003)
    assert load.within_budget is False


def test_only_what_reaches_the_enclave_counts():
    outcomes = ["succeeded", "rejected", "stale", "over_committed", "interrupted", "failed"]
    load = enclave_load(1_000_000, tasks_at(range(6), outcomes), 6.0, None)
    assert load.updates_per_s == pytest.approx(2 / 6)
    assert load.within_budget is None


def test_nothing_at_all_is_no_load():
    load = enclave_load(1_000_000, tasks_at([]), 0.0, 1.0)
    assert (load.updates_per_s, load.busiest_mb_per_s, load.within_budget) == (0.0, 0.0, True)


def test_a_sealed_update_is_a_little_longer_and_a_masked_one_sends_hardly_anything_in():
    plain = update_bytes(job(), MODEL)
    sealed = update_bytes(job("enclave"), MODEL)
    assert plain < sealed < plain + 300
    assert enclave_bytes(job(), MODEL) is None
    assert enclave_bytes(job("enclave"), MODEL) == sealed
    masked = job("masked")
    assert update_bytes(masked, MODEL) == pytest.approx(4 * MODEL.parameter_count, rel=0.01)
    assert enclave_bytes(masked, MODEL) < 250
    assert enclave_bytes(masked, MODEL) == enclave_bytes(masked, get_model("tiny_mlp"))
