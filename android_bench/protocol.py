"""The one worker protocol, schema ``flint-bench/1``: a JSON spec in, a JSON result out.

Whatever runs the model (a process on this machine, an app on a phone, a device farm) is given a
folder with the files named here, and answers with one result file of *raw* measurements. Nothing
derived is ever taken from a worker; `android_bench.derived` recomputes every figure.

Records and parameters are raw little-endian arrays, so any language reads them:

* ``records.bin``: ``x`` of all records (the manifest's input dtype and shape, row by row), then
  their ``y``, float32.
* ``parameters.bin``: float32 arrays in the manifest's order, one after another.
* ``update.bin``, written by a training worker: the difference, in the same form.
"""

from dataclasses import asdict, dataclass
from typing import Literal, Self, cast, get_args

from android_bench.bench_spec import (
    MANIFEST_FILE,
    MAX_RECORDS,
    MAX_REPEATS,
    MAX_SPEC_BYTES,
    MODEL_FILE,
    NAME_PATTERN,
    PARAMETERS_FILE,
    RECORDS_FILE,
    RESULT_FILE,
    SCHEMA,
    SHA256_PATTERN,
    SPEC_FILE,
    TASKS,
    UPDATE_FILE,
    BenchSpec,
    InvalidBenchSpec,
    Task,
    canonical,
)
from android_bench.strict_json import Fields, read_object
from device_runtime.errors import FlintError

__all__ = [
    "BACKENDS",
    "MANIFEST_FILE",
    "MAX_LATENCIES",
    "MAX_RECORDS",
    "MAX_REPEATS",
    "MAX_RESULT_BYTES",
    "MAX_SPEC_BYTES",
    "MODEL_FILE",
    "PARAMETERS_FILE",
    "RECORDS_FILE",
    "RESULT_FILE",
    "SCHEMA",
    "SPEC_FILE",
    "TASKS",
    "UPDATE_FILE",
    "Backend",
    "BenchResult",
    "BenchSpec",
    "BuildInfo",
    "DeviceInfo",
    "FailedRun",
    "InvalidBenchResult",
    "InvalidBenchSpec",
    "MismatchedBenchResult",
    "RawRun",
    "Task",
    "Validity",
]

Backend = Literal["host", "emulated", "adb", "device-farm", "qemu"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)

MAX_RESULT_BYTES = 16 * 2**20
MAX_LATENCIES = 10_000
"""Of one run; calls beyond are made and counted in its passes, and their latency is not kept."""

_MAX_BYTES = 2**40
_MAX_S = 1e6
_MAX_LOSS = 1e30
_MONTH = r"20[0-9]{2}-(0[1-9]|1[0-2])"


class InvalidBenchResult(FlintError):
    """A worker's answer is no result: cut off, rubbish, or with impossible values."""

    code = "FLN-2502"


class MismatchedBenchResult(FlintError):
    """A result answers another spec, or was measured with another model file."""

    code = "FLN-2503"


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """Which device measured.

    Attributes:
        id: Of this very device: a serial number, an ARN, a host's name.
        device_model: Product, e.g. ``"Pixel 6"``; population and profiles are by this name.
        soc: System on chip or processor, if known.
        os_release: Month the system was released, ``"2019-09"``, if known.
        memory_mb: Of the device, 10^6 bytes.
        abi: Instruction set, e.g. ``"arm64-v8a"``, ``"x86_64"``.
        emulated: Whether speed is imitated on another machine; such figures are never a phone's.
        timing_valid: Whether times mean anything; false under an instruction-set emulator.
        profile: Of an emulated fleet, by name.
    """

    id: str
    device_model: str
    soc: str | None
    os_version: str
    os_release: str | None
    cores: int
    memory_mb: float
    abi: str
    backend: Backend
    emulated: bool
    timing_valid: bool
    profile: str | None = None

    @classmethod
    def _read(cls, fields: Fields) -> Self:
        info = cls(
            id=fields.text("id"),
            device_model=fields.text("device_model", pattern=r"\S(.{0,98}\S)?"),
            soc=fields.optional("soc", lambda: fields.text("soc")),
            os_version=fields.text("os_version"),
            os_release=fields.optional(
                "os_release", lambda: fields.text("os_release", pattern=_MONTH)
            ),
            cores=fields.integer("cores", low=1, high=4096),
            memory_mb=fields.number("memory_mb", low=1.0, high=1e8),
            abi=fields.text("abi", max_length=40),
            backend=cast(Backend, fields.choice("backend", BACKENDS)),
            emulated=fields.boolean("emulated"),
            timing_valid=fields.boolean("timing_valid"),
            profile=fields.optional(
                "profile", lambda: fields.text("profile", pattern=NAME_PATTERN)
            ),
        )
        fields.finish()
        return info


