"""Keys as strangers send them."""

import contextlib

import cbor2
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runtime.feature_values import encode_key
from feature_catalog.service.errors import InvalidFeatureRequest
from feature_catalog.service.feature_rows import check_keys
from tests.server.gateway.feature_examples import definitions

GIVEN = definitions()
PAIRS = GIVEN.view("ad_stats")  # ad_id: int64, user_id: string

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


@given(st.integers(-(2**63), 2**63 - 1), st.text(st.characters(codec="utf-8"), max_size=20))
def test_every_key_of_the_join_keys_types_is_taken(ad_id, user_id):
    check_keys(GIVEN, PAIRS, [encode_key([ad_id, user_id])])


@given(st.binary(max_size=40) | ANYTHING.map(cbor2.dumps))
@settings(max_examples=200)
def test_what_is_taken_as_a_key_is_one(key):
    with contextlib.suppress(InvalidFeatureRequest):
        check_keys(GIVEN, PAIRS, [key])
        ad_id, user_id = cbor2.loads(key)
        assert type(ad_id) is int
        assert isinstance(user_id, str)
        assert encode_key([ad_id, user_id]) == key
