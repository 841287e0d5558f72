"""Reads a contract back into definitions: what was frozen can be served for ever."""

import json
from collections.abc import Collection
from typing import Any

from feature_catalog.definitions.assets import Asset
from feature_catalog.definitions.catalog_set import DefinitionKey, DefinitionSet, key_of
from feature_catalog.definitions.contracts import Contract, frozen_view
from feature_catalog.definitions.fields import Entity
from feature_catalog.definitions.plain import Definition, from_plain
from feature_catalog.definitions.services import FeatureService
from feature_catalog.definitions.views import FeatureView


def read_contract(contract: Contract) -> DefinitionSet:
    """The definitions a contract was frozen from, as far as they are in it.

    What changes no value is not: owners, tags, descriptions, fields that the service does not use.
    Freezing them again gives the same contract.

    Raises:
        DefinitionError: If a newer FLINT wrote what this one does not know.
    """
    content = json.loads(contract.content_json)
    found: list[Definition] = [
        from_plain(
            FeatureService.kind,
            {
                "name": content["service"],
                "features": [_without(each, "gives", "shape") for each in content["features"]],
            },
        )
    ]
    found.extend(from_plain(FeatureView.kind, _whole_view(each)) for each in content["views"])
    found.extend(from_plain(Entity.kind, each) for each in content["entities"])
    found.extend(from_plain(Asset.kind, each) for each in content["assets"])
    return DefinitionSet({key_of(each): each for each in found})


def with_whole_views(given: DefinitionSet, known: Collection[FeatureView]) -> DefinitionSet:
    """Definitions of a contract, their views with the fields that it leaves out.

    Args:
        given: As `read_contract` gives them.
        known: Definitions of views, the best first; one that differs in what is in the contract is
            none of its.
    """
    definitions = dict(given.definitions)
    for view in known:
        key = DefinitionKey(FeatureView.kind, view.name)
        bare = given.view(view.name)
        if bare is None or definitions[key] is not bare:
            continue
        used = {field.name for field in bare.schema}
        if frozen_view(view, used) == frozen_view(bare, used):
            definitions[key] = view
    return DefinitionSet(definitions)


def _whole_view(plain: dict[str, Any]) -> dict[str, Any]:
    """An event's fields are its view's, so a contract does not say them twice."""
    if "event" not in plain["source"]:
        return plain
    return {**plain, "source": {**plain["source"], "schema": plain["schema"]}}


def _without(plain: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in plain.items() if key not in keys}
