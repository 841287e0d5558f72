"""Views of a contract with the fields that it leaves out."""

from collections.abc import Iterable

from feature_catalog.definitions.catalog_set import DefinitionKey, DefinitionSet
from feature_catalog.definitions.contracts import frozen_view
from feature_catalog.definitions.views import FeatureView


def with_whole_views(given: DefinitionSet, known: Iterable[FeatureView]) -> DefinitionSet:
    """Definitions of a contract, their views as they were defined.

    Args:
        given: What `contracts.thaw` made of a contract.
        known: Definitions of views, the best first; one that differs in what the contract holds is
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
