"""The worker of a Python device: measures one run in this process, with what a device has.

    python -P -m android_bench.worker --package FOLDER --output FOLDER [--core N] [--throttled]

``--output`` holds ``spec.json`` and gets ``result.json``. Imported are numpy, LiteRT and
`device_runtime`, as on a device. Times are of the measuring window only: it begins after loading
and warm-up, and holds nothing but passes over the records. A throttled worker says ``ready`` on
stdout just before the window and waits for a line on stdin, so that only the window is slowed down,
and says ``done`` after it.
"""

import argparse
import contextlib
import ctypes
import hashlib
import os
import platform
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from android_bench.protocol import (
    MANIFEST_FILE,
    MAX_LATENCIES,
    MODEL_FILE,
    PARAMETERS_FILE,
    RECORDS_FILE,
    RESULT_FILE,
    SPEC_FILE,
    UPDATE_FILE,
    BenchResult,
    BenchSpec,
    BuildInfo,
    DeviceInfo,
    RawRun,
    Validity,
)
from device_runtime.engine import LiteRtEngine
from device_runtime.errors import FlintError
from device_runtime.examples import Records
from device_runtime.manifest import ArtifactManifest
from device_runtime.this_machine import host_device_model, processor_name
from device_runtime.training import peak_memory_bytes
from device_runtime.training_plan import epoch_order

READY, DONE = "ready", "done"
_PR_SET_PDEATHSIG = 1
_PRIORITY = -15
_LOSS_RECORDS = 1000

_MEMORY_IMPORTED_BYTES = peak_memory_bytes()
"""Of this process, everything imported and nothing loaded."""


class UnsuitablePackage(FlintError):
    """The files a worker was given do not belong together."""

    code = "FLN-2504"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark that ``--output`` holds the spec of; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -P -m android_bench.worker")
    parser.add_argument("--package", required=True, type=Path, metavar="FOLDER")
    parser.add_argument("--output", required=True, type=Path, metavar="FOLDER")
    parser.add_argument(
        "--core", type=int, metavar="N", help="run on this core only, and end with the parent"
    )
    parser.add_argument("--throttled", action="store_true", help="wait for the throttle")
    options = parser.parse_args(arguments)
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
        _end_with_parent()
        _go_before_others()
    try:
        spec = BenchSpec.from_json((options.output / SPEC_FILE).read_bytes())
        gate = _throttle_gate if options.throttled else _no_gate
        result = measure(spec, options.package, options.output, gate)
    except FlintError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    draft = options.output / f".{RESULT_FILE}"
    draft.write_text(result.to_json())
    draft.replace(options.output / RESULT_FILE)
    return 0


def measure(
    spec: BenchSpec, package: Path, output: Path, gate: Callable[[str], None]
) -> BenchResult:
    """One run of a benchmark.

    Args:
        package: Folder with model, manifest, records and parameters.
        output: Folder for the update.
        gate: Called with ``ready`` before the measuring window and ``done`` after it.

    Raises:
        UnsuitablePackage: If the files are not those of the spec.
        InvalidManifest: If the manifest cannot be read.
        InvalidArtifact: If the model file is not that of the manifest.
    """
    if spec.threads != 1:
        raise UnsuitablePackage(
            f"threads is {spec.threads}; the Python runtime trains on one thread, set 1"
        )
    manifest = _read_manifest(package / MANIFEST_FILE, spec)
    engine = LiteRtEngine(package / MODEL_FILE, manifest)
    x, y = _read_records(package / RECORDS_FILE, manifest, spec.records)
    base = _read_parameters(package / PARAMETERS_FILE, manifest)
    engine.restore(base)
    window = _train if spec.task == "train" else _infer
    found = window(engine, spec, base, x, y, gate)
    files = [package / name for name in (MODEL_FILE, MANIFEST_FILE)]
    run = replace(
        found.run,
        memory_imported_bytes=_MEMORY_IMPORTED_BYTES,
        memory_peak_bytes=max(peak_memory_bytes(), _MEMORY_IMPORTED_BYTES),
        model_file_bytes=sum(path.stat().st_size for path in files),
        parameters_bytes=(package / PARAMETERS_FILE).stat().st_size,
        update_bytes=_write_update(output / UPDATE_FILE, found.update),
        records_bytes=(package / RECORDS_FILE).stat().st_size,
    )
    build = BuildInfo(
        model=spec.model,
        model_sha256=manifest.model_sha256,
        manifest_sha256=spec.manifest_sha256,
        runtime=f"LiteRT {metadata.version('ai-edge-litert')}",
        worker=f"flint-python {platform.python_version()}",
    )
    one = replace(spec, repeats=1)
    return BenchResult(describe_host(), build, one, (run,), (), Validity(True))


