"""From what an environment names to files with digests."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from device_runtime.errors import FlintError
from simulation.environment import is_file_reference


class UnresolvedInput(FlintError):
    """An input of the environment that is not where it is said to be."""

    code = "FLN-1714"


@dataclass(frozen=True, slots=True)
class ResolvedInput:
    """One input, found.

    Attributes:
        reference: What the environment says.
        path: The local file.
        sha256: Digest of the file's bytes, hexadecimal, for the record of the run.
        version: In the catalog; None for a file named by its path.
    """

    reference: str
    path: Path
    sha256: str
    version: int | None = None


class InputResolver(Protocol):
    """Finds inputs. `FileInputs` knows paths; the catalog's resolver also ``name@version``."""

    def resolve(self, key: str, reference: str) -> ResolvedInput:
        """Find one input.

        Args:
            key: Of the environment, for messages, e.g. ``"bandwidth"``.
            reference: A path, ``name`` or ``name@version``.

        Raises:
            UnresolvedInput: If it is not there.
        """
        ...


@dataclass(frozen=True, slots=True)
class FileInputs:
    """Inputs named by path, relative to the folder of the environment file."""

    folder: Path

    def resolve(self, key: str, reference: str) -> ResolvedInput:
        """Find a file; see `InputResolver.resolve`."""
        if not is_file_reference(reference):
            raise UnresolvedInput(
                f"{key}: {reference} is a name of the catalog, and no catalog is open; give the "
                "path of a file, or start with a catalog"
            )
        path = (self.folder / Path(reference).expanduser()).resolve()
        if not path.is_file():
            raise UnresolvedInput(
                f"{key}: there is no file {reference} in {self.folder.resolve()}; paths are "
                "relative to the environment file"
            )
        with path.open("rb") as file:
            return ResolvedInput(reference, path, hashlib.file_digest(file, "sha256").hexdigest())
