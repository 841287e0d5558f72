"""Joins over Parquet: the contract, and what is particular to files."""

from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_catalog.definitions import CloudSource
from feature_catalog.offline import OfflineFeatures
from feature_catalog.offline.errors import NaiveTimestamps, UnreadableSource
from tests.feature_catalog.offline.examples import VALUE, rows, stats
from tests.feature_catalog.offline.join_contract import JoinContract

VIEW = stats(VALUE, created_ts=None)


class TestParquetSources(JoinContract):
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path):
        self.data = tmp_path

    def store(self, table):
        pq.write_table(table, self.data / "rows.parquet")
        return CloudSource(path="rows.parquet")

    def offline(self, definitions):
        return OfflineFeatures(definitions, data_folder=self.data)

    def test_a_folder_is_all_the_parquet_files_in_it(self):
        folder = self.data / "rows"
        for name, table in (
            ("part-0.parquet", rows(["a"], 1, value=[10])),
            (
                "day=2/part-1.parquet",
                rows(["a"], 2, value=[20]).select(["value", "event_ts", "user_id"]),
            ),
            ("_draft/part-2.parquet", rows(["a"], 3, value=[30])),
            (".hidden.parquet", rows(["a"], 3, value=[40])),
        ):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, folder / name)
        (folder / "notes.txt").write_text("no rows")
        asked = rows(["a", "a"], 1.5, 9)
        assert self.values(VIEW, CloudSource(path="rows/"), asked) == [10, 20]

    def test_columns_may_be_in_the_names_of_folders(self):
        for user in ("a", "b"):
            folder = self.data / "rows" / f"user_id={user}"
            folder.mkdir(parents=True)
            table = rows([user], 1, value=[ord(user)]).drop_columns(["user_id"])
            pq.write_table(table, folder / "part.parquet")
        assert self.values(VIEW, CloudSource(path="rows/"), rows(["b", "a"], 2, 2)) == [98, 97]

    def test_the_names_of_folders_above_it_are_no_columns(self):
        folder = self.data / "value=7" / "rows"
        folder.mkdir(parents=True)
        pq.write_table(rows(["a"], 1, value=[1]), folder / "part.parquet")
        assert self.values(VIEW, CloudSource(path="value=7/rows/"), rows(["a"], 2)) == [1]

    def test_a_path_is_no_pattern(self):
        pq.write_table(rows(["a"], 1, value=[1]), self.data / "rows[1]*.parquet")
        pq.write_table(rows(["a"], 2, value=[2]), self.data / "rows1x.parquet")
        assert self.values(VIEW, CloudSource(path="rows[1]*.parquet"), rows(["a"], 3)) == [1]

    @pytest.mark.parametrize("prefix", ["", "file://"])
    def test_an_absolute_path_is_not_under_the_folder(self, prefix, tmp_path_factory):
        elsewhere = tmp_path_factory.mktemp("elsewhere") / "rows.parquet"
        pq.write_table(rows(["a"], 1, value=[1]), elsewhere)
        assert self.values(VIEW, CloudSource(path=f"{prefix}{elsewhere}"), rows(["a"], 3)) == [1]

    def test_a_url_is_read_by_its_fsspec_package(self):
        with fsspec.filesystem("memory").open("/joins/rows.parquet", "wb") as file:
            pq.write_table(rows(["a"], 1, value=[1]), file)
        for path in ("memory://joins/rows.parquet", "memory://joins/"):
            assert self.values(VIEW, CloudSource(path=path), rows(["a"], 3)) == [1]
        with pytest.raises(UnreadableSource, match="fsspec package"):
            self.join(VIEW, CloudSource(path="nosuch://joins/rows.parquet"), rows(["a"], 3))

    def test_a_damaged_file_is_named(self):
        (self.data / "rows.parquet").write_bytes(b"PAR1 this is no Parquet file at all PAR1")
        with pytest.raises(
            UnreadableSource, match=r"rows\.parquet of the view stats cannot be read"
        ):
            self.join(VIEW, CloudSource(path="rows.parquet"), rows(["a"], 3))

    def test_a_file_cut_in_its_pages_is_refused(self):
        table = rows(["a"] * 5000, *range(5000), value=[(7919 * n) % 5003 for n in range(5000)])
        pq.write_table(table, self.data / "whole.parquet", compression="none", use_dictionary=False)
        whole = (self.data / "whole.parquet").read_bytes()
        damaged = whole[:200] + b"\xff" * 200 + whole[400:]
        (self.data / "rows.parquet").write_bytes(damaged)
        with pytest.raises(UnreadableSource, match="cannot be read"):
            self.join(VIEW, CloudSource(path="rows.parquet"), rows(["a"], 3))

    def test_an_empty_folder_is_refused(self):
        (self.data / "rows").mkdir()
        with pytest.raises(UnreadableSource, match="no Parquet file in"):
            self.join(VIEW, CloudSource(path="rows/"), rows(["a"], 3))

    @pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", None])
    def test_a_nanosecond_never_lets_a_value_in_early(self, zone):
        start_ns = 1_774_742_400_000_000_001
        event_ts = pa.array([start_ns], pa.timestamp("ns", zone))
        source = pa.table({"user_id": ["a"], "event_ts": event_ts, "value": [1]})
        moments = [start_ns - 1, start_ns + 998, start_ns + 999, start_ns + 1000]
        asked = pa.table(
            {"user_id": ["a"] * 4, "event_ts": pa.array(moments, pa.timestamp("ns", zone))}
        )
        assert self.values(VIEW, source, asked, naive_is_utc=True) == [None, None, 1, 1]

    def test_moments_before_1970_are_rounded_the_same_way(self):
        event_ts = pa.array(
            [-1_500], pa.timestamp("ns", "UTC")
        )  # 1,500 ns before: rounded to -1 us
        source = pa.table({"user_id": ["a"], "event_ts": event_ts, "value": [1]})
        moments = pa.array([-1_500, -1_001, -1_000, -1], pa.timestamp("ns", "UTC"))
        asked = pa.table({"user_id": ["a"] * 4, "event_ts": moments})
        assert self.values(VIEW, source, asked) == [None, None, 1, 1]

    def test_days_are_no_moments(self):
        source = pa.table(
            {"user_id": ["a"], "event_ts": pa.array([20_000], pa.date32()), "value": [1]}
        )
        with pytest.raises(NaiveTimestamps, match="event_ts as DATE, which is no moment"):
            self.join(VIEW, source, rows(["a"], 3), naive_is_utc=True)

    def test_whole_numbers_that_pandas_made_floats_of_are_whole_numbers(self):
        source = rows(["a", "b"], 1, 1, value=[3.0, float("nan")])
        assert self.values(VIEW, source, rows(["a", "b"], 3, 3)) == [3, None]

    def test_a_join_that_exceeds_its_memory_goes_to_disk(self):
        count = 300_000
        keys = [f"user-{n % 1000}" for n in range(count)]
        table = rows(keys, *[0] * count, value=list(range(count)))
        pq.write_table(table, self.data / "rows.parquet")
        asked = rows([f"user-{n}" for n in range(1000)], *[1] * 1000)
        offline = self.offline
        self.offline = lambda definitions: OfflineFeatures(
            definitions, data_folder=offline(definitions).data_folder, memory_bytes=40_000_000
        )
        found = self.values(VIEW, CloudSource(path="rows.parquet"), asked)
        assert found == list(range(count - 1000, count))
        assert not list(Path().glob(".tmp*"))
