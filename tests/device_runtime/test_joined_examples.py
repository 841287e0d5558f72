"""Labelled events of a device, joined with cloud features to a model's input."""

from dataclasses import replace

import numpy as np
import pytest

from device_runtime.columns import Column, Kind
from device_runtime.examples import UnreadableExamples
from device_runtime.feature_cache import FeatureCache
from device_runtime.feature_database import FeatureDatabase
from device_runtime.feature_inputs import InputForm, UnsuitableFeatures
from device_runtime.feature_manifest import (
    FeatureManifest,
    JoinKey,
    ManifestView,
    Place,
)
from device_runtime.feature_policies import OnFull, OnMiss, Retention
from device_runtime.feature_reader import (
    DeviceView,
    FeatureReader,
    ViewField,
)
from device_runtime.hashing import encode_bag
from device_runtime.joined_examples import FeatureSources, JoinedExamples
from device_runtime.labelled_events import (
    LABELS_ALONE,
    LabelledEvents,
    UnsuitableLabelledEvent,
    strictest_retention,
)
from tests.device_runtime.ads_service import BAG, HASHED, Cloud, manifest


@pytest.fixture
def cloud():
    return Cloud()


@pytest.fixture
def database(tmp_path):
    database = FeatureDatabase(tmp_path / "features.sqlite")
    yield database
    database.close()


@pytest.fixture
def sources(database, cloud):
    def sources(of=None, *, unmetered=True):
        of = of or manifest()
        view = DeviceView("ad", 1, (ViewField("topic", Kind.STRING),), of.views["ad"].cache)
        reader = FeatureReader(FeatureCache(database, "app", [view.cached()]), [view], cloud)
        return FeatureSources(of, LabelledEvents(database, of), reader, {}, lambda: unmetered)

    return sources


def record(events, ad, hour=7.5, place="top", label=1.0):
    keys = {"user_id": "u1", "ad_id": ad}
    return events.append(keys, {"shown": {"hour": hour, "place": place}}, label)


def bag(*tokens):
    return encode_bag(tokens, 512, 0, max_ids=6).tolist()


def test_an_example_is_the_event_as_stored_and_read_beside_what_the_cloud_says(sources):
    joined = sources()
    for ad, label in ((4, 1.0), (99, 0.0)):
        record(joined.events, ad, label=label)
    x, y = JoinedExamples(joined, BAG).load(10)
    place = HASHED.apply(Column.of(["top"])).to_list()[0]
    known = bag("hour=1", f"place={place}", "topic=t1")
    assert x.tolist() == [known, bag("hour=1", f"place={place}")]  # the cloud knows no ad 99
    assert (x.dtype, y.tolist()) == (np.int32, [[1.0], [0.0]])


def test_what_goes_through_a_chain_when_stored_is_in_the_file_in_no_other_form(sources, database):
    joined = sources()
    record(joined.events, 4, hour=17.25)
    (event,) = joined.events.newest(10)
    assert event.columns == {"shown/hour.1": 2, "shown/place": "top"}
    assert event.keys == {"user_id": "u1", "ad_id": 4}


def test_the_newest_are_joined_oldest_first_and_no_more_than_asked_for(sources):
    joined = sources()
    for ad in range(5):
        record(joined.events, ad, label=float(ad))
    examples = JoinedExamples(joined, BAG)
    assert examples.count() == 5
    assert examples.load(3)[1].ravel().tolist() == [2.0, 3.0, 4.0]


def test_without_a_network_what_is_cached_serves_and_the_rest_is_left_out(sources, cloud):
    joined = sources()
    record(joined.events, 4)
    whole = JoinedExamples(joined, BAG).load(10)[0].tolist()
    cloud.is_reachable = False
    record(joined.events, 5)
    offline = JoinedExamples(sources(unmetered=None), BAG)
    assert offline.load(10)[0].tolist() == whole  # ad 5 has no default to stand for it
    assert offline.count() == 2


def test_an_example_is_left_out_where_the_view_says_skip_example(sources, cloud):
    joined = sources(manifest(on_miss=OnMiss.SKIP_EXAMPLE))
    record(joined.events, 4)
    x, y = JoinedExamples(joined, BAG).load(10)
    assert (x.shape, y.shape, cloud.calls) == ((0, 6), (0, 1), 0)


def test_a_device_without_events_asks_nothing_of_the_cloud(sources, cloud):
    x, y = JoinedExamples(sources(), BAG).load(10)
    assert (x.shape, y.shape, cloud.calls) == ((0, 6), (0, 1), 0)


def test_events_stored_under_another_contract_are_left_out(sources):
    record(sources().events, 4)
    joined = sources(manifest(hour_column="hour.2"))
    record(joined.events, 5)
    assert [event.keys["ad_id"] for event in joined.events.newest(10)] == [5]


def test_a_model_that_cannot_read_the_features_is_refused(sources):
    with pytest.raises(UnsuitableFeatures, match="feature topic is text"):
        JoinedExamples(sources(), InputForm("numbers", 3))


