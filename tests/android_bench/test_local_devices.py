"""Devices of this machine: real workers that measure, bad ones that are stopped and reported."""

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from android_bench.derived import derive
from android_bench.devices.cores import Cores
from android_bench.devices.emulated import (
    ATTEMPTS,
    EmulatedDevice,
    InvalidProfiles,
    on_target,
    read_profiles,
    shipped_profiles,
)
from android_bench.devices.host import HostDevice
from android_bench.devices.local_worker import Conditions, LocalWorker, WorkerFailed
from android_bench.devices.memory_cap import can_cap_memory
from android_bench.protocol import BenchResult
from android_bench.worker import describe_host
from tests.android_bench.results import RUN, SPEC, result


def one_core() -> Cores:
    return Cores([min(os.sched_getaffinity(0))])


def device_with(script: str, timeout_s: float = 20.0) -> HostDevice:
    """A device whose worker is a Python script; sys.argv holds the worker's options."""
    return HostDevice(one_core(), LocalWorker([sys.executable, "-c", script], timeout_s))


OUTPUT = "import sys, pathlib; out = pathlib.Path(sys.argv[sys.argv.index('--output') + 1])\n"


def test_the_host_measures_all_figures_of_training(packed):
    answer = BenchResult.from_json(HostDevice(one_core()).run(packed.spec, packed.package))
    answer.check_answers(packed.spec)
    assert answer.validity.ok
    assert answer.failed == ()
    assert [run.repeat for run in answer.runs] == [0, 1]
    first, second = answer.runs
    assert first.loss_last is not None
    assert first.loss_first is not None
    assert first.loss_last < first.loss_first
    assert first.largest_change
    # The same records in the same order from the same start: times differ, training does not.
    assert (first.loss_first, first.loss_last) == (second.loss_first, second.loss_last)
    figures = derive(answer)
    assert figures is not None
    numbers = [figures.storage_mb, figures.network_mb, figures.memory_mb, figures.pass_s_mean]
    assert all(np.isfinite(number) and number > 0 for number in [*numbers, figures.cpu_percent])
    parameters = 1513 * 4
    assert figures.network_mb == 2 * parameters / 1e6
    sizes = [packed.package.model_path.stat().st_size, packed.package.manifest_path.stat().st_size]
    assert figures.storage_mb == sum(sizes) / 1e6


def test_inference_is_measured_call_by_call(packed):
    spec = replace(packed.spec, task="infer", repeats=1)
    answer = BenchResult.from_json(HostDevice(one_core()).run(spec, packed.package))
    [run] = answer.runs
    assert len(run.latencies_ns) == run.passes * 10
    assert sum(run.latencies_ns) / 1e9 <= run.wall_s
    figures = derive(answer)
    assert figures is not None
    assert figures.latency_p50_ms is not None
    assert figures.latency_p95_ms is not None
    assert 0 < figures.latency_p50_ms <= figures.latency_p95_ms
    assert run.update_bytes == 0


