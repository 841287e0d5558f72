"""A set of definitions that build on each other, checked as a whole."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from feature_catalog.definitions.assets import Asset
from feature_catalog.definitions.errors import (
    DefinitionCycle,
    InvalidDefinition,
    InvalidTransform,
    MissingDefinition,
    did_you_mean,
    listed,
)
from feature_catalog.definitions.features import Feature
from feature_catalog.definitions.fields import Entity
from feature_catalog.definitions.plain import DEFINITIONS, Definition
from feature_catalog.definitions.services import FeatureService
from feature_catalog.definitions.views import FeatureView


class DefinitionKey(NamedTuple):
    """What tells a definition from all others."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class Dependency(NamedTuple):
    """What one definition needs of another.

    Attributes:
        key: What is needed.
        at: Key in the definition that names it, e.g. ``features.ctr``.
    """

    key: DefinitionKey
    at: str


@dataclass(frozen=True)
class DefinitionSet:
    """Definitions by key.

    Attributes:
        places: File each was read from; those of the registry have none.
    """

    definitions: Mapping[DefinitionKey, Definition]
    places: Mapping[DefinitionKey, str] = field(default_factory=dict)

    def entity(self, name: str) -> Entity | None:
        """The entity of that name."""
        found = self.definitions.get(DefinitionKey(Entity.kind, name))
        return found if isinstance(found, Entity) else None

    def asset(self, name: str) -> Asset | None:
        """The asset of that name."""
        found = self.definitions.get(DefinitionKey(Asset.kind, name))
        return found if isinstance(found, Asset) else None

    def view(self, name: str) -> FeatureView | None:
        """The feature view of that name."""
        found = self.definitions.get(DefinitionKey(FeatureView.kind, name))
        return found if isinstance(found, FeatureView) else None

    def service(self, name: str) -> FeatureService | None:
        """The feature service of that name."""
        found = self.definitions.get(DefinitionKey(FeatureService.kind, name))
        return found if isinstance(found, FeatureService) else None

    def names(self, kind: str) -> list[str]:
        """Names of a kind, ascending."""
        return sorted(key.name for key in self.definitions if key.kind == kind)

    def dependents(self, key: DefinitionKey) -> list[DefinitionKey]:
        """Who names a definition, ascending."""
        return list(self._dependents.get(key, ()))

    @cached_property
    def _dependents(self) -> Mapping[DefinitionKey, list[DefinitionKey]]:
        found: dict[DefinitionKey, list[DefinitionKey]] = {}
        for other in sorted(self.definitions):
            for key in {needed.key for needed in dependencies(self.definitions[other])}:
                found.setdefault(key, []).append(other)
        return found

    def source(self, key: DefinitionKey) -> str:
        """How messages call where a definition stands."""
        return self.places.get(key, "the catalog")


def key_of(definition: Definition) -> DefinitionKey:
    """A definition's key."""
    return DefinitionKey(definition.kind, definition.name)


def dependencies(definition: Definition) -> Iterator[Dependency]:
    """Every definition that one names."""
    if isinstance(definition, Asset) and definition.fallback is not None:
        yield Dependency(DefinitionKey(Asset.kind, definition.fallback), "fallback")
    if isinstance(definition, FeatureView):
        for name in definition.entities:
            yield Dependency(DefinitionKey(Entity.kind, name), "entities")
    if isinstance(definition, FeatureService):
        for name in definition.includes:
            yield Dependency(DefinitionKey(FeatureService.kind, name), "includes")
        for feature in definition.features:
            at = f"features.{feature.name}"
            yield Dependency(DefinitionKey(FeatureView.kind, feature.view), at)
            for index, step in enumerate(feature.transforms):
                if step.asset is not None:
                    needed = DefinitionKey(Asset.kind, step.asset)
                    yield Dependency(needed, f"{at}.transforms[{index}].parameters.asset")


def check_set(given: DefinitionSet) -> None:
    """Check that definitions fit each other.

    Raises:
        MissingDefinition: If one names another that there is not.
        DefinitionCycle: If a chain of fallbacks or includes comes back to itself.
        DefinitionError: If a feature's values do not fit its transforms.
    """
    from feature_catalog.definitions.served import served_features

    for key in sorted(given.definitions):
        for needed in dependencies(given.definitions[key]):
            if needed.key not in given.definitions:
                _refuse_missing(given, key, needed)
    _refuse_cycles(given, Asset.kind)
    _refuse_cycles(given, FeatureService.kind)
    for key in sorted(given.definitions):
        definition = given.definitions[key]
        if isinstance(definition, Asset):
            _check_fallback(given, key, definition)
        elif isinstance(definition, FeatureView):
            _check_keys(given, key, definition)
        elif isinstance(definition, FeatureService):
            served_features(given, definition)


