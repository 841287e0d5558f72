"""The AWS Device Farm back end: a benchmark on every device of a pool of real phones.

Upload → schedule → wait → collect. The run's ARN is on disk before the waiting starts, so a run is
taken up again and never paid for twice. Tested against botocore's Stubber and a real HTTP server
only: **not yet run on Device Farm**. docs/run-on-devices.md says what the app must answer.
"""

import re
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from android_bench.assembled_results import one_line
from android_bench.devices.adb import AndroidApp
from android_bench.devices.base import Answer, DeviceUnavailable
from android_bench.devices.farm_artifacts import (
    MAX_ZIP_BYTES,
    NoResultInside,
    result_inside,
    zip_package,
)
from android_bench.devices.farm_client import BotoClient, FarmClient, boto_client
from android_bench.devices.farm_state import FarmState
from android_bench.devices.presigned_transfers import TransferFailed, get_bytes
from android_bench.package import BenchPackage
from android_bench.protocol import (
    BenchResult,
    BenchSpec,
    InvalidBenchResult,
    MismatchedBenchResult,
)
from device_runtime.errors import FlintError

TEST_SPEC = "device_farm_test_spec.yml"
_POOL = re.compile(r"arn:aws:devicefarm:us-west-2:(\d*):devicepool:([\w-]+)(?:/([\w-]+))?")
_PROJECT = re.compile(r"arn:aws:devicefarm:us-west-2:\d+:project:[\w-]+")
_RUN = re.compile(r"arn:aws:devicefarm:us-west-2:\d+:run:[\w-]+/[\w-]+")
_STOPPING_S = 600.0


class InvalidFarmTarget(FlintError):
    """An ARN is not of what it should be, or what the run needs is not given."""

    code = "FLN-2564"


class FarmDevicesFailed(DeviceUnavailable):
    """Some devices of a run gave no result; those of the others are kept."""

    code = "FLN-2565"


class FarmWaitEnded(DeviceUnavailable):
    """Waiting for a run was broken off; the run goes on, and can be taken up."""

    code = "FLN-2568"


@dataclass(frozen=True, slots=True)
class FarmTarget:
    """Where and how to run.

    Attributes:
        pool_arn: Device pool.
        project_arn: None: the pool's own, which a pool that AWS curates does not have.
        app: With both APKs; the test spec names its instrumentation.
        resume_run: ARN of a run to take up instead of scheduling one.
        timeout_s: How long to wait for the run before it is stopped.
        job_timeout_minutes: How long Device Farm lets it run on one device.
        poll_s: Between two looks.
    """

    pool_arn: str
    app: AndroidApp
    project_arn: str | None = None
    resume_run: str | None = None
    timeout_s: float = 3 * 3600.0
    job_timeout_minutes: int = 60
    poll_s: float = 20.0

    def project(self) -> str:
        """ARN of the project.

        Raises:
            InvalidFarmTarget: If an ARN is none, or nobody names the project.
        """
        pool = _POOL.fullmatch(self.pool_arn)
        if pool is None:
            raise InvalidFarmTarget(
                f"{self.pool_arn[:120]!r} is no device pool of Device Farm; give its ARN, "
                "arn:aws:devicefarm:us-west-2:ACCOUNT:devicepool:PROJECT/POOL"
            )
        if self.resume_run is not None and not _RUN.fullmatch(self.resume_run):
            raise InvalidFarmTarget(
                f"{self.resume_run[:120]!r} is no run of Device Farm; give its ARN, "
                "arn:aws:devicefarm:us-west-2:ACCOUNT:run:PROJECT/RUN"
            )
        if self.project_arn is not None:
            if not _PROJECT.fullmatch(self.project_arn):
                raise InvalidFarmTarget(
                    f"{self.project_arn[:120]!r} is no project of Device Farm; give its ARN, "
                    "arn:aws:devicefarm:us-west-2:ACCOUNT:project:PROJECT"
                )
            return self.project_arn
        account, project, own = pool.groups()
        if not account or own is None:
            raise InvalidFarmTarget(
                f"device pool {self.pool_arn} is AWS's own and belongs to no project; name the "
                "project to run in by its ARN"
            )
        return f"arn:aws:devicefarm:us-west-2:{account}:project:{project}"


