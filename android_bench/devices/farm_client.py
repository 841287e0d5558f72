"""AWS Device Farm's calls, each failure one sentence. Credentials come from boto3's usual chain.

Throttled calls are tried again by botocore itself (its "standard" retry mode).
"""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, cast

from android_bench.devices.base import DeviceUnavailable
from android_bench.devices.presigned_transfers import put_file
from device_runtime.errors import FlintError

REGION = "us-west-2"
"""The only one that has Device Farm."""

_UPLOAD_WAIT_S = 900.0
_MOST_PAGES = 100


class BotoMissing(FlintError):
    """boto3 is not installed."""

    code = "FLN-2560"


class DeviceFarmRefused(DeviceUnavailable):
    """Device Farm does not do what it was asked, or does not answer."""

    code = "FLN-2561"


class NoAwsCredentials(DeviceUnavailable):
    """There are no credentials for AWS, or they are incomplete."""

    code = "FLN-2562"


class FarmUploadFailed(DeviceUnavailable):
    """Device Farm does not take a file: an APK it cannot read, a test spec with a slip."""

    code = "FLN-2563"


class BotoClient(Protocol):
    """The part of boto3's client for Device Farm that is used."""

    def create_upload(self, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401, D102
        ...

    def get_upload(self, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401, D102
        ...

    def schedule_run(self, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401, D102
        ...

    def get_run(self, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401, D102
        ...

    def stop_run(self, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401, D102
        ...

    def list_runs(self, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401, D102
        ...

    def list_jobs(self, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401, D102
        ...

    def list_artifacts(self, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401, D102
        ...


def boto_client() -> BotoClient:
    """A client with boto3's usual credentials.

    Raises:
        BotoMissing: If boto3 is not installed.
        NoAwsCredentials: If a configured profile cannot be read.
    """
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError as error:
        raise BotoMissing(
            "AWS Device Farm needs boto3, which is not installed; run `make setup`, or "
            "`pip install 'flint-on-flower[bench]'`"
        ) from error
    config = Config(retries={"mode": "standard", "max_attempts": 10}, read_timeout=60)
    try:
        return cast(BotoClient, boto3.client("devicefarm", region_name=REGION, config=config))
    except BotoCoreError as error:
        raise NoAwsCredentials(
            f"boto3 cannot be set up ({error}); mend AWS_PROFILE or ~/.aws/config"
        ) from error


class FarmClient:
    """Calls on one project."""

    def __init__(self, boto: BotoClient, project_arn: str) -> None:
        self._boto = boto
        self._project_arn = project_arn

    def upload(
        self, path: Path, kind: str, name: str, *, poll_s: float, wait: Callable[[float], None]
    ) -> str:
        """Upload a file and wait until Device Farm has looked at it; returns its ARN.

        Raises:
            FarmUploadFailed: If it is not taken.
            TransferFailed: If it cannot be sent.
            DeviceFarmRefused: Or `NoAwsCredentials`.
        """
        upload = self._call(
            "create_upload",
            projectArn=self._project_arn,
            name=name,
            type=kind,
            contentType="application/octet-stream",
        )["upload"]
        put_file(str(upload["url"]), path)
        arn, deadline_s = str(upload["arn"]), time.monotonic() + _UPLOAD_WAIT_S
        while True:
            upload = self._call("get_upload", arn=arn)["upload"]
            status = upload["status"]
            if status == "SUCCEEDED":
                return arn
            if status == "FAILED":
                why = str(upload.get("metadata") or upload.get("message") or "it gives no reason")
                raise FarmUploadFailed(
                    f"Device Farm does not take {path.name} as {kind} ({why[:300]}); mend the file"
                )
            if time.monotonic() > deadline_s:
                raise FarmUploadFailed(
                    f"Device Farm has not taken {path.name} within {_UPLOAD_WAIT_S:g} s (it is "
                    f"{status}); run again later"
                )
            wait(poll_s)

    def schedule(self, **arguments: Any) -> str:  # noqa: ANN401 - as boto3 takes them
        """Schedule a run; returns its ARN."""
        run = self._call("schedule_run", projectArn=self._project_arn, **arguments)["run"]
        return str(run["arn"])

    def run(self, arn: str) -> Mapping[str, Any]:
        """A run as it is now."""
        return cast(Mapping[str, Any], self._call("get_run", arn=arn)["run"])

    def stop(self, arn: str) -> None:
        """Stop a run; its jobs end within minutes."""
        self._call("stop_run", arn=arn)

    def find_run(self, name: str) -> str | None:
        """ARN of the project's run of this name; None if there is none."""
        runs = self._pages("list_runs", "runs", self._project_arn)
        return next((str(run["arn"]) for run in runs if run.get("name") == name), None)

    def jobs(self, run_arn: str) -> list[Mapping[str, Any]]:
        """Jobs of a run, one a device."""
        return list(self._pages("list_jobs", "jobs", run_arn))

    def artifacts(self, job_arn: str) -> list[Mapping[str, Any]]:
        """Files a job left."""
        return list(self._pages("list_artifacts", "artifacts", job_arn, type="FILE"))

    def _pages(
        self, call: str, key: str, arn: str, **arguments: str
    ) -> Iterator[Mapping[str, Any]]:
        for _ in range(_MOST_PAGES):
            answer = self._call(call, arn=arn, **arguments)
            yield from answer.get(key, [])
            if not answer.get("nextToken"):
                return
            arguments["nextToken"] = answer["nextToken"]

    def _call(self, operation: str, /, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401
        from botocore.exceptions import (
            BotoCoreError,
            ClientError,
            NoCredentialsError,
            PartialCredentialsError,
            TokenRetrievalError,
        )

        try:
            return cast(dict[str, Any], getattr(self._boto, operation)(**arguments))
        except (NoCredentialsError, PartialCredentialsError, TokenRetrievalError) as error:
            raise NoAwsCredentials(
                "there are no complete AWS credentials; set them as for the AWS CLI (`aws "
                "configure`, environment, or a role)"
            ) from error
        except ClientError as error:
            told = error.response.get("Error", {})
            raise DeviceFarmRefused(
                f"Device Farm refuses {operation} ({told.get('Code', 'no code')}: "
                f"{str(told.get('Message', ''))[:300]}); see the account's rights and the ARNs"
            ) from error
        except BotoCoreError as error:
            raise DeviceFarmRefused(
                f"Device Farm does not answer {operation} ({type(error).__name__}); run again, a "
                "scheduled run is taken up"
            ) from error
