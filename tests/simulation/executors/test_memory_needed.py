"""What training needs of memory is known beforehand, and refused where it is not there."""

import re
import resource
import subprocess
import sys
from dataclasses import replace

import pytest

from device_runtime.update_codec import flatten
from modeling.zoo import MODELS, get_model
from simulation.executors.local import LocalExecutor
from simulation.executors.machine_memory import Available, available_memory
from simulation.executors.memory_needed import MemoryNeed, NotEnoughMemory, require_memory
from simulation.executors.paths import choose_path
from tests.simulation.executors.compiled.conftest import WIDE, records_of
from tests.simulation.executors.conftest import PLAN, few_records

TINY = get_model("tiny_mlp")
NEED = MemoryNeed(executor_bytes=100 * 2**20, shared_bytes=50 * 2**20)
PROCESS = 180 * 2**20


def need_of(model, records, plan=PLAN) -> MemoryNeed:
    return MemoryNeed.of(model, plan, records, choose_path(model, plan, records))


@pytest.mark.parametrize("name", ["tiny_mlp", "sparse_mlp"])
def test_what_is_added_up_is_what_the_kernel_takes(name):
    model = get_model(name)
    records = few_records(model)
    executor = LocalExecutor(model, PLAN, records)
    executor.set_weights(1, flatten(model.initial_parameters(1)))
    kernel = executor._kernel()
    buffers = sum(buffer.nbytes for buffer in kernel._buffers.values())
    (version,) = kernel.versions._rooms
    need, parameters = need_of(model, records), model.parameter_count
    assert need.executor_bytes == pytest.approx(buffers + 8 * parameters, rel=0.05)
    assert need.shared_bytes == pytest.approx(version.nbytes + 12 * parameters, rel=0.05)


def test_buffers_of_the_sample_space_are_in_it():
    records = records_of(WIDE)
    executor = LocalExecutor(WIDE, PLAN, records)
    samples = executor._kernel()._samples
    taken = sum(buffer.nbytes for buffer in samples._buffers)
    needed = need_of(WIDE, records).executor_bytes
    nobody = replace(executor.path, in_samples=executor.path.in_samples & False)
    without = MemoryNeed.of(WIDE, PLAN, records, nobody).executor_bytes
    assert needed - without == pytest.approx(taken, rel=0.05)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_needs_weights_and_a_sum_on_every_path(name):
    model = get_model(name)
    records = few_records(model)
    for plan in (PLAN, replace(PLAN, by_module=True), replace(PLAN, by_module=True, device="cuda")):
        need = need_of(model, records, plan)
        assert need.executor_bytes >= 8 * model.parameter_count
        assert need.shared_bytes >= 16 * model.parameter_count


def test_as_many_executors_as_fit_are_named():
    for executors in (1, 2, 3):
        enough = Available(NEED.whole_bytes(executors), "the machine's memory")
        require_memory(NEED, executors, "m", available=enough)
        with pytest.raises(NotEnoughMemory) as caught:
            require_memory(NEED, executors + 1, "m", available=enough)
        assert f"at most {executors} would fit: lower executors.count" in str(caught.value)
    few = Available(NEED.whole_bytes(1) - 1, "its container's limit")
    with pytest.raises(NotEnoughMemory) as caught:
        require_memory(NEED, 1, "m", node="10.0.0.7 (b)", available=few)
    assert str(caught.value) == (
        "training m with an executor needs at least 157,286,400 bytes (0.15 GiB) of memory on node "
        "10.0.0.7 (b), and 157,286,399 bytes (0.15 GiB) of its container's limit are left; take a "
        "smaller model or client.max_records, or give it more memory [FLN-3053]"
    )


def test_a_control_group_and_those_it_is_in_bound_what_is_available(tmp_path):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 5000 kB\n")
    assert available_memory(tmp_path) == Available(5000 * 1024, "the machine's memory")
    (tmp_path / "proc/self/cgroup").write_text("0::/jobs/one\n")
    own = tmp_path / "sys/fs/cgroup/jobs/one"
    own.mkdir(parents=True)
    for folder, limit, used in ((own, "max", 7), (own.parent, "3000000", 2_000_000)):
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text("anon 1500000\nfile 500000\n")
    assert available_memory(tmp_path) == Available(1_500_000, "its container's limit")
    assert available_memory(tmp_path / "elsewhere") is None


def test_this_machines_memory_is_known():
    available = available_memory()
    assert available is not None
    assert available.bytes > 10 * 2**20


def test_a_limit_of_the_address_space_is_met_before_anything_is_allocated():
    script = (
        "import resource\n"
        "from simulation.executors.memory_needed import MemoryNeed, require_memory\n"
        "limit = 2**20 * (int(open('/proc/self/statm').read().split()[0]) // 256 + 64)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "require_memory(MemoryNeed(2**26 - 2**23, 0), 1, 'small')\n"
        "require_memory(MemoryNeed(2**27, 0), 1, 'large')\n"
    )
    if resource.getrlimit(resource.RLIMIT_AS)[1] != resource.RLIM_INFINITY:
        pytest.skip("this process has a limit of its own")
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert re.search(
        r"training large with an executor needs at least 134,217,728 bytes .* are left; take a",
        done.stderr.splitlines()[-1],
    ), done.stderr
