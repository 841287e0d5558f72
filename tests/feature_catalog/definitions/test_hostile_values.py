"""Whatever stands at whatever key: a definition, or one sentence; never another error."""

import copy

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_catalog.definitions.catalog_set import (
    KINDS_BY_PLURAL,
    DefinitionSet,
    check_set,
    key_of,
)
from feature_catalog.definitions.contracts import freeze
from feature_catalog.definitions.errors import DefinitionError
from feature_catalog.definitions.plain import from_plain
from tests.feature_catalog.definitions.examples import TEXT

RAW = yaml.safe_load(TEXT)
WORDS = sorted({word.strip(",:{}[]-\"'") for word in TEXT.split()})
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(WORDS)
    | st.sampled_from(["0d", "1e9MB", "-1s", "a:b", "a:b:c", "\ud800", "x" * 5000, "__class__"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(value, path=()):
    """Every place in nested lists and mappings."""
    yield path
    items = value.items() if isinstance(value, dict) else ()
    for key, item in items or (enumerate(value) if isinstance(value, list) else ()):
        yield from places(item, (*path, key))


PLACES = [path for path in places(RAW) if len(path) >= 2]


@settings(max_examples=100)
@given(st.lists(st.tuples(st.sampled_from(PLACES), VALUES), min_size=1, max_size=2))
def test_any_value_anywhere_is_a_definition_or_a_sentence(changes):
    raw = copy.deepcopy(RAW)
    for path, value in changes:
        holder = raw
        try:
            for part in path[:-1]:
                holder = holder[part]
            holder[path[-1]] = value
        except (TypeError, KeyError, IndexError):
            continue  # the change before took the place away
    try:
        found = [from_plain(KINDS_BY_PLURAL[s], item) for s, items in raw.items() for item in items]
        whole = DefinitionSet({key_of(each): each for each in found})
        check_set(whole)
    except DefinitionError as error:
        sentence = str(error)
    else:
        for name in whole.names("feature_service"):
            assert len(freeze(whole, whole.service(name)).sha256) == 64
        return
    assert len(sentence) < 1500
    assert sentence.isprintable()