@dataclass(frozen=True, slots=True)
class BuildInfo:
    """What ran: the model file and the runtime.

    Attributes:
        runtime: Name and version, e.g. ``"LiteRT 2.3.0"``.
        worker: Program and version, e.g. ``"flint-python 0.1.0"``.
    """

    model: str
    model_sha256: str
    manifest_sha256: str
    runtime: str
    worker: str

    @classmethod
    def _read(cls, fields: Fields) -> Self:
        build = cls(
            model=fields.text("model", pattern=NAME_PATTERN),
            model_sha256=fields.text("model_sha256", pattern=SHA256_PATTERN),
            manifest_sha256=fields.text("manifest_sha256", pattern=SHA256_PATTERN),
            runtime=fields.text("runtime", max_length=80),
            worker=fields.text("worker", max_length=80),
        )
        fields.finish()
        return build


@dataclass(frozen=True, slots=True)
class RawRun:
    """One measured run, as the worker saw it.

    The measuring window begins after imports, loading and warm-up, and ends with the last pass.

    Attributes:
        repeat: Which one, from 0.
        passes: Over all records, within the window.
        wall_s: Of the window.
        cpu_s: CPU seconds of the whole process within the window.
        memory_imported_bytes: Largest resident size (``VmHWM``) once everything was imported and
            nothing loaded.
        memory_peak_bytes: Largest resident size at the end.
        loss_first: Mean loss over records (the first 1,000 do) at the start; None for inference.
        loss_last: The same after the first pass.
        largest_change: Of any parameter by the first pass, absolute; None for inference.
        latencies_ns: Of the first `MAX_LATENCIES` calls of inference within the window.
        model_file_bytes: Fetched once a job: model file and manifest.
        parameters_bytes: Fetched for the task.
        update_bytes: Of the update sent back; 0 for inference.
        records_bytes: Of the records on the device's disk.
        requested_duty: Share of a core the throttle was to allow; None without one.
        achieved_duty: Share it did allow within the window.
        attempts: Runs it took, with those thrown away because the throttle missed its target.
    """

    repeat: int
    passes: int
    wall_s: float
    cpu_s: float
    memory_imported_bytes: int
    memory_peak_bytes: int
    loss_first: float | None
    loss_last: float | None
    largest_change: float | None
    latencies_ns: tuple[int, ...]
    model_file_bytes: int
    parameters_bytes: int
    update_bytes: int
    records_bytes: int
    requested_duty: float | None = None
    achieved_duty: float | None = None
    attempts: int = 1

    @classmethod
    def _read(cls, fields: Fields) -> Self:
        def loss(key: str) -> float | None:
            return fields.optional(key, lambda: fields.number(key, low=-_MAX_LOSS, high=_MAX_LOSS))

        def duty(key: str) -> float | None:
            return fields.optional(key, lambda: fields.number(key, high=1.5))

        run = cls(
            repeat=fields.integer("repeat", high=MAX_REPEATS - 1),
            passes=fields.integer("passes", low=1, high=10**9),
            wall_s=fields.number("wall_s", low=1e-9, high=_MAX_S),
            cpu_s=fields.number("cpu_s", high=64 * _MAX_S),
            memory_imported_bytes=fields.integer("memory_imported_bytes", low=1, high=_MAX_BYTES),
            memory_peak_bytes=fields.integer("memory_peak_bytes", low=1, high=_MAX_BYTES),
            loss_first=loss("loss_first"),
            loss_last=loss("loss_last"),
            largest_change=loss("largest_change"),
            latencies_ns=fields.integers("latencies_ns", most=MAX_LATENCIES, high=10**15),
            model_file_bytes=fields.integer("model_file_bytes", low=1, high=_MAX_BYTES),
            parameters_bytes=fields.integer("parameters_bytes", high=_MAX_BYTES),
            update_bytes=fields.integer("update_bytes", high=_MAX_BYTES),
            records_bytes=fields.integer("records_bytes", high=_MAX_BYTES),
            requested_duty=duty("requested_duty"),
            achieved_duty=duty("achieved_duty"),
            attempts=fields.integer("attempts", low=1, high=1000),
        )
        fields.finish()
        if run.memory_peak_bytes < run.memory_imported_bytes:
            fields.refuse(
                "memory_peak_bytes",
                f"is {run.memory_peak_bytes}, below memory_imported_bytes; a peak never falls",
            )
        return run


