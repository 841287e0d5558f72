"""What a read of features comes to: views to look into, and what becomes of each value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from device_runtime.columns import Column
from device_runtime.transform_assets import Assets
from device_runtime.transform_chain import TransformChain
from feature_catalog.definitions import Feature, FeatureService, Field, RunAt
from feature_catalog.definitions.catalog_set import DefinitionSet
from feature_catalog.definitions.errors import did_you_mean, listed
from feature_catalog.definitions.served import ServedFeature, served_features
from feature_catalog.definitions.transforms import STAGES
from feature_catalog.online.errors import NotServedOnline
from feature_catalog.online.online_view import OnlineView


@dataclass(frozen=True, slots=True)
class PlannedFeature:
    """One feature of a read.

    Attributes:
        view: Name of its view.
        is_on_device: Whether its values are made on devices: the caller gives them.
        chain: What they go through; None: nothing, so that they stay as they are.
    """

    name: str
    view: str
    field: Field
    is_on_device: bool
    chain: TransformChain | None


@dataclass(frozen=True)
class ServingPlan:
    """A read of features.

    Attributes:
        views: Cloud views to look into, by name.
        features: In the order of their names.
        assets: By name, what chains read.
        apply_id: Number of the apply of definitions it was made from.
    """

    views: tuple[OnlineView, ...]
    features: tuple[PlannedFeature, ...]
    assets: Assets
    apply_id: int

    def transform(self, feature: PlannedFeature, column: Column) -> Column:
        """Put a feature's values through its chain."""
        return column if feature.chain is None else feature.chain.apply(column, self.assets)


def requested_service(definitions: DefinitionSet, features: str | Sequence[str]) -> FeatureService:
    """The service of a name, or one made of ``view:field`` references.

    Raises:
        NotServedOnline: If there is no such service or view.
        DefinitionError: If references have no such form, or one name twice.
    """
    if not isinstance(features, str):
        asked = FeatureService("requested", features)
        for feature in asked.features:
            _require_view(definitions, feature)
        return asked
    service = definitions.service(features)
    if service is None:
        if definitions.view(features) is not None:
            raise NotServedOnline(
                f"{features} is a feature view; ask for its fields, as {features}:FIELD, or for a "
                "feature service"
            )
        names = definitions.names(FeatureService.kind)
        there = f"; there are {listed(names)}" if names else "; there are none yet"
        raise NotServedOnline(
            f"there is no feature service {features!r}{did_you_mean(features, names)}{there}"
        )
    return service


def served_through(
    definitions: DefinitionSet, service: FeatureService, through: RunAt | None
) -> tuple[ServedFeature, ...]:
    """A service's features, with their transforms up to and with a stage only.

    Args:
        through: None: no transform at all. `RunAt.CLOUD`: what a device is sent, so features of
            device views are left out.
    """
    return tuple(
        replace(each, feature=_up_to(each.feature, through))
        for each in served_features(definitions, service)
        if through is not RunAt.CLOUD or not each.view.is_on_device
    )


def planned_views(
    definitions: DefinitionSet, features: Sequence[PlannedFeature]
) -> tuple[OnlineView, ...]:
    """The cloud views of features."""
    names = sorted({feature.view for feature in features if not feature.is_on_device})
    return tuple(OnlineView.of(definitions, name) for name in names)


def planned(served: ServedFeature) -> PlannedFeature:
    """One feature of a read."""
    field = served.view.field(served.feature.field)
    if field is None:
        raise LookupError(f"{served.feature.ref} was not looked for before")
    steps = served.feature.transforms
    chain = TransformChain(tuple(step.operation for step in steps)) if steps else None
    return PlannedFeature(
        served.feature.name, served.view.name, field, served.view.is_on_device, chain
    )


def _up_to(feature: Feature, through: RunAt | None) -> Feature:
    last = -1 if through is None else STAGES.index(through)
    steps = tuple(step for step in feature.transforms if STAGES.index(step.run_at) <= last)
    return Feature(feature.ref, steps, feature.name)


def _require_view(definitions: DefinitionSet, feature: Feature) -> None:
    view = definitions.view(feature.view)
    if view is None:
        names = definitions.names("feature_view")
        there = f"; there are {listed(names)}" if names else "; there are none yet"
        raise NotServedOnline(
            f"{feature.ref} is of no feature view there is"
            f"{did_you_mean(feature.view, names)}{there}"
        )
    if view.field(feature.field) is None:
        fields = [field.name for field in view.schema]
        raise NotServedOnline(
            f"the view {feature.view} has no field {feature.field!r}"
            f"{did_you_mean(feature.field, fields)}; it has {listed(fields)}"
        )


def device_column(columns: Mapping[str, list[object]], feature: PlannedFeature) -> str | None:
    """Column of the entity rows with a device feature's values: ``view__field`` or ``field``."""
    names = (f"{feature.view}__{feature.field.name}", feature.field.name)
    return next((name for name in names if name in columns), None)
