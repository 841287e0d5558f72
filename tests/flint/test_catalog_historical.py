"""`flint catalog historical` as a user types it: from the example's files to training data."""

import datetime as dt
import json
import runpy
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flint.catalog_session import open_catalog
from flint.cli import entry

pytestmark = pytest.mark.integration

FOLDER = Path(__file__).parents[2] / "examples" / "features"


@pytest.fixture
def flint(database_url, tmp_path, monkeypatch, capsys):
    """Run a command: exit code, what it prints, what it says on stderr."""
    monkeypatch.setenv("FLINT_DATABASE_URL", database_url)
    monkeypatch.setenv("FLINT_HOME", str(tmp_path / "home"))

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            entry.main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "feature-data"
    runpy.run_path(str(FOLDER / "generate.py"))["write"](folder)
    return folder


@pytest.fixture
def rows(tmp_path):
    moments = [dt.datetime(2026, 3, 5, 12, tzinfo=dt.UTC), dt.datetime(2026, 2, 1, tzinfo=dt.UTC)]
    table = pa.table(
        {
            "user_id": ["user-001", "user-002"],
            "ad_id": ["ad-001", "ad-002"],
            "event_ts": pa.array(moments, pa.timestamp("us", "UTC")),
            "dwell_s": [20.0, None],
            "placement": ["top", "side"],
            "seen_before": [True, False],
            "label": [1, 0],
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    return tmp_path / "rows.parquet"


def test_from_files_to_training_data(flint, data, rows, tmp_path):
    assert flint("catalog", "apply", FOLDER / "features.py")[0] == 0
    places = (
        "--rows",
        rows,
        "--data",
        data,
        "--assets",
        data,
        "--output",
        tmp_path / "out.parquet",
    )
    code, out, err = flint("catalog", "historical", "ads_ctr_v1", *places, "--json")
    assert code == 0, err
    (line,) = out.splitlines()
    told = json.loads(line)
    table = pq.read_table(tmp_path / "out.parquet")
    assert told["columns"] == table.column_names
    assert told["rows"] == table.num_rows == 2
    assert table["label"].to_pylist() == [1, 0]
    assert table["dwell_s"].to_pylist() == [1.0, None]  # (20 - 8) / 12
    by_name = {each["name"]: each for each in told["features"]}
    assert by_name["ctr_30d"]["present"] == by_name["ctr_30d"]["not_found"] == 1
    shown = json.loads(flint("catalog", "show", "ads_ctr_v1", "--json")[1])
    assert told["feature_contract_sha256"] == shown["contract_sha256"]

    code, out, err = flint("catalog", "historical", "ads_ctr_v1", *places, "--untransformed")
    assert code == 0
    assert "ad_stats:ctr_30d" in out
    assert "2 rows with 7 features" in err
    assert pq.read_table(tmp_path / "out.parquet")["dwell_s"].to_pylist() == [20.0, None]

    with open_catalog(tmp_path / "home") as catalog:
        offline = catalog.offline_features(data)
        found = offline.get_historical_features(
            entity_rows=pq.read_table(rows), service="ads_ctr_v1", untransformed=True
        )
    assert found.table.equals(pq.read_table(tmp_path / "out.parquet"))


def test_mistakes_are_one_sentence_and_leave_no_file(flint, data, rows, tmp_path):
    flint("catalog", "apply", FOLDER / "features.py")
    before = sorted(tmp_path.iterdir())
    places = ("--rows", rows, "--output", tmp_path / "out.parquet")
    for arguments, code in (
        (("ads_ctr_v2", *places), "FLN-2812"),
        (("ads_ctr_v1", *places), "FLN-2907"),
        (("ads_ctr_v1", *places, "--untransformed"), "FLN-2904"),
        (("ads_ctr_v1", *places, "--data", data, "--event-ts", "when"), "FLN-2901"),
        (("ads_ctr_v1", *places, "--memory", "plenty"), "FLN-2802"),
    ):
        exit_code, out, err = flint("catalog", "historical", *arguments)
        assert (exit_code, out) == (2, "")
        assert f"[{code}]" in err.strip().splitlines()[-1]
    assert sorted(tmp_path.iterdir()) == before
