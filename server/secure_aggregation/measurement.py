"""What an enclave process consists of, as one SHA-256 that another machine can come to as well.

Measured are the lock file, the distributions an enclave process needs (every file, held against
its distribution's record), the Python files of our own packages, the interpreter's version, and the
configuration. Left out is what differs between two machines with the same install: compiled byte
code, start scripts (their first line names a folder) and what installers note for themselves.

Databases, web servers and the like, which the rest of the server needs, never come into an enclave
process; `unmeasured_modules` tells whether that is true of the process that asks.

This is what a process says of itself: a *software root* signs it for development. Hardware measures
the image from outside instead; this value then says what to expect of an image's contents.
"""

import base64
import hashlib
import json
import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path, PurePosixPath

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from device_runtime.errors import FlintError

OWN_DISTRIBUTION = "flint-on-flower"
PACKAGES = ("device_runtime", "feature_catalog", "modeling", "server")
"""Ours that an enclave process can import: imports go only leftwards from `server`."""
ENCLAVE_REQUIREMENTS = (f"{OWN_DISTRIBUTION}[device]", "packaging", "pydantic")
"""What an enclave process is made of: arrays, messages, calls and keys; what this module needs; and
pydantic, in which the blocks of a job file are written that aggregation reads."""
LOADED_WHERE_INSTALLED = ("grpcio-health-checking", "grpcio-reflection", "grpcio-tools")
"""grpc imports these by itself where it finds them, so there they are part of the process."""

_NOTES_OF_INSTALLERS = frozenset(
    {
        *("INSTALLER", "RECORD", "RECORD.jws", "RECORD.p7s", "REQUESTED"),
        *("direct_url.json", "uv_build.json", "uv_cache.json"),
    }
)


class UnmeasurableInstall(FlintError):
    """The install is not what its records say, so its measurement would vouch for nothing."""

    code = "FLN-1815"


@dataclass(frozen=True, slots=True)
class Measurement:
    """The identity of an install.

    Attributes:
        value: SHA-256 of the breakdown in canonical JSON.
        breakdown: What was measured and how it measures, so that two machines whose values differ
            can see in what. Configuration stands in it as it is: it must hold no secrets.
    """

    value: bytes
    breakdown: dict[str, str]


@dataclass(frozen=True, slots=True)
class Install:
    """Where an install lies. By default, the one this process runs from.

    Attributes:
        sources: Folder our packages are in.
        search_path: Folders that distributions are searched in, as Python does.
        requirements: What the process needs; that and what it needs in turn is measured.
        where_installed: Measured likewise, where it is there.
        lock_file: Pins the versions; measured where it is there, said not to be where it is not.
    """

    sources: Path = field(default_factory=lambda: Path(__file__).resolve().parents[2])
    search_path: tuple[str, ...] = field(default_factory=lambda: tuple(sys.path))
    requirements: tuple[str, ...] = ENCLAVE_REQUIREMENTS
    where_installed: tuple[str, ...] = LOADED_WHERE_INSTALLED
    lock_file: Path | None = None

    @property
    def constraints(self) -> Path:
        """The lock file's place."""
        return self.lock_file or self.sources / "constraints.txt"


def measure(configuration: Mapping[str, str], install: Install | None = None) -> Measurement:
    """Measure an install and its configuration. Reads all its files: 150 MB, half a second.

    Raises:
        UnmeasurableInstall: If a distribution is missing, has no record, or a file of one is not
            as its record says.
    """
    install = install or Install()
    breakdown = {
        "interpreter": f"{platform.python_implementation()} {platform.python_version()}",
        "lock_file": _lock_file_digest(install.constraints),
    }
    for package in PACKAGES:
        breakdown[f"source:{package}"] = _source_digest(install.sources / package)
    for name, distribution in sorted(_needed(install).items()):
        digest = _distribution_digest(name, distribution)
        breakdown[f"distribution:{name}"] = f"{distribution.version} {digest}"
    for key, value in configuration.items():
        breakdown[f"configuration:{key}"] = value
    return Measurement(hashlib.sha256(_canonical(breakdown)).digest(), breakdown)


