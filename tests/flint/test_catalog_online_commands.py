"""`flint catalog materialize`, `get` and `online`, as a user types them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flint.cli import entry

pytestmark = pytest.mark.integration

FOLDER = Path(__file__).parents[2] / "examples" / "features"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """The example's tables."""
    folder = tmp_path_factory.mktemp("feature-data")
    subprocess.run([sys.executable, FOLDER / "generate.py", folder], check=True)
    return folder


@pytest.fixture
def flint(database_url, tmp_path, monkeypatch, capsys):
    """Run a command of the catalog: exit code, what it prints, what it says on stderr."""
    monkeypatch.setenv("FLINT_DATABASE_URL", database_url)
    monkeypatch.setenv("FLINT_HOME", str(tmp_path))

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            entry.main(["catalog", *(str(argument) for argument in arguments)])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


@pytest.fixture
def answer(flint):
    """The one JSON value of a command that succeeds."""

    def run(*arguments: object):
        code, out, err = flint(*arguments, "--json")
        assert code == 0, err
        (line,) = out.splitlines()
        return json.loads(line)

    return run


def test_from_parquet_files_to_values_that_are_read(flint, answer, data):
    assert flint("apply", FOLDER / "features.yaml")[0] == 0
    ads, _ = answer("online")
    assert (ads["view"], ads["keys"], ads["materialized_until"]) == ("ad_stats", 0, None)

    done = answer(
        "materialize", "ads_ctr_v1", "--data", data, "--start", "2026-02-28", "--end", "2026-03-20"
    )
    assert [(each["view"], each["keys"], each["written"]) for each in done] == [
        ("ad_stats", 80, 80),
        ("user_stats", 200, 200),
    ]
    code, out, _ = flint("materialize", "ad_stats", "--data", data, "--end", "2026-03-25T12:00")
    assert code == 0
    assert "ad_stats" in out
    assert "80" in out
    assert [each["keys"] for each in answer("online")] == [80, 200]

    keys = ("--key", "ad_id=ad-003", "--key", "ad_id=none", "--at", "2026-03-26")
    first, second = answer("get", "ad_stats:ctr_30d", *keys)
    assert first["entity"] == {"ad_id": "ad-003"}
    value = first["features"]["ctr_30d"]
    assert (value["status"], value["event_ts"][:10]) == ("PRESENT", "2026-03-25")
    assert 0 < value["value"] < 1
    assert second["features"]["ctr_30d"] == {"value": None, "status": "NOT_FOUND", "event_ts": None}
    (whole,) = answer(
        *("get", "ads_ctr_v1", "--through", "cloud", "--at", "2026-03-21"),
        *("--key", "ad_id=ad-003", "--key", "user_id=user-001"),
    )
    assert sorted(whole["features"]) == ["category", "clicks_7d", "country", "ctr_30d"]
    assert "OUTSIDE_MAX_AGE" in flint("get", "ad_stats:ctr_30d", "--key", "ad_id=ad-003")[1]


def test_mistakes_are_one_sentence_each(flint, data):
    assert flint("apply", FOLDER / "features.yaml")[0] == 0
    said = {
        ("materialize", "ad_stat"): "no feature view or service 'ad_stat' (did you mean ad_stats?)",
        ("materialize", "ad_views"): "never leave them",
        ("materialize", "--data", data / "none"): "relative paths are looked for in the folder",
        ("materialize", "--end", "2999-01-01"): "is in the future",
        ("materialize", "--end", "soon"): "'soon' is no moment",
        ("materialize", "--start", "1d", "--end", "2d"): "is not before",
        ("get", "ads_ctr", "--key", "ad_id=a"): "did you mean ads_ctr_v1?",
        ("get", "ads_ctr_v1", "--key", "adid=a"): "did you mean ad_id?",
        ("get", "ads_ctr_v1", "--key", "ad_id"): "'ad_id' is not NAME=VALUE",
        ("get", "ad_stats", "--key", "ad_id=a"): "ask for its fields, as ad_stats:FIELD",
        ("get", "ad_stats:ctr", "--key", "ad_id=a"): "ad_stats has no field 'ctr'",
        ("get", "ads_ctr_v1", "--through", "cloud", "--key", "ad_id=a"): "no user_id",
        ("get", "ads_ctr_v1", "ad_stats:ctr_30d", "--key", "ad_id=a"): "one feature service",
        ("get", "ads_ctr_v1", "--key", "dwell_s=long"): "dwell_s='long' is no float32",
        ("get", "ads_ctr_v1", "--through", "ingest", "--key", "ad_id=a"): "'ingest' is no stage",
    }
    for arguments, sentence in said.items():
        code, out, err = flint(*arguments)
        assert (code, out) == (2, ""), arguments
        assert sentence in err, arguments
        assert len([line for line in err.splitlines() if line.strip()]) == 1, err


def test_values_of_former_definitions_are_listed_and_dropped(flint, answer, data, tmp_path):
    assert flint("apply", FOLDER / "features.yaml")[0] == 0
    answer("materialize", "ad_stats", "--data", data, "--start", "2026-03-01")
    text = (FOLDER / "features.yaml").read_text()
    path = tmp_path / "changed.yaml"
    path.write_text(text.replace("ctr_30d, dtype: float32", "ctr_30d, dtype: float64"))
    assert answer("plan", path)["to_materialize"] == ["ad_stats"]
    code, _, err = flint("apply", path)
    assert code == 0
    assert "ad_stats has no online values until `flint catalog materialize ad_stats`" in err
    assert "user_stats" not in err  # was never materialised
    assert [(e["view"], e["definition"], e["keys"]) for e in answer("online")] == [
        ("ad_stats", "current", 0),
        ("ad_stats", "former", 80),
        ("user_stats", "current", 0),
    ]
    answer("materialize", "ad_stats", "--data", data, "--start", "2026-03-01")
    assert answer("plan", path)["to_materialize"] == []
    code, _, err = flint("online", "--drop-former")
    assert code == 0
    assert "ad_stats (former): 80 keys deleted" in err
    assert [each["definition"] for each in answer("online")] == ["current", "current"]
