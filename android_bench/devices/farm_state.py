"""What must not be done twice on a device farm: which run was scheduled, kept in a file."""

import hashlib
import json
import os
import secrets
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from android_bench.protocol import BenchSpec
from android_bench.strict_json import read_object
from device_runtime.errors import FlintError

STATE_FILE = "device-farm.json"
_SCHEMA = "flint-device-farm/1"
_MAX_BYTES = 64 * 1024


class UnusableFarmState(FlintError):
    """A state file is damaged, or of another benchmark."""

    code = "FLN-2567"


@dataclass(frozen=True, slots=True)
class FarmState:
    """One scheduled, or about to be scheduled, run.

    Attributes:
        pool_arn: Of the device pool.
        spec_sha256: Of the spec's JSON, hexadecimal.
        run_name: Unique; by it a run is found whose ARN was not written down any more.
        run_arn: None before it is known.
    """

    pool_arn: str
    spec_sha256: str
    run_name: str
    run_arn: str | None = None

    @classmethod
    def begin(cls, pool_arn: str, spec: BenchSpec) -> Self:
        """A run that is not scheduled yet."""
        digest = hashlib.sha256(spec.to_json().encode()).hexdigest()
        return cls(pool_arn, digest, f"flint-bench-{spec.model}-{secrets.token_hex(6)}")

    @classmethod
    def load(cls, folder: Path, pool_arn: str, spec: BenchSpec) -> Self | None:
        """What is kept in a folder; None if nothing is.

        Raises:
            UnusableFarmState: If the file cannot be read, or is of another pool or spec.
        """
        path = folder / STATE_FILE
        try:
            with path.open("rb") as file:
                data = file.read(_MAX_BYTES + 1)
        except FileNotFoundError:
            return None
        fields = read_object(data, max_bytes=_MAX_BYTES, error=UnusableFarmState, source=str(path))
        fields.choice("schema", (_SCHEMA,))
        kept = cls(
            pool_arn=fields.text("pool_arn"),
            spec_sha256=fields.text("spec_sha256", pattern="[0-9a-f]{64}"),
            run_name=fields.text("run_name"),
            run_arn=fields.optional("run_arn", lambda: fields.text("run_arn")),
        )
        fields.finish()
        asked = cls.begin(pool_arn, spec)
        if (kept.pool_arn, kept.spec_sha256) != (asked.pool_arn, asked.spec_sha256):
            raise UnusableFarmState(
                f"{path} is of another benchmark or device pool; resume with the options it was "
                "begun with, or begin in a new folder"
            )
        return kept

    def with_run(self, run_arn: str) -> Self:
        """It is scheduled."""
        return replace(self, run_arn=run_arn)

    def save(self, folder: Path) -> None:
        """Write it, whole or not at all, to last."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / STATE_FILE
        draft = path.with_suffix(".draft")
        with draft.open("w") as file:
            json.dump({"schema": _SCHEMA, **asdict(self)}, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
