"""`resolve_for_device`: what a device keeps, what it does without, and the reason said."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runtime.feature_policies import CacheMode, Network
from feature_catalog.definitions.catalog_set import check_set
from feature_catalog.definitions.contracts import freeze, thaw
from feature_catalog.definitions.errors import InvalidDefinition
from feature_catalog.on_device import (
    DeviceProfile,
    DeviceResolution,
    DeviceRules,
    Effect,
    Reason,
    StorageClass,
    resolve_for_device,
)
from feature_catalog.on_device.described import describe
from feature_catalog.on_device.room import Wish, share_out
from feature_catalog.on_device.rules import DEFAULT_RULES
from tests.feature_catalog.definitions.examples import TEXT, parsed, with_change
from tests.feature_catalog.definitions.strategies import definition_sets

SHA256 = "ab" * 32
NAMES = ["category", "clicks_7d", "country", "ctr_30d", "dwell_s", "placement", "seen_before"]


def resolved(
    profile: DeviceProfile, text: str = TEXT, rules: DeviceRules = DEFAULT_RULES
) -> DeviceResolution:
    found = parsed(text)
    service = found.service("ads_ctr_v1")
    assert service is not None
    return resolve_for_device(profile, service, found, rules)


def with_vocabulary(size: str, *, more: str = "", extra: str = "") -> str:
    """The example with another vocabulary size, more keys of it, and more assets."""
    text = with_change("size_bytes: 50B\n", f"size_bytes: {size}\n{more}")
    return text.replace("assets:\n", f"assets:\n{extra}", 1)


def asset(name: str, size: str, keys: str = "") -> str:
    return (
        f"  - {{name: {name}, type: vocabulary, version: 1, sha256: {SHA256}, entries: 10, "
        f"size_bytes: {size}{keys}}}\n"
    )


def reasons(found: DeviceResolution) -> list[tuple[Effect, Reason, str]]:
    return [(each.effect, each.reason, each.about) for each in found.remarks]


def test_a_device_with_room_gets_all_that_is_defined():
    found = resolved(DeviceProfile("Pixel", memory_mb=8000))
    assert found.is_complete
    assert found.remarks == ()
    assert found.storage_class is StorageClass.LARGE
    assert [each.name for each in found.transformed] == NAMES
    (store,) = found.stored
    assert (store.event, store.retention.max_age_s, store.max_events) == ("ad_view", 2592000, 5000)
    assert [(c.view, c.policy.mode) for c in found.cached] == [
        ("ad_stats", CacheMode.ON_DEMAND),
        ("user_stats", CacheMode.PREFETCH),
    ]
    assert [(a.name, a.bytes, a.used_by) for a in found.downloaded] == [
        ("ad_categories", 50, ("category",))
    ]


def test_each_transform_is_said_at_the_place_it_runs():
    by_name = {each.name: each for each in resolved(DeviceProfile()).transformed}
    dwell = by_name["dwell_s"]
    assert [len(c.steps) for c in (dwell.cloud, dwell.device_ingest, dwell.device_read)] == [
        0,
        1,
        1,
    ]
    clicks = by_name["clicks_7d"]
    assert json.loads(clicks.cloud.to_json())[0]["op"] == "bucketize"
    assert by_name["category"].assets == {"ad_categories": "ad_categories"}


def test_a_vocabulary_that_the_cloud_alone_reads_is_not_downloaded():
    text = with_change(
        "run_at: device_ingest\n            parameters: {asset",
        "run_at: cloud\n            parameters: {asset",
    )
    found = resolved(DeviceProfile(), text)
    assert found.downloaded == ()
    assert found.is_complete


def test_too_large_an_asset_is_replaced_by_the_first_fallback_that_fits():
    text = with_vocabulary(
        "3MB",
        more="    fallback: middle\n",
        extra=asset("middle", "2100kB", ", fallback: least") + asset("least", "1MB"),
    )
    small = resolved(DeviceProfile(storage_class=StorageClass.SMALL), text)
    assert [(a.name, a.asked) for a in small.downloaded] == [("least", ("ad_categories",))]
    assert small.is_complete
    assert reasons(small) == [
        (Effect.REPLACED, Reason.ASSET_TOO_LARGE, "asset ad_categories"),
        (Effect.REPLACED, Reason.ASSET_TOO_LARGE, "asset middle"),
    ]
    assert "3,000,000 bytes" in small.remarks[0].sentence
    assert "at most 2,000,000" in small.remarks[0].sentence
    assert "least is taken in its place" in small.remarks[0].sentence
    medium = resolved(DeviceProfile(storage_class=StorageClass.MEDIUM), text)
    assert [a.name for a in medium.downloaded] == ["ad_categories"]


def test_without_an_asset_and_a_fallback_its_features_are_refused_and_the_rest_stays():
    found = resolved(DeviceProfile(storage_class=StorageClass.SMALL), with_vocabulary("3MB"))
    assert found.refused == ("category",)
    assert not found.is_complete
    assert [each.name for each in found.transformed] == [n for n in NAMES if n != "category"]
    assert reasons(found) == [
        (Effect.REFUSED, Reason.ASSET_TOO_LARGE, "asset ad_categories"),
        (Effect.REFUSED, Reason.NEEDS_REFUSED, "feature category"),
    ]


def test_an_asset_whose_file_is_not_there_leaves_its_room_to_a_fallback_that_is():
    extra = asset("other", "1500kB").replace(SHA256, "cd" * 32)
    found = parsed(with_vocabulary("1500kB", more="    fallback: other\n", extra=extra))
    resolution = resolve_for_device(
        DeviceProfile(storage_class=StorageClass.SMALL),
        found.service("ads_ctr_v1"),
        found,
        is_stored=lambda each: each.name == "other",
    )
    assert [each.name for each in resolution.downloaded] == ["other"]
    assert reasons(resolution) == [(Effect.REPLACED, Reason.NOT_ON_SERVER, "asset ad_categories")]


@pytest.mark.parametrize(
    ("wanted", "locale", "fits"),
    [
        ("pt", "pt-BR", True),
        ("pt", "pt_BR", True),
        ("pt-BR", "pt-br", True),
        ("pt-BR", "pt", False),
        ("pt-BR", "pt-PT", False),
        ("p", None, True),
        ("pt", "ptx", False),
    ],
)
def test_an_asset_fits_users_of_its_language(wanted, locale, fits):
    more = f"    locale: {wanted}\n" if wanted != "p" else "    locale: pt\n"
    found = resolved(DeviceProfile(locale=locale), with_vocabulary("50B", more=more))
    assert found.is_complete is fits
    if not fits:
        assert found.remarks[0].reason is Reason.OTHER_LOCALE


def test_an_embedding_too_large_for_memory_is_refused():
    text = with_change(
        "        transforms: [{op: hash, run_at: device_read, parameters: {buckets: 64}}]",
        "        transforms:\n"
        "          - {op: hash, run_at: device_read, parameters: {buckets: 64}}\n"
        "          - {op: embed_lookup, run_at: device_read, parameters: {asset: places}}",
    ).replace(
        "assets:\n",
        f"assets:\n  - {{name: places, type: embedding, version: 1, sha256: {SHA256}, "
        "size_bytes: 60MB, dimension: 64}\n",
        1,
    )
    roomy = resolved(DeviceProfile(memory_mb=8000, app_memory_mb=512), text)
    assert roomy.memory_bytes > 60e6
    (country,) = (each for each in roomy.transformed if each.name == "country")
    assert country.shape == (64,)
    tight = resolved(DeviceProfile(memory_mb=8000, app_memory_mb=192), text)
    assert (Effect.REFUSED, Reason.OUT_OF_MEMORY, "asset places") in reasons(tight)
    assert tight.refused == ("country",)


def test_a_shared_asset_is_downloaded_once():
    text = with_change(
        "      - ad_stats:ctr_30d\n",
        "      - ad_stats:ctr_30d\n"
        "      - ref: ad_stats:category\n"
        "        name: again\n"
        "        transforms: [{op: vocab, run_at: device_read, "
        "parameters: {asset: ad_categories, unknown: 0}}]\n",
    )
    (only,) = resolved(DeviceProfile(), text).downloaded
    assert only.used_by == ("again", "category")


def test_on_a_metered_network_what_may_not_be_fetched_there_waits():
    text = with_vocabulary("1MB")
    found = resolved(DeviceProfile(unmetered=False), text)
    assert reasons(found) == [
        (Effect.WAITS, Reason.METERED_NETWORK, "asset ad_categories"),
        (Effect.WAITS, Reason.METERED_NETWORK, "feature_view user_stats"),
    ]
    assert found.downloaded[0].network is Network.UNMETERED
    assert found.is_complete
    for unmetered in (True, None):
        assert resolved(DeviceProfile(unmetered=unmetered), text).remarks == ()


def test_an_os_older_than_the_oldest_served_is_refused_everything():
    rules = DeviceRules(min_os_release="2019-09")
    old = resolved(DeviceProfile("Old", os_release="2019-08"), rules=rules)
    assert old.refused == tuple(NAMES)
    assert (old.total_bytes, old.transformed) == (0, ())
    assert reasons(old) == [(Effect.REFUSED, Reason.OS_TOO_OLD, "Old")]
    for month in ("2019-09", "2024-01", None):
        assert resolved(DeviceProfile(os_release=month), rules=rules).is_complete


def test_a_device_with_little_room_keeps_less_and_says_of_what():
    found = resolved(DeviceProfile(free_bytes=26_000_000))
    assert found.is_complete
    assert found.budget.total_bytes == 1_300_000
    assert reasons(found) == [
        (Effect.REDUCED, Reason.OUT_OF_STORAGE, "feature_view ad_views"),
        (Effect.REDUCED, Reason.OUT_OF_STORAGE, "feature_view ad_stats"),
        (Effect.REDUCED, Reason.OUT_OF_STORAGE, "feature_view user_stats"),
    ]
    assert all(each.max_keys >= 16 for each in found.cached)
    assert found.stored[0].retention.max_bytes < 2_000_000


def test_a_device_without_room_for_the_file_is_refused_in_one_sentence():
    found = resolved(DeviceProfile("Full", free_bytes=1_000_000))
    assert len(found.refused) == 7
    assert len(found.remarks) == 1
    assert "Full has 50,000 bytes for features" in found.remarks[0].sentence


def test_a_view_that_cannot_be_kept_is_fetched_for_each_read_if_its_policy_says_fetch():
    rules = DeviceRules.from_json({"budgets": {"medium": {"total_bytes": 1_215_000}}})
    found = resolved(DeviceProfile(), rules=rules)
    by_view = {each.view: each for each in found.cached}
    assert by_view["user_stats"].policy.mode is CacheMode.NEVER
    assert by_view["user_stats"].bytes == 0
    assert "ad_stats" not in by_view  # skip_example: there would never be a value
    assert {"category", "ctr_30d"} <= set(found.refused)


@settings(max_examples=30, deadline=None)
@given(
    free_bytes=st.integers(0, 2 * 10**9),
    memory_mb=st.none() | st.floats(1, 20_000),
    size=st.integers(1, 10**8),
    cache=st.integers(1, 10**8),
    kept=st.integers(1, 10**8),
)
def test_no_device_spends_more_than_its_budget(free_bytes, memory_mb, size, cache, kept):
    text = with_vocabulary(f"{size}B", more="    fallback: tiny\n", extra=asset("tiny", "20B"))
    text = text.replace("max_bytes: 200kB", f"max_bytes: {cache}B").replace(
        "max_bytes: 2MB", f"max_bytes: {kept}B"
    )
    profile = DeviceProfile(free_bytes=free_bytes, memory_mb=memory_mb)
    found = resolved(profile, text)
    assert found.total_bytes <= found.budget.total_bytes
    assert found.memory_bytes <= found.budget.asset_memory_bytes
    assert sorted([*found.refused, *(each.name for each in found.transformed)]) == NAMES
    assert found == resolved(profile, text)
    assert json.loads(json.dumps(describe(found)))["complete"] is found.is_complete
    if found.refused:
        assert any(each.effect is Effect.REFUSED for each in found.remarks)


@given(
    wishes=st.dictionaries(
        st.text("abcdef", min_size=1, max_size=3),
        st.builds(Wish, st.integers(1, 10**6), st.integers(1, 10**4)),
        max_size=6,
    ),
    available=st.integers(-100, 2 * 10**6),
)
def test_what_is_shared_out_fits_and_gives_each_its_least(wishes, available):
    granted = share_out(wishes, available)
    assert sum(granted.values()) <= max(available, 0)
    for name, its_bytes in granted.items():
        wish = wishes[name]
        assert min(wish.least_bytes, wish.bytes) <= its_bytes <= wish.bytes
    if sum(wish.bytes for wish in wishes.values()) <= available:
        assert granted == {name: wish.bytes for name, wish in wishes.items()}


def test_caches_larger_than_the_cache_file_together_are_reduced():
    text = with_change("max_bytes: 200kB", "max_bytes: 30MB")
    found = resolved(DeviceProfile(storage_class=StorageClass.LARGE), text)
    assert (Effect.REDUCED, Reason.CACHE_FILE_FULL, "feature_view ad_stats") in reasons(found)
    assert sum(each.counted_bytes for each in found.cached) <= 16 * 2**20


def test_a_thawed_contract_is_the_contract_and_resolves_alike():
    found = parsed()
    service = found.service("ads_ctr_v1")
    assert service is not None
    contract = freeze(found, service)
    thawed = thaw(contract)
    again = thawed.service("ads_ctr_v1")
    assert again is not None
    assert freeze(thawed, again) == contract
    profile = DeviceProfile(free_bytes=30_000_000, unmetered=False)
    assert resolve_for_device(profile, again, thawed) == resolved(profile)


@settings(max_examples=20, deadline=None)
@given(
    found=definition_sets(),
    free_bytes=st.none() | st.integers(10**6, 10**9),
    unmetered=st.none() | st.booleans(),
)
def test_any_services_contract_thaws_to_itself_and_resolves_alike(found, free_bytes, unmetered):
    profile = DeviceProfile(free_bytes=free_bytes, unmetered=unmetered, locale="en")
    for name in found.names("feature_service"):
        service = found.service(name)
        contract = freeze(found, service)
        thawed = thaw(contract)
        again = thawed.service(name)
        check_set(thawed)
        assert freeze(thawed, again) == contract
        resolution = resolve_for_device(profile, again, thawed)
        assert resolution == resolve_for_device(profile, service, found)
        assert resolution.total_bytes <= resolution.budget.total_bytes
        json.dumps(describe(resolution), allow_nan=False)


def test_a_contract_of_another_format_is_refused():
    found = parsed()
    service = found.service("ads_ctr_v1")
    assert service is not None
    contract = freeze(found, service)
    content = contract.content_json.replace('"format":1', '"format":9')
    with pytest.raises(InvalidDefinition, match="format = 9"):
        thaw(type(contract)(contract.service, content))
