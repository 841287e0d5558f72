"""Results that a back end puts together: of single runs, or of a device that gave none."""

from collections.abc import Sequence
from dataclasses import replace

from android_bench.protocol import BenchResult, BenchSpec, DeviceInfo, FailedRun, Validity


def failed_result(device: DeviceInfo, spec: BenchSpec, reason: str) -> BenchResult:
    """The result of a device that gave nothing: not ok, for this reason, without a number."""
    return BenchResult(device, None, spec, (), (), Validity(False, (one_line(reason),)))


def joined(
    device: DeviceInfo,
    spec: BenchSpec,
    results: Sequence[BenchResult],
    failed: Sequence[FailedRun],
) -> BenchResult:
    """One result of several single runs, in the order of their repeats.

    Args:
        device: What the back end says of the device; workers need not know.
        spec: What was asked, with all its repeats.
        results: Of workers that were asked for one repeat each, numbered as they are to be.
        failed: The repeats that gave nothing.
    """
    builds = {result.build for result in results if result.build is not None}
    runs = sorted((run for result in results for run in result.runs), key=lambda run: run.repeat)
    reasons = [reason for result in results for reason in result.validity.reasons]
    if len(builds) > 1:
        reasons.append("repeats ran on different builds of model or runtime")
    if not runs:
        reasons += [f"no repeat gave a result; the first: {f.reason}" for f in failed[:1]]
        reasons += ["nothing was run"] if not reasons else []
    lines = tuple(dict.fromkeys(one_line(reason) for reason in reasons))[:20]
    return BenchResult(
        device=device,
        build=next(iter(builds), None),
        spec=spec,
        runs=tuple(runs),
        failed=tuple(
            replace(f, reason=one_line(f.reason)) for f in sorted(failed, key=lambda f: f.repeat)
        ),
        validity=Validity(not lines, lines),
    )


def one_line(text: str, max_length: int = 500) -> str:
    """Any text as a reason: printable, on one line, cut to a length."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= max_length else f"{line[: max_length - 3]}..."
