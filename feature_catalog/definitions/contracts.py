"""Contracts: all that a model trained with a feature service was trained with, as one digest.

A contract holds every member the service reaches: its features with their transforms, and of what
they use the view's source and policies, the fields, the entities, the assets with their digests and
fallbacks. It leaves out what changes no value and no policy: owners, tags, descriptions, fields the
service does not use. Lists whose order means nothing are in order of name, so the digest depends on
what is defined and not on how a file is written.
"""

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from feature_catalog.definitions.catalog_set import DefinitionSet, key_of
from feature_catalog.definitions.errors import refuse
from feature_catalog.definitions.plain import Definition, canonical_json, from_plain, to_plain
from feature_catalog.definitions.served import ServedFeature, served_features
from feature_catalog.definitions.services import FeatureService
from feature_catalog.definitions.views import FeatureView

FORMAT = 1
"""Goes up when the same definitions would give another digest."""

_DOCUMENTATION = ("description", "owner", "tags")


@dataclass(frozen=True, slots=True)
class Contract:
    """A frozen feature service.

    Attributes:
        content_json: Canonical JSON of all members.
    """

    service: str
    content_json: str

    @property
    def sha256(self) -> str:
        """Digest of the content, hexadecimal."""
        return hashlib.sha256(self.content_json.encode()).hexdigest()


def freeze(given: DefinitionSet, service: FeatureService) -> Contract:
    """A service's contract, in a set that `check_set` has accepted."""
    served = served_features(given, service)
    views = {each.view.name: each.view for each in served}
    used = {
        name: {each.feature.field for each in served if each.view.name == name} for name in views
    }
    content = {
        "format": FORMAT,
        "service": service.name,
        "features": [_feature(each) for each in served],
        "views": [frozen_view(views[name], used[name]) for name in sorted(views)],
        "entities": _entities(given, list(views.values())),
        "assets": _assets(given, served),
    }
    return Contract(service.name, canonical_json(content))


def thaw(contract: Contract) -> DefinitionSet:
    """The definitions a contract froze: its service with all features in one, and what they need.

    Documentation and fields the service does not use are not in it; an event's fields are those it
    uses. `freeze` of what comes out has the same digest.

    Raises:
        InvalidDefinition: If the content is of another format than this version of FLINT writes.
    """
    content = json.loads(contract.content_json)
    if content.get("format") != FORMAT:
        refuse("format", content.get("format"), f"{FORMAT}, which this FLINT reads; apply it anew")
    features = [
        {key: value for key, value in each.items() if key not in ("gives", "shape")}
        for each in content["features"]
    ]
    service = {"name": content["service"], "features": features}
    found: list[Definition] = [from_plain(FeatureService.kind, service)]
    for kind, members in (
        ("feature_view", [_whole_view(each) for each in content["views"]]),
        ("entity", content["entities"]),
        ("asset", content["assets"]),
    ):
        found.extend(from_plain(kind, each) for each in members)
    return DefinitionSet({key_of(each): each for each in found})


def _whole_view(plain: dict[str, Any]) -> dict[str, Any]:
    """A view that an event feeds has its fields in the event's schema again."""
    source = plain["source"]
    if "event" not in source:
        return plain
    return {**plain, "source": {**source, "schema": plain["schema"]}}


def _feature(served: ServedFeature) -> dict[str, Any]:
    return {
        **_bare(to_plain(served.feature)),
        "gives": str(served.gives),
        "shape": list(served.shape),
    }


def frozen_view(view: FeatureView, used: Collection[str]) -> dict[str, Any]:
    """What a contract holds of a view.

    Args:
        used: Names of the fields that the service uses.
    """
    plain = _bare(to_plain(view))
    plain["schema"] = [_bare(field) for field in plain["schema"] if field["name"] in used]
    if view.is_on_device:
        # The view's fields are the event's: what else an event holds changes nothing here.
        plain["source"] = {"event": plain["source"]["event"]}
    return plain


def _entities(given: DefinitionSet, views: list[FeatureView]) -> list[dict[str, Any]]:
    names = sorted({name for view in views for name in view.entities})
    found = (given.entity(name) for name in names)
    return [_bare(to_plain(entity)) for entity in found if entity is not None]


def _assets(given: DefinitionSet, served: tuple[ServedFeature, ...]) -> list[dict[str, Any]]:
    names: set[str] = set()
    waiting = [step.asset for each in served for step in each.feature.transforms]
    while waiting:
        name = waiting.pop()
        if name is not None and name not in names:
            names.add(name)
            asset = given.asset(name)
            waiting.append(asset.fallback if asset is not None else None)
    found = (given.asset(name) for name in sorted(names))
    return [_bare(to_plain(asset)) for asset in found if asset is not None]


def _bare(plain: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in plain.items() if key not in _DOCUMENTATION}