class DeviceFarmGroup:
    """All devices of a pool; satisfies `android_bench.devices.base.DeviceGroup`."""

    def __init__(
        self,
        target: FarmTarget,
        boto: BotoClient | None = None,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Check what is asked for; nothing is called yet.

        Args:
            target: Where and how to run.
            boto: None: boto3's, with its usual credentials.
            note: Told what goes on.

        Raises:
            InvalidFarmTarget: If an ARN is none, or an APK is not given.
            MissingApk: If one is not there.
            BotoMissing: If boto3 is not installed.
        """
        project_arn = target.project()
        if target.resume_run is None and len(target.app.apks) < 2:
            raise InvalidFarmTarget(
                "Device Farm needs the APKs of the app and of its instrumentation; give both "
                "(--app-apk, --test-apk)"
            )
        self.name = f"device-farm:{target.pool_arn.rpartition('/')[2].rpartition(':')[2]}"
        self._target = target
        self._farm = FarmClient(boto or boto_client(), project_arn)
        self._note = note
        self._closed = threading.Event()

    def run(self, spec: BenchSpec, package: BenchPackage, state: Path) -> Iterator[Answer]:
        """Run a benchmark on every device, or take up the run that was scheduled before.

        Args:
            spec: Of the benchmark.
            package: Of the benchmark.
            state: Where the run's ARN is kept.

        Yields:
            A result for each device that gave one, as they finish.

        Raises:
            FarmDevicesFailed: At the end, if others gave none: by count and example.
            FarmWaitEnded: If `close` was called; the run goes on.
            DeviceUnavailable: If the farm cannot be asked; a scheduled run goes on.
        """
        run_arn = self._target.resume_run or self._scheduled(spec, package, state)
        settled: dict[str, _NoResult | None] = {}
        deadline_s, stopped = time.monotonic() + self._target.timeout_s, False
        while True:
            run = self._farm.run(run_arn)
            over = run["status"] == "COMPLETED" or (stopped and time.monotonic() > deadline_s)
            for job in self._farm.jobs(run_arn):
                job_arn = str(job["arn"])
                if job_arn in settled or not (over or job.get("status") == "COMPLETED"):
                    continue
                try:
                    data = self._result_of(job, spec)
                except NoResultInside as none:
                    settled[job_arn] = failure = _NoResult.of(job, str(none))
                    self._note(failure.sentence)
                else:
                    settled[job_arn] = None
                    yield Answer(_name_of(job), data)
            if over:
                break
            if not stopped and time.monotonic() > deadline_s:
                self._note(f"run {run_arn} takes longer than {self._target.timeout_s:g} s: stopped")
                self._farm.stop(run_arn)
                deadline_s, stopped = time.monotonic() + _STOPPING_S, True
            self._wait(self._target.poll_s, run_arn)
        self._refuse_failures(run_arn, run, list(settled.values()), stopped=stopped)

    def close(self) -> None:
        """Wait no longer; a scheduled run goes on."""
        self._closed.set()

    def _scheduled(self, spec: BenchSpec, package: BenchPackage, state: Path) -> str:
        """ARN of the run: scheduled before, or now."""
        kept = FarmState.load(state, self._target.pool_arn, spec)
        if kept is not None:
            # Broken off between the scheduling and the writing down, it is found by its name.
            run_arn = kept.run_arn or self._farm.find_run(kept.run_name)
            if run_arn is not None:
                self._note(f"taking up run {run_arn}")
                kept.with_run(run_arn).save(state)
                return run_arn
        begun = kept or FarmState.begin(self._target.pool_arn, spec)
        begun.save(state)
        arns = self._uploaded(spec, package, begun.run_name)
        run_arn = self._farm.schedule(
            name=begun.run_name,
            appArn=arns["ANDROID_APP"],
            devicePoolArn=self._target.pool_arn,
            test={
                "type": "INSTRUMENTATION",
                "testPackageArn": arns["INSTRUMENTATION_TEST_PACKAGE"],
                "testSpecArn": arns["INSTRUMENTATION_TEST_SPEC"],
            },
            configuration={"extraDataPackageArn": arns["EXTERNAL_DATA"]},
            executionConfiguration={
                "jobTimeoutMinutes": self._target.job_timeout_minutes,
                "videoCapture": False,
            },
        )
        begun.with_run(run_arn).save(state)
        self._note(f"scheduled run {run_arn}")
        return run_arn

    def _uploaded(self, spec: BenchSpec, package: BenchPackage, run_name: str) -> dict[str, str]:
        """ARNs of the files a run needs, by kind."""
        app_apk, test_apk = self._target.app.apks
        source = resources.files("android_bench.devices").joinpath(TEST_SPEC)
        with (
            tempfile.TemporaryDirectory(prefix="flint-farm-") as scratch,
            resources.as_file(source) as test_spec,
        ):
            data = zip_package(spec, package, Path(scratch) / "package.zip")
            files = {
                "ANDROID_APP": (app_apk, ".apk"),
                "INSTRUMENTATION_TEST_PACKAGE": (test_apk, ".apk"),
                "INSTRUMENTATION_TEST_SPEC": (test_spec, ".yml"),
                "EXTERNAL_DATA": (data, ".zip"),
            }
            arns = {}
            for kind, (path, suffix) in files.items():
                self._note(f"uploading {path.name}")
                arns[kind] = self._farm.upload(
                    path,
                    kind,
                    f"{run_name}-{kind.lower()}{suffix}",
                    poll_s=min(self._target.poll_s, 5.0),
                    wait=lambda seconds: self._wait(seconds, None),
                )
        return arns

    def _wait(self, seconds: float, run_arn: str | None) -> None:
        if self._closed.wait(seconds):
            goes_on = f"; run {run_arn} goes on and is taken up by resuming" if run_arn else ""
            raise FarmWaitEnded(f"waiting for Device Farm was broken off{goes_on}")

    def _result_of(self, job: Mapping[str, Any], spec: BenchSpec) -> bytes:
        """A device's result, its device named as Device Farm does.

        Raises:
            NoResultInside: If there is none; says why.
        """
        zips = [
            artifact
            for artifact in self._farm.artifacts(str(job["arn"]))
            if artifact.get("type") == "CUSTOMER_ARTIFACT" and artifact.get("extension") == "zip"
        ]
        if not zips:
            said = str(job.get("message") or "")
            raise NoResultInside(f"it left no artefacts{f' ({said})' if said else ''}")
        what = f"the artefacts of {_describe(job)}"
        try:
            data = result_inside(get_bytes(str(zips[0]["url"]), MAX_ZIP_BYTES, what))
            result = BenchResult.from_json(data, source="its result")
            result.check_answers(spec, source="its result")
        except (TransferFailed, InvalidBenchResult, MismatchedBenchResult) as error:
            raise NoResultInside(str(error)) from error
        told = result.device
        device = replace(
            told, id=str(job["device"].get("arn") or job["arn"])[:200], backend="device-farm"
        )
        return replace(result, device=device).to_json().encode()

    def _refuse_failures(
        self,
        run_arn: str,
        run: Mapping[str, Any],
        settled: "list[_NoResult | None]",
        *,
        stopped: bool,
    ) -> None:
        failures = [failure for failure in settled if failure is not None]
        if settled and not failures:
            return
        if not settled:
            said = one_line(str(run.get("message") or "it gives no reason"), 200)
            raise FarmDevicesFailed(
                f"run {run_arn} ended {run.get('result')} before any device began ({said}); see "
                "whether the device pool has Android devices and the APKs fit them"
            )
        counts = Counter(failure.result for failure in failures)
        counted = ", ".join(f"{count} {result}" for result, count in sorted(counts.items()))
        late = f", and it was stopped after {self._target.timeout_s:g} s" if stopped else ""
        raise FarmDevicesFailed(
            f"{len(failures)} of {len(settled)} devices of run {run_arn} gave no result ({counted}"
            f"{late}), e.g. {failures[0].sentence}; results of the other "
            f"{len(settled) - len(failures)} are kept, and Device Farm's console has the logs"
        )


@dataclass(frozen=True, slots=True)
class _NoResult:
    """A device without a result.

    Attributes:
        result: Device Farm's word for how its job ended, e.g. ``"ERRORED"``.
    """

    result: str
    sentence: str

    @classmethod
    def of(cls, job: Mapping[str, Any], why: str) -> "_NoResult":
        return cls(str(job.get("result") or "PENDING"), f"{_describe(job)}: {one_line(why, 120)}")


def _describe(job: Mapping[str, Any]) -> str:
    device = job.get("device", {})
    return one_line(str(device.get("name") or device.get("model") or job["arn"]), 60)


def _name_of(job: Mapping[str, Any]) -> str:
    """Of a device within its run: the same whenever the run is looked at."""
    return f"{_describe(job)} {str(job['arn']).rpartition('/')[2]}"
