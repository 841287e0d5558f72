"""Inputs of environments named on a command line: files, or names of the catalog."""

import contextlib
import tempfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from flint.catalog_session import CatalogSession, open_catalog

if TYPE_CHECKING:
    from feature_catalog.environment_inputs import EnvironmentInputRow, InputKind


class NamedInputs:
    """Finds inputs; the catalog is opened with the first name, and at most once.

    Args:
        home: Data directory whose catalog is meant.
        until_closed: What closes the catalog.
    """

    def __init__(self, home: Path, until_closed: contextlib.ExitStack) -> None:
        self._home = home
        self._until_closed = until_closed

    @cached_property
    def catalog(self) -> CatalogSession:
        """The catalog, opened."""
        return self._until_closed.enter_context(open_catalog(self._home))

    def find(self, reference: str, kind: "InputKind") -> Path:
        """The file of a path (relative to where we are) or of ``name[@version]``.

        A path is not looked at: its reader says what is wrong with it.

        Raises:
            UnresolvedInput: If there is no such name.
            WrongInputKind: If the name is that of another kind of input.
        """
        from simulation.catalog_inputs import CatalogInputs
        from simulation.environment import is_file_reference

        if is_file_reference(reference):
            return Path(reference).expanduser()
        inputs = CatalogInputs(Path.cwd(), self.catalog.environment_inputs)
        return inputs.resolve(kind, reference).path

    def row(self, reference: str, kind: "InputKind") -> "EnvironmentInputRow":
        """What the catalog knows of a name.

        Raises:
            UnresolvedInput: If there is no such name.
            WrongInputKind: If it is that of another kind of input.
        """
        self.find(reference, kind)
        return self.catalog.environment_inputs.get(reference)

    def blob(self, digest: bytes, name: str) -> Path:
        """A file of the catalog's blob store under a name with its ending, until it is closed.

        Raises:
            MissingBlob: If it is not there.
            CorruptBlob: If it is damaged.
        """
        folder = self._until_closed.enter_context(tempfile.TemporaryDirectory(prefix="flint-"))
        path = Path(folder) / name
        stored = self.catalog.blobs.local_path(digest)
        if stored is not None:
            path.symlink_to(stored)
        else:
            path.write_bytes(self.catalog.blobs.get(digest))
        return path


@contextlib.contextmanager
def named_inputs(home: Path) -> Iterator[NamedInputs]:
    """Inputs of a data directory's catalog, for the time of one command."""
    with contextlib.ExitStack() as until_closed:
        yield NamedInputs(home, until_closed)
