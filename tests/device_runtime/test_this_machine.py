import shutil

import psutil

from android_bench.worker import describe_host
from device_runtime.this_machine import free_bytes, host_device_model, memory_bytes


def test_this_machine_has_one_name_for_benchmarks_and_for_enrolment():
    assert host_device_model() == describe_host().device_model
    assert host_device_model().startswith("host ")
    assert host_device_model().isprintable()


def test_memory_is_what_the_system_says():
    assert memory_bytes() == psutil.virtual_memory().total


def test_free_bytes_are_those_where_a_folder_is_or_is_going_to_be(tmp_path):
    assert abs(free_bytes(tmp_path / "not" / "yet") - shutil.disk_usage(tmp_path).free) < 2**30
