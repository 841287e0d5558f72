"""From a model version back to its job, code, data, features and the versions it came from.

Whatever the catalog does not know is a node that says so; nothing is inferred from names alone.
"""

import datetime as dt
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from feature_catalog.audit_log import AuditAction
from feature_catalog.contract_lineage import add_contract
from feature_catalog.lineage import LineageDraft, LineageGraph, LineageNode
from feature_catalog.references import split_reference, version_number
from feature_catalog.schema import (
    AuditRecord,
    DatasetRecord,
    JobIncarnationRecord,
    JobRecord,
    ModelVersionRecord,
    TaskOutcomeRecord,
)

MAX_GENERATIONS = 20
"""Jobs and imports that are followed back; a graph beyond that says that it ends."""


def lineage_of_version(engine: Engine, version_id: int) -> LineageGraph:
    """What a model version was made from, as deep as the catalog knows.

    Args:
        version_id: `ModelVersion.id` of a version that there is.
    """
    # One snapshot: a version that is stored meanwhile is in it whole or not at all.
    with Session(engine.execution_options(isolation_level="REPEATABLE READ")) as session:
        record = session.get_one(ModelVersionRecord, version_id)
        draft = LineageDraft(_version_node(record))
        for _ in range(MAX_GENERATIONS):
            parent = _add_version(session, draft, record)
            if parent is None:
                break
            record = parent
        else:
            last = f"{record.name}@{record.number}"
            ends = f"{MAX_GENERATIONS} jobs were followed; `flint models lineage {last}` goes on"
            rest = LineageNode("rest", "model version", "earlier versions", missing=ends)
            draft.add(_version_key(record), "and", rest)
        return draft.finish()


def _add_version(
    session: Session, draft: LineageDraft, record: ModelVersionRecord
) -> ModelVersionRecord | None:
    """Add all that one version was made from; returns the version its job started from."""
    key = _version_key(record)
    if record.job_id is None:
        unknown = "it was imported: who trained it, on what and with which code is not known"
        origin = LineageNode(f"origin of {key}", "training", "elsewhere", missing=unknown)
        draft.add(key, "made by", origin)
        return None
    job = session.get(JobRecord, record.job_id)
    job_file: Mapping[str, Any] = json.loads(job.job_json) if job is not None else {}
    _add_job(session, draft, record, job, job_file)
    if record.feature_contract_sha256 is not None:
        used_at = None if job is None else job.submitted_at
        add_contract(session, draft, key, record.feature_contract_sha256, used_at=used_at)
    else:
        unknown = (
            "the job named no feature service, so what devices trained on is as their apps define"
        )
        none = LineageNode(f"features of {record.job_id}", "features", "not named", missing=unknown)
        draft.add(key, "trained under", none)
    return _add_start(session, draft, record, job_file)


def _add_start(
    session: Session,
    draft: LineageDraft,
    record: ModelVersionRecord,
    job_file: Mapping[str, Any],
) -> ModelVersionRecord | None:
    """Add the version the job started with, and what that came from."""
    table = ModelVersionRecord
    first = session.scalars(
        select(table).where(table.job_id == record.job_id, table.job_version == 0)
    ).one_or_none()
    key = _version_key(record)
    if first is None:
        unknown = "the job's first version is not in the catalog"
        node = LineageNode(f"start of {record.job_id}", "model version", "start", missing=unknown)
        draft.add(key, "started from", node)
        return None
    if first.id != record.id:
        count = record.job_version
        relation = f"{count} aggregation{'s' if count != 1 else ''} after"
        draft.add(key, relation, _version_node(first))
        key = _version_key(first)
    parent = None if first.parent_id is None else session.get(table, first.parent_id)
    if parent is not None:
        draft.add(key, "started from", _version_node(parent))
        return parent
    facts = {"model": first.model}
    if "seed" in job_file:
        facts["seed"] = str(job_file["seed"])
    title = f"of {first.model}"
    no_seed = "the seed is not known, as the job is not in the catalog"
    missing = no_seed if "seed" not in job_file else None
    node = LineageNode(f"initial:{record.job_id}", "initial parameters", title, facts, missing)
    draft.add(key, "started from", node)
    return None


def _add_job(
    session: Session,
    draft: LineageDraft,
    version: ModelVersionRecord,
    job: JobRecord | None,
    job_file: Mapping[str, Any],
) -> None:
    key, made = f"job:{version.job_id}", _version_key(version)
    if job is None:
        gone = "the job is not in this catalog"
        draft.add(made, "made by", LineageNode(key, "job", str(version.job_id), missing=gone))
    else:
        facts = {
            "name": job.name,
            "status": job.status,
            "submitted": _moment(job.submitted_at),
            **_submitter(session, job.job_id),
            "job file": f"SHA-256 {hashlib.sha256(job.job_json.encode()).hexdigest()}",
        }
        draft.add(made, "made by", LineageNode(key, "job", job.job_id, facts))
        draft.add(key, "run as", _flower_run(job))
        _add_evaluation(session, draft, key, job_file)
    draft.add(made, "stored by", _code(session, version))
    draft.add(key, "trained on", _device_records(session, version))


