"""One packed benchmark of the smallest model for all tests, a tenth of a second long."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from android_bench.package import BenchPackage
from android_bench.protocol import BenchSpec


@dataclass(frozen=True)
class Packed:
    spec: BenchSpec
    package: BenchPackage


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    from android_bench.packing import load_model, pack

    folder: Path = tmp_path_factory.mktemp("package")
    spec, package = pack(load_model("tiny_mlp"), folder, records=200, repeats=2, min_pass_s=0.05)
    return Packed(spec, package)
