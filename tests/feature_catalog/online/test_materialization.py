"""The newest row of each key comes online, whatever happens on the way."""

import datetime as dt
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import Engine, text

from device_runtime.feature_values import encode_key
from feature_catalog.definitions import Field, Float32, Int32
from feature_catalog.offline import OfflineFeatures
from feature_catalog.offline.errors import MismatchedKeys, UnfitValues, UnreadableSource
from feature_catalog.online import OnlineStore, OnlineView, ValueStatus
from feature_catalog.online import materialization as under_test
from feature_catalog.online.errors import (
    AlreadyMaterializing,
    InvalidInterval,
    NotServedOnline,
    UnfitKey,
)
from feature_catalog.online.materialization import Sources, materialize
from feature_catalog.online.materialization_log import only_one
from feature_catalog.online.moments import microseconds
from feature_catalog.online.source_rows import LeftOut
from feature_catalog.online.value_sets import Standing, drop_former, list_value_sets
from tests.feature_catalog.online.clicks import (
    FIELDS,
    START,
    definitions,
    hours,
    row,
    write_parquet,
    write_table,
)

pytestmark = pytest.mark.integration

BEFORE = START - dt.timedelta(days=1)
VIEW = OnlineView.of(definitions(), "pairs")


@pytest.fixture
def store(engine: Engine):
    found = OnlineStore(engine)
    yield found
    found.close()


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(under_test, "CHUNK_ROWS", 2)


@pytest.fixture
def bring(engine: Engine, tmp_path: Path):
    """Materialise rows of a Parquet file."""

    def run(rows, *, defined=None, **options):
        if rows is not None:
            write_parquet(tmp_path, rows)
        (done,) = materialize(
            engine, defined or definitions(), ["pairs"], sources=Sources(tmp_path), **options
        )
        return done

    return run


@pytest.fixture
def values(store: OnlineStore):
    """A field of some keys."""

    def read(field: str, *keys: tuple[str, int], view: OnlineView = VIEW):
        # In order of the entities' names: ad, user.
        found = store.read(view, [encode_key([ad, user]) for user, ad in keys], at=hours(1000))
        return found.values(field)

    return read


def newest_by_hand(rows, start, end):
    """What must be online, written from the rule: a loop over rows, no SQL."""

    def order(value):
        if value is None:
            return (0, 0)
        return (2, 0) if isinstance(value, float) and math.isnan(value) else (1, value)

    def rank(each):
        ties = [order(each[field.name]) for field in sorted(FIELDS, key=lambda f: f.name)]
        return (each["event_ts"], each["created_ts"], ties)

    best: dict[tuple[str, int], dict] = {}
    for each in rows:
        key = (each["user"], each["ad"])
        if None in key or each["event_ts"] is None or each["created_ts"] is None:
            continue
        if not start < each["event_ts"] <= end:
            continue
        if key not in best or rank(each) > rank(best[key]):
            best[key] = each
    return best


