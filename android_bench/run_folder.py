"""The folder of a benchmark run: what was sent, and each device's raw answer, so it can go on.

spec.json
package/                        what devices were sent
results/GROUP/DEVICE.json       answers, each written whole or not at all
state/GROUP/                    what a group must not do twice
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from android_bench.package import BenchPackage
from android_bench.packing import BenchModel, pack
from android_bench.protocol import SPEC_FILE, BenchResult, BenchSpec, Task
from device_runtime.errors import FlintError

_FINISHED = "finished"
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,80}")


class BenchFolderConflict(FlintError):
    """A folder holds another benchmark, or none where one is to go on."""

    code = "FLN-2508"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """An open run."""

    path: Path
    spec: BenchSpec

    @property
    def package(self) -> BenchPackage:
        """What devices are sent."""
        return BenchPackage(self.path / "package")

    def state(self, group: str) -> Path:
        """A folder of a group's own."""
        folder = self.path / "state" / _file_name(group)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def keep(self, group: str, device: str, result: BenchResult) -> None:
        """Write an answer that has been checked."""
        folder = self._results(group)
        folder.mkdir(parents=True, exist_ok=True)
        content = {"device": device, "result": json.loads(result.to_json())}
        _write_whole(folder / f"{_file_name(device)}.json", json.dumps(content))

    def finish(self, group: str) -> None:
        """Note that a group has answered for all its devices, all of them well."""
        _write_whole(self.state(group) / _FINISHED, "")

    def kept(self, group: str) -> Mapping[str, BenchResult] | None:
        """Answers of a group that has finished, by device; None if it must run (again).

        A file that cannot be read is as good as none: the group runs again.
        """
        if not (self.path / "state" / _file_name(group) / _FINISHED).exists():
            return None
        found: dict[str, BenchResult] = {}
        for path in sorted(self._results(group).glob("*.json")):
            try:
                content = json.loads(path.read_bytes())
                result = BenchResult.from_json(json.dumps(content["result"]).encode())
                result.check_answers(self.spec)
                found[str(content["device"])] = result
            except (FlintError, ValueError, KeyError, TypeError, RecursionError):
                return None
        return found or None

    def _results(self, group: str) -> Path:
        return self.path / "results" / _file_name(group)


def open_run_folder(
    path: Path,
    model: BenchModel,
    *,
    resume: bool,
    task: Task = "train",
    records: int = 5000,
    batch_size: int = 20,
    repeats: int = 5,
    seed: int = 0,
    min_pass_s: float = 2.0,
) -> RunFolder:
    """Start a run in a new or empty folder, or go on with the one there.

    Args:
        resume: Whether there may be one already; it must be of the same benchmark.

    Raises:
        BenchFolderConflict: If the folder holds something and is not to be resumed, or another
            benchmark, or cannot be written.
        InvalidBenchSpec: If no worker could run it.
    """
    there = path / SPEC_FILE
    try:
        if path.exists() and (not path.is_dir() or any(path.iterdir())) and not resume:
            raise BenchFolderConflict(
                f"{path} holds something already; give --resume to go on with it, or another "
                "--output"
            )
        if resume and path.is_dir() and any(path.iterdir()) and not there.is_file():
            raise BenchFolderConflict(
                f"{path} holds no benchmark ({SPEC_FILE} is missing); give another --output"
            )
        old = None
        if there.is_file():
            old = BenchSpec.from_json(there.read_bytes(), source=str(there))
            asked = BenchSpec(
                model.spec.name, old.model_sha256, old.manifest_sha256, task, records, batch_size,
                repeats=repeats, seed=seed, min_pass_s=min_pass_s,
            )  # fmt: skip
            _check_same(path, old, asked)  # before the conversion
        spec, _ = pack(
            model,
            path / "package",
            task=task,
            records=records,
            batch_size=batch_size,
            repeats=repeats,
            seed=seed,
            min_pass_s=min_pass_s,
        )
        if old is not None:
            _check_same(path, old, spec)
        _write_whole(there, spec.to_json())
    except OSError as error:
        raise BenchFolderConflict(
            f"{path} cannot be used ({error.strerror}); give another --output"
        ) from error
    return RunFolder(path, spec)


def _check_same(path: Path, old: BenchSpec, new: BenchSpec) -> None:
    for name in BenchSpec.__slots__:
        before, now = getattr(old, name), getattr(new, name)
        if before != now:
            raise BenchFolderConflict(
                f"{path} holds a benchmark with {name} {before}, and {now} is asked for; ask for "
                "the same, or give another --output"
            )


def _file_name(name: str) -> str:
    """A name as a file's: itself where it can be, else cut and told apart by its digest."""
    if _SAFE.fullmatch(name):
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:12]
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', name).strip('.-')[:60]}-{digest}"


def _write_whole(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text)
    draft.replace(path)
