"""Reading the user's files: what is read, and the sentence for what is not."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_catalog.table_files import EmptyDataFile, MissingColumn, UnreadableDataFile, open_table


def _write(path: Path, table: pa.Table) -> Path:
    pq.write_table(table, path)
    return path


def test_csv_and_parquet_of_the_same_rows_read_the_same(tmp_path: Path) -> None:
    rows = pa.table({"client": ["a", "b"], "label": [0, 1], "text": ["two\nlines", "x, y"]})
    parquet = open_table(_write(tmp_path / "rows.parquet", rows))
    (tmp_path / "rows.csv").write_text('client,label,text\na,0,"two\nlines"\nb,1,"x, y"\n')
    csv = open_table(tmp_path / "rows.csv")

    for file in (parquet, csv):
        batches = list(file.batches(["text", "client"]))
        assert pa.Table.from_batches(batches).to_pydict() == {
            "text": ["two\nlines", "x, y"],
            "client": ["a", "b"],
        }
        assert file.num_rows == 2


def test_csv_column_that_turns_from_whole_to_broken_numbers_late_is_read(tmp_path: Path) -> None:
    path = tmp_path / "late.csv"
    path.write_text("price\n" + "1\n" * 600_000 + "1.5\n")
    assert open_table(path).schema.field("price").type == pa.float64()


def test_missing_column_is_named_with_its_nearest_neighbour(tmp_path: Path) -> None:
    file = open_table(_write(tmp_path / "d.parquet", pa.table({"client_id": [1], "label": [0]})))
    with pytest.raises(MissingColumn, match=r"no column 'clientid' \(did you mean client_id\?\)"):
        file.require(["label", "clientid"])
    with pytest.raises(MissingColumn, match=r"did you mean label\?"):
        file.require(["LABEL"])
    with pytest.raises(MissingColumn, match="no column 'zzz'; its columns are client_id, label"):
        file.require(["zzz"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.txt", b"hello"),
        ("broken.parquet", b"PAR1 this is not parquet"),
        ("ragged.csv", b"a,b\n1,2\n3\n"),
        ("twice.csv", b"a,a\n1,2\n"),
    ],
)
def test_unreadable_file_is_refused_in_one_sentence(
    tmp_path: Path, name: str, content: bytes
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UnreadableDataFile) as caught:
        open_table(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableDataFile, match="no such file"):
        open_table(tmp_path / "absent.parquet")


def test_file_damaged_in_the_middle_is_refused_while_reading(tmp_path: Path) -> None:
    path = _write(tmp_path / "d.parquet", pa.table({"text": [f"row {i}" for i in range(10_000)]}))
    damaged = bytearray(path.read_bytes())
    damaged[4:2000] = bytes(1996)
    path.write_bytes(damaged)
    with pytest.raises(UnreadableDataFile, match="cannot be read"):
        list(open_table(path).batches(["text"]))


@pytest.mark.parametrize("content", ["", "client,label\n"])
def test_file_without_rows_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "empty.csv"
    path.write_text(content)
    with pytest.raises(EmptyDataFile):
        open_table(path)


def test_parquet_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EmptyDataFile, match="no rows"):
        open_table(_write(tmp_path / "e.parquet", pa.table({"client": pa.array([], pa.int32())})))
