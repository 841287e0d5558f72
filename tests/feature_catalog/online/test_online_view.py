"""What decides where a view's values are stored, and what does not."""

import pytest

from feature_catalog.definitions import Dtype
from feature_catalog.online import JoinKey, OnlineView
from feature_catalog.online.errors import NotServedOnline
from feature_catalog.online.online_view import online_views
from tests.feature_catalog.definitions.examples import TEXT, parsed, with_change

AD_STATS = OnlineView.of(parsed(), "ad_stats")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ttl: 2d", "ttl: 36h"),
        ("on_miss: skip_example", "on_miss: fetch"),
        ("owner: ads", "owner: growth"),
    ],
)
def test_a_change_that_alters_no_value_keeps_the_values(old, new):
    text = TEXT.replace(old, new)
    assert text != TEXT
    assert OnlineView.of(parsed(text), "ad_stats").value_set == AD_STATS.value_set


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("{name: ctr_30d, dtype: float32}", "{name: ctr_30d, dtype: float64}"),
        ("path: ad_stats.parquet", "path: ads/"),
        ("join_keys: [ad_id]", "join_keys: [ad]"),
        ("{name: ctr_30d, dtype: float32}", "{name: ctr_30d, dtype: float32, shape: [2]}"),
    ],
)
def test_another_key_source_or_field_means_other_values(old, new):
    changed = OnlineView.of(parsed(with_change(old, new)), "ad_stats")
    assert changed.value_set != AD_STATS.value_set
    assert -(2**63) <= changed.value_set < 2**63


def test_keys_of_several_entities_come_entity_by_entity_in_order_of_name():
    text = with_change("entities: [ad]", "entities: [user, ad]")
    view = OnlineView.of(parsed(text), "ad_stats")
    assert view.join_keys == (JoinKey("ad_id", Dtype.STRING), JoinKey("user_id", Dtype.STRING))


def test_views_of_devices_have_no_online_values():
    assert [view.name for view in online_views(parsed())] == ["ad_stats", "user_stats"]
    with pytest.raises(NotServedOnline, match="made on devices and never leave them"):
        OnlineView.of(parsed(), "ad_views")


def test_a_view_that_is_not_there_is_said_with_the_nearest():
    with pytest.raises(NotServedOnline, match=r"'ad_stat' \(did you mean ad_stats\?\)"):
        OnlineView.of(parsed(), "ad_stat")