@dataclass(frozen=True, slots=True)
class _Window:
    """What the measuring window gave; ``update`` is empty for inference."""

    run: RawRun
    update: tuple[NDArray[np.float32], ...] = ()


def _train(
    engine: LiteRtEngine,
    spec: BenchSpec,
    base: list[NDArray[np.float32]],
    x: Records,
    y: Records,
    gate: Callable[[str], None],
) -> _Window:
    batch = spec.batch_size
    starts = range(0, len(x), batch)
    loss_first = _mean_loss(engine, x, y)
    for start in starts[: spec.warmup_batches]:
        engine.train_batch(x[start : start + batch], y[start : start + batch], 0.0)
    engine.restore(base)
    first: list[NDArray[np.float32]] = []
    passes, wall_s, cpu_s = 0, 0.0, 0.0
    gate(READY)
    while passes == 0 or wall_s < spec.min_pass_s:
        started_s, cpu_started_s = time.perf_counter(), time.process_time()
        order = epoch_order(len(x), spec.seed, passes)
        for start in starts:
            chosen = order[start : start + batch]
            engine.train_batch(x[chosen], y[chosen], spec.learning_rate)
        cpu_s += time.process_time() - cpu_started_s
        wall_s += time.perf_counter() - started_s
        passes += 1
        first = first or engine.parameters()
    gate(DONE)
    engine.restore(first)
    update = tuple(new - old for new, old in zip(first, base, strict=True))
    run = _run(
        passes,
        wall_s,
        cpu_s,
        loss_first=loss_first,
        loss_last=_mean_loss(engine, x, y),
        largest_change=max(float(np.abs(array).max()) for array in update),
    )
    return _Window(run, update)


def _infer(
    engine: LiteRtEngine,
    spec: BenchSpec,
    _base: list[NDArray[np.float32]],
    x: Records,
    _y: Records,
    gate: Callable[[str], None],
) -> _Window:
    batch = spec.batch_size
    parts = [x[start : start + batch] for start in range(0, len(x), batch)]
    for part in parts[: spec.warmup_batches]:
        engine.infer(part)
    latencies_ns: list[int] = []
    passes, wall_s, cpu_s = 0, 0.0, 0.0
    gate(READY)
    while passes == 0 or wall_s < spec.min_pass_s:
        started_s, cpu_started_s = time.perf_counter(), time.process_time()
        for part in parts:
            called_ns = time.perf_counter_ns()
            engine.infer(part)
            if len(latencies_ns) < MAX_LATENCIES:
                latencies_ns.append(time.perf_counter_ns() - called_ns)
        cpu_s += time.process_time() - cpu_started_s
        wall_s += time.perf_counter() - started_s
        passes += 1
    gate(DONE)
    return _Window(_run(passes, wall_s, cpu_s, latencies_ns=tuple(latencies_ns)))


def _run(
    passes: int,
    wall_s: float,
    cpu_s: float,
    *,
    loss_first: float | None = None,
    loss_last: float | None = None,
    largest_change: float | None = None,
    latencies_ns: tuple[int, ...] = (),
) -> RawRun:
    """A run with what the window measured; `measure` fills in the rest."""
    return RawRun(
        repeat=0,
        passes=passes,
        wall_s=wall_s,
        cpu_s=cpu_s,
        memory_imported_bytes=0,
        memory_peak_bytes=0,
        loss_first=loss_first,
        loss_last=loss_last,
        largest_change=largest_change,
        latencies_ns=latencies_ns,
        model_file_bytes=0,
        parameters_bytes=0,
        update_bytes=0,
        records_bytes=0,
    )


