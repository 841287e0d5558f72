"""Single contracts of feature services by digest, and which is the newest."""

from sqlalchemy import Engine, select

from feature_catalog.definitions.contracts import Contract
from feature_catalog.definitions.services import FeatureService
from feature_catalog.schema import FeatureContractRecord, FeatureDefinitionRecord


def find_contract(engine: Engine, service: str, sha256: bytes) -> Contract | None:
    """A contract that a service has or once had, by its digest of 32 bytes."""
    record = FeatureContractRecord
    statement = select(record.content_json).where(
        record.service == service, record.sha256 == sha256
    )
    with engine.connect() as connection:
        content_json = connection.execute(statement.limit(1)).scalar_one_or_none()
    return None if content_json is None else Contract(service, content_json)


def newest_contract(engine: Engine, service: str) -> bytes | None:
    """Digest, 32 bytes, of the contract of a service; None if it is not defined (any more)."""
    definition, record = FeatureDefinitionRecord, FeatureContractRecord
    defined = (
        select(definition.sha256)
        .where(definition.kind == FeatureService.kind, definition.name == service)
        .order_by(definition.version.desc())
        .limit(1)
    )
    newest = (
        select(record.sha256).where(record.service == service).order_by(record.id.desc()).limit(1)
    )
    with engine.connect() as connection:
        if connection.execute(defined).scalar_one_or_none() is None:
            return None
        return connection.execute(newest).scalar_one_or_none()
