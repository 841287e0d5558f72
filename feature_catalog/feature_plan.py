"""What an apply would do to the feature definitions, found without doing it."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from device_runtime.errors import FlintError
from feature_catalog.definitions.catalog_set import (
    DefinitionKey,
    DefinitionSet,
    check_set,
    dependencies,
)
from feature_catalog.definitions.contracts import Contract, freeze
from feature_catalog.definitions.errors import listed
from feature_catalog.definitions.plain import Definition, canonical_json, digest, to_plain


class DefinitionInUse(FlintError):
    """A deletion of something that other definitions need."""

    code = "FLN-2811"


class UnknownDefinition(FlintError):
    """A name of no definition, or of several."""

    code = "FLN-2812"


class ConflictingDeletion(FlintError):
    """A definition is to be deleted, and is in the files that are applied."""

    code = "FLN-2813"


class Action(StrEnum):
    """What becomes of a definition."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class ValueChange:
    """One value within a definition.

    Attributes:
        path: Where, e.g. ``schema.ctr.dtype``.
        old: Before; None: there was none.
        new: After; None: there will be none.
    """

    path: str
    old: Any
    new: Any


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of one definition.

    Attributes:
        version: Number of the version that this makes.
        values: What differs; of a new or deleted definition nothing.
    """

    action: Action
    key: DefinitionKey
    version: int
    values: tuple[ValueChange, ...] = ()


@dataclass(frozen=True, slots=True)
class ContractChange:
    """A feature service that comes to something else.

    Attributes:
        old_sha256: Digest of its contract before; None: it is new.
        because: Changed definitions it reaches.
    """

    contract: Contract
    old_sha256: str | None
    because: tuple[DefinitionKey, ...]


@dataclass(frozen=True)
class RegistryState:
    """All that is defined at one moment.

    Attributes:
        versions: Newest version of each name, also of deleted ones.
        digests: SHA-256 of the newest version, hexadecimal; None: deleted.
        contracts: Digest of each service's contract, hexadecimal.
    """

    definitions: DefinitionSet
    versions: Mapping[DefinitionKey, int]
    digests: Mapping[DefinitionKey, str | None]
    contracts: Mapping[str, str]

    @property
    def sha256(self) -> str:
        """Digest of the whole: the newest version of every name, deletions too."""
        lines = [[*key, self.versions[key], self.digests[key]] for key in sorted(self.versions)]
        return hashlib.sha256(canonical_json(lines).encode()).hexdigest()


@dataclass(frozen=True)
class Plan:
    """What an apply would do.

    Attributes:
        registry_sha256: Digest of the state it was made against.
        wanted: Everything that would be defined afterwards.
        unchanged: Definitions of the files that are in the catalog just so.
        left: Definitions of the catalog that are not in the files and stay.
    """

    registry_sha256: str
    wanted: DefinitionSet
    changes: tuple[Change, ...]
    contracts: tuple[ContractChange, ...]
    unchanged: tuple[DefinitionKey, ...]
    left: tuple[DefinitionKey, ...]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.changes and not self.contracts


def make_plan(
    state: RegistryState,
    given: DefinitionSet,
    *,
    prune: bool = False,
    delete: Sequence[DefinitionKey] = (),
) -> Plan:
    """Find out what it takes to get from a state to what files define.

    Args:
        given: The files' definitions; they may name definitions of the catalog.
        prune: Delete what is not in the files.
        delete: Delete these.

    Raises:
        UnknownDefinition: If something to be deleted is not there.
        ConflictingDeletion: If something to be deleted is in the files.
        DefinitionInUse: If something that stays needs something that is to be deleted.
        DefinitionError: If the definitions do not fit each other.
    """
    current = state.definitions.definitions
    gone = _deletions(current, given, prune=prune, delete=delete)
    kept = {key: definition for key, definition in current.items() if key not in gone}
    wanted = DefinitionSet({**kept, **given.definitions}, given.places)
    _refuse_needed(wanted, gone)
    check_set(wanted)
    changes = [
        *_additions(state, given),
        *(Change(Action.DELETE, key, state.versions[key] + 1) for key in sorted(gone)),
    ]
    changed = {change.key for change in changes}
    return Plan(
        registry_sha256=state.sha256,
        wanted=wanted,
        changes=tuple(changes),
        contracts=tuple(_contracts(state, wanted, changed)),
        unchanged=tuple(sorted(key for key in given.definitions if key not in changed)),
        left=tuple(sorted(key for key in kept if key not in given.definitions)),
    )


def differences(old: Definition, new: Definition) -> tuple[ValueChange, ...]:
    """What differs between two definitions, by path."""
    before, after = dict(_leaves(to_plain(old), "")), dict(_leaves(to_plain(new), ""))
    return tuple(
        ValueChange(path, before.get(path), after.get(path))
        for path in sorted({*before, *after})
        if before.get(path) != after.get(path)
    )


def reaches(given: DefinitionSet, start: DefinitionKey) -> set[DefinitionKey]:
    """A definition and all that it needs, directly or not."""
    found: set[DefinitionKey] = set()
    waiting = [start]
    while waiting:
        key = waiting.pop()
        if key not in found and key in given.definitions:
            found.add(key)
            waiting.extend(needed.key for needed in dependencies(given.definitions[key]))
    return found


def _deletions(
    current: Mapping[DefinitionKey, Definition],
    given: DefinitionSet,
    *,
    prune: bool,
    delete: Sequence[DefinitionKey],
) -> set[DefinitionKey]:
    for key in delete:
        if key in given.definitions:
            raise ConflictingDeletion(
                f"{key} is to be deleted and is defined in {given.source(key)}; take it out of the "
                "file, or do not delete it"
            )
        if key not in current:
            raise UnknownDefinition(
                f"there is no {key} to delete; `flint catalog list` shows what there is"
            )
    pruned = {key for key in current if key not in given.definitions} if prune else set()
    return {*pruned, *delete}


def _refuse_needed(wanted: DefinitionSet, gone: set[DefinitionKey]) -> None:
    for key in sorted(gone):
        needed_by = wanted.dependents(key)
        if needed_by:
            raise DefinitionInUse(
                f"{key} cannot be deleted: {listed([str(other) for other in needed_by])} "
                f"{'needs' if len(needed_by) == 1 else 'need'} it; delete or change "
                f"{'that' if len(needed_by) == 1 else 'those'} first, or in the same apply"
            )


def _additions(state: RegistryState, given: DefinitionSet) -> Iterator[Change]:
    current = state.definitions.definitions
    for key in sorted(given.definitions):
        new, version = given.definitions[key], state.versions.get(key, 0) + 1
        if key not in current:
            yield Change(Action.CREATE, key, version)
        elif digest(current[key]) != digest(new):
            yield Change(Action.UPDATE, key, version, differences(current[key], new))


def _contracts(
    state: RegistryState, wanted: DefinitionSet, changed: set[DefinitionKey]
) -> Iterator[ContractChange]:
    for name in wanted.names("feature_service"):
        service = wanted.service(name)
        if service is None:
            continue
        contract, old = freeze(wanted, service), state.contracts.get(name)
        if contract.sha256 != old:
            reached = reaches(wanted, DefinitionKey(service.kind, name))
            yield ContractChange(contract, old, tuple(sorted(changed & reached)))


def _leaves(value: object, path: str) -> Iterator[tuple[str, Any]]:
    """Single values by path; items of lists that have names go by them."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and value and all(isinstance(i, Mapping) for i in value):
        for index, item in enumerate(value):
            name = item.get("name")
            yield from _leaves(item, f"{path}.{name}" if name is not None else f"{path}[{index}]")
    else:
        yield path, value
