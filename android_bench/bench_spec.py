"""What a worker is asked for, and the files it is given: the first half of ``flint-bench/1``.

See `android_bench.protocol`, which hands on all names of this module.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, cast, get_args

from android_bench.strict_json import Fields, read_object
from device_runtime.errors import FlintError

SCHEMA = "flint-bench/1"

SPEC_FILE = "spec.json"
RESULT_FILE = "result.json"
MODEL_FILE = "model.tflite"
MANIFEST_FILE = "manifest.json"
RECORDS_FILE = "records.bin"
PARAMETERS_FILE = "parameters.bin"
UPDATE_FILE = "update.bin"

Task = Literal["train", "infer"]
TASKS: tuple[Task, ...] = get_args(Task)

MAX_SPEC_BYTES = 64 * 1024
MAX_RECORDS = 1_000_000
MAX_REPEATS = 100
SHA256_PATTERN = "[0-9a-f]{64}"
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}"


class InvalidBenchSpec(FlintError):
    """A benchmark was asked for that no worker can run."""

    code = "FLN-2501"


@dataclass(frozen=True, slots=True)
class BenchSpec:
    """What a worker is to run and measure.

    Attributes:
        model: Name of the model.
        model_sha256: Of ``model.tflite``, hexadecimal.
        manifest_sha256: Of ``manifest.json``, hexadecimal.
        task: ``train``: one local epoch over the records; ``infer``: their logits, batch by batch.
        records: Of one pass.
        batch_size: Records a call; the artefact's.
        threads: Of the runtime.
        warmup_batches: Batches run before measuring starts, from the first record on.
        repeats: Measured runs, each from the same parameters, in a fresh process where the back
            end can give one.
        seed: Of records and parameters.
        learning_rate: Of a training worker's steps.
        min_pass_s: Passes over the records are repeated until this many seconds have been measured.
    """

    model: str
    model_sha256: str
    manifest_sha256: str
    task: Task = "train"
    records: int = 5000
    batch_size: int = 20
    threads: int = 1
    warmup_batches: int = 3
    repeats: int = 5
    seed: int = 0
    learning_rate: float = 0.01
    min_pass_s: float = 2.0

    def to_json(self) -> str:
        """Serialise canonically: sorted keys, no spaces, so equal specs have equal bytes."""
        return canonical({"schema": SCHEMA, **asdict(self)})

    @classmethod
    def from_json(cls, data: bytes, *, source: str = "the benchmark's spec") -> Self:
        """Parse `to_json` output.

        Raises:
            InvalidBenchSpec: Naming the first key that is wrong.
        """
        fields = read_object(data, max_bytes=MAX_SPEC_BYTES, error=InvalidBenchSpec, source=source)
        fields.choice("schema", (SCHEMA,))
        return cls.read(fields)

    def checked(self) -> Self:
        """The spec itself, if a worker would take it.

        Raises:
            InvalidBenchSpec: Naming the first value that is out of bounds.
        """
        return self.from_json(self.to_json().encode())

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """Take the keys of a spec; its errors are those of ``fields``."""
        spec = cls(
            model=fields.text("model", pattern=NAME_PATTERN),
            model_sha256=fields.text("model_sha256", pattern=SHA256_PATTERN),
            manifest_sha256=fields.text("manifest_sha256", pattern=SHA256_PATTERN),
            task=cast(Task, fields.choice("task", TASKS)),
            records=fields.integer("records", low=1, high=MAX_RECORDS),
            batch_size=fields.integer("batch_size", low=1, high=100_000),
            threads=fields.integer("threads", low=1, high=64),
            warmup_batches=fields.integer("warmup_batches", high=10_000),
            repeats=fields.integer("repeats", low=1, high=MAX_REPEATS),
            seed=fields.integer("seed", high=2**63 - 1),
            learning_rate=fields.number("learning_rate", high=100.0),
            min_pass_s=fields.number("min_pass_s", high=3600.0),
        )
        fields.finish()
        return spec


def canonical(value: dict[str, Any]) -> str:
    """JSON with sorted keys and no spaces; refuses numbers that are not finite."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
