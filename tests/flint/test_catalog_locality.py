"""`flint catalog locality`, as a user types it."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flint.cli import entry

EXAMPLE = Path(__file__).parents[2] / "examples" / "features" / "features.yaml"


@pytest.fixture
def flint(capsys):
    """Run a command: exit code, what it prints, what it says on stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            entry.main(["catalog", "locality", *(str(argument) for argument in arguments)])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


@pytest.fixture
def clicks(tmp_path) -> Path:
    path = tmp_path / "clicks.parquet"
    rows = range(600)
    pq.write_table(
        pa.table(
            {
                "user_id": [f"u{n % 20}" for n in rows],
                "ad_id": [f"ad {(n * n) % 31}" for n in rows],
                "brand": [((n * n) % 31) % 5 for n in rows],
                "slot": [n % 7 for n in rows],
                "clicked": [n % 2 for n in rows],
                "ts": [n * 3600 for n in rows],
            }
        ),
        path,
    )
    return path


def test_a_data_sets_columns_are_placed_with_a_reason_each(flint, clicks):
    arguments = (clicks, "--client", "user_id", "--exclude", "clicked", "--time", "ts")
    code, out, err = flint(*arguments)
    assert code == 0, err
    for words in ("on the device, as a key", "in the cloud, prefetched", "ad_id determines it"):
        assert words in out
    code, out, _ = flint(*arguments, "--json", "--rtt-ms", 100, "--whole-bytes", "1kB")
    (line,) = out.splitlines()
    found = json.loads(line)
    places = {each["feature"]: each["place"] for each in found["features"]}
    assert places == {
        "ad_id": "device_key",
        "brand": "cloud_on_demand",
        "slot": "device",
    }
    assert found["network"]["round_trip_ms"] == 100
    assert found["cloud_keys"][0]["replay"]["reads"] == 600


def test_a_services_caches_are_replayed_over_rows(flint, clicks):
    code, out, err = flint(
        *("ads_ctr_v1", "--rows", clicks, "--client", "user_id", "--definitions", EXAMPLE)
    )
    assert code == 0, err
    for words in ("ad_stats", "user_stats", "prefetch", "never leaves it", "network: 50 ms"):
        assert words in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("clicks.parquet", "--client", "user_id"), "there is no such file"),
        (("ads_ctr_v1", "--client", "user_id"), "with --rows"),
        (("CLICKS", "--client", "user"), "did you mean user_id?"),
        (("CLICKS", "--client", "user_id", "--time", "ad_id"), "not times"),
        (("CLICKS", "--client", "user_id", "--key", "adid"), "did you mean ad_id?"),
        (("CLICKS", "--client", "user_id", "--key", "user_id"), "--key user_id is the client"),
        (("CLICKS", "--client", "user_id", "--rtt-ms", -1), "give 0 or more"),
        (("CLICKS", "--client", "user_id", "--whole-bytes", "x"), "such as 2MB"),
    ],
)
def test_a_mistake_is_one_sentence(flint, clicks, arguments, said):
    code, out, err = flint(*(clicks if each == "CLICKS" else each for each in arguments))
    assert (code, out) == (2, "")
    assert said in err.splitlines()[-1]
    assert "Traceback" not in err
