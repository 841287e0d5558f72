"""What a device is sent to run a benchmark: model, manifest, records and parameters in a folder."""

from dataclasses import dataclass
from pathlib import Path

from android_bench.protocol import (
    MANIFEST_FILE,
    MODEL_FILE,
    PARAMETERS_FILE,
    RECORDS_FILE,
)


@dataclass(frozen=True, slots=True)
class BenchPackage:
    """The files of `android_bench.protocol` in one folder, but for spec and result."""

    folder: Path

    @property
    def model_path(self) -> Path:
        """``model.tflite``."""
        return self.folder / MODEL_FILE

    @property
    def manifest_path(self) -> Path:
        """``manifest.json``."""
        return self.folder / MANIFEST_FILE

    @property
    def records_path(self) -> Path:
        """``records.bin``."""
        return self.folder / RECORDS_FILE

    @property
    def parameters_path(self) -> Path:
        """``parameters.bin``."""
        return self.folder / PARAMETERS_FILE

    @property
    def paths(self) -> tuple[Path, ...]:
        """All four."""
        return self.model_path, self.manifest_path, self.records_path, self.parameters_path
