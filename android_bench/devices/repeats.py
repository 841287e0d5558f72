"""The repeats of a benchmark on a local device: each its own process, none lost with another."""

from collections.abc import Callable
from dataclasses import replace

from android_bench.assembled_results import joined
from android_bench.devices.local_worker import WorkerFailed
from android_bench.protocol import (
    BenchResult,
    BenchSpec,
    DeviceInfo,
    FailedRun,
)


def answer_of_repeats(
    device: DeviceInfo, spec: BenchSpec, run_once: Callable[[BenchSpec], BenchResult]
) -> bytes:
    """Run every repeat and join what they gave; a repeat that failed is named with its reason.

    Args:
        run_once: Runs a spec of one repeat, or raises `WorkerFailed`.
    """
    one = replace(spec, repeats=1)
    results: list[BenchResult] = []
    failed: list[FailedRun] = []
    for repeat in range(spec.repeats):
        try:
            result = run_once(one)
        except WorkerFailed as error:
            failed.append(FailedRun(repeat, str(error)))
        else:
            results.append(replace(result, runs=(replace(result.runs[0], repeat=repeat),)))
    return joined(device, spec, results, failed).to_json().encode()
