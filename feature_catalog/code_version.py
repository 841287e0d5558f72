"""Which code is at work: told with every run, job and version, so that it can be found again."""

import functools
import importlib.metadata
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path


@functools.cache
def code_version() -> str:
    """FLINT's version, and the commit where it runs from a clone.

    Asked once a process: what is in the folder later is not what runs.
    """
    version = importlib.metadata.version("flint-on-flower")
    folder = Path(__file__).parents[1]
    if not (folder / ".git").exists():
        return version
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return version
    return f"{version}+{found.stdout.strip()}"


def package_versions(names: Iterable[str]) -> dict[str, str]:
    """Python's version and those of installed packages; one that is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