def unmeasured_modules(install: Install | None = None) -> tuple[str, ...]:
    """Loaded modules and packages that `measure` does not cover: whatever came in besides.

    Of files outside of the standard library. Expected are start-up hooks of an environment, such
    as setuptools' ``_distutils_hack``; an image made for enclaves has none.
    """
    install = install or Install()
    covered = {install.sources / package for package in PACKAGES}
    measured = {
        str(file.locate())
        for distribution in _needed(install).values()
        for file in distribution.files or ()
    }
    library = Path(json.__file__).parents[1]
    outside = set()
    for name, module in list(sys.modules.items()):
        origin = getattr(module, "__file__", None)
        if origin is None or origin in measured or name.startswith("__editable__"):
            continue
        path = Path(origin)
        in_library = library in path.parents and "site-packages" not in path.parts
        if not in_library and not covered & set(path.parents):
            outside.add(name)
    return tuple(sorted(n for n in outside if n.rpartition(".")[0] not in outside))


def _canonical(breakdown: Mapping[str, str]) -> bytes:
    return json.dumps(breakdown, sort_keys=True, separators=(",", ":")).encode()


def _lock_file_digest(path: Path) -> str:
    if not path.is_file():
        return "none: this install has no lock file"
    return _file_digest(path).hex()


def _source_digest(package: Path) -> str:
    if not package.is_dir():
        raise UnmeasurableInstall(f"{package} is not there, which an enclave process consists of")
    files = (path for path in package.rglob("*.py") if "__pycache__" not in path.parts)
    return _listing_digest(
        (path.relative_to(package).as_posix(), _file_digest(path)) for path in files
    )


def _needed(install: Install) -> dict[str, metadata.Distribution]:
    """Distributions by name: ``install.requirements``, and what they need. Not our own."""
    installed: dict[str, metadata.Distribution] = {}
    for distribution in metadata.distributions(path=list(install.search_path)):
        # Of two of one name Python uses the first. Remains of an uninstall have no name.
        if "Name" in distribution.metadata:
            installed.setdefault(canonicalize_name(distribution.name), distribution)
    needed: dict[str, metadata.Distribution] = {}
    done: set[tuple[str, str]] = set()
    present = [name for name in install.where_installed if canonicalize_name(name) in installed]
    waiting = [(line, "an enclave process") for line in (*install.requirements, *present)]
    while waiting:
        line, wanted_by = waiting.pop()
        requirement = _requirement(line, wanted_by)
        name = canonicalize_name(requirement.name)
        if name not in installed:
            raise UnmeasurableInstall(f"{name} is not installed, which {wanted_by} needs")
        distribution = installed[name]
        if name != canonicalize_name(OWN_DISTRIBUTION):
            needed[name] = distribution
        for extra in ("", *requirement.extras):
            if (name, extra) not in done:
                done.add((name, extra))
                waiting += [(line, name) for line in _required_by(distribution, extra)]
    return needed


def _required_by(distribution: metadata.Distribution, extra: str) -> Iterator[str]:
    for line in distribution.requires or ():
        marker = _requirement(line, distribution.name).marker
        if marker is None or marker.evaluate({"extra": extra}):
            yield line


def _requirement(line: str, wanted_by: str) -> Requirement:
    try:
        return Requirement(line)
    except InvalidRequirement as error:
        raise UnmeasurableInstall(f"{wanted_by} requires {line!r:.80}: {error}") from error


def _distribution_digest(name: str, distribution: metadata.Distribution) -> str:
    record = distribution.files
    if record is None:
        raise UnmeasurableInstall(f"{name} has no record of its files; install it with pip")
    return _listing_digest(
        (path.as_posix(), _verified_digest(name, path)) for path in record if _is_measured(path)
    )


def _is_measured(path: metadata.PackagePath) -> bool:
    """Whether two machines with the same install have this file alike, and Python reads it."""
    pure = PurePosixPath(path.as_posix())
    return not (
        pure.is_absolute()
        or pure.parts[0] == ".."  # scripts and data outside of what is imported
        or pure.suffix == ".pyc"
        or (pure.parent.suffix == ".dist-info" and pure.name in _NOTES_OF_INSTALLERS)
    )


def _verified_digest(name: str, path: metadata.PackagePath) -> bytes:
    located = Path(str(path.locate()))
    try:
        digest = _file_digest(located)
    except OSError as error:
        raise UnmeasurableInstall(
            f"{located}, a file of {name}, cannot be read: {error.strerror or error}"
        ) from error
    if path.hash is None or path.hash.mode != "sha256" or path.hash.value != _encoded(digest):
        raise UnmeasurableInstall(f"{located} is not the file that {name} was installed with")
    return digest


def _encoded(digest: bytes) -> str:
    """As records have it: URL-safe base64 without padding."""
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _file_digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _listing_digest(files: Iterator[tuple[str, bytes]]) -> str:
    listing = hashlib.sha256()
    for path, digest in sorted(files):
        listing.update(path.encode() + b"\0" + digest)
    return listing.hexdigest()
