"""Inputs of an environment that are names of the catalog."""

from pathlib import Path

from feature_catalog.environment_inputs import KINDS, EnvironmentInputs, UnknownEnvironmentInput
from simulation.environment import is_file_reference
from simulation.inputs import FileInputs, ResolvedInput, UnresolvedInput


class WrongInputKind(UnresolvedInput):
    """A name of the catalog that stands for another kind of input."""

    code = "FLN-1118"


class CatalogInputs:
    """Finds paths as `FileInputs` does, and ``name@version`` in the catalog.

    Args:
        folder: What paths are relative to: the environment file's folder.
        inputs: The catalog; the files it lends live as long as it does.
    """

    def __init__(self, folder: Path, inputs: EnvironmentInputs) -> None:
        self._files = FileInputs(folder)
        self._inputs = inputs

    def resolve(self, key: str, reference: str) -> ResolvedInput:
        """Find one input; see `simulation.inputs.InputResolver.resolve`.

        Raises:
            UnresolvedInput: If there is no such file, or no such name.
            WrongInputKind: If the name is that of another kind of input.
            MissingBlob: If the catalog's blob store has lost it.
            CorruptBlob: If it is damaged there.
        """
        if is_file_reference(reference):
            return self._files.resolve(key, reference)
        try:
            row = self._inputs.get(reference)
        except UnknownEnvironmentInput as error:
            raise UnresolvedInput(f"{key}: {error.sentence}") from error
        if key in KINDS and row.kind != key:
            raise WrongInputKind(
                f"{key}: {row.reference} is {row.kind}; name {key} there (`flint trace list` shows "
                "which there are)"
            )
        return ResolvedInput(
            reference=reference,
            path=self._inputs.local_file(row),
            sha256=row.sha256.hex(),
            version=row.version,
        )
