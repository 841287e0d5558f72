"""What every engine of point-in-time joins must do, whatever its sources are."""

import datetime as dt
import math
from abc import ABC, abstractmethod

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_catalog.definitions import (
    CloudSource,
    Entity,
    FeatureService,
    FeatureView,
    Field,
    Float32,
    Float64,
    Int32,
    Int64,
    String,
)
from feature_catalog.definitions.catalog_set import DefinitionSet, check_set, key_of
from feature_catalog.offline import FeatureSummary, HistoricalFeatures, OfflineFeatures
from feature_catalog.offline.errors import (
    MismatchedKeys,
    MissingSourceColumn,
    NaiveTimestamps,
    UnfitValues,
    UnreadableSource,
)
from tests.feature_catalog.offline.brute_force import newest_known
from tests.feature_catalog.offline.examples import (
    HOUR_US,
    START_US,
    UTC_US,
    VALUE,
    rows,
    stats,
    times,
)


class JoinContract(ABC):
    """Tests of one engine; a subclass says where its rows are."""

    @abstractmethod
    def store(self, table: pa.Table) -> CloudSource:
        """Keep rows where the engine finds them."""

    @abstractmethod
    def offline(self, definitions: DefinitionSet) -> OfflineFeatures:
        """What reads them."""

    def join(
        self,
        view: FeatureView,
        source: pa.Table | CloudSource,
        entity_rows: pa.Table,
        *,
        entities: tuple[Entity, ...] = (Entity(name="user", join_keys=["user_id"]),),
        **options: object,
    ) -> HistoricalFeatures:
        stored = self.store(source) if isinstance(source, pa.Table) else source
        times_of = {"event_ts": view.source.event_ts, "created_ts": view.source.created_ts}
        at = CloudSource(path=stored.path, table=stored.table, **times_of)
        placed = FeatureView(
            name=view.name, entities=view.entities, source=at, schema=view.schema, ttl=view.ttl
        )
        service = FeatureService(name="all", features=[placed])
        definitions = DefinitionSet({key_of(each): each for each in (*entities, placed, service)})
        check_set(definitions)
        return self.offline(definitions).get_historical_features(
            entity_rows=entity_rows, service="all", **{"untransformed": True, **options}
        )

    def values(self, *args: object, **options: object) -> list[object]:
        return self.join(*args, **options).table["value"].to_pylist()

    def test_a_value_is_that_of_the_newest_row_at_the_moment(self):
        source = rows(["a", "a", "a", "b"], 3, 1, 2, 1, value=[30, 10, 20, 7])
        asked = rows(["a", "a", "a", "b", "a"], 2.5, 9, 1, 1.5, 0.9)
        view = stats(VALUE, created_ts=None)
        assert self.values(view, source, asked) == [20, 30, 10, 7, None]

    def test_what_was_written_later_is_not_known_yet(self):
        source = rows(["a", "a"], 1, 2, created_ts=times(1, 5), value=[10, 20])
        asked = rows(["a"] * 4, 2, 4.9, 5, 6)
        assert self.values(stats(VALUE), source, asked) == [10, 10, 20, 20]

    def test_an_old_row_that_comes_late_does_not_replace_a_newer_one(self):
        source = rows(["a", "a"], 1, 2, created_ts=times(8, 2), value=[10, 20])
        assert self.values(stats(VALUE), source, rows(["a"] * 3, 1, 3, 9)) == [None, 20, 20]

    def test_a_row_without_the_time_it_was_written_is_never_known(self):
        source = rows(["a", "a"], 1, 2, created_ts=times(1, None), value=[10, 20])
        assert self.values(stats(VALUE), source, rows(["a"], 9)) == [10]

    def test_the_ttl_ends_before_a_row_is_as_old(self):
        source = rows(["a"], 1, value=[10])
        view = stats(VALUE, created_ts=None, ttl=dt.timedelta(hours=2))
        found = self.join(view, source, rows(["a"] * 3, 0, 3, 3 - 1 / HOUR_US))
        assert found.table["value"].to_pylist() == [None, None, 10]
        expected = FeatureSummary("value", "stats:value", present=1, null=0, not_found=1, too_old=1)
        assert found.features == (expected,)

    def test_of_equally_new_rows_the_one_written_last_counts(self):
        source = rows(["a"] * 3, 1, 1, 1, created_ts=times(2, 4, 3), value=[90, 10, 50])
        asked = rows(["a"] * 3, 2, 3, 9)
        assert self.values(stats(VALUE), source, asked) == [90, 50, 10]

    @pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]])
    def test_of_rows_that_are_alike_in_time_the_greatest_counts_however_they_are_stored(
        self, order
    ):
        fields = [Field(name="a", dtype=Float64), Field(name="b", dtype=String)]
        source = rows(["u"] * 4, 1, 1, 1, 1, a=[1.0, 2.0, 2.0, None], b=["z", "B", "a", "z"]).take(
            order
        )
        found = self.join(stats(fields, created_ts=None), source, rows(["u"], 2))
        # By bytes: a lower-case letter is greater than any capital.
        assert found.table.select(["a", "b"]).to_pylist() == [{"a": 2.0, "b": "a"}]

    def test_nan_is_the_greatest_of_numbers(self):
        source = rows(["u"] * 2, 1, 1, value=[math.inf, math.nan])
        view = stats([Field(name="value", dtype=Float64)], created_ts=None)
        assert math.isnan(self.values(view, source, rows(["u"], 2))[0])

    def test_null_is_a_value_and_no_row_is_none(self):
        source = rows(["a", "a"], 1, 2, value=pa.array([10, None], pa.int64()))
        found = self.join(stats(VALUE, created_ts=None), source, rows(["a", "b", None], 3, 3, 3))
        assert found.table["value"].to_pylist() == [None, None, None]
        assert found.features[0].null == 1
        assert found.features[0].not_found == 2

    def test_a_source_row_without_key_or_time_is_never_found(self):
        source = rows([None, "a"], 1, None, value=[10, 20])
        view = stats(VALUE, created_ts=None)
        assert self.values(view, source, rows([None, "a"], 3, 3)) == [None, None]

    def test_rows_come_back_in_their_order_with_all_their_columns(self):
        source = rows(["a", "b"], 1, 1, value=[1, 2])
        asked = rows(
            ["b", "a", "b", "b"], 5, 4, 3, 5, label=[1, 0, 1, 0], note=["x", None, "", "y"]
        )
        found = self.join(stats(VALUE, created_ts=None), source, asked).table
        assert found.drop_columns(["value"]) == asked
        assert found["value"].to_pylist() == [2, 1, 2, 2]

    def test_no_entity_rows_give_no_rows(self):
        source = rows(["a"], 1, value=[1])
        found = self.join(stats(VALUE, created_ts=None), source, rows(["a"], 1).slice(0, 0))
        assert found.table.num_rows == 0
        assert found.table.schema.field("value").type == pa.int64()

    def test_an_empty_source_has_no_values(self):
        source = rows(["a"], 1, value=[1]).slice(0, 0)
        assert self.values(stats(VALUE, created_ts=None), source, rows(["a"], 1)) == [None]

    def test_a_view_of_two_entities_is_joined_by_all_their_keys(self):
        user = Entity(name="user", join_keys=["user_id"])
        ad = Entity(name="ad", join_keys=["shop", "ad_no"], dtype=Int64)
        source = rows(
            ["a", "a", "b"],
            1,
            1,
            1,
            shop=[1, 2, 1],
            ad_no=pa.array([7, 7, 7], pa.int32()),
            value=[10, 20, 30],
        )
        asked = rows(["a", "a", "b", "b"], 2, 2, 2, 2, shop=[2, 1, 1, 2], ad_no=[7, 7, 7, None])
        view = stats(VALUE, created_ts=None, entities=[user, ad])
        assert self.values(view, source, asked, entities=(user, ad)) == [20, 10, 30, None]

    def test_columns_may_have_the_names_of_functions_and_words_of_sql(self):
        words = Entity(name="words", join_keys=["user", "select"])
        view = FeatureView(
            name="stats",
            entities=[words],
            source=CloudSource(path="x.parquet", event_ts="current_timestamp", created_ts="now"),
            schema=[Field(name="value", dtype=Int64), Field(name="version", dtype=Int64)],
        )
        named = pa.table(
            {
                "user": ["a", "b"],
                "select": ["x", "x"],
                "current_timestamp": times(1, 1),
                "now": times(1, 2),
                "value": [1, 2],
                "version": [3, 4],
            }
        )
        asked = pa.table({"user": ["b", "a"], "select": ["x", "x"], "event_ts": times(3, 3)})
        found = self.join(view, named, asked, entities=(words,)).table
        assert found["value"].to_pylist() == [2, 1]
        assert found["version"].to_pylist() == [4, 3]

    def test_text_is_compared_and_kept_exactly(self):
        odd = ["", " ", 'a "quoted", text', "two\nlines\r\n", "\\N", "NULL", "é", "é", "日本", "a"]
        source = rows(odd, *[1] * len(odd), value=odd)
        view = stats([Field(name="value", dtype=String)], created_ts=None)
        asked = [*reversed(odd), "A", "a ", "nul\0"]
        expected = [*reversed(odd), None, None, None]
        assert self.values(view, source, rows(asked, *[2] * len(asked))) == expected

    def test_numbers_keep_every_bit(self):
        floats = [0.1, -0.0, 5e-324, 1.7976931348623157e308, math.inf, -math.inf, 1 / 3]
        keys = [str(place) for place in range(len(floats))]
        view = stats(
            [
                Field(name="f64", dtype=Float64),
                Field(name="from_f32", dtype=Float64),
                Field(name="i64", dtype=Int64),
            ],
            created_ts=None,
        )
        narrow = pa.array(floats).cast(pa.float32(), safe=False)
        whole = [2**63 - 1, -(2**63), 2**53 + 1, 0, 1, -1, 7]
        source = rows(keys, *[1] * len(keys), f64=floats, from_f32=narrow, i64=whole)
        found = self.join(view, source, rows(keys, *[2] * len(keys))).table
        assert [x.hex() for x in found["f64"].to_pylist()] == [x.hex() for x in floats]
        assert found["from_f32"].to_pylist() == narrow.to_pylist()
        assert found["i64"].to_pylist() == whole

    def test_arrays_come_in_their_shape(self):
        fields = [
            Field(name="m", dtype=Float32, shape=(2, 2)),
            Field(name="t", dtype=String, shape=(2,)),
        ]
        matrices = [[[1.0, math.inf], [0.1, -2.0]], None]
        texts = [["a,b", '"'], ["NaN", ""]]
        source = rows(["a", "b"], 1, 1, m=matrices, t=texts)
        found = self.join(
            stats(fields, created_ts=None), source, rows(["b", "a", "c"], 2, 2, 2)
        ).table
        assert found.schema.field("m").type == pa.list_(pa.list_(pa.float32(), 2), 2)
        in_float32 = pa.array(matrices[0], pa.list_(pa.float32())).to_pylist()
        assert found["m"].to_pylist() == [None, in_float32, None]
        assert found["t"].to_pylist() == [texts[1], texts[0], None]

    def test_an_array_of_another_shape_is_refused(self):
        view = stats([Field(name="m", dtype=Float64, shape=(3,))], created_ts=None)
        source = rows(["a"], 1, m=[[1.0, 2.0]])
        with pytest.raises(UnfitValues, match=r"not all are float64 \[3\]"):
            self.join(view, source, rows(["a"], 2))

    def test_a_number_that_does_not_fit_its_field_is_refused(self):
        view = stats([Field(name="value", dtype=Int32)], created_ts=None)
        with pytest.raises(UnfitValues, match="value of the view stats"):
            self.join(view, rows(["a"], 1, value=[2**31]), rows(["a"], 2))

    def test_text_where_a_number_should_be_is_refused(self):
        source = rows(["a"], 1, value=["10"])
        with pytest.raises(UnfitValues, match="int64 is another type than string"):
            self.join(stats(VALUE, created_ts=None), source, rows(["a"], 2))

    def test_keys_of_another_type_are_refused_and_not_just_never_found(self):
        source = rows([1, 2], 1, 1, value=[1, 2])
        with pytest.raises(MismatchedKeys, match=r"user_id as (BIGINT|bigint).*of type string"):
            self.join(stats(VALUE, created_ts=None), source, rows(["1"], 2))

    @pytest.mark.parametrize("name", ["user_id", "event_ts", "created_ts", "value"])
    def test_a_missing_column_is_named(self, name):
        source = rows(["a"], 1, created_ts=times(1), value=[1]).drop_columns([name])
        with pytest.raises(MissingSourceColumn, match=f"no column {name}"):
            self.join(stats(VALUE), source, rows(["a"], 2))

    def test_a_source_that_is_not_there_is_named(self):
        stored = self.store(rows(["a"], 1, value=[1]))
        gone = (
            CloudSource(table="gone")
            if stored.table is not None
            else CloudSource(path="gone.parquet")
        )
        with pytest.raises(UnreadableSource, match="gone"):
            self.join(stats(VALUE, created_ts=None), gone, rows(["a"], 2))

    def test_times_without_a_zone_are_refused_unless_said_to_be_utc(self):
        source = rows(["a"], 1, value=[1]).drop_columns(["event_ts"])
        source = source.append_column("event_ts", times(1).cast(pa.timestamp("us")))
        view, asked = stats(VALUE, created_ts=None), rows(["a", "a"], 0.5, 1)
        with pytest.raises(NaiveTimestamps, match="event_ts without a time zone"):
            self.join(view, source, asked)
        assert self.values(view, source, asked, naive_is_utc=True) == [None, 1]

    def test_a_time_is_a_moment_in_whatever_zone_it_is_told(self):
        # 01:30 UTC is 03:30 in Berlin, half an hour after the hour that was left out that night.
        local = times(1.5).cast(pa.timestamp("us", "Europe/Berlin"))
        source = pa.table({"user_id": ["a"], "event_ts": local, "value": [1]})
        asked = rows(["a", "a", "a"], 1.4, 1.5, 1.6)
        expected = [None, 1, 1]
        view = stats(VALUE, created_ts=None)
        assert self.values(view, source, asked) == expected
        moved = asked["event_ts"].cast(pa.timestamp("us", "America/New_York"))
        assert self.values(view, source, asked.set_column(1, "event_ts", moved)) == expected

    def test_moments_may_be_the_first_and_the_last_there_are(self):
        ends = pa.array([-62_135_596_800_000_000, 253_402_300_799_999_999], pa.int64()).cast(UTC_US)
        table = pa.table({"user_id": ["a", "b"], "event_ts": ends, "value": [1, 2]})
        view = stats(VALUE, created_ts=None)
        assert self.values(view, table, table.drop_columns(["value"])) == [1, 2]

    @settings(
        max_examples=25,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.differing_executors,
        ],
        derandomize=True,
    )
    @given(
        source=st.lists(
            st.fixed_dictionaries(
                {
                    "user_id": st.sampled_from(["a", "b", None]),
                    "event_ts": st.integers(0, 6),
                    "created_ts": st.one_of(st.none(), st.integers(0, 9)),
                    "f": st.one_of(st.none(), st.sampled_from([1.5, -2.0, math.nan])),
                    "s": st.one_of(st.none(), st.sampled_from(["", "a", "B", "é"])),
                }
            ),
            max_size=25,
        ),
        asked=st.lists(
            st.tuples(st.sampled_from(["a", "b", "c", None]), st.integers(-1, 10)), max_size=15
        ),
        ttl=st.one_of(st.none(), st.integers(1, 8)),
        has_created=st.booleans(),
    )
    def test_joins_equal_the_rule_row_by_row(self, source, asked, ttl, has_created):
        second_us = 1_000_000
        in_us = [
            {
                **row,
                "event_ts": START_US + row["event_ts"] * second_us,
                "created_ts": None
                if row["created_ts"] is None
                else START_US + row["created_ts"] * second_us,
            }
            for row in source
        ]
        schema = pa.schema(
            {
                "user_id": pa.string(),
                "event_ts": UTC_US,
                "created_ts": UTC_US,
                "f": pa.float64(),
                "s": pa.string(),
            }
        )
        table = pa.Table.from_pylist(in_us, schema)
        moments = [START_US + second * second_us for _, second in asked]
        entity_rows = pa.table(
            {
                "user_id": pa.array([key for key, _ in asked], pa.string()),
                "event_ts": pa.array(moments, pa.int64()).cast(UTC_US),
            }
        )
        view = stats(
            [Field(name="f", dtype=Float64), Field(name="s", dtype=String)],
            created_ts="created_ts" if has_created else None,
            ttl=None if ttl is None else dt.timedelta(seconds=ttl),
        )
        found = self.join(view, table, entity_rows).table.select(["f", "s"]).to_pylist()
        visible = (
            in_us
            if has_created
            else [{name: row[name] for name in row if name != "created_ts"} for row in in_us]
        )
        expected = [
            newest_known(
                visible,
                (key,),
                moment,
                keys=["user_id"],
                fields=["f", "s"],
                ttl_us=None if ttl is None else ttl * second_us,
            )
            for (key, _), moment in zip(asked, moments, strict=True)
        ]
        wanted = [
            {"f": None, "s": None} if row is None else {"f": row["f"], "s": row["s"]}
            for row in expected
        ]
        assert repr(found) == repr(wanted)  # in which NaN equals NaN
