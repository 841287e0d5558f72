"""Whether a model, a data set and a feature service go together."""

from device_runtime.errors import FlintError
from device_runtime.feature_inputs import FeatureInput, InputFeature, may_give_missing
from device_runtime.transform_chain import TransformChain
from feature_catalog.definitions.catalog_set import DefinitionSet
from feature_catalog.definitions.served import ServedFeature, served_features
from feature_catalog.definitions.services import FeatureService
from feature_catalog.feature_plan import UnknownDefinition
from feature_catalog.opened_dataset import DatasetRow
from feature_catalog.references import near_matches
from modeling.feature_input_form import input_form
from modeling.spec import ModelSpec


class ForeignFeatures(FlintError):
    """A job and a data set are not of the same features."""

    code = "FLN-2965"


def check_features_fit(
    definitions: DefinitionSet, service: str, model: ModelSpec, seed: int = 0
) -> None:
    """Refuse a service whose features a model cannot read.

    Raises:
        UnsuitableFeatures: Names the first feature that is why.
    """
    FeatureInput(input_form(model, seed), input_features(served_of(definitions, service)))


def check_same_features(row: DatasetRow, feature_service: str | None) -> None:
    """Refuse a data set that is not of a job's features.

    Args:
        row: The data set.
        feature_service: Of the job: ``name@contract``, or None.

    Raises:
        ForeignFeatures: Naming both.
    """
    named = f"data set {row.name}@{row.version}"
    service, _, contract = (feature_service or "").partition("@")
    if row.feature_service is None:
        if feature_service is not None:
            raise ForeignFeatures(
                f"{named} was made without a feature service, and the job trains on the features "
                f"of {service}; make one of them: flint dataset add ROWS --feature-service "
                f"{service}"
            )
        return
    if not service:
        raise ForeignFeatures(
            f"{named} is of the features of {row.feature_service}, and the job names no service; "
            f"say feature_service: {row.feature_service}, or take another data set"
        )
    if (row.feature_service, row.feature_contract_sha256) != (service, contract):
        held = f"{row.feature_service}@{(row.feature_contract_sha256 or '')[:16]}"
        raise ForeignFeatures(
            f"{named} was made under the feature contract {held}, and the job's is "
            f"{service}@{contract[:16]}; add its rows again: flint dataset add ROWS "
            f"--feature-service {service}"
        )


def input_features(served: tuple[ServedFeature, ...]) -> tuple[InputFeature, ...]:
    """The features of a service as a model gets them."""
    return tuple(
        InputFeature(
            each.feature.name,
            each.gives,
            each.shape,
            may_give_missing(TransformChain(tuple(t.operation for t in each.feature.transforms))),
        )
        for each in served
    )


def served_of(definitions: DefinitionSet, service: str) -> tuple[ServedFeature, ...]:
    """The features of a service by its name.

    Raises:
        UnknownDefinition: If there is no such service.
    """
    found = definitions.service(service)
    if found is None:
        known = definitions.names(FeatureService.kind)
        first = "define one in a file and `flint catalog apply` it"
        raise UnknownDefinition(
            f"there is no feature service {service!r}{near_matches(service, known, first=first)}"
        )
    return served_features(definitions, found)
