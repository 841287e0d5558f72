"""The feature service a job names, pinned to the contract it has when the job is submitted."""

from device_runtime.errors import FlintError, named_in
from feature_catalog.definitions.contracts import thaw
from feature_catalog.feature_fit import check_features_fit
from feature_catalog.feature_registry import FeatureRegistry
from feature_catalog.references import near_matches, split_reference
from modeling.spec import ModelSpec
from server.job import Job


class UnknownFeatureService(FlintError):
    """A job names a feature service, or a contract of one, that there is not."""

    code = "FLN-2815"


def pin_feature_service(job: Job, registry: FeatureRegistry) -> Job:
    """The job with ``feature_service`` as ``name@contract``: what it is trained under, for good.

    Later applies change what the name means, not the job.

    Args:
        job: Names a service, one by its contract, or none.

    Raises:
        UnknownFeatureService: If there is no such service, or it never had that contract.
    """
    if job.feature_service is None:
        return job
    name, sha256 = split_reference(job.feature_service)
    with named_in("feature_service"):
        if sha256 is not None:
            _require_contract(registry, name, sha256)
            return job
        contracts = registry.state().contracts
        if name not in contracts:
            first = "define one in a file and `flint catalog apply` it"
            raise UnknownFeatureService(
                f"there is no feature service {name!r}"
                f"{near_matches(name, sorted(contracts), first=first)}"
            )
    return job.model_copy(update={"feature_service": f"{name}@{contracts[name]}"})


def require_fitting_features(job: Job, model: ModelSpec, registry: FeatureRegistry) -> None:
    """Refuse a job whose model cannot read the features of its service.

    Args:
        job: Pinned.

    Raises:
        UnsuitableFeatures: Names the first feature that is why.
    """
    name, sha256 = split_reference(job.feature_service or "")
    stored = {each.contract.sha256: each.contract for each in registry.contracts(name)}
    with named_in("feature_service"):
        check_features_fit(thaw(stored[sha256 or ""]), name, model)


def _require_contract(registry: FeatureRegistry, name: str, sha256: str) -> None:
    known = registry.contracts(name)
    if all(each.contract.sha256 != sha256 for each in known):
        raise UnknownFeatureService(
            f"{name} never had the contract {sha256[:16]}...; `flint catalog history "
            f"feature_service/{name}` shows those it had, and without @ the job takes the newest"
        )
