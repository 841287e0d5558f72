"""Benchmarks are scripts beside each other, and no package."""

import importlib
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="session")
def benchmark():
    """Imports a benchmark, or what drivers of peers share, by its name."""
    folders = [str(FOLDER), str(FOLDER / "peers")]
    sys.path[:0] = folders
    try:
        yield importlib.import_module
    finally:
        for folder in folders:
            sys.path.remove(folder)
