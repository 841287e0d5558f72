"""Any set of definitions that fit each other, for hypothesis to draw."""

import datetime as dt
import string

from hypothesis import strategies as st

from feature_catalog.definitions import (
    Asset,
    CachePolicy,
    CloudSource,
    DeviceSource,
    Dtype,
    Entity,
    Feature,
    FeatureService,
    FeatureView,
    Field,
    OnFull,
    Retention,
    Transform,
)
from feature_catalog.definitions.catalog_set import DefinitionSet, key_of

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
COLUMNS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
TEXTS = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), max_size=12)
TAGS = st.dictionaries(st.text(string.ascii_letters, min_size=1, max_size=5), TEXTS, max_size=3)
FLOATS = st.floats(-1e6, 1e6, allow_nan=False)
DURATIONS_S = st.integers(1, 10**8)
DOCUMENTED = {"description": TEXTS, "owner": TEXTS, "tags": TAGS}

DEFAULTS = {
    Dtype.BOOL: st.booleans(),
    Dtype.INT32: st.integers(-(2**31), 2**31 - 1),
    Dtype.INT64: st.integers(-(2**63), 2**63 - 1),
    Dtype.FLOAT32: FLOATS,
    Dtype.FLOAT64: st.floats(allow_nan=False, allow_infinity=False),
    Dtype.STRING: TEXTS,
}


@st.composite
def fields(draw, name: str) -> Field:
    dtype = draw(st.sampled_from(Dtype))
    return Field(
        name=name,
        dtype=dtype,
        shape=draw(st.lists(st.integers(1, 64), max_size=2)),
        default=draw(st.none() | DEFAULTS[dtype]),
        description=draw(TEXTS),
    )


@st.composite
def schemas(draw, without: set[str]) -> list[Field]:
    names = draw(st.lists(COLUMNS, min_size=1, max_size=4, unique=True))
    names = [name for name in names if name not in without] or ["only_field"]
    return [draw(fields(name)) for name in names]


@st.composite
def device_views(draw, name: str, entities: list[Entity]) -> FeatureView:
    kept_s, true_s = draw(DURATIONS_S), draw(DURATIONS_S)
    limits = draw(
        st.fixed_dictionaries(
            {"max_bytes": st.integers(1, 10**12)}, optional={"max_records": st.integers(1, 10**6)}
        )
    )
    return FeatureView(
        name,
        entities=entities,
        source=DeviceSource(draw(NAMES), draw(schemas(set()))),
        ttl=draw(st.none() | st.just(dt.timedelta(seconds=min(kept_s, true_s)))),
        retention=Retention(
            max_age=draw(st.none() | st.just(dt.timedelta(seconds=kept_s))),
            on_full=draw(st.sampled_from(OnFull)),
            **limits,
        ),
        audience=draw(st.lists(st.sampled_from(["app.a", "app.b", "app.c"]), unique=True)),
        **{key: draw(value) for key, value in DOCUMENTED.items()},
    )


@st.composite
def cloud_views(draw, name: str, entities: list[Entity]) -> FeatureView:
    keys = {key for entity in entities for key in entity.join_keys}
    place = draw(st.sampled_from([{"path": "s3://b/x.parquet"}, {"table": "public.x"}]))
    cached = draw(st.booleans())
    return FeatureView(
        name,
        entities=entities,
        source=CloudSource(event_ts="the_event_ts", **place),
        schema=draw(schemas(keys)),
        ttl=draw(st.none() | DURATIONS_S.map(lambda s: dt.timedelta(seconds=s + 10))),
        cache=CachePolicy(
            mode=draw(st.sampled_from(["on_demand", "prefetch"])),
            max_age=dt.timedelta(seconds=draw(st.integers(1, 10))),
            max_bytes=draw(st.integers(1, 10**9)),
            network=draw(st.sampled_from(["unmetered", "any"])),
            on_miss=draw(st.sampled_from(["fetch", "skip_example"])),
            max_rows=draw(st.none() | st.integers(1, 10**6)),
        )
        if cached
        else None,
        **{key: draw(value) for key, value in DOCUMENTED.items()},
    )


@st.composite
def features(draw, view: FeatureView, field: Field, name: str) -> Feature:
    place = st.sampled_from(["device_ingest", "device_read"])
    steps = []
    if field.dtype is Dtype.STRING or field.dtype.column_kind == "int":
        steps = draw(
            st.sampled_from(
                [
                    [],
                    [("hash", {"buckets": draw(st.integers(1, 2**31 - 1))})],
                    [("vocab", {"asset": "words", "unknown": draw(st.integers(0, 9))})],
                    [
                        ("vocab", {"asset": "words", "hash_buckets": 3}),
                        ("embed_lookup", {"asset": "vectors"}),
                    ],
                ]
            )
        )
    else:
        steps = [
            ("clip", {"min": draw(FLOATS)}),
            ("normalize", {"mean": draw(FLOATS), "stdev": draw(st.floats(1e-3, 1e3))}),
        ]
    where = draw(place)
    return Feature(
        f"{view.name}:{field.name}", [Transform(op, where, values) for op, values in steps], name
    )


@st.composite
def definition_sets(draw) -> DefinitionSet:
    entities = [
        Entity(
            name,
            join_keys=[f"{name}_{part}" for part in range(draw(st.integers(1, 3)))],
            dtype=draw(st.sampled_from(["string", "int64"])),
            **{key: draw(value) for key, value in DOCUMENTED.items()},
        )
        for name in draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    ]
    of = st.lists(st.sampled_from(entities), min_size=1, unique_by=lambda entity: entity.name)
    views = [
        draw(draw(st.sampled_from([device_views, cloud_views]))(name, draw(of)))
        for name in draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    ]
    digest = draw(st.binary(min_size=32, max_size=32)).hex()
    assets = [
        Asset("words", "vocabulary", 1, digest, 10, fallback="few_words", locale="pt-BR"),
        Asset("few_words", "vocabulary", draw(st.integers(1, 9)), digest[::-1], 5),
        Asset("vectors", "embedding", 3, digest, draw(st.integers(1, 10**9)), dimension=8),
    ]
    chosen = [
        draw(features(view, field, f"f{i}_{j}"))
        for i, view in enumerate(views)
        for j, field in enumerate(view.schema)
    ]
    cut = draw(st.integers(1, len(chosen)))
    services = [FeatureService("base", chosen[:cut])]
    services.append(FeatureService("whole", chosen[cut:], includes=["base"]))
    every = [*entities, *views, *assets, *services]
    return DefinitionSet({key_of(each): each for each in every})
