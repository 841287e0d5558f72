"""Manifests: what the maker makes the device's parser reads, and nothing else."""

import contextlib
import datetime as dt
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given as having
from hypothesis import settings
from hypothesis import strategies as st

from device_runtime.feature_cache import FeatureCache
from device_runtime.feature_database import FeatureDatabase
from device_runtime.feature_manifest import (
    MAX_MANIFEST_BYTES,
    FeatureManifest,
    InvalidFeatureManifest,
    Place,
    column_name,
)
from device_runtime.feature_reader import FeatureReader
from device_runtime.feature_values import UnreadableFeatureValue, decode_row, encode_key
from device_runtime.manifest_parser import parse_manifest
from device_runtime.manifest_views import cloud_views
from device_runtime.transform_chain import TransformChain
from feature_catalog.definitions.catalog_set import DefinitionSet
from feature_catalog.definitions.contracts import freeze
from feature_catalog.on_device import DeviceProfile, StorageClass
from feature_catalog.service import device_manifest
from feature_catalog.service.columns import sent_columns
from feature_catalog.service.device_manifest import ManifestMaker
from feature_catalog.service.errors import UnservableService
from feature_catalog.service.profiles import device_profile
from feature_catalog.service.served_contracts import ServedContract
from tests.feature_catalog.definitions.examples import parsed, with_change
from tests.feature_catalog.definitions.strategies import definition_sets

LARGE = DeviceProfile(storage_class=StorageClass.LARGE)
PROFILES = st.builds(
    DeviceProfile,
    storage_class=st.sampled_from([None, *StorageClass]),
    free_bytes=st.none() | st.integers(0, 10**9),
    locale=st.sampled_from([None, "en", "pt-BR"]),
)


def maker(*, stored: bool = True) -> ManifestMaker:
    return ManifestMaker(lambda _: stored, lambda _: {})


def served(given: DefinitionSet, name: str) -> ServedContract:
    return ServedContract(freeze(given, given.service(name)), given)


def example(text: str | None = None) -> ServedContract:
    return served(parsed() if text is None else parsed(text), "ads_ctr_v1")


@having(definition_sets(), PROFILES, st.booleans())
@settings(max_examples=25)
def test_every_manifest_reads_back_as_it_was_made(given, profile, stored):
    for name in given.names("feature_service"):
        manifest = maker(stored=stored).make(served(given, name), profile)
        text = manifest.to_json()
        read = parse_manifest(text.encode())
        assert read == manifest
        assert read.to_json() == text
        assert {f.name for f in read.features} == {
            f.feature.name for f in served(given, name).features
        }


SOUND = json.loads(maker().make(example(), LARGE).to_json())


def leaves(value, path=()):
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*path, key))
    yield path


PATHS = [path for path in leaves(SOUND) if path]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["a" * 600, 10**400, "cloud", "device", "[]", "../x", "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)


def read_or_refused(content: bytes) -> FeatureManifest | str:
    try:
        return parse_manifest(content)
    except InvalidFeatureManifest as error:
        return str(error)


@having(st.sampled_from(PATHS), JSON, st.sampled_from(["set", "add", "remove"]))
@settings(max_examples=200)
def test_a_manifest_with_anything_wrong_in_it_is_read_whole_or_refused_in_one_sentence(
    path, value, how
):
    changed = json.loads(json.dumps(SOUND))
    parent = changed
    for key in path[:-1]:
        parent = parent[key]
    if how == "set":
        parent[path[-1]] = value
    elif how == "remove":
        parent.pop(path[-1])
    elif isinstance(parent, dict):
        parent["x"] = value
    else:
        parent.append(value)
    found = read_or_refused(json.dumps(changed).encode())
    if isinstance(found, FeatureManifest):
        assert parse_manifest(found.to_json().encode()) == found
    else:
        assert len(found) < 700
        assert "\n" not in found


@having(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
@settings(max_examples=100)
def test_bytes_that_are_no_manifest_are_refused(content):
    with pytest.raises(InvalidFeatureManifest):
        parse_manifest(content)


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"format": 1, "format": 1}',
        b'{"format": NaN}',
        b"9" * 100_000,
        b" " * (MAX_MANIFEST_BYTES + 1),
        json.dumps(SOUND | {"features": SOUND["features"] * 400}).encode(),
        json.dumps(SOUND | {"features": []}).encode(),
        json.dumps(SOUND | {"format": 2}).encode(),
    ],
)
def test_hostile_manifests_are_refused(content):
    with pytest.raises(InvalidFeatureManifest):
        parse_manifest(content)