def test_memory_does_not_depend_on_what_the_parent_holds(packed):
    spec = replace(packed.spec, repeats=1)

    def memory_mb() -> float:
        figures = derive(BenchResult.from_json(HostDevice(one_core()).run(spec, packed.package)))
        assert figures is not None
        return figures.memory_mb

    alone = memory_mb()
    held = np.ones(10**9 // 8)
    beside = memory_mb()
    del held
    assert abs(beside - alone) < 5.0


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("import os; os.kill(os.getpid(), 11)", "killed by SIGSEGV"),
        ("import sys; sys.exit('no such model')", "exit code 1: no such model"),
        ("pass", "without a result file"),
        (OUTPUT + "(out / 'result.json').write_text('Segmentation fault')", "is no JSON"),
        (OUTPUT + "(out / 'result.json').write_text('[' * 10**6)", "is no JSON"),
        (OUTPUT + "(out / 'result.json').write_bytes(b' ' * (17 << 20))", "at most"),
        ("print('x' * 10**7, file=__import__('sys').stderr); 1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_worker_that_dies_or_prints_rubbish_is_reported_without_a_number(packed, script, reason):
    answer = BenchResult.from_json(device_with(script).run(packed.spec, packed.package))
    assert not answer.validity.ok
    assert reason in answer.validity.reasons[0]
    assert answer.runs == ()
    assert [failed.repeat for failed in answer.failed] == [0, 1]
    assert derive(answer) is None


def test_a_hung_worker_is_stopped_and_reported(packed):
    begun_s = time.monotonic()
    device = device_with("import time; time.sleep(600)", timeout_s=0.3)
    answer = BenchResult.from_json(device.run(packed.spec, packed.package))
    assert "hung: killed after 0.3 s" in answer.validity.reasons[0]
    assert time.monotonic() - begun_s < 30


def test_a_repeat_that_dies_leaves_the_others_their_results(packed, tmp_path):
    once = tmp_path / "once"
    script = (
        f"import os, pathlib, runpy, sys\n"
        f"flag = pathlib.Path({str(once)!r})\n"
        "if not flag.exists(): flag.touch(); os.abort()\n"
        "sys.argv[0] = 'worker'; runpy.run_module('android_bench.worker', run_name='__main__')\n"
    )
    spec = replace(packed.spec, repeats=3)
    answer = BenchResult.from_json(device_with(script).run(spec, packed.package))
    assert answer.validity.ok
    assert [run.repeat for run in answer.runs] == [1, 2]
    assert [failed.repeat for failed in answer.failed] == [0]
    assert "SIGABRT" in answer.failed[0].reason


def test_files_that_do_not_belong_to_the_spec_are_refused_by_the_worker(packed):
    spec = replace(packed.spec, records=199, repeats=1)
    answer = BenchResult.from_json(HostDevice(one_core()).run(spec, packed.package))
    assert "push the records again" in answer.validity.reasons[0]


def test_closing_kills_the_worker_that_runs(packed):
    import threading

    device = device_with("import time; time.sleep(600)", timeout_s=600)
    threading.Timer(0.5, device.close).start()
    answer = BenchResult.from_json(device.run(packed.spec, packed.package))
    assert "stopped" in answer.validity.reasons[0]


@pytest.mark.skipif(not can_cap_memory(), reason="this machine lets us make no memory groups")
def test_a_worker_above_its_memory_cap_is_killed_and_reported(packed):
    worker = LocalWorker([sys.executable, "-c", "import time; time.sleep(1); bytearray(10**9)"])
    core = min(os.sched_getaffinity(0))
    with pytest.raises(WorkerFailed, match="SIGKILL, as one that takes more than the 100 MB"):
        worker.run(
            replace(packed.spec, repeats=1),
            packed.package,
            Conditions(core, memory_cap_mb=100.0),
        )


# -- the emulated fleet ----------------------------------------------------------------------------


def test_the_shipped_fleet_has_27_profiles_that_spread_as_public_scores_do():
    profiles = list(shipped_profiles().values())
    assert len(profiles) == 27
    duties = [profile.duty for profile in profiles]
    assert duties == sorted(duties, reverse=True)
    assert duties[0] == 1.0
    tenth, ninetieth = np.quantile(duties, [0.1, 0.9])
    assert 10 < ninetieth / tenth < 15
    assert len({profile.device_model for profile in profiles}) == 27
    assert profiles[0].transfer_s(10**6, 0) == pytest.approx(8 / profiles[0].downlink_mbps)


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b'{"source":"s","profiles":[]}', b'{"source":"s","profiles":[{"name":"a"}]}'],
)
def test_profiles_that_cannot_be_read_are_one_sentence(data):
    with pytest.raises(InvalidProfiles, match=r"fleet\.json"):
        read_profiles(data, "fleet.json")


def test_an_emulated_device_says_that_it_is_one():
    info = EmulatedDevice(shipped_profiles()["tier-20"], one_core()).describe()
    assert info.emulated
    assert info.backend == "emulated"
    assert info.profile == "tier-20"
    assert info.device_model == "Emulated tier 20"
    assert not describe_host().emulated


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("print('x\\n' * 10**6); raise SystemExit(3)", "exit code 3"),
        ("print('ready', flush=True); input(); raise SystemExit(4)", "exit code 4"),
        ("print('ready', flush=True); input(); import time; time.sleep(600)", "hung"),
        ("import time; time.sleep(600)", "hung"),
    ],
)
def test_a_throttled_worker_that_misbehaves_is_reported_too(packed, script, reason):
    # A busy machine may take seconds to start a process that then ends by itself.
    timeout_s = 1.0 if reason == "hung" else 30.0
    worker = LocalWorker([sys.executable, "-c", script], timeout_s)
    device = EmulatedDevice(shipped_profiles()["tier-12"], one_core(), worker)
    spec = replace(packed.spec, repeats=1)
    answer = BenchResult.from_json(device.run(spec, packed.package))
    assert reason in answer.validity.reasons[0]


