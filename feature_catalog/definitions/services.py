"""Feature services: what one model is trained and served with."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Union

from feature_catalog.definitions.bounds import checked_list, checked_name
from feature_catalog.definitions.errors import DuplicateDefinition, refusal, refuse, within
from feature_catalog.definitions.features import Feature
from feature_catalog.definitions.fields import checked_documentation, names_of
from feature_catalog.definitions.views import FeatureView

MAX_FEATURES = 1_000
MAX_INCLUDES = 50


@dataclass(frozen=True, init=False)
class FeatureService:
    """The features of a model, each known by its own name.

    Attributes:
        features: By name. Given as `Feature`, as ``"view:field"``, as ``view["field"]`` or as a
            view, which stands for all its fields.
        includes: Services whose features it has as well.

    Raises:
        DefinitionError: If an attribute is impossible.
    """

    kind: ClassVar[str] = "feature_service"

    name: str
    features: tuple[Feature, ...]
    includes: tuple[str, ...]
    description: str
    owner: str
    tags: Mapping[str, str]

    def __init__(
        self,
        name: str,
        features: Iterable[Feature | FeatureView | str | Iterable[Feature]] = (),
        *,
        includes: Iterable[Union["FeatureService", str]] = (),
        description: str = "",
        owner: str = "",
        tags: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        fixed = object.__setattr__
        fixed(self, "name", checked_name(name))
        fixed(self, "features", _checked_features(features))
        fixed(self, "includes", names_of(includes, "includes", MAX_INCLUDES, FeatureService))
        if not self.features and not self.includes:
            refuse("features", (), "a list with at least one view:field")
        fixed(self, "description", description)
        fixed(self, "owner", owner)
        fixed(self, "tags", tags)
        documented = checked_documentation(self.owner, self.description, self.tags)
        object.__setattr__(self, "tags", documented)

    def __hash__(self) -> int:
        return hash((self.kind, self.name))


def _checked_features(given: object) -> tuple[Feature, ...]:
    features: list[Feature] = []
    for index, item in enumerate(checked_list(given, "features", MAX_FEATURES)):
        with within(f"features[{index}]"):
            features.extend(_served(item))
    if len(features) > MAX_FEATURES:
        refuse("features", f"{len(features)} features", f"at most {MAX_FEATURES}")
    by_name: dict[str, Feature] = {}
    for feature in features:
        other = by_name.setdefault(feature.name, feature)
        if other is not feature:
            raise DuplicateDefinition(
                f"has {other.ref} and {feature.ref} both named {feature.name}; give one of them "
                "another name",
                key="features",
            )
    return tuple(by_name[name] for name in sorted(by_name))


def _served(item: object) -> Iterable[Feature]:
    if isinstance(item, Feature):
        return (item,)
    if isinstance(item, str):
        return (Feature(item),)
    if isinstance(item, FeatureView):
        return item[[field.name for field in item.schema]]
    if isinstance(item, tuple | list) and all(isinstance(part, Feature) for part in item):
        return item
    raise refusal("", item, "view:field, a Feature or a FeatureView")