def key_path(key: DefinitionKey, at: str = "") -> str:
    """Path of a key in a file, e.g. ``feature_views.clicks.ttl``."""
    return f"{plural(key.kind)}.{key.name}" + (f".{at}" if at else "")


def plural(kind: str) -> str:
    """The key of files under which definitions of a kind stand.

    >>> plural("entity"), plural("feature_view")
    ('entities', 'feature_views')
    """
    return f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"


KINDS_BY_PLURAL: Mapping[str, str] = {plural(kind): kind for kind in DEFINITIONS}


def missing_field(
    given: DefinitionSet, key: DefinitionKey, feature: Feature, view: FeatureView
) -> MissingDefinition:
    """The refusal of a feature whose view has no such field."""
    known = [field.name for field in view.schema]
    return MissingDefinition(
        f"is {feature.ref}, and the view {view.name} has no field {feature.field}"
        f"{did_you_mean(feature.field, known)}; it has {listed(known)}",
        key=key_path(key, f"features.{feature.name}"),
        source=given.source(key),
    )


def _refuse_missing(given: DefinitionSet, key: DefinitionKey, needed: Dependency) -> None:
    kind, name = needed.key
    known = given.names(kind)
    there = f"; there are {listed(known)}" if known else "; there are none yet"
    raise MissingDefinition(
        f"names the {kind} {name}, which there is not{did_you_mean(name, known)}{there}; define "
        f"it under {plural(kind)}, or correct the name",
        key=key_path(key, needed.at),
        source=given.source(key),
    )


def _refuse_cycles(given: DefinitionSet, kind: str) -> None:
    """Refuse definitions of a kind that lead back to themselves (depth-first, no recursion)."""
    links = {
        key.name: [need.key.name for need in dependencies(definition) if need.key.kind == kind]
        for key, definition in given.definitions.items()
        if key.kind == kind
    }
    finished: set[str] = set()
    for start in sorted(links):
        path: list[str] = []
        waiting = [iter([start])]
        while waiting:
            name = next(waiting[-1], None)
            if name is None:
                waiting.pop()
                if path:
                    finished.add(path.pop())
            elif name in path:
                circle = " -> ".join([*path[path.index(name) :], name])
                at = "fallback" if kind == Asset.kind else "includes"
                raise DefinitionCycle(
                    f"leads back to itself: {circle}; take one of these links out",
                    key=key_path(DefinitionKey(kind, name), at),
                    source=given.source(DefinitionKey(kind, name)),
                )
            elif name not in finished:
                path.append(name)
                waiting.append(iter(links[name]))


def _check_fallback(given: DefinitionSet, key: DefinitionKey, asset: Asset) -> None:
    other = given.asset(asset.fallback) if asset.fallback is not None else None
    if other is not None and (other.type, other.dimension) != (asset.type, asset.dimension):
        raise InvalidDefinition(
            f"= {other.name} is {_what(other)}, and {asset.name} is {_what(asset)}: one cannot "
            "stand for the other; name one of the same form, or none",
            key=key_path(key, "fallback"),
            source=given.source(key),
        )


def _what(asset: Asset) -> str:
    rows = f" of {asset.dimension} numbers a row" if asset.dimension is not None else ""
    return f"{'an' if asset.type == 'embedding' else 'a'} {asset.type}{rows}"


def _check_keys(given: DefinitionSet, key: DefinitionKey, view: FeatureView) -> None:
    columns: dict[str, str] = {}
    for name in view.entities:
        entity = given.entity(name)
        for column in entity.join_keys if entity is not None else ():
            if column in columns:
                raise InvalidDefinition(
                    f"has {columns[column]} and {name}, both joined by {column}; give one of them "
                    "another join key",
                    key=key_path(key, "entities"),
                    source=given.source(key),
                )
            columns[column] = name
            if not view.is_on_device and view.field(column) is not None:
                raise InvalidDefinition(
                    f"has {column}, which is a join key of the entity {name} and no feature; "
                    "remove it",
                    key=key_path(key, "schema"),
                    source=given.source(key),
                )


def misplaced_transform(
    given: DefinitionSet, key: DefinitionKey, at: str, error: InvalidTransform
) -> InvalidTransform:
    """A transform's refusal with its place."""
    return error.within(key_path(key, at), given.source(key))
