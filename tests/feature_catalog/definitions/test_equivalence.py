"""Python and YAML define the same; digests depend on what is defined, not on how it is written."""

import dataclasses
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from feature_catalog.definitions import Asset, Entity, FeatureView
from feature_catalog.definitions.catalog_set import (
    DefinitionKey,
    DefinitionSet,
    check_set,
    key_of,
    plural,
)
from feature_catalog.definitions.contracts import freeze
from feature_catalog.definitions.files import parse_definitions
from feature_catalog.definitions.plain import canonical_json, digest, from_plain, to_plain
from feature_catalog.strict_yaml import dump_mapping
from tests.feature_catalog.definitions.strategies import definition_sets

# Lists whose order means nothing; that of transforms and of what they take means much.
UNORDERED = {"schema", "features", "entities", "join_keys", "audience", "includes"}


def as_yaml(given: DefinitionSet, shuffle: random.Random | None = None) -> str:
    raw: dict[str, list[object]] = {}
    definitions = list(given.definitions.values())
    if shuffle is not None:
        shuffle.shuffle(definitions)
    for each in definitions:
        plain = to_plain(each)
        raw.setdefault(plural(each.kind), []).append(
            plain if shuffle is None else shuffled(plain, shuffle)
        )
    return dump_mapping(raw)


def shuffled(value, shuffle: random.Random, key: str = ""):
    if isinstance(value, dict):
        items = [(name, shuffled(item, shuffle, name)) for name, item in value.items()]
        shuffle.shuffle(items)
        return dict(items)
    if isinstance(value, list):
        found = [shuffled(item, shuffle) for item in value]
        if key in UNORDERED:
            shuffle.shuffle(found)
        return found
    return value


def read(text: str) -> DefinitionSet:
    return DefinitionSet({key_of(each): each for each in parse_definitions(text)})


def contract(given: DefinitionSet, name: str = "whole") -> str:
    return freeze(given, given.service(name)).sha256


def without(given: DefinitionSet, key: DefinitionKey) -> dict:
    return {other: each for other, each in given.definitions.items() if other != key}


@settings(max_examples=20)
@given(definition_sets())
def test_yaml_of_what_python_defines_defines_the_same(python: DefinitionSet):
    check_set(python)
    again = read(as_yaml(python))
    assert again.definitions == python.definitions
    assert contract(again) == contract(python)
    for each in python.definitions.values():
        assert from_plain(each.kind, to_plain(each)) == each
        assert canonical_json(to_plain(from_plain(each.kind, to_plain(each)))) == canonical_json(
            to_plain(each)
        )


@settings(max_examples=20)
@given(definition_sets(), st.randoms(use_true_random=False))
def test_digests_do_not_depend_on_order(python: DefinitionSet, shuffle: random.Random):
    again = read(as_yaml(python, shuffle))
    for key, each in python.definitions.items():
        assert digest(again.definitions[key]) == digest(each)
    assert contract(again) == contract(python)


@settings(max_examples=15)
@given(definition_sets(), st.data())
def test_unrelated_changes_leave_a_contract_as_it_is(given: DefinitionSet, data):
    before = contract(given)
    more = {
        **given.definitions,
        **{key_of(each): each for each in (Entity("unrelated_thing"),)},
    }
    key = data.draw(st.sampled_from(sorted(given.definitions)))
    plain = to_plain(given.definitions[key])
    documented = from_plain(
        key.kind, plain | {"owner": "someone", "tags": {"a": "b"}, "description": "more words"}
    )
    assert contract(DefinitionSet({**more, key: documented})) == before


@settings(max_examples=15)
@given(definition_sets(), st.data())
def test_every_change_of_a_member_changes_the_contract(given: DefinitionSet, data):
    """Each of what a service reaches, by one key of it."""
    before = contract(given)
    used = {each.ref.partition(":")[0] for s in ("base", "whole") for each in served(given, s)}
    views = [each for each in given.definitions.values() if isinstance(each, FeatureView)]
    view = data.draw(st.sampled_from([each for each in views if each.name in used]))
    plain = to_plain(view)
    plain["audience"] = ["another.app"]
    changed = from_plain("feature_view", plain)
    assert contract(DefinitionSet({**given.definitions, key_of(view): changed})) != before
    entity = given.entity(view.entities[0])
    other = dataclasses.replace(entity, dtype="int32")
    assert contract(DefinitionSet({**given.definitions, key_of(entity): other})) != before


@settings(max_examples=15)
@given(definition_sets())
def test_an_asset_counts_where_it_is_reached_through_fallbacks_too(given: DefinitionSet):
    read_by = {
        step.asset for s in ("base", "whole") for f in served(given, s) for step in f.transforms
    }
    before = contract(given)
    for name in ("words", "few_words", "vectors"):
        asset = given.asset(name)
        other = dataclasses.replace(asset, sha256="ab" * 32)
        after = contract(DefinitionSet({**given.definitions, key_of(asset): other}))
        is_reached = name in read_by or (name == "few_words" and "words" in read_by)
        assert (after != before) == (is_reached and isinstance(other, Asset))


def served(given: DefinitionSet, service: str):
    return given.service(service).features
