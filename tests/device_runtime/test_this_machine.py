from android_bench.worker import describe_host
from device_runtime.this_machine import host_device_model


def test_this_machine_has_one_name_for_benchmarks_and_for_enrolment():
    assert host_device_model() == describe_host().device_model
    assert host_device_model().startswith("host ")
    assert host_device_model().isprintable()