def at_duty(duty: float) -> BenchResult:
    run = replace(RUN, wall_s=2.0, cpu_s=2.0 * duty)
    return result(spec=replace(SPEC, repeats=1), runs=(run,))


def test_a_run_off_its_target_is_thrown_away_and_tried_again():
    shares = iter([0.35, 0.1, 0.21])
    found = on_target(0.2, lambda: at_duty(next(shares)))
    [run] = found.runs
    assert (run.requested_duty, run.attempts) == (0.2, 3)
    assert run.achieved_duty == pytest.approx(0.21)


def test_a_throttle_that_never_meets_its_target_gives_no_number():
    tried = []

    def run() -> BenchResult:
        tried.append(1)
        return at_duty(0.6)

    with pytest.raises(WorkerFailed, match=r"0\.2 of a core and 3 attempts had 0\.6, 0\.6, 0\.6"):
        on_target(0.2, run)
    assert len(tried) == ATTEMPTS


@pytest.mark.integration
def test_a_throttled_worker_is_held_to_its_share_and_takes_longer(packed):
    """Best of three at each speed. Others use this machine too: they may leave less, never more."""
    worker, core = LocalWorker(), min(os.sched_getaffinity(0))
    spec = replace(packed.spec, repeats=1, records=200, min_pass_s=0.5)
    pass_s, pass_cpu_s = [], []
    for duty in (1.0, 0.5, 0.2):
        results = [worker.run(spec, packed.package, Conditions(core, duty)) for _ in range(3)]
        runs = [result.runs[0] for result in results]
        assert 0 < min(run.cpu_s / run.wall_s for run in runs) < 1.2 * duty
        pass_s.append(min(run.wall_s / run.passes for run in runs))
        pass_cpu_s.append(min(run.cpu_s / run.passes for run in runs))
    assert pass_s == sorted(pass_s)
    assert pass_s[2] > 1.5 * pass_s[0]
    assert max(pass_cpu_s) < 2 * min(pass_cpu_s)


# -- cores -----------------------------------------------------------------------------------------


def test_a_core_is_lent_whole_or_to_several_slow_workers():
    import threading

    cores = Cores([7])
    entered = []

    def use(name: str, share: float, until: threading.Event) -> threading.Thread:
        def work() -> None:
            with cores.lent(share):
                entered.append(name)
                until.wait(20)

        thread = threading.Thread(target=work)
        thread.start()
        return thread

    def wait_for(names: list[str]) -> None:
        deadline_s = time.monotonic() + 10
        while entered != names and time.monotonic() < deadline_s:
            time.sleep(0.005)
        assert entered == names

    slow_end, whole_end, late_end = threading.Event(), threading.Event(), threading.Event()
    threads = [use("a", 0.3, slow_end)]
    wait_for(["a"])
    threads.append(use("b", 0.4, slow_end))
    wait_for(["a", "b"])
    threads.append(use("whole", 1.0, whole_end))
    time.sleep(0.05)
    threads.append(use("late", 0.05, late_end))  # would fit, and must not overtake
    time.sleep(0.05)
    assert entered == ["a", "b"]
    slow_end.set()
    wait_for(["a", "b", "whole"])
    whole_end.set()
    wait_for(["a", "b", "whole", "late"])
    late_end.set()
    for thread in threads:
        thread.join(10)


def test_slow_workers_are_put_together_so_that_a_core_stays_whole():
    cores = Cores([3, 5])
    with cores.lent(0.1) as one, cores.lent(0.2) as other, cores.lent(1.0) as whole:
        assert one == other != whole


def test_no_worker_outlives_the_process_that_started_it(packed, tmp_path):
    """Also one that its parent had stopped when it was killed."""
    import signal
    import subprocess

    script = (
        "import os, sys, pathlib, subprocess, signal, time\n"
        "child = subprocess.Popen([sys.executable, '-P', '-m', 'android_bench.worker',\n"
        f"  '--package', {str(packed.package.folder)!r}, '--output', {str(tmp_path)!r},\n"
        "  '--core', '0', '--throttled'], stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "assert child.stdout.readline() == b'ready\\n'\n"
        "os.kill(child.pid, signal.SIGSTOP)\n"
        "print(child.pid, flush=True); time.sleep(600)\n"
    )
    (tmp_path / "spec.json").write_text(replace(packed.spec, repeats=1).to_json())
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline_s = time.monotonic() + 10
    while Path(f"/proc/{child}/stat").exists() and time.monotonic() < deadline_s:
        state = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
        if state in "ZX":
            break
        time.sleep(0.02)
    else:
        assert not Path(f"/proc/{child}").exists()
