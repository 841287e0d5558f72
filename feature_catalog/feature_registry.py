"""The registry of feature definitions in Postgres: what is defined, what was, and by whom.

Every change of a definition is a new version of it; rows are added and never changed. An apply is
one transaction under one lock, so it happens whole or not at all, and one after the other.
"""

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, func, insert, select, text
from sqlalchemy.orm import Session

from device_runtime.errors import FlintError
from feature_catalog.audit_log import AuditAction, append_entry, current_actor
from feature_catalog.database import FEATURES_LOCK
from feature_catalog.definitions.catalog_set import DefinitionKey, DefinitionSet
from feature_catalog.definitions.contracts import Contract
from feature_catalog.definitions.errors import DefinitionError
from feature_catalog.definitions.plain import (
    DEFINITIONS,
    Definition,
    canonical_json,
    digest,
    from_plain,
    to_plain,
)
from feature_catalog.feature_plan import Plan, RegistryState, UnknownDefinition, make_plan
from feature_catalog.references import near_matches, split_reference
from feature_catalog.schema import (
    FeatureApplyRecord,
    FeatureContractRecord,
    FeatureDefinitionRecord,
    ModelVersionRecord,
)


class RegistryChanged(FlintError):
    """Someone else changed the definitions after a plan was made."""

    code = "FLN-2810"


class UnreadableRegistry(FlintError):
    """The registry holds a definition this version of FLINT cannot read."""

    code = "FLN-2814"


@dataclass(frozen=True, slots=True)
class DefinitionVersion:
    """One version of a definition.

    Attributes:
        definition: None: it was deleted.
        sha256: Of the definition, hexadecimal.
    """

    key: DefinitionKey
    version: int
    definition: Definition | None
    sha256: str | None
    apply_id: int
    actor: str
    applied_at: dt.datetime