def random_rows(seed: int, count: int = 300):
    draw = np.random.default_rng(seed)

    def maybe(value):
        return None if draw.random() < 0.1 else value

    return [
        row(
            maybe(f"u{draw.integers(6)}"),
            maybe(int(draw.integers(4))),
            maybe(int(draw.integers(20))),
            created=maybe(int(draw.integers(15, 25))),
            seen=maybe(bool(draw.integers(2))),
            clicks=maybe(int(draw.integers(5))),
            ctr=maybe(float(np.float32(draw.choice([0.1, -0.0, math.inf, math.nan])))),
            topic=maybe(str(draw.choice(["é", "z", "", "Ω", 'a,"b\n']))),
            taste=maybe([float(draw.integers(3)), 0.5]),
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("kind", ["parquet", "table"])
def test_what_is_online_is_what_a_loop_over_the_rows_finds(
    engine: Engine, store: OnlineStore, tmp_path, small_chunks, kind
):
    defined = definitions(table="pairs" if kind == "table" else None)
    rows = random_rows(seed=5)
    if kind == "table":
        write_table(engine, rows)
    else:
        write_parquet(tmp_path, rows)
    (done,) = materialize(engine, defined, start=hours(3), end=hours(12), sources=Sources(tmp_path))
    wanted = newest_by_hand(rows, hours(3), hours(12))
    assert done.keys == done.written == len(wanted) > 10
    view = OnlineView.of(defined, "pairs")
    found = store.read(view, [encode_key([ad, user]) for user, ad in wanted], at=hours(1000))
    assert set(found.statuses) == {ValueStatus.PRESENT}
    for field in FIELDS:
        stored = found.values(field.name)
        for value, each in zip(stored, wanted.values(), strict=True):
            expected = each[field.name]
            if isinstance(expected, float) and math.isnan(expected):
                expected = None
            assert value == expected
            assert type(value) is type(expected)


def test_online_values_are_those_that_training_data_have(
    engine: Engine, store: OnlineStore, tmp_path
):
    defined = definitions(ttl=dt.timedelta(hours=8))
    rows = random_rows(seed=6)
    write_parquet(tmp_path, rows)
    materialize(engine, defined, start=BEFORE, end=hours(19), sources=Sources(tmp_path))
    keys = sorted(
        {(r["user"], r["ad"]) for r in rows if r["user"] is not None and r["ad"] is not None}
    )
    moment = hours(24)
    asked = pa.table(
        {
            "user": [user for user, _ in keys],
            "ad": [ad for _, ad in keys],
            "event_ts": pa.array([moment] * len(keys), pa.timestamp("us", tz="UTC")),
        }
    )
    joined = OfflineFeatures(defined, tmp_path).get_historical_features(
        entity_rows=asked, service="served", untransformed=True
    )
    view = OnlineView.of(defined, "pairs")
    found = store.read(view, [encode_key([ad, user]) for user, ad in keys], at=moment)
    for field in ("topic", "clicks", "seen", "taste"):
        assert found.values(field) == joined.table[field].to_pylist()
    (counts,) = [each for each in joined.features if each.name == "topic"]
    assert found.statuses.count(ValueStatus.OUTSIDE_MAX_AGE) == counts.too_old > 0
    assert found.statuses.count(ValueStatus.NOT_FOUND) == counts.not_found


def test_a_late_or_repeated_run_never_puts_older_values_over_newer(bring, values):
    bring([row("u", 1, 5, topic="new")], start=BEFORE, end=hours(10))
    late = bring(
        [row("u", 1, 4, topic="old"), row("v", 1, 4, topic="v")], start=BEFORE, end=hours(4)
    )
    assert (late.keys, late.written) == (2, 1)
    assert values("topic", ("u", 1), ("v", 1)) == ["new", "v"]
    same_event = bring(
        [row("u", 1, 5, created=4.5, topic="corrected before")], start=BEFORE, end=hours(9)
    )
    assert same_event.written == 0
    assert (
        bring([row("u", 1, 5, created=6, topic="corrected")], start=BEFORE, end=hours(9)).written
        == 1
    )
    assert values("topic", ("u", 1)) == ["corrected"]


def test_a_source_that_was_corrected_in_place_is_brought_online_by_a_repeated_run(bring, values):
    rows = [row("u", 1, 5, topic="wrong")]
    bring(rows, start=BEFORE, end=hours(10))
    assert bring(rows, start=BEFORE, end=hours(10)).written == 0
    assert bring([row("u", 1, 5, topic="right")], start=BEFORE, end=hours(10)).written == 1
    assert values("topic", ("u", 1)) == ["right"]


def test_without_a_start_a_run_goes_on_where_the_last_one_ended(bring, values):
    rows = [row("u", 1, 1, topic="a"), row("v", 1, 1, topic="a"), row("u", 1, 6, topic="b")]
    first = bring(rows, end=hours(5))
    assert (first.start, first.keys) == (None, 2)
    second = bring(None, end=hours(8))
    assert (second.start, second.end, second.keys) == (hours(5), hours(8), 1)
    assert values("topic", ("u", 1), ("v", 1)) == ["b", "a"]
    assert bring(None, end=hours(8)).keys == 0
    assert bring(None, end=hours(7)).keys == 0


def test_what_was_written_late_is_found_by_the_next_run(bring, values):
    bring([row("u", 1, 1, topic="a")], end=hours(5))
    late = row("u", 1, 3, created=6, topic="became true before, was written after")
    bring([row("u", 1, 1, topic="a"), late], end=hours(8))
    assert values("topic", ("u", 1)) == [late["topic"]]


def test_the_first_run_leaves_out_what_is_older_than_the_ttl(bring):
    rows = [row("u", 1, 1), row("v", 1, 9)]
    done = bring(rows, defined=definitions(ttl=dt.timedelta(hours=2)), end=hours(10))
    assert (done.start, done.keys) == (hours(8), 1)


@pytest.mark.parametrize("ttl", [dt.timedelta(hours=6), None])
def test_after_a_longer_ttl_rows_that_were_too_old_come_online(bring, values, ttl):
    rows = [row("u", 1, 1, topic="a"), row("v", 1, 6, topic="b"), row("w", 1, 9, topic="c")]
    short = definitions(ttl=dt.timedelta(hours=2))
    assert bring(rows, defined=short, end=hours(10)).keys == 1
    assert bring(None, defined=short, end=hours(11)).keys == 0
    longer = definitions(ttl=ttl)
    before = hours(5) if ttl else None
    done = bring(None, defined=longer, end=hours(11))
    assert (done.start, done.written) == (before, 1 if ttl else 2)
    assert values("topic", ("v", 1), ("w", 1)) == ["b", "c"]
    assert bring(None, defined=longer, end=hours(11)).keys == 0


def test_what_a_first_start_left_out_stays_out(bring, values):
    rows = [row("u", 1, 1, topic="a"), row("v", 1, 9, topic="b")]
    bring(rows, start=hours(5), end=hours(10))
    assert bring(None, end=hours(11)).keys == 0
    assert values("topic", ("u", 1), ("v", 1)) == [None, "b"]


def test_an_interval_after_a_gap_does_not_hide_the_gap(bring, values):
    rows = [row("u", 1, 1, topic="a"), row("u", 2, 5, topic="gap"), row("u", 3, 9, topic="c")]
    bring(rows, end=hours(2))
    bring(None, start=hours(8), end=hours(10))
    assert values("topic", ("u", 2)) == [None]
    assert bring(None, end=hours(11)).start == hours(2)
    assert values("topic", ("u", 1), ("u", 2), ("u", 3)) == ["a", "gap", "c"]


def test_rows_without_key_or_times_are_left_out_counted_and_placed(engine: Engine, bring, tmp_path):
    rows = [
        *(row("u", 3, 1), row(None, 1, 1), row(None, 2, 1), row("u", None, 1)),
        *(row("u", 1, None), row("u", 2, 1, created=None)),
    ]
    done = bring(rows, end=hours(5))
    assert done.keys == 1
    assert done.skipped == (
        LeftOut("ad", 1, "pairs.parquet, row 3"),
        LeftOut("user", 2, "pairs.parquet, row 1"),
        LeftOut("event_ts", 1, "pairs.parquet, row 4"),
        LeftOut("created_ts", 1, "pairs.parquet, row 5"),
    )
    write_table(engine, rows)
    (done,) = materialize(engine, definitions(table="pairs"), end=hours(5))
    assert [(each.column, each.rows) for each in done.skipped] == [
        *(("ad", 1), ("user", 2), ("event_ts", 1), ("created_ts", 1)),
    ]


def test_impossible_intervals_are_refused(bring):
    with pytest.raises(InvalidInterval, match="is in the future"):
        bring([], end=dt.datetime.now(dt.UTC) + dt.timedelta(hours=1))
    with pytest.raises(InvalidInterval, match="is not before"):
        bring([], start=hours(2), end=hours(2))
    with pytest.raises(InvalidInterval, match="has no time zone"):
        bring([], end=dt.datetime(2026, 3, 1))


def test_a_source_with_unfit_values_is_refused_before_anything_is_written(
    bring, values, small_chunks
):
    rows = [row(f"u{i}", 1, 1, clicks=i) for i in range(6)]
    with pytest.raises(UnfitValues, match=r"pairs\.parquet of the view pairs: clicks holds int64"):
        bring([*rows, row("u9", 1, 1, clicks=2**31)], end=hours(5))
    with pytest.raises(UnfitValues, match=r"taste .*shape \[2\]"):
        bring([*rows, row("u9", 1, 1, taste=[1.0])], end=hours(5))
    assert values("clicks", ("u0", 1)) == [None]
    assert bring(rows, end=hours(5)).written == 6


@pytest.mark.parametrize("table", [None, "pairs"])
def test_keys_that_cannot_be_kept_are_refused_before_anything_is_written(
    engine: Engine, tmp_path, small_chunks, table
):
    rows = [row(f"u{i}", i, 1) for i in range(6)]
    defined = definitions(table=table, ad_dtype=Int32)
    for bad, said in (
        (row("u", 2**31, 1), "keys ad from 0 to 2147483648"),
        (row("u" * 1020, 1, 1), "a key of more than 1024 bytes"),
        *([(row("u\0", 1, 1), "a key user with the character NUL")] if table is None else []),
    ):
        if table is None:
            write_parquet(tmp_path, [*rows, bad])
        else:
            write_table(engine, [*rows, bad])
        with pytest.raises(UnfitKey, match=said):
            materialize(engine, defined, end=hours(5), sources=Sources(tmp_path))
    assert [each.keys for each in list_value_sets(engine, defined)] == [0]


def test_sources_that_cannot_be_read_are_refused(bring, tmp_path, engine: Engine):
    with pytest.raises(UnreadableSource, match=r"there is no .*pairs\.parquet"):
        bring(None, end=hours(5))
    (tmp_path / "pairs.parquet").write_bytes(b"PAR1 is not enough")
    with pytest.raises(UnreadableSource, match=r"pairs\.parquet of the view pairs cannot be read"):
        bring(None, end=hours(5))
    pq.write_table(pa.table({"user": ["u"], "event_ts": [1]}), tmp_path / "pairs.parquet")
    with pytest.raises(Exception, match="has no column ad"):
        bring(None, end=hours(5))
    with pytest.raises(UnreadableSource, match="no such table"):
        materialize(engine, definitions(table="pairs"), end=hours(5))
    write_table(engine, [])
    with engine.begin() as connection:
        connection.execute(text('ALTER TABLE pairs ALTER COLUMN "user" TYPE int USING 1'))
    with pytest.raises(MismatchedKeys, match="the table pairs of the view pairs holds user"):
        materialize(engine, definitions(table="pairs"), end=hours(5))


def test_names_that_are_nothing_online_are_refused(engine: Engine):
    with pytest.raises(NotServedOnline, match=r"'pair' \(did you mean pairs\?\)"):
        materialize(engine, definitions(), ["pair"])


def test_a_service_stands_for_its_views(engine: Engine, tmp_path):
    write_parquet(tmp_path, [row("u", 1, 1)])
    (done,) = materialize(engine, definitions(), ["served"], sources=Sources(tmp_path))
    assert (done.view, done.keys) == ("pairs", 1)


def test_two_runs_of_one_view_exclude_each_other(engine: Engine, bring):
    with only_one(engine, VIEW), pytest.raises(AlreadyMaterializing, match="by another process"):
        bring([row("u", 1, 1)], end=hours(5))
    assert bring(None, end=hours(5)).written == 1


def test_a_changed_view_is_empty_until_materialised_and_its_former_values_stay(
    engine: Engine, bring, values
):
    bring([row("u", 1, 1, clicks=3)], end=hours(5))
    wider = [*FIELDS[:1], Field("clicks", Int32), Field("ctr", Float32)]
    changed = definitions(fields=wider)
    new = OnlineView.of(changed, "pairs")
    assert values("clicks", ("u", 1), view=new) == [None]
    assert values("clicks", ("u", 1)) == [3]
    assert [e.standing for e in list_value_sets(engine, changed)] == [
        Standing.CURRENT,
        Standing.FORMER,
    ]
    bring(None, defined=changed, end=hours(5))
    assert values("clicks", ("u", 1), view=new) == [3]
    (dropped,) = drop_former(engine, changed)
    assert (dropped.keys, dropped.standing) == (1, Standing.FORMER)
    assert values("clicks", ("u", 1)) == [None]
    assert values("clicks", ("u", 1), view=new) == [3]


def test_values_of_a_deleted_view_stay_until_they_are_dropped(engine: Engine, bring, values):
    bring([row("u", 1, 1, clicks=3)], end=hours(5))
    nothing = type(definitions())({})
    assert [e.standing for e in list_value_sets(engine, nothing)] == [Standing.DELETED]
    assert values("clicks", ("u", 1)) == [3]
    assert len(drop_former(engine, nothing)) == 1
    assert list_value_sets(engine, nothing) == ()
    assert bring(None, end=hours(5)).written == 1  # nothing of the former run is left


@pytest.mark.parametrize("seed", [1, 2])
def test_overlapping_intervals_in_any_order_lead_to_the_newest_rows(
    engine: Engine, store: OnlineStore, tmp_path, seed
):
    """Whatever is read, and how often: online is the newest of all rows of all intervals."""
    draw = np.random.default_rng(seed)
    rows = random_rows(seed, 150)
    write_parquet(tmp_path, rows)
    best: dict[tuple[str, int], dict] = {}
    for _ in range(6):
        start, end = sorted(draw.choice(21, 2, replace=False).tolist())
        materialize(
            engine, definitions(), start=hours(start), end=hours(end), sources=Sources(tmp_path)
        )
        best = newest_by_hand(
            [*best.values(), *newest_by_hand(rows, hours(start), hours(end)).values()],
            BEFORE,
            hours(99),
        )
    found = store.read(VIEW, [encode_key([ad, user]) for user, ad in best], at=hours(1000))
    assert found.values("topic") == [each["topic"] for each in best.values()]
    assert found.event_us == [
        round((each["event_ts"] - START).total_seconds() * 1e6) + microseconds(START)
        for each in best.values()
    ]