def _submitter(session: Session, job_id: str) -> dict[str, str]:
    record = AuditRecord
    statement = (
        select(record.actor)
        .where(record.action == str(AuditAction.JOB_SUBMITTED), record.subject == job_id)
        .limit(1)
    )
    actor = session.scalars(statement).one_or_none()
    return {} if actor is None else {"submitted by": actor}


def _flower_run(job: JobRecord) -> LineageNode:
    if job.flower_run_id is None:
        unknown = "the job has no run on a SuperLink"
        return LineageNode(f"run of {job.job_id}", "Flower run", "Flower run", missing=unknown)
    number = str(int(job.flower_run_id))
    return LineageNode(f"flower_run:{number}", "Flower run", number)


def _code(session: Session, version: ModelVersionRecord) -> LineageNode:
    """The code of the coordinator that stored the version."""
    table = JobIncarnationRecord
    found = None
    if version.job_epoch is not None:
        found = session.get(table, (version.job_id, version.job_epoch))
    if found is None:
        unknown = "which code stored it was not recorded: it is older than such records"
        return LineageNode(f"code of {version.job_id}", "code", "code", missing=unknown)
    facts = {
        **{name: str(number) for name, number in sorted(found.versions.items())},
        "coordinator": f"incarnation {found.epoch} of the job, since {_moment(found.claimed_at)}",
    }
    key = f"code:{version.job_id}/{found.epoch}"
    return LineageNode(key, "code", f"FLINT {found.code_version}", facts)


def _device_records(session: Session, version: ModelVersionRecord) -> LineageNode:
    """What is known of the training data: they stay on devices, of which the updates came."""
    table = TaskOutcomeRecord
    counted = select(func.count(), func.count(table.client_id.distinct())).where(
        table.job_id == version.job_id,
        table.outcome == "succeeded",
        table.version_number <= version.job_version,
    )
    updates, devices = session.execute(counted).one()
    plural = "s" if devices != 1 else ""
    facts = {"updates": f"{updates:,}", "devices": f"{devices:,}"}
    return LineageNode(
        f"records of {version.job_id}",
        "training records",
        f"of {devices:,} device{plural}",
        facts,
        "the records stay on the devices; the catalog knows the updates that came of them",
    )


def _add_evaluation(
    session: Session, draft: LineageDraft, job: str, job_file: Mapping[str, Any]
) -> None:
    evaluation = job_file.get("evaluation")
    if not evaluation:
        return  # it asked for none
    reference = str(evaluation["dataset"])
    name, which = split_reference(reference)
    key = f"dataset:{reference}"
    number = version_number(which)
    if number == 0:
        unknown = "the job named no version, and which one was newest then was not recorded"
        draft.add(job, "evaluated on", LineageNode(key, "data set", name, missing=unknown))
        return
    table = DatasetRecord
    record = session.scalars(
        select(table).where(table.name == name, table.version == number)
    ).one_or_none()
    if record is None:
        gone = "this data set is not in the catalog"
        draft.add(job, "evaluated on", LineageNode(key, "data set", reference, missing=gone))
        return
    facts = {
        "clients held out": f"{record.statistics['heldout_clients']:,}",
        "records held out": f"{record.statistics['heldout_records']:,}",
        "hash": f"{record.hash_name}, seed {record.hash_seed}",
        "records": f"SHA-256 {record.records_sha256.hex()}",
    }
    draft.add(job, "evaluated on", LineageNode(key, "data set", reference, facts))
    source = record.source_sha256.hex()
    file = LineageNode(f"file:{source}", "file", record.source, {"sha256": source})
    draft.add(key, "made from", file)
    contract = record.roles.get("feature_contract_sha256")
    if contract is not None:
        sha256 = bytes.fromhex(contract)
        add_contract(session, draft, key, sha256, used_at=record.created_at, relation="joined by")


def _version_key(record: ModelVersionRecord) -> str:
    return f"model_version:{record.name}@{record.number}"


def _version_node(record: ModelVersionRecord) -> LineageNode:
    facts = {"model": record.model, "stored": _moment(record.created_at)}
    metric = record.metrics.get("metric")
    if metric is not None:
        facts["metric"] = f"{metric:.4f}"
    if record.job_version is not None:
        facts["job's version"] = str(record.job_version)
    facts["parameters"] = f"SHA-256 {record.parameters_sha256.hex()}"
    title = f"{record.name}@{record.number}"
    return LineageNode(_version_key(record), "model version", title, facts)


def _moment(at: dt.datetime) -> str:
    return at.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
