"""One rule decides which devices a job admits, at submission, at the gateway and in a dry-run."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.device_criteria import DeviceCriteria, DeviceRefusal, MeasuredModel
from server.job import Job
from tests.server.update_examples import make_job

MEASURED = {
    "fast": MeasuredModel(train_s=12.0, memory_mb=30.0),
    "slow": MeasuredModel(train_s=120.5, memory_mb=30.0),
    "hungry": MeasuredModel(train_s=120.0, memory_mb=50.1),
}
ALL = DeviceCriteria(min_os_release="2019-09", max_train_s=120, max_memory_mb=50).with_measured(
    MEASURED
)


@pytest.mark.parametrize(
    ("model", "os_release", "refusal"),
    [
        ("fast", "2019-09", None),
        ("fast", "2024-05", None),
        ("fast", None, None),
        ("fast", "2019-08", DeviceRefusal.OS_TOO_OLD),
        ("fast", "Android 16", DeviceRefusal.OS_TOO_OLD),
        ("fast", "", DeviceRefusal.OS_TOO_OLD),
        ("slow", "2024-05", DeviceRefusal.TRAINS_TOO_LONG),
        ("hungry", "2024-05", DeviceRefusal.NEEDS_TOO_MUCH_MEMORY),
        ("Fast", "2024-05", DeviceRefusal.UNMEASURED),
        ("", "2024-05", DeviceRefusal.UNMEASURED),
    ],
)
def test_a_device_is_judged_by_its_model_and_release(model, os_release, refusal):
    assert ALL.refusal(model, os_release) is refusal


def test_models_need_no_measurement_where_none_is_asked_for():
    criteria = DeviceCriteria(min_os_release="2024-01")
    assert criteria.refusal("never heard of", "2024-01") is None
    assert DeviceCriteria().refusal("never heard of", "") is None


def test_memory_that_was_not_measured_is_not_judged():
    unknown = DeviceCriteria(max_memory_mb=1).with_measured({"x": MeasuredModel(train_s=1.0)})
    assert unknown.refusal("x", None) is None


@given(st.integers(1970, 2100), st.integers(1, 12), st.integers(1970, 2100), st.integers(1, 12))
def test_releases_are_ordered_as_months_are(year, month, least_year, least_month):
    criteria = DeviceCriteria(min_os_release=f"{least_year}-{least_month:02}")
    admitted = criteria.refusal("any", f"{year}-{month:02}") is None
    assert admitted == ((year, month) >= (least_year, least_month))


def test_the_admitted_models_are_those_whose_devices_are_let_in():
    assert ALL.admitted_models == ("fast",)
    assert ALL.admitted_models == tuple(m for m in MEASURED if ALL.refusal(m, None) is None)


def test_a_job_keeps_its_measurements_through_its_json():
    job = make_job(participation={"device": ALL})
    again = Job.model_validate_json(job.to_json())
    assert again == job
    assert again.participation.device.measured == MEASURED