@dataclass(frozen=True, slots=True)
class StoredContract:
    """What a feature service came to with an apply.

    Attributes:
        service_version: Version of the service's own definition then.
    """

    contract: Contract
    service_version: int
    apply_id: int
    applied_at: dt.datetime


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A model version and the feature contract it was trained under.

    Attributes:
        version: ``name@number``.
        contract_sha256: Hexadecimal.
    """

    version: str
    contract_sha256: str


@dataclass(frozen=True, slots=True)
class Applied:
    """One apply.

    Attributes:
        registry_sha256: Digest of all definitions after it, hexadecimal.
        changes: Action, kind, name, version of each.
    """

    apply_id: int
    actor: str
    registry_sha256: str
    changes: tuple[tuple[str, str, str, int], ...]
    applied_at: dt.datetime


class FeatureRegistry:
    """Definitions by kind and name, with their versions and the contracts of services."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def state(self) -> RegistryState:
        """All that is defined now.

        Raises:
            UnreadableRegistry: If a newer FLINT wrote what this one does not know.
        """
        with self._engine.connect().execution_options(
            isolation_level="REPEATABLE READ"
        ) as connection:
            return _read_state(connection)

    def plan(
        self, given: DefinitionSet, *, prune: bool = False, delete: Sequence[DefinitionKey] = ()
    ) -> Plan:
        """What `apply` would do now; see `feature_plan.make_plan`."""
        return make_plan(self.state(), given, prune=prune, delete=delete)

    def apply(
        self,
        given: DefinitionSet,
        *,
        prune: bool = False,
        delete: Sequence[DefinitionKey] = (),
        expected_sha256: str | None = None,
        actor: str | None = None,
    ) -> Plan:
        """Make definitions be as files say, in one transaction; what is so already stays.

        Args:
            prune: Delete what is not in the files.
            delete: Delete these.
            expected_sha256: Digest of the state a plan was made against.
            actor: Who does it; this process's user if not given.

        Returns:
            What was done.

        Raises:
            RegistryChanged: If the state is not the expected one, and there is something to do.
            FlintError: As `feature_plan.make_plan`. Nothing is changed then.
        """
        who = actor or current_actor()
        with self._engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": FEATURES_LOCK})
            state = _read_state(connection)
            plan = make_plan(state, given, prune=prune, delete=delete)
            if plan.is_empty:
                return plan
            if expected_sha256 is not None and expected_sha256 != state.sha256:
                raise RegistryChanged(
                    "the feature catalog has changed since this plan was made (it was "
                    f"{expected_sha256[:12]}, it is {state.sha256[:12]}); look at what changed "
                    "with `flint catalog history`, and plan again"
                )
            _write(connection, state, plan, who)
        return plan

    def find(self, reference: str) -> DefinitionKey:
        """The definition that ``name`` or ``kind/name`` means, now or formerly defined.

        Raises:
            UnknownDefinition: If there is none, or several kinds have one of that name.
        """
        wanted, slash, name = reference.rpartition("/")
        record = FeatureDefinitionRecord
        with self._engine.connect() as connection:
            pairs = connection.execute(select(record.kind, record.name).distinct())
            keys = sorted(DefinitionKey(kind, name) for kind, name in pairs)
        found = [key for key in keys if key.name == name and (not slash or key.kind == wanted)]
        if len(found) == 1:
            return found[0]
        if found:
            which = " or ".join(f"{key.kind}/{key.name}" for key in found)
            raise UnknownDefinition(f"{name} is the name of several definitions; say {which}")
        if slash and wanted not in DEFINITIONS:
            raise UnknownDefinition(
                f"{wanted!r} is no kind of definition; kinds are {', '.join(DEFINITIONS)}"
            )
        names = sorted({key.name for key in keys if not slash or key.kind == wanted})
        first = "apply some with `flint catalog apply FILE`"
        what = wanted if slash else "definition"
        raise UnknownDefinition(
            f"there is no {what} {name!r}{near_matches(name, names, first=first)}"
        )

    def history(self, key: DefinitionKey) -> tuple[DefinitionVersion, ...]:
        """Every version of a definition, oldest first."""
        record, applied = FeatureDefinitionRecord, FeatureApplyRecord
        statement = (
            select(record, applied)
            .join(applied, applied.id == record.apply_id)
            .where(record.kind == key.kind, record.name == key.name)
            .order_by(record.version)
        )
        with Session(self._engine) as session:
            return tuple(
                DefinitionVersion(
                    key=key,
                    version=found.version,
                    definition=_definition(key, found.definition_json),
                    sha256=None if found.sha256 is None else found.sha256.hex(),
                    apply_id=by.id,
                    actor=by.actor,
                    applied_at=by.applied_at,
                )
                for found, by in session.execute(statement)
            )

    def version(self, reference: str) -> DefinitionVersion:
        """One version: of ``name`` the newest, or ``name@2``.

        Raises:
            UnknownDefinition: If there is none; says which there are.
        """
        name, which = split_reference(reference)
        versions = self.history(self.find(name))
        if which in (None, "latest"):
            return versions[-1]
        number = int(which) if which is not None and which.isdecimal() and len(which) < 10 else 0
        if not 1 <= number <= len(versions):
            raise UnknownDefinition(
                f"there is no version {reference}; the versions of {name} are 1 to {len(versions)}"
            )
        return versions[number - 1]

    def applies(self) -> tuple[Applied, ...]:
        """Every apply that changed something, oldest first."""
        record = FeatureApplyRecord
        with Session(self._engine) as session:
            return tuple(
                Applied(
                    apply_id=found.id,
                    actor=found.actor,
                    registry_sha256=found.registry_sha256.hex(),
                    changes=tuple(tuple(change) for change in found.changes),
                    applied_at=found.applied_at,
                )
                for found in session.scalars(select(record).order_by(record.id))
            )

    def contracts(self, service: str) -> tuple[StoredContract, ...]:
        """Every contract a service has had, oldest first; the last is the one that counts."""
        record, applied = FeatureContractRecord, FeatureApplyRecord
        statement = (
            select(record, applied.applied_at)
            .join(applied, applied.id == record.apply_id)
            .where(record.service == service)
            .order_by(record.id)
        )
        with Session(self._engine) as session:
            return tuple(
                StoredContract(
                    Contract(found.service, found.content_json),
                    found.service_version,
                    found.apply_id,
                    applied_at,
                )
                for found, applied_at in session.execute(statement)
            )

    def models(self, service: str) -> tuple[TrainedModel, ...]:
        """Model versions that were trained with a service, under any contract it had."""
        contract, version = FeatureContractRecord, ModelVersionRecord
        digests = select(contract.sha256).where(contract.service == service)
        statement = (
            select(version.name, version.number, version.feature_contract_sha256)
            .where(version.feature_contract_sha256.in_(digests))
            .order_by(version.name, version.number)
        )
        with self._engine.connect() as connection:
            return tuple(
                TrainedModel(f"{name}@{number}", sha256.hex())
                for name, number, sha256 in connection.execute(statement)
                if sha256 is not None
            )


