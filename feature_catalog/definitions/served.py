"""What a feature service comes to: every feature with the type and shape a model gets."""

from dataclasses import dataclass

from device_runtime.columns import Kind
from feature_catalog.definitions.assets import Asset, AssetType
from feature_catalog.definitions.catalog_set import (
    DefinitionKey,
    DefinitionSet,
    key_of,
    key_path,
    misplaced_transform,
    missing_field,
)
from feature_catalog.definitions.errors import DuplicateDefinition, InvalidTransform
from feature_catalog.definitions.features import Feature
from feature_catalog.definitions.services import FeatureService
from feature_catalog.definitions.transforms import RunAt, Transform
from feature_catalog.definitions.views import FeatureView

_ASSET_TYPE = {"vocab": AssetType.VOCABULARY, "embed_lookup": AssetType.EMBEDDING}


@dataclass(frozen=True, slots=True)
class ServedFeature:
    """A feature as the model gets it.

    Attributes:
        service: Which of the included services has it, or the service itself.
        gives: Kind of its values after all transforms.
        shape: Of one value after all transforms.
    """

    feature: Feature
    service: str
    view: FeatureView
    gives: Kind
    shape: tuple[int, ...]


def served_features(given: DefinitionSet, service: FeatureService) -> tuple[ServedFeature, ...]:
    """A service's features and those of all services it includes, by name.

    Every name in ``given`` must be that of a definition, and includes must not go in circles.

    Raises:
        MissingDefinition: If a view has no such field.
        DuplicateDefinition: If two different features have one name.
        InvalidTransform: If a feature's values do not fit its transforms.
    """
    by_name: dict[str, ServedFeature] = {}
    seen: set[str] = set()
    waiting = [service]
    while waiting:
        part = waiting.pop()
        if part.name in seen:
            continue
        seen.add(part.name)
        for feature in part.features:
            served = _served(given, part, feature)
            other = by_name.setdefault(feature.name, served)
            if other.feature != feature:
                raise DuplicateDefinition(
                    f"= {other.feature.ref} of {other.service} and {feature.ref} of {part.name} "
                    f"are both named {feature.name} in {service.name}; give one of them another "
                    "name",
                    key=key_path(key_of(service), f"features.{feature.name}"),
                    source=given.source(key_of(service)),
                )
        included = (given.service(name) for name in reversed(part.includes))
        waiting.extend(found for found in included if found is not None)
    return tuple(by_name[name] for name in sorted(by_name))


def _served(given: DefinitionSet, service: FeatureService, feature: Feature) -> ServedFeature:
    key = key_of(service)
    view = given.view(feature.view)
    field = view.field(feature.field) if view is not None else None
    if view is None or field is None:
        if view is None:
            raise LookupError(f"{feature.ref} was not looked for before")
        raise missing_field(given, key, feature, view)
    kind, shape = field.dtype.column_kind, field.shape
    for index, step in enumerate(feature.transforms):
        try:
            asset = _asset(given, step)
            _check_place(step, view)
            kind = step.gives(kind)
        except InvalidTransform as error:
            at = f"features.{feature.name}.transforms[{index}]"
            raise misplaced_transform(given, key, at, error) from error
        if asset is not None and asset.dimension is not None:
            shape = (*shape, asset.dimension)
    return ServedFeature(feature, service.name, view, kind, shape)


def _asset(given: DefinitionSet, step: Transform) -> Asset | None:
    if step.asset is None:
        return None
    asset = given.asset(step.asset)
    if asset is None:
        raise LookupError(f"{DefinitionKey(Asset.kind, step.asset)} was not looked for before")
    wanted = _ASSET_TYPE[step.op]
    if asset.type is not wanted:
        raise InvalidTransform(
            f"= {asset.name} is of type {asset.type}, and {step.op} needs one of type {wanted}; "
            "name another",
            key="parameters.asset",
        )
    row = step.parameters.get("row")
    if isinstance(row, int) and asset.entries is not None and row >= asset.entries:
        raise InvalidTransform(
            f"= {row} is past the last of {asset.entries} rows of {asset.name}; lower it",
            key="parameters.row",
        )
    return asset


def _check_place(step: Transform, view: FeatureView) -> None:
    if view.is_on_device and step.run_at is RunAt.CLOUD:
        raise InvalidTransform(
            f"= cloud, and the events of {view.name} never leave the device; use device_ingest "
            "(when an event is stored) or device_read",
            key="run_at",
        )
