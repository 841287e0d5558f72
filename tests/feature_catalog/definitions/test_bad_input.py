"""Every mistake in a definition is one sentence with the file, the key and the mend."""

import pytest

from feature_catalog.definitions import (
    Asset,
    CachePolicy,
    CloudSource,
    Entity,
    FeatureView,
    Field,
    Retention,
    Transform,
)
from feature_catalog.definitions.errors import (
    DefinitionCycle,
    DefinitionError,
    DuplicateDefinition,
    InvalidDefinition,
    InvalidTransform,
    MissingDefinition,
    PolicyConflict,
    UnknownDefinitionKey,
    UnreadableDefinitions,
)
from feature_catalog.definitions.files import MAX_FILE_BYTES, parse_definitions
from tests.feature_catalog.definitions.examples import TEXT, parsed, with_change

SERVICE = "feature_services.ads_ctr_v1"

MISTAKES = {
    "unknown op": ("op: hash", "op: hsh", InvalidTransform, r"'hsh'.*did you mean hash\?"),
    "vocab without an asset": (
        "{asset: ad_categories, unknown: 8}",
        "{unknown: 8}",
        InvalidTransform,
        rf"{SERVICE}\.features\[1\].transforms\[0\].parameters.asset is missing",
    ),
    "vocab with a missing asset": (
        "{asset: ad_categories,",
        "{asset: ad_category,",
        MissingDefinition,
        "names the asset ad_category, which there is not.*did you mean ad_categories",
    ),
    "vocab with an embedding": (
        "type: vocabulary",
        "type: embedding\n    dimension: 8",
        InvalidTransform,
        "ad_categories is of type embedding, and vocab needs one of type vocabulary",
    ),
    "no buckets": ("{buckets: 64}", "{buckets: 0}", InvalidTransform, "buckets is 0; give"),
    "unknown parameter": (
        "{buckets: 64}",
        "{bucket: 64}",
        InvalidTransform,
        r"parameters.bucket is no parameter of hash \(did you mean buckets\?\)",
    ),
    "text that is clipped": (
        "ref: ad_views:dwell_s",
        "ref: ad_views:placement\n        name: dwell_s",
        InvalidTransform,
        "clip takes float or int values, and what comes to it is string",
    ),
    "device feature in the cloud": (
        "run_at: device_ingest, parameters: {min",
        "run_at: cloud, parameters: {min",
        InvalidTransform,
        "the events of ad_views never leave the device",
    ),
    "fallback to itself": (
        "entries: 8",
        "entries: 8\n    fallback: ad_categories",
        DefinitionCycle,
        "ad_categories -> ad_categories",
    ),
    "service in itself": (
        "    features:\n",
        "    includes: [ads_ctr_v1]\n    features:\n",
        DefinitionCycle,
        rf"{SERVICE}.includes leads back to itself",
    ),
    "field twice": (
        "- {name: ctr_30d, dtype: float32}",
        "- {name: category, dtype: float32}",
        DuplicateDefinition,
        "feature_views.ad_stats.schema has the field category twice",
    ),
    "two features of one name": (
        "- ad_views:seen_before",
        "- ad_views:seen_before\n      - {ref: ad_stats:category, name: seen_before}",
        DuplicateDefinition,
        "ad_views:seen_before and ad_stats:category both named seen_before",
    ),
    "missing field": (
        "ad_stats:ctr_30d",
        "ad_stats:ctr_30",
        MissingDefinition,
        r"view ad_stats has no field ctr_30 \(did you mean ctr_30d\?\)",
    ),
    "missing view": (
        "ad_stats:ctr_30d",
        "ad_stat:ctr_30d",
        MissingDefinition,
        "names the feature_view ad_stat, which there is not",
    ),
    "missing entity": (
        "entities: [user]",
        "entities: [users]",
        MissingDefinition,
        r"feature_views.user_stats.entities names the entity users",
    ),
    "negative records": (
        "max_records: 5000",
        "max_records: -1",
        InvalidDefinition,
        "retention.max_records = -1 .* from 1 to 10000000",
    ),
    "negative bytes": ("max_bytes: 2MB", "max_bytes: -2MB", InvalidDefinition, "such as 2MB"),
    "zero bytes": ("max_bytes: 2MB", "max_bytes: 0", InvalidDefinition, "from 1 to"),
    "negative ttl": ("ttl: 7d", "ttl: -7d", InvalidDefinition, "such as 30d, 12h"),
    "ttl without a unit": ("ttl: 7d", "ttl: 7", InvalidDefinition, r"user_stats.ttl = 7 .*30d"),
    "ttl of a million years": ("ttl: 7d", "ttl: 365000000d", InvalidDefinition, "at most 36500d"),
    "slip of the pen": (
        "ttl: 7d",
        "tll: 7d",
        UnknownDefinitionKey,
        r"feature_views.user_stats.tll is not a known key \(did you mean ttl\?\)",
    ),
    "unknown section": (
        "feature_views:",
        "views:",
        UnknownDefinitionKey,
        "views is not a known key of a file of feature definitions",
    ),
    "hostile name": (
        "{name: user,",
        '{name: "user; DROP TABLE x",',
        InvalidDefinition,
        r"entities\[0\].name = 'user; DROP TABLE x'",
    ),
    "path in a name": (
        "asset: ad_categories",
        "asset: ../../etc/passwd",
        InvalidDefinition,
        "parameters.asset = '../../etc/passwd'",
    ),
    "secret in a path": (
        "path: user_stats.parquet",
        "path: s3://me:secret@bucket/x.parquet",
        InvalidDefinition,
        "user_stats.source.path holds a user or password",
    ),
    "control character": (
        "path: user_stats.parquet",
        'path: "a\\eb.parquet"',
        InvalidDefinition,
        r"'a\\x1bb.parquet'",
    ),
    "two sources": (
        "path: user_stats.parquet",
        "path: user_stats.parquet, table: t",
        InvalidDefinition,
        "needs one of path .* and table",
    ),
    "join key as feature": (
        "{name: clicks_7d, dtype: int64}",
        "{name: user_id, dtype: string}",
        (InvalidDefinition, MissingDefinition),
        "user_id",
    ),
    "kept longer than true": (
        "max_age: 1d",
        "max_age: 30d",
        PolicyConflict,
        r"user_stats.cache.max_age = 30d is longer than ttl \(7d\)",
    ),
    "true longer than kept": (
        "ttl: 14d",
        "ttl: 60d",
        PolicyConflict,
        r"ad_views.ttl = 60d asks for events that retention.max_age \(30d\) has deleted",
    ),
    "retention without a bound": (
        "{max_age: 30d, max_records: 5000, max_bytes: 2MB}",
        "{max_age: 30d}",
        PolicyConflict,
        "neither max_records nor max_bytes",
    ),
    "retention of a cloud view": (
        "cache: {mode: prefetch",
        "retention: {max_bytes: 1MB}\n    cache: {mode: prefetch",
        PolicyConflict,
        "ttl says how long a value is true, cache how long",
    ),
    "cache of a device view": (
        "retention: {max_age: 30d, max_records: 5000, max_bytes: 2MB}",
        "cache: {mode: never}",
        PolicyConflict,
        "bound what is kept with retention",
    ),
    "device view without retention": (
        "    retention: {max_age: 30d, max_records: 5000, max_bytes: 2MB}\n",
        "",
        PolicyConflict,
        "retention is missing: which events a device keeps",
    ),
    "limits of no cache": ("mode: prefetch", "mode: never", PolicyConflict, "keeps nothing"),
    "fetching what is bundled": (
        "{mode: on_demand, max_bytes: 200kB, network: any, on_miss: skip_example}",
        "{mode: bundled, max_bytes: 200kB, on_miss: fetch}",
        PolicyConflict,
        "come with the app",
    ),
    "default of a field without one": (
        "cache: {mode: prefetch,",
        "cache: {on_miss: default, mode: prefetch,",
        PolicyConflict,
        "the field account_age_days has no default to take",
    ),
    "default of another type": (
        "default: unknown",
        "default: 5",
        InvalidDefinition,
        "a value of type string",
    ),
    "text as a list": ("[user_id]", "user_id", InvalidDefinition, "join_keys = 'user_id'.*a list"),
    "null": ("[user_id]", "null", InvalidDefinition, "given a value, or left out"),
    "long text": (
        "owner: growth}",
        f"owner: {'x' * 201}}}",
        InvalidDefinition,
        "at most 200 printable characters",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence_with_file_key_and_mend(name):
    old, new, error, said = MISTAKES[name]
    with pytest.raises(error, match=said) as caught:
        parsed(with_change(old, new))
    sentence = str(caught.value)
    assert sentence.startswith("features.yaml: ")
    assert "\n" not in sentence
    assert len(sentence) < 500


def test_transforms_go_from_the_cloud_to_the_device_and_not_back():
    old = "{op: normalize, run_at: device_read,"
    with pytest.raises(InvalidTransform, match="device_ingest comes after a transform at device_r"):
        parsed(
            with_change(
                "run_at: device_ingest, parameters: {min",
                "run_at: device_read, parameters: {min",
                with_change(old, "{op: normalize, run_at: device_ingest,"),
            )
        )


def test_a_circle_of_fallbacks_is_shown_whole():
    asset = TEXT.index("  - name: ad_categories")
    block = TEXT[asset : TEXT.index("feature_services:")]
    chain = "".join(
        block.replace("name: ad_categories", f"name: {name}").rstrip() + f"\n    fallback: {to}\n"
        for name, to in [("ad_categories", "b"), ("b", "c"), ("c", "b")]
    )
    with pytest.raises(DefinitionCycle, match=r"assets.b.fallback .*: b -> c -> b;"):
        parsed(TEXT.replace(block, chain + "\n"))


def test_an_event_that_lacks_a_field_of_its_view_is_refused():
    text = with_change(
        "    ttl: 14d\n", "    schema: [{name: dwel_s, dtype: float32}]\n    ttl: 14d\n"
    )
    with pytest.raises(InvalidDefinition, match=r"dwel_s, which the event ad_view does not hold"):
        parsed(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the file is empty"),
        ("- a", "the file is a list"),
        ("entities: {a: 1}", "must be a list"),
        ("entities: [x]", r"entities\[0\] = 'x' .* a block of keys"),
        ("entities: [{name: a}]\nentities: []", "already given"),
        ("entities: &a [*a]", "aliases|depth|nested|expanded"),
        ("#" + "x" * MAX_FILE_BYTES, "bytes long; at most"),
        ("entities:\n\t- x", "line 2"),
    ],
)
def test_what_is_no_file_of_definitions_is_refused(text, said):
    with pytest.raises(DefinitionError, match=said):
        list(parse_definitions(text))


def test_too_many_values_are_refused_before_they_are_built():
    many = "[" + "1," * 120_000 + "]"
    with pytest.raises(UnreadableDefinitions, match="more than 100000 values"):
        list(parse_definitions(f"entities: {many}"))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Entity(name="User"),
        lambda: Entity(name="user", join_keys=["a", "a"]),
        lambda: Entity(name="user", dtype="float32"),
        lambda: Field(name="x", dtype="float32", shape=[0]),
        lambda: Field(name="x", dtype="float32", default=float("nan")),
        lambda: Field(name="x", dtype="int32", default=2**31),
        lambda: Field(name="x", dtype="bool", default=1),
        lambda: Retention(max_age=30, max_bytes=1),
        lambda: CachePolicy(mode="on_demand"),
        lambda: CachePolicy(mode="sometimes", max_bytes=1),
        CloudSource,
        lambda: CloudSource(path="x.csv"),
        lambda: CloudSource(table="a.b.c"),
        lambda: Transform("hash", "cloud"),
        lambda: Transform("hash", "phone", {"buckets": 3}),
        lambda: Asset(name="a", type="vocabulary", version=0, sha256="0" * 64, size_bytes=1),
        lambda: Asset(name="a", type="vocabulary", version=1, sha256="0" * 63, size_bytes=1),
        lambda: Asset(name="a", type="embedding", version=1, sha256="0" * 64, size_bytes=1),
        lambda: FeatureView(name="v", entities=["user"], source=CloudSource(path="x.parquet")),
        lambda: FeatureView(name="v", entities=[], source=CloudSource(path="x.parquet")),
    ],
)
def test_in_python_a_mistake_is_refused_where_it_is_made(make):
    with pytest.raises(DefinitionError):
        make()