def _mean_loss(engine: LiteRtEngine, x: Records, y: Records) -> float:
    """Of the first records, so that a slow device spends its time on what is measured."""
    x, y, batch = x[:_LOSS_RECORDS], y[:_LOSS_RECORDS], engine.manifest.batch_size
    starts = range(0, len(x), batch)
    return sum(engine.total_loss(x[s : s + batch], y[s : s + batch]) for s in starts) / len(x)


def _end_with_parent() -> None:
    """Have Linux kill this process with its parent, which may have it stopped when it dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _go_before_others() -> None:
    """Take the core from other programs where this user may: they are not what is measured."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, _PRIORITY)
        # Where Linux shares out time by session first, the session's priority decides.
        Path("/proc/self/autogroup").write_text(str(_PRIORITY))


def _no_gate(_said: str) -> None:
    pass


def _throttle_gate(said: str) -> None:
    """Tell the throttle, and before the window wait until it is at work."""
    print(said, flush=True)
    if said == READY:
        sys.stdin.readline()


def _read_manifest(path: Path, spec: BenchSpec) -> ArtifactManifest:
    text = path.read_bytes()
    if hashlib.sha256(text).hexdigest() != spec.manifest_sha256:
        raise UnsuitablePackage(f"{path.name} is not the one the spec names; push the model again")
    manifest = ArtifactManifest.from_json(text.decode())
    asked = (spec.model, spec.model_sha256, spec.batch_size)
    if (manifest.model, manifest.model_sha256, manifest.batch_size) != asked:
        raise UnsuitablePackage(
            f"the spec asks for {spec.model} in batches of {spec.batch_size}, the artefact is "
            f"{manifest.model} in batches of {manifest.batch_size}; push the model again"
        )
    return manifest


def _read_records(
    path: Path, manifest: ArtifactManifest, records: int
) -> tuple[Records, NDArray[np.float32]]:
    """Records as a device holds them: in memory, read from its disk once."""
    x_shape, y_shape = (records, *manifest.input.shape), (records, *manifest.label_shape)
    dtype = np.dtype(manifest.input.dtype).newbyteorder("<")
    x_bytes = int(np.prod(x_shape)) * dtype.itemsize
    data = path.read_bytes()
    if len(data) != x_bytes + int(np.prod(y_shape)) * 4:
        raise UnsuitablePackage(
            f"{path.name} has {len(data)} bytes, which is not {records} records of "
            f"{manifest.model}; push the records again"
        )
    x = np.frombuffer(data, dtype, offset=0, count=int(np.prod(x_shape))).reshape(x_shape)
    y = np.frombuffer(data, "<f4", offset=x_bytes).reshape(y_shape)
    return x, y


def _read_parameters(path: Path, manifest: ArtifactManifest) -> list[NDArray[np.float32]]:
    data = path.read_bytes()
    sizes = [parameter.size for parameter in manifest.parameters]
    if len(data) != 4 * sum(sizes):
        raise UnsuitablePackage(
            f"{path.name} has {len(data)} bytes, the parameters of {manifest.model} have "
            f"{4 * sum(sizes)}; push the parameters again"
        )
    flat = np.frombuffer(data, "<f4")
    ends = np.cumsum(sizes)[:-1]
    return [
        part.reshape(parameter.shape)
        for part, parameter in zip(np.split(flat, ends), manifest.parameters, strict=True)
    ]


def _write_update(path: Path, update: Sequence[NDArray[np.float32]]) -> int:
    """Write the update that would be sent back; returns its bytes."""
    data = b"".join(array.astype("<f4").tobytes() for array in update)
    if data:
        path.write_bytes(data)
    return len(data)


def describe_host() -> DeviceInfo:
    """This machine as a device; the back end says what it stands for."""
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return DeviceInfo(
        id=platform.node()[:200] or "host",
        device_model=host_device_model(),
        soc=(processor_name() or platform.machine())[:200],
        os_version=f"{platform.system()} {platform.release()}"[:200],
        os_release=None,
        cores=os.cpu_count() or 1,
        memory_mb=round(pages / 1e6, 1),
        abi=platform.machine(),
        backend="host",
        emulated=False,
        timing_valid=True,
    )


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash is reported, not dumped
    sys.exit(main())
