"""An input of an environment named on a command line: a file, or a name of the catalog."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from feature_catalog.environment_inputs import InputKind


@contextlib.contextmanager
def find_input(reference: str, kind: "InputKind", home: Path | None) -> Iterator[Path]:
    """The file of a path (relative to where we are) or of ``name[@version]``, while it is needed.

    The catalog is opened only for a name.

    Raises:
        UnresolvedInput: If there is no such name.
        WrongInputKind: If the name is that of another kind of input.
    """
    from flint.cli.options import resolve_home
    from simulation.environment import is_file_reference

    if is_file_reference(reference):
        yield Path(reference).expanduser()  # its reader says what is wrong with it
        return
    from flint.catalog_session import open_catalog
    from simulation.catalog_inputs import CatalogInputs

    with open_catalog(resolve_home(home)) as catalog:
        yield CatalogInputs(Path.cwd(), catalog.environment_inputs).resolve(kind, reference).path