def _read_state(connection: Connection) -> RegistryState:
    record = FeatureDefinitionRecord
    last = (
        select(record.kind, record.name, func.max(record.version).label("version"))
        .group_by(record.kind, record.name)
        .subquery()
    )
    newest = select(
        record.kind, record.name, record.version, record.definition_json, record.sha256
    ).join(
        last,
        (last.c.kind == record.kind)
        & (last.c.name == record.name)
        & (last.c.version == record.version),
    )
    definitions, versions, digests = {}, {}, {}
    for kind, name, version, definition_json, sha256 in connection.execute(newest):
        key = DefinitionKey(kind, name)
        versions[key] = version
        digests[key] = None if sha256 is None else sha256.hex()
        definition = _definition(key, definition_json)
        if definition is not None:
            definitions[key] = definition
    return RegistryState(
        definitions=DefinitionSet(definitions),
        versions=versions,
        digests=digests,
        contracts=_contract_digests(connection, DefinitionSet(definitions)),
    )


def _contract_digests(connection: Connection, defined: DefinitionSet) -> dict[str, str]:
    """Of the services there are; a deleted one's contract counts no more."""
    record = FeatureContractRecord
    last = select(func.max(record.id)).group_by(record.service)
    newest = select(record.service, record.sha256).where(record.id.in_(last))
    return {
        service: sha256.hex()
        for service, sha256 in connection.execute(newest)
        if defined.service(service) is not None
    }


def _write(connection: Connection, state: RegistryState, plan: Plan, actor: str) -> None:
    versions, digests = dict(state.versions), dict(state.digests)
    rows = []
    for change in plan.changes:
        definition = plan.wanted.definitions.get(change.key)
        versions[change.key] = change.version
        digests[change.key] = None if definition is None else digest(definition)
        rows.append(
            {
                "kind": change.key.kind,
                "name": change.key.name,
                "version": change.version,
                "definition_json": (
                    None if definition is None else canonical_json(to_plain(definition))
                ),
                "sha256": None if definition is None else bytes.fromhex(digest(definition)),
            }
        )
    after = RegistryState(plan.wanted, versions, digests, {})
    changes = [[str(change.action), *change.key, change.version] for change in plan.changes]
    apply_id = connection.execute(
        insert(FeatureApplyRecord)
        .values(actor=actor, registry_sha256=bytes.fromhex(after.sha256), changes=changes)
        .returning(FeatureApplyRecord.id)
    ).scalar_one()
    if rows:
        connection.execute(
            insert(FeatureDefinitionRecord), [{**row, "apply_id": apply_id} for row in rows]
        )
    if plan.contracts:
        connection.execute(
            insert(FeatureContractRecord),
            [
                {
                    "service": each.contract.service,
                    "service_version": versions[
                        DefinitionKey("feature_service", each.contract.service)
                    ],
                    "sha256": bytes.fromhex(each.contract.sha256),
                    "content_json": each.contract.content_json,
                    "apply_id": apply_id,
                }
                for each in plan.contracts
            ],
        )
    told = {
        "definitions": [f"{change.action} {change.key}" for change in plan.changes][:100],
        "changes": len(plan.changes),
        "registry_sha256": after.sha256,
    }
    append_entry(connection, AuditAction.FEATURES_APPLIED, f"apply {apply_id}", told, actor=actor)


def _definition(key: DefinitionKey, definition_json: str | None) -> Definition | None:
    if definition_json is None:
        return None
    try:
        return from_plain(key.kind, json.loads(definition_json))
    except DefinitionError as error:
        raise UnreadableRegistry(
            f"the catalog's {key} is none that this FLINT can read ({error.sentence}); run the "
            "FLINT that applied it, or apply it anew with this one"
        ) from error