def test_a_label_of_another_shape_than_the_model_learns_is_refused(sources):
    joined = sources()
    record(joined.events, 4, label=[1.0, 0.0])
    assert JoinedExamples(joined, BAG, label_shape=(2,)).load(10)[1].tolist() == [[1.0, 0.0]]
    with pytest.raises(UnreadableExamples, match=r"not of the shape \(1,\)"):
        JoinedExamples(joined, BAG).load(10)


@pytest.mark.parametrize(
    ("keys", "values", "sentence"),
    [
        ({"user_id": "u1"}, {}, "the key ad_id .* is 'None'; give a whole number"),
        ({"user_id": 3, "ad_id": 3}, {}, "the key user_id .* give text"),
        ({"user_id": "u1", "ad_id": True}, {}, "the key ad_id"),
        ({"user_id": "u1", "ad_id": 3}, {"hour": "late"}, "value of shown:hour is no float"),
        ({"user_id": "u1", "ad_id": 3}, {"hour": [1.0]}, "value of shown:hour is no float"),
        ({"user_id": "u1", "ad_id": 3}, {"place": "p" * 2**20}, "at most 1048576 are kept"),
    ],
)
def test_an_event_that_is_not_of_its_service_is_refused_and_not_kept(
    sources, keys, values, sentence
):
    events = sources().events
    with pytest.raises(UnsuitableLabelledEvent, match=sentence):
        events.append(keys, {"shown": values}, 1.0)
    assert events.count() == 0


@pytest.mark.parametrize(
    ("ad", "user", "why"),
    [
        (2**63, "u1", "a whole number that fits int64"),
        (True, "u1", "a whole number"),
        (4, "a\ud800", "lone surrogate"),
        (4, 7, "give text"),
        (None, "u1", "a whole number"),
    ],
)
def test_a_key_that_no_gateway_takes_is_refused_when_it_is_recorded(sources, ad, user, why):
    joined = sources()
    with pytest.raises(UnsuitableLabelledEvent, match=why):
        joined.events.append({"user_id": user, "ad_id": ad}, {}, 1.0)
    assert joined.events.count() == 0


def test_two_device_views_may_have_fields_of_one_name(database, cloud):
    of = manifest()
    tapped = replace(of.views["shown"], name="tapped", event="tapped", join_keys=())
    (hour, *others) = of.features
    again = replace(hour, name="tap_hour", view="tapped")
    both = replace(of, features=(hour, *others, again), views={**of.views, "tapped": tapped})
    view = DeviceView("ad", 1, (ViewField("topic", Kind.STRING),), of.views["ad"].cache)
    reader = FeatureReader(FeatureCache(database, "app", [view.cached()]), [view], cloud)
    events = LabelledEvents(database, both)
    events.append({"ad_id": 4}, {"shown": {"hour": 7.0}, "tapped": {"hour": 20.0}}, 1.0)
    joined = FeatureSources(both, events, reader, {}, lambda: True)
    x, _ = JoinedExamples(joined, BAG).load(10)
    assert x.tolist() == [bag("hour=1", "tap_hour=3", "topic=t1")]


def test_a_key_that_only_a_device_view_has_need_not_be_said(sources):
    joined = sources()
    assert joined.events.append({"ad_id": 4}, {"shown": {"hour": 7.5}}, 1.0)
    assert joined.events.newest(1)[0].keys == {"ad_id": 4}


def test_a_key_longer_than_any_that_is_stored_is_refused(database):
    of = manifest()
    ad = replace(of.views["ad"], join_keys=(JoinKey("ad_id", "string"),))
    shown = replace(of.views["shown"], join_keys=())
    events = LabelledEvents(database, replace(of, views={"ad": ad, "shown": shown}))
    assert events.append({"ad_id": "x" * 1020}, {}, 1.0)
    with pytest.raises(UnsuitableLabelledEvent, match="ad_id of an event for ads has 1025 bytes"):
        events.append({"ad_id": "x" * 1021}, {}, 1.0)


def test_a_value_that_is_not_given_is_missing(sources):
    joined = sources()
    joined.events.append({"user_id": "u1", "ad_id": 4}, {}, 1.0)
    assert JoinedExamples(joined, BAG).load(10)[0].tolist() == [bag("topic=t1")]


def test_the_strictest_of_all_device_views_limits_what_is_kept(database):
    both = manifest(retention=Retention(max_records=3))
    other = ManifestView(
        "session",
        1,
        Place.DEVICE,
        (),
        event="session",
        retention=Retention(max_age_s=60.0, max_records=50, on_full=OnFull.DROP_NEWEST),
    )
    both = FeatureManifest("ads", b"c" * 32, both.features, {**both.views, "session": other}, {})
    assert strictest_retention(both) == Retention(60.0, 3, None, OnFull.DROP_NEWEST)
    events = LabelledEvents(database, both)
    assert [record(events, ad) for ad in range(4)] == [True, True, True, False]
    alone = FeatureManifest("ads", b"c" * 32, (), {"ad": both.views["ad"]}, {})
    assert strictest_retention(alone) == LABELS_ALONE
