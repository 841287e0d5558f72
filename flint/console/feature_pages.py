"""Feature views, entities, assets, and each definition with its history."""

import json
from typing import Any

from fastapi import APIRouter

from feature_catalog.definitions.assets import Asset
from feature_catalog.definitions.catalog_set import DefinitionKey
from feature_catalog.definitions.fields import Entity
from feature_catalog.definitions.plain import to_plain
from feature_catalog.definitions.views import FeatureView
from feature_catalog.feature_plan import RegistryState, differences
from feature_catalog.feature_registry import DefinitionVersion
from feature_catalog.online.value_sets import list_value_sets
from flint.catalog_view import as_yaml, value_lines
from flint.console.latest_definitions import Definitions
from flint.console.pages import Catalog, Data, Offset, Words, add_page, paging, sliced

MAX_VERSIONS = 100
MAX_VALUE_SETS = 500

router = APIRouter()


def features(state: Definitions, q: Words = "", offset: Offset = 0) -> Data:
    """Feature views whose text holds some words, and entities."""
    defined = state.definitions.definitions
    views = [_view(state, each) for each in defined.values() if isinstance(each, FeatureView)]
    views = sorted((v for v in views if matches(v, q)), key=lambda view: view["name"])
    page = sliced(views, offset)
    entities = [each for each in defined.values() if isinstance(each, Entity)]
    return {
        "q": q,
        "views": page.rows,
        "paging": paging(page),
        "entities": [
            {**to_plain(each), "version": state.versions[DefinitionKey("entity", each.name)]}
            for each in sorted(entities, key=lambda each: each.name)[:200]
        ],
    }


def assets(catalog: Catalog, state: Definitions, offset: Offset = 0) -> Data:
    """Vocabularies and embeddings, and the services that read them."""
    defined = state.definitions
    found = sorted(
        (each for each in defined.definitions.values() if isinstance(each, Asset)),
        key=lambda each: each.name,
    )
    page = sliced(found, offset)
    rows = []
    for asset in page.rows:
        key = DefinitionKey("asset", asset.name)
        users = defined.dependents(key)
        rows.append(
            {
                **to_plain(asset),
                "size_bytes": asset.size_bytes,
                "definition_version": state.versions[key],
                "has_file": catalog.blobs.exists(bytes.fromhex(asset.sha256)),
                "services": [user.name for user in users if user.kind == "feature_service"],
                "stands_for": [user.name for user in users if user.kind == "asset"],
            }
        )
    return {"assets": rows, "paging": paging(page)}


def newest_values(catalog: Catalog, state: Definitions) -> Data:
    """What the online tables hold of each cloud view. Every key is counted, which takes a while."""
    found = list_value_sets(catalog.engine, state.definitions)
    return {"value_sets": found[:MAX_VALUE_SETS]}


def definition(catalog: Catalog, kind: str, name: str, version: int | None = None) -> Data:
    """One definition as a file would hold it, its versions and what each changed."""
    reference = f"{kind}/{name}" + ("" if version is None else f"@{version}")
    shown = catalog.features.version(reference)
    versions = catalog.features.history(shown.key)
    return {
        "kind": shown.key.kind,
        "name": shown.key.name,
        "version": shown.version,
        "newest": versions[-1].version,
        "sha256": shown.sha256,
        "applied_at": shown.applied_at,
        "actor": shown.actor,
        "yaml": None if shown.definition is None else as_yaml(shown.definition),
        "is_deleted_now": versions[-1].definition is None,
        "versions": _changes(versions, MAX_VERSIONS),
    }


def _view(state: RegistryState, view: FeatureView) -> dict[str, Any]:
    key = DefinitionKey("feature_view", view.name)
    return {
        "owner": "",
        "description": "",
        "tags": {},
        "ttl": None,
        "retention": None,
        "cache": None,
        "audience": [],
        **to_plain(view),
        "version": state.versions[key],
        "is_on_device": view.is_on_device,
        "services": [user.name for user in state.definitions.dependents(key)],
    }


def _changes(versions: tuple[DefinitionVersion, ...], most: int) -> list[dict[str, Any]]:
    """What each version changed, the newest first."""
    rows = []
    for before, each in list(zip((None, *versions), versions, strict=False))[-most:]:
        old = None if before is None else before.definition
        if each.definition is None:
            lines = ["deleted"]
        elif old is None:
            lines = ["created"]
        else:
            lines = list(value_lines(differences(old, each.definition)))
        rows.append(
            {
                "version": each.version,
                "apply_id": each.apply_id,
                "actor": each.actor,
                "applied_at": each.applied_at,
                "changes": lines,
            }
        )
    return rows[::-1]


def matches(plain: dict[str, Any], words: str) -> bool:
    """Whether every word is somewhere in a definition: its name, fields, tags, owner, policies."""
    text = json.dumps(plain, default=str, ensure_ascii=False).lower()
    return all(word in text for word in words.lower().split())


add_page(router, "/features", "features.html", features)
add_page(router, "/features/online", "values.html", newest_values)
add_page(router, "/assets", "assets.html", assets)
add_page(router, "/definitions/{kind}/{name}", "definition.html", definition)