@dataclass(frozen=True, slots=True)
class FailedRun:
    """A repeat that gave nothing, and why."""

    repeat: int
    reason: str

    @classmethod
    def _read(cls, fields: Fields) -> Self:
        failed = cls(
            repeat=fields.integer("repeat", high=MAX_REPEATS - 1),
            reason=fields.text("reason", max_length=500),
        )
        fields.finish()
        return failed


@dataclass(frozen=True, slots=True)
class Validity:
    """Whether figures may be drawn from a result; if not, why."""

    ok: bool
    reasons: tuple[str, ...] = ()

    @classmethod
    def _read(cls, fields: Fields) -> Self:
        validity = cls(ok=fields.boolean("ok"), reasons=fields.texts("reasons", most=20))
        fields.finish()
        return validity


@dataclass(frozen=True, slots=True)
class BenchResult:
    """A worker's answer.

    Attributes:
        build: None where no worker came so far as to say what it ran.
        runs: Those that were measured, by repeat.
        failed: Repeats that were not, by repeat.
    """

    device: DeviceInfo
    build: BuildInfo | None
    spec: BenchSpec
    runs: tuple[RawRun, ...]
    failed: tuple[FailedRun, ...]
    validity: Validity

    def to_json(self) -> str:
        """Serialise canonically, see `BenchSpec.to_json`."""
        return canonical({"schema": SCHEMA, **asdict(self)})

    @classmethod
    def from_json(cls, data: bytes, *, source: str = "the result") -> Self:
        """Parse a worker's answer, which may be anything.

        Args:
            source: Who it is from, for the message.

        Raises:
            InvalidBenchResult: Naming the first thing that is wrong.
        """
        fields = read_object(
            data, max_bytes=MAX_RESULT_BYTES, error=InvalidBenchResult, source=source
        )
        fields.choice("schema", (SCHEMA,))
        build = fields.optional("build", lambda: fields.nested("build"))
        result = cls(
            device=DeviceInfo._read(fields.nested("device")),
            build=None if build is None else BuildInfo._read(build),
            spec=BenchSpec.read(fields.nested("spec")),
            runs=tuple(RawRun._read(run) for run in fields.nested_list("runs", most=MAX_REPEATS)),
            failed=tuple(
                FailedRun._read(failed) for failed in fields.nested_list("failed", most=MAX_REPEATS)
            ),
            validity=Validity._read(fields.nested("validity")),
        )
        fields.finish()
        result._check(fields)
        return result

    def check_answers(self, spec: BenchSpec, *, source: str = "the result") -> None:
        """Refuse a result of something else than was asked.

        Raises:
            MismatchedBenchResult: Naming the first difference.
        """
        for key, asked in asdict(spec).items():
            found = getattr(self.spec, key)
            if found != asked:
                raise MismatchedBenchResult(
                    f"{source} is of {key} {found}, and {asked} was asked for; run it again"
                )
        if self.build is None:
            return
        for key in ("model", "model_sha256", "manifest_sha256"):
            found, asked = getattr(self.build, key), getattr(spec, key)
            if found != asked:
                raise MismatchedBenchResult(
                    f"{source} was measured with {key} {found}, and {asked} was asked for; push "
                    "the model again"
                )

    def _check(self, fields: Fields) -> None:
        repeats = [run.repeat for run in self.runs] + [run.repeat for run in self.failed]
        if len(set(repeats)) < len(repeats) or any(r >= self.spec.repeats for r in repeats):
            fields.refuse(
                "runs", f"and failed name repeats {repeats}; give each of the spec's once at most"
            )
        if self.validity.ok and (not self.runs or self.build is None or self.validity.reasons):
            fields.refuse("validity.ok", "is true without runs or build, or with reasons against")
        if not self.validity.ok and not self.validity.reasons:
            fields.refuse("validity.reasons", "is empty; say why the result is not ok")
        for index, run in enumerate(self.runs):
            training = (run.loss_first, run.loss_last, run.largest_change)
            if self.spec.task == "train" and (None in training or run.latencies_ns):
                fields.refuse(f"runs[{index}]", "is of training; give its losses, no latencies")
            if self.spec.task == "infer" and (training != (None,) * 3 or not run.latencies_ns):
                fields.refuse(f"runs[{index}]", "is of inference; give its latencies, no losses")
