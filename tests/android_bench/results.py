"""Results of the protocol for tests, as a worker would write them."""

from dataclasses import replace
from typing import Any

from android_bench.protocol import (
    BenchResult,
    BenchSpec,
    BuildInfo,
    DeviceInfo,
    RawRun,
    Validity,
)

SPEC = BenchSpec(model="tiny_mlp", model_sha256="a" * 64, manifest_sha256="b" * 64, repeats=3)
DEVICE = DeviceInfo(
    id="serial-1",
    device_model="Pixel 6",
    soc="Tensor",
    os_version="Android 14",
    os_release="2023-10",
    cores=8,
    memory_mb=8000.0,
    abi="arm64-v8a",
    backend="adb",
    emulated=False,
    timing_valid=True,
)
BUILD = BuildInfo("tiny_mlp", "a" * 64, "b" * 64, "LiteRT 2.3.0", "flint-android 0.1.0")
RUN = RawRun(
    repeat=0,
    passes=4,
    wall_s=2.0,
    cpu_s=1.5,
    memory_imported_bytes=40_000_000,
    memory_peak_bytes=47_500_000,
    loss_first=0.7,
    loss_last=0.6,
    largest_change=0.02,
    latencies_ns=(),
    model_file_bytes=57_000,
    parameters_bytes=6_040,
    update_bytes=6_040,
    records_bytes=640_000,
)


def result(**changes: Any) -> BenchResult:
    runs = tuple(replace(RUN, repeat=i, wall_s=2.0 + i) for i in range(3))
    return replace(BenchResult(DEVICE, BUILD, SPEC, runs, (), Validity(True)), **changes)


def inference(*latencies_ns: int) -> BenchResult:
    run = replace(
        RUN, loss_first=None, loss_last=None, largest_change=None, latencies_ns=latencies_ns
    )
    return result(spec=replace(SPEC, task="infer", repeats=1), runs=(run,))
