"""From a feature contract back to its service, features, views, entities, assets and sources.

Read from the contract itself, which is what a model was trained under, never from what the same
names mean today.
"""

import datetime as dt
import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session

from feature_catalog.lineage import LineageDraft, LineageNode
from feature_catalog.schema import (
    FeatureApplyRecord,
    FeatureContractRecord,
    FeatureDefinitionRecord,
)

_SHOWN_DIGITS = 16


def add_contract(
    session: Session,
    draft: LineageDraft,
    made: str,
    sha256: bytes,
    *,
    used_at: dt.datetime | None = None,
    relation: str = "trained under",
) -> None:
    """Add a contract and all that it froze, as what ``made`` came to be by.

    Args:
        used_at: When it was used: of several applies that gave this contract, the last one before
            says the versions of its members.
    """
    key = f"contract:{sha256.hex()}"
    title = sha256.hex()[:_SHOWN_DIGITS]
    record = _contract(session, sha256, used_at)
    if record is None:
        unknown = "this catalog has no contract of this digest, so its features are not known"
        draft.add(made, relation, LineageNode(key, "contract", title, missing=unknown))
        return
    content = json.loads(record.content_json)
    facts = {"sha256": sha256.hex(), "apply": str(record.apply_id)}
    if not draft.add(made, relation, LineageNode(key, "contract", title, facts)):
        return
    versions = _versions(session, content, record.apply_id)
    service = LineageNode(
        f"feature_service:{record.service}@{record.service_version}",
        "feature_service",
        f"{record.service}, version {record.service_version}",
        {"features": str(len(content["features"]))},
    )
    draft.add(key, "freezes", service)
    for feature in content["features"]:
        _add_feature(draft, service.key, title, feature, content, versions)


def _contract(
    session: Session, sha256: bytes, used_at: dt.datetime | None
) -> FeatureContractRecord | None:
    record = FeatureContractRecord
    statement = select(record).where(record.sha256 == sha256).order_by(record.id.desc())
    found = session.scalars(statement.limit(1)).one_or_none()
    if found is None or used_at is None:
        return found
    before = statement.join(FeatureApplyRecord, FeatureApplyRecord.id == record.apply_id).where(
        FeatureApplyRecord.applied_at <= used_at
    )
    return session.scalars(before.limit(1)).one_or_none() or found


def _versions(
    session: Session, content: Mapping[str, Any], apply_id: int
) -> dict[tuple[str, str], int]:
    """Version that each member had with that apply."""
    keys = [
        (kind, member["name"])
        for kind, members in (
            ("feature_view", content["views"]),
            ("entity", content["entities"]),
            ("asset", content["assets"]),
        )
        for member in members
    ]
    record = FeatureDefinitionRecord
    statement = (
        select(record.kind, record.name, func.max(record.version))
        .where(tuple_(record.kind, record.name).in_(keys), record.apply_id <= apply_id)
        .group_by(record.kind, record.name)
    )
    return {(kind, name): version for kind, name, version in session.execute(statement)}


def _add_feature(
    draft: LineageDraft,
    service: str,
    contract: str,
    feature: Mapping[str, Any],
    content: Mapping[str, Any],
    versions: Mapping[tuple[str, str], int],
) -> None:
    view_name = feature["ref"].partition(":")[0]
    steps = feature.get("transforms", [])
    node = LineageNode(
        f"feature:{feature['name']} of {contract}",  # another contract may mean another thing
        "feature",
        feature["name"],
        {
            "field": feature["ref"],
            "transforms": ", ".join(f"{s['op']} ({s['run_at']})" for s in steps) or "none",
            "gives": feature["gives"],
        },
    )
    draft.add(service, "serves", node)
    view = next(each for each in content["views"] if each["name"] == view_name)
    shown = _member("feature_view", view_name, versions, _view_facts(view))
    if draft.add(node.key, "is", shown):
        for name in view["entities"]:
            entity = next(each for each in content["entities"] if each["name"] == name)
            keys = {"join keys": ", ".join(entity["join_keys"])}
            draft.add(shown.key, "of", _member("entity", name, versions, keys))
    assets = {asset["name"]: asset for asset in content["assets"]}
    for step in steps:
        made, name, relation = node.key, step.get("parameters", {}).get("asset"), step["op"]
        while name is not None:
            asset = assets[name]
            found = _member("asset", name, versions, _asset_facts(asset))
            if not draft.add(made, relation, found):
                break
            made, name, relation = found.key, asset.get("fallback"), "falls back on"


def _member(
    kind: str, name: str, versions: Mapping[tuple[str, str], int], facts: Mapping[str, str]
) -> LineageNode:
    version = versions.get((kind, name))
    if version is None:
        unknown = "which version of it this was is not in the catalog"
        return LineageNode(f"{kind}:{name}", kind, name, facts, unknown)
    return LineageNode(f"{kind}:{name}@{version}", kind, f"{name}, version {version}", facts)


def _view_facts(view: Mapping[str, Any]) -> dict[str, str]:
    source = view["source"]
    if "event" in source:
        facts = {"source": f"event {source['event']} on the device"}
    else:
        facts = {"source": source.get("path") or f"table {source['table']}"}
    if "ttl" in view:
        facts["ttl"] = view["ttl"]
    for policy in ("retention", "cache"):
        if policy in view:
            facts[policy] = ", ".join(f"{key} {value}" for key, value in view[policy].items())
    return facts


def _asset_facts(asset: Mapping[str, Any]) -> dict[str, str]:
    return {
        "type": asset["type"],
        "maker's version": str(asset["version"]),
        "size": f"{asset['size_bytes']} bytes",
        "sha256": asset["sha256"],
    }