@having(st.binary(max_size=100))
@settings(max_examples=150)
def test_bytes_of_a_row_are_a_table_or_refused(body):
    with contextlib.suppress(UnreadableFeatureValue):
        assert isinstance(decode_row(body), dict)


def test_a_manifest_depends_on_nothing_but_contract_and_device():
    once, again = (maker().make(example(), LARGE) for _ in range(2))
    assert once.sha256() == again.sha256()
    told = with_change("owner: growth", "owner: others")
    assert maker().make(example(told), LARGE).sha256() == once.sha256()


def test_columns_tell_apart_what_went_through_other_transforms():
    plain, hashed = TransformChain(), TransformChain.from_json('[{"op":"hash","buckets":9}]')
    vocab = TransformChain.from_json('[{"op":"vocab","asset":"words","unknown":0}]')
    names = [
        column_name("city", plain, {}),
        column_name("city", hashed, {}),
        column_name("city", vocab, {"words": b"1" * 32}),
        column_name("city", vocab, {"words": b"2" * 32}),
    ]
    assert names[0] == "city"
    assert len(set(names)) == 4
    assert names[1] == column_name("city", hashed, {"words": b"1" * 32})


def test_an_asset_without_a_file_is_replaced_by_its_fallback_or_its_features_are_refused():
    without = example()
    [asset] = without.device_assets
    lost = ManifestMaker(lambda _: False, lambda _: {}).make(without, LARGE)
    assert lost.refused_features == {"category"}
    assert lost.refusals[0].reason == "ad_categories has no file on the server"
    assert "category" not in {f.name for view in cloud_views(lost) for f in view.fields}
    spare = """
  - name: few_categories
    type: vocabulary
    version: 1
    sha256: aa11111111111111111111111111111111111111111111111111111111111111
    size_bytes: 9
"""
    text = with_change("assets:\n", f"assets:{spare}")
    text = with_change(
        "name: ad_categories\n", "name: ad_categories\n    fallback: few_categories\n", text
    )
    with_spare = example(text)
    assert len(with_spare.device_assets) == 2
    found = ManifestMaker(lambda digest: digest != asset, lambda _: {}).make(with_spare, LARGE)
    assert not found.refused_features
    assert found.assets["ad_categories"].uses == "few_categories"


def test_a_fallback_for_a_file_that_is_not_there_still_has_to_fit_the_device():
    def spare(name: str, digit: str, keys: str) -> str:
        return (
            f"  - {{name: {name}, type: vocabulary, version: 1, sha256: {digit * 64}, "
            f"size_bytes: 9, {keys}}}\n"
        )

    text = with_change(
        "assets:\n",
        f"assets:\n{spare('brazil', 'a', 'locale: pt-BR, fallback: any_one')}"
        f"{spare('any_one', 'b', 'entries: 3')}",
    )
    text = with_change("name: ad_categories\n", "name: ad_categories\n    fallback: brazil\n", text)
    contract = example(text)
    lost = bytes.fromhex(contract.definitions.asset("ad_categories").sha256)
    make = ManifestMaker(lambda digest: digest != lost, lambda _: {}).make
    taken = {
        locale: make(contract, replace(LARGE, locale=locale)).assets["ad_categories"].uses
        for locale in ("pt-BR", "en")
    }
    assert taken == {"pt-BR": "brazil", "en": "any_one"}


