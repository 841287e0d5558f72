"""From a file of entity rows to a file of training data: whole or not at all."""

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from feature_catalog.offline import OfflineFeatures, asset_folder
from feature_catalog.offline.errors import MissingEntityColumn, UnwritableFeatures
from feature_catalog.offline.historical_files import write_historical_features
from tests.feature_catalog.offline.examples import times
from tests.feature_catalog.offline.test_historical import (
    ASKED,
    CITIES,
    SOURCE,
    TABLE,
    clicks,
    defined,
    dwell,
    place,
)


@pytest.fixture
def offline(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    pq.write_table(SOURCE, folder / "stats.parquet")
    for asset in (CITIES, TABLE):
        (folder / asset.sha256.hex()).write_bytes(asset.to_bytes())
    definitions = defined(clicks, dwell, place)
    return OfflineFeatures(definitions, data_folder=folder, assets=asset_folder(folder))


def test_pieces_make_the_same_file_as_the_whole(offline, tmp_path, monkeypatch):
    monkeypatch.setattr("feature_catalog.table_files.BATCH_ROWS", 1)
    pq.write_table(ASKED, tmp_path / "rows.parquet")
    expected = offline.get_historical_features(entity_rows=ASKED, service="all")
    steps: list[tuple[str, int, int]] = []
    written = write_historical_features(
        offline,
        tmp_path / "rows.parquet",
        tmp_path / "out.parquet",
        service="all",
        rows_at_once=2,
        progress=lambda *step: steps.append(step),
    )
    assert pq.read_table(tmp_path / "out.parquet") == expected.table
    assert written.features == expected.features
    assert written.rows == 3
    assert steps[-1] == ("done", 4, 4)
    metadata = pq.read_schema(tmp_path / "out.parquet").metadata
    assert metadata[b"flint.feature_contract_sha256"].decode() == expected.contract_sha256
    assert metadata[b"flint.transformed"] == b"true"


def test_rows_may_be_a_csv_file(offline, tmp_path):
    pyarrow.csv.write_csv(ASKED, tmp_path / "rows.csv")
    out = tmp_path / "out.parquet"
    write_historical_features(offline, tmp_path / "rows.csv", out, service="all")
    assert pq.read_table(out)["clicks"].to_pylist() == [9, 1, 9]


def test_a_mistake_in_a_late_piece_leaves_what_was_there(offline, tmp_path, monkeypatch):
    monkeypatch.setattr("feature_catalog.table_files.BATCH_ROWS", 1)
    late = ASKED.set_column(3, "dwell_s", pa.array([1.0, 2.0, 3.0]))
    late = late.set_column(1, "event_ts", times(3, 3, None))
    pq.write_table(late, tmp_path / "rows.parquet")
    out = tmp_path / "out.parquet"
    out.write_bytes(b"as it was")
    with pytest.raises(Exception, match="have no event_ts"):
        write_historical_features(
            offline, tmp_path / "rows.parquet", out, service="all", rows_at_once=1
        )
    assert out.read_bytes() == b"as it was"
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "data",
        "out.parquet",
        "rows.parquet",
    ]


@pytest.mark.parametrize("name", ["rows.parquet", "nowhere/out.parquet", "data"])
def test_an_output_that_cannot_be_is_refused_before_any_work(offline, tmp_path, name):
    pq.write_table(ASKED.drop_columns(["user_id"]), tmp_path / "rows.parquet")
    with pytest.raises(UnwritableFeatures):
        write_historical_features(
            offline, tmp_path / "rows.parquet", tmp_path / name, service="all"
        )
    with pytest.raises(MissingEntityColumn):
        write_historical_features(
            offline, tmp_path / "rows.parquet", tmp_path / "out.parquet", service="all"
        )
