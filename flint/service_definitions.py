"""A feature service with all it needs: from the catalog, one of its contracts, or files."""

from collections.abc import Sequence
from pathlib import Path

from feature_catalog.definitions.catalog_set import DefinitionSet, check_set
from feature_catalog.definitions.contracts import thaw
from feature_catalog.definitions.files import load_definitions
from feature_catalog.definitions.services import FeatureService
from feature_catalog.feature_plan import UnknownDefinition
from feature_catalog.feature_registry import FeatureRegistry
from feature_catalog.references import near_matches, split_reference

_SHOWN = 63


def service_from_catalog(
    registry: FeatureRegistry, reference: str
) -> tuple[DefinitionSet, FeatureService]:
    """A service as it is defined now, or as one of its contracts froze it.

    Args:
        reference: ``name``, or ``name@`` and the first digits of a contract.

    Raises:
        UnknownDefinition: If there is none, or several contracts begin so.
    """
    name, sha256 = split_reference(reference)
    if sha256 is None:
        return _service_of(registry.state().definitions, name)
    contracts = {each.contract.sha256: each.contract for each in registry.contracts(name)}
    fitting = [contract for digest, contract in contracts.items() if digest.startswith(sha256)]
    if len(fitting) != 1:
        which = "several contracts that begin so" if fitting else "no such contract"
        raise UnknownDefinition(
            f"{name[:_SHOWN]} has {which} ({sha256[:16]}); `flint catalog history "
            f"feature_service/{name[:_SHOWN]}` shows those it had"
        )
    return _service_of(thaw(fitting[0]), name)


def service_from_files(paths: Sequence[Path], name: str) -> tuple[DefinitionSet, FeatureService]:
    """A service as files define it.

    Raises:
        UnknownDefinition: If they define none of that name.
        DefinitionError: If they cannot be read or do not fit each other.
    """
    given = load_definitions(paths)
    check_set(given)
    return _service_of(given, name)


def _service_of(given: DefinitionSet, name: str) -> tuple[DefinitionSet, FeatureService]:
    service = given.service(name)
    if service is None:
        first = "define one in a file and `flint catalog apply` it"
        known = given.names(FeatureService.kind)
        raise UnknownDefinition(
            f"there is no feature service {name[:_SHOWN]!r}{near_matches(name, known, first=first)}"
        )
    return given, service