def test_a_device_view_refused_for_its_size_is_told_with_its_features():
    tiny = DeviceProfile(storage_class=StorageClass.SMALL, free_bytes=1)
    manifest = maker().make(example(), tiny)
    assert {"dwell_s", "placement", "seen_before"} <= manifest.refused_features
    assert all(refusal.reason for refusal in manifest.refusals)


def test_a_service_too_large_for_any_device_is_refused_with_its_bytes(monkeypatch):
    size = len(maker().make(example(), LARGE).to_json())
    monkeypatch.setattr(device_manifest, "MAX_MANIFEST_BYTES", size)
    maker().make(example(), LARGE)
    monkeypatch.setattr(device_manifest, "MAX_MANIFEST_BYTES", size - 1)
    with pytest.raises(UnservableService, match=f"the manifest of ads_ctr_v1 has {size} bytes"):
        maker().make(example(), LARGE)


def test_the_number_of_a_view_changes_with_what_its_values_mean_alone():
    number = example().view_version("ad_stats")
    same = ("owner: ads", "owner: others"), ("max_bytes: 200000", "max_bytes: 300000")
    other = ("path: ad_stats.parquet", "path: other.parquet"), ("ttl: 2d", "ttl: 3d")
    for old, new in same:
        if old in with_change("", ""):
            assert example(with_change(old, new)).view_version("ad_stats") == number
    assert example(with_change(*other[0])).view_version("ad_stats") != number


def test_defaults_are_what_rows_would_hold(tmp_path):
    """A default takes the cloud's transforms, as values do; then the device's."""
    manifest = maker().make(example(), LARGE)
    country = next(f for f in manifest.features if f.name == "country")
    assert country.default == "unknown"
    views = [view for view in cloud_views(manifest) if view.name == "user_stats"]
    fields = tuple(f for f in views[0].fields if f.name == "country")
    view = replace(views[0], fields=fields)
    database = FeatureDatabase(tmp_path / "features.sqlite")
    cache = FeatureCache(database, "app", [view.cached()])
    read = FeatureReader(cache, [view], lambda *_: {}).read(
        "user_stats", [encode_key(["u"])], unmetered=None
    )
    assert (
        read.columns["country"].to_list() == country.read.apply(replace_column("unknown")).to_list()
    )
    database.close()


def replace_column(value):
    from device_runtime.columns import Column

    return Column.of([value])


def test_a_view_whose_values_age_is_kept_no_longer_than_they_are_true():
    manifest = maker().make(example(), LARGE)
    ad_stats = manifest.views["ad_stats"]  # its cache says no max_age
    assert ad_stats.place is Place.CLOUD
    assert ad_stats.ttl_s == dt.timedelta(days=2).total_seconds()
    assert ad_stats.cache.max_age_s == ad_stats.ttl_s
    assert manifest.views["user_stats"].cache.max_age_s == 86_400


def test_float32_defaults_are_those_of_a_float32_source():
    text = with_change(
        "{name: ctr_30d, dtype: float32}", "{name: ctr_30d, dtype: float32, default: 0.1}"
    )
    manifest = maker().make(example(text), LARGE)
    ctr = next(f for f in manifest.features if f.name == "ctr_30d")
    assert ctr.default == float(np.float32(0.1))
    assert [c.name for c in sent_columns(example(text), "ad_stats")] == ["category", "ctr_30d"]


def test_what_a_device_says_of_itself_and_makes_no_sense_counts_as_not_said():
    found = device_profile(
        device_model="x" * 500,
        os_release="Android 16",
        app="com.example.feed",
        free_bytes=2**63,
        memory_bytes=2**60,
        locale="'; DROP",
    )
    assert (found.device_model, found.os_release, found.locale) == ("a device", None, None)
    plain = device_profile(
        device_model="Pixel",
        os_release="2024-05",
        app="",
        free_bytes=1000,
        memory_bytes=0,
        locale="",
    )
    assert (plain.os_release, plain.free_bytes, plain.memory_mb) == ("2024-05", 512, None)
