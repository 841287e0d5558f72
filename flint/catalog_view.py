"""How the feature catalog is shown: plans, definitions and lineage, as words and as JSON."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from feature_catalog.definitions.catalog_set import (
    DefinitionKey,
    dependencies,
    plural,
)
from feature_catalog.definitions.errors import listed
from feature_catalog.definitions.plain import Definition, to_plain
from feature_catalog.feature_plan import Action, Plan, UnknownDefinition, ValueChange, reaches
from feature_catalog.feature_registry import (
    Applied,
    DefinitionVersion,
    FeatureRegistry,
    StoredContract,
    TrainedModel,
)
from feature_catalog.strict_yaml import dump_mapping

_SIGN = {Action.CREATE: "+", Action.UPDATE: "~", Action.DELETE: "-"}
_SHOWN_CHARACTERS = 80
_SHOWN_DIGITS = 16


def describe_plan(
    plan: Plan, *, applied: bool = False, emptied: Sequence[str] = ()
) -> dict[str, Any]:
    """A plan, or what was done, as JSON.

    Args:
        emptied: Views that have no online values any more until they are materialised.
    """
    return {
        "registry_sha256": plan.registry_sha256,
        "applied": applied and not plan.is_empty,
        "changes": [
            {
                "action": str(change.action),
                "kind": change.key.kind,
                "name": change.key.name,
                "version": change.version,
                "source": plan.wanted.places.get(change.key),
                "values": [_value(each) for each in change.values],
            }
            for change in plan.changes
        ],
        "contracts": [
            {
                "service": each.contract.service,
                "old_sha256": each.old_sha256,
                "sha256": each.contract.sha256,
                "because": [str(key) for key in each.because],
            }
            for each in plan.contracts
        ],
        "unchanged": [str(key) for key in plan.unchanged],
        "left": [str(key) for key in plan.left],
        "to_materialize": list(emptied),
    }


def plan_lines(plan: Plan, *, applied: bool = False) -> Iterator[str]:
    """A plan, or what was done, in words."""
    for change in plan.changes:
        yield f"{_SIGN[change.action]} {change.key} (version {change.version})"
        yield from (f"    {line}" for line in value_lines(change.values))
    for each in plan.contracts:
        old = "new" if each.old_sha256 is None else f"{each.old_sha256[:_SHOWN_DIGITS]} ->"
        why = ", ".join(str(key) for key in each.because if key.name != each.contract.service)
        because = f", because of {why}" if why and each.old_sha256 is not None else ""
        yield (
            f"* contract of {each.contract.service}: {old} "
            f"{each.contract.sha256[:_SHOWN_DIGITS]}{because}"
        )
    yield _summary(plan, applied=applied)
    if plan.left:
        yield (
            f"{len(plan.left)} more in the catalog are in none of these files and stay "
            "(--prune deletes them)"
        )


def value_lines(values: Sequence[ValueChange]) -> Iterator[str]:
    """What differs within a definition, a line a value."""
    for each in values:
        if each.old is None:
            yield f"{each.path}: added {_short(each.new)}"
        elif each.new is None:
            yield f"{each.path}: removed {_short(each.old)}"
        else:
            yield f"{each.path}: {_short(each.old)} -> {_short(each.new)}"


def describe_version(
    found: DefinitionVersion, contract: StoredContract | None = None
) -> dict[str, Any]:
    """A version as JSON."""
    described = {
        "kind": found.key.kind,
        "name": found.key.name,
        "version": found.version,
        "deleted": found.definition is None,
        "sha256": found.sha256,
        "apply_id": found.apply_id,
        "actor": found.actor,
        "applied_at": found.applied_at,
        "definition": None if found.definition is None else to_plain(found.definition),
    }
    if contract is not None:
        described["contract_sha256"] = contract.contract.sha256
        described["contract"] = json.loads(contract.contract.content_json)
    return described


def describe_apply(applied: Applied) -> dict[str, Any]:
    """An apply as JSON."""
    return {
        "apply_id": applied.apply_id,
        "actor": applied.actor,
        "applied_at": applied.applied_at,
        "registry_sha256": applied.registry_sha256,
        "changes": [
            {"action": action, "kind": kind, "name": name, "version": version}
            for action, kind, name, version in applied.changes
        ],
    }


def apply_in_words(applied: Applied) -> str:
    """What an apply did, briefly."""
    words = [f"{_SIGN[Action(action)]} {name}" for action, _, name, _ in applied.changes]
    more = len(words) - 6
    return ", ".join(words[:6]) + (f" and {more} more" if more > 0 else "") or "contracts only"


def as_yaml(definition: Definition) -> str:
    """A definition as a file would hold it."""
    return dump_mapping({plural(definition.kind): [to_plain(definition)]}).rstrip()


def in_short(definition: Definition) -> str:
    """What a definition is, in a few words."""
    plain = to_plain(definition)
    if definition.kind == "entity":
        return f"joined by {', '.join(plain['join_keys'])}"
    if definition.kind == "asset":
        return f"{plain['type']}, {plain['size_bytes']} bytes, its version {plain['version']}"
    if definition.kind == "feature_view":
        source = plain["source"]
        place = source.get("path") or source.get("table") or f"event {source.get('event')}"
        return f"{len(plain['schema'])} features of {', '.join(plain['entities'])} from {place}"
    included = plain.get("includes", [])
    also = f" and those of {', '.join(included)}" if included else ""
    return f"{len(plain.get('features', []))} features{also}"


@dataclass(frozen=True)
class Lineage:
    """What a definition is made of, and what is made with it.

    Attributes:
        needs: Every definition it reaches, with those that each names.
        needed_by: Every definition that reaches it, with those that name each.
        contracts: Digest of the contract of each service that reaches it, hexadecimal.
        models: Model versions trained with each of those services.
    """

    key: DefinitionKey
    needs: Mapping[DefinitionKey, tuple[DefinitionKey, ...]]
    needed_by: Mapping[DefinitionKey, tuple[DefinitionKey, ...]]
    contracts: Mapping[str, str]
    models: Mapping[str, tuple[TrainedModel, ...]]


def lineage_of(registry: FeatureRegistry, key: DefinitionKey) -> Lineage:
    """The lineage of a definition.

    Raises:
        UnknownDefinition: If it was deleted.
    """
    state = registry.state()
    defined = state.definitions
    if key not in defined.definitions:
        raise UnknownDefinition(
            f"{key} was deleted; `flint catalog history {key.kind}/{key.name}` shows what it was"
        )
    needs = {
        each: tuple(sorted({need.key for need in dependencies(defined.definitions[each])}))
        for each in sorted(reaches(defined, key))
    }
    needed_by: dict[DefinitionKey, tuple[DefinitionKey, ...]] = {}
    waiting = [key]
    while waiting:
        each = waiting.pop()
        if each not in needed_by:
            needed_by[each] = tuple(defined.dependents(each))
            waiting.extend(needed_by[each])
    services = sorted(each.name for each in needed_by if each.kind == "feature_service")
    return Lineage(
        key,
        needs,
        needed_by,
        contracts={name: state.contracts[name] for name in services},
        models={name: registry.models(name) for name in services},
    )


def describe_lineage(lineage: Lineage) -> dict[str, Any]:
    """A lineage as JSON: edges, each from who needs to what is needed."""
    return {
        "kind": lineage.key.kind,
        "name": lineage.key.name,
        "needs": [[str(a), str(b)] for a, found in lineage.needs.items() for b in found],
        "needed_by": [[str(b), str(a)] for a, found in lineage.needed_by.items() for b in found],
        "contracts": dict(lineage.contracts),
        "models": [
            {"version": each.version, "service": name, "contract_sha256": each.contract_sha256}
            for name, found in lineage.models.items()
            for each in found
        ],
    }


def lineage_lines(lineage: Lineage) -> Iterator[str]:
    """A lineage as two trees; what has been shown is not unfolded again."""
    yield from _tree(lineage.key, lineage.needs, 0, set())
    users = lineage.needed_by[lineage.key]
    if users:
        yield "needed by"
        shown: set[DefinitionKey] = set()
        for user in users:
            yield from _tree(user, lineage.needed_by, 1, shown)
    for name, sha256 in lineage.contracts.items():
        yield f"contract of {name}: {sha256}"
        trained = [each.version for each in lineage.models[name]]
        if trained:
            yield f"trained with {name}: {listed(trained)}"


def _tree(
    key: DefinitionKey,
    links: Mapping[DefinitionKey, tuple[DefinitionKey, ...]],
    depth: int,
    shown: set[DefinitionKey],
) -> Iterator[str]:
    is_again = key in shown and bool(links[key])
    yield f"{'  ' * min(depth, 20)}{key}{' (as above)' if is_again else ''}"
    if not is_again:
        shown.add(key)
        for other in links[key]:
            yield from _tree(other, links, depth + 1, shown)


def _summary(plan: Plan, *, applied: bool) -> str:
    counts = dict.fromkeys(Action, 0)
    for change in plan.changes:
        counts[change.action] += 1
    if plan.is_empty:
        return f"nothing to do: {len(plan.unchanged)} definitions are in the catalog just so"
    words = (
        ("created", "updated", "deleted") if applied else ("to create", "to update", "to delete")
    )
    done = [f"{counts[action]} {word}" for action, word in zip(Action, words, strict=True)]
    return f"{', '.join(done)}, {len(plan.unchanged)} unchanged"


def _value(each: ValueChange) -> dict[str, Any]:
    return {"path": each.path, "old": each.old, "new": each.new}


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    if not text.isprintable():
        text = json.dumps(text)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."
