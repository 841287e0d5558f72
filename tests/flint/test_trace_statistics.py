"""What `flint trace` says of a file is what a reader by hand finds in it."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_catalog.environment_inputs import KINDS
from feature_catalog.table_files import MissingColumn
from flint.trace_statistics import in_short, read_statistics
from simulation.traces.generate import write_world
from simulation.traces.generated_sessions import GeneratedAvailability
from simulation.traces.spans import InvalidSpan

DAY_S = 86400.0


def written(tmp_path, text: str, name: str = "trace.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_availability(tmp_path):
    rows = f"a,0,{DAY_S / 4}\na,{DAY_S / 2},{DAY_S}\nb,0,{DAY_S / 4}\n"
    found = read_statistics(written(tmp_path, "client_id,start_s,end_s\n" + rows), "availability")
    assert found == {
        "rows": 3,
        "clients": 2,
        "spans": 3,
        "horizon_s": DAY_S,
        "repeat_every_s": None,
        "available_share": 0.5,
        "median_span_s": DAY_S / 4,
        "device_models": None,
        "overlapping": False,
    }
    assert in_short("availability", found) == "2 clients, 3 spans, 1 days, 0.5 available"


def test_a_repeated_trace_with_device_models(tmp_path):
    table = pa.table(
        {
            "client_id": [1, 2],
            "start_s": [0.0, 10.0],
            "end_s": [50.0, 20.0],
            "repeat_every_s": [100.0, 100.0],
            "device_model": ["x", "y"],
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    found = read_statistics(tmp_path / "t.parquet", "availability")
    assert (found["repeat_every_s"], found["device_models"]) == (100.0, 2)
    assert found["available_share"] == pytest.approx((0.5 + 0.1) / 2)
    periods = table.set_column(3, "repeat_every_s", pa.array([100.0, 200.0]))
    pq.write_table(periods, tmp_path / "t.parquet")
    assert read_statistics(tmp_path / "t.parquet", "availability")["repeat_every_s"] == "differs"


def test_overlapping_spans_are_told_and_other_mistakes_refused(tmp_path):
    header = "client_id,start_s,end_s\n"
    found = read_statistics(written(tmp_path, header + "a,0,10\na,5,20\n"), "availability")
    assert (found["overlapping"], found["spans"], found["rows"]) == (True, 1, 2)
    with pytest.raises(InvalidSpan):
        read_statistics(written(tmp_path, header + "a,0,10\na,5,20\nb,-3,1\n"), "availability")


def test_device_profiles(tmp_path):
    header = "device_model,per_example_s\n"
    found = read_statistics(
        written(tmp_path, header + "a,0.1\na,0.2\na,0.3\nb,1\nc,2\n"), "device_profiles"
    )
    assert (found["device_models"], found["samples"], found["distribution"]) == (3, 5, "samples")
    assert [found[f"{which}_per_example_s"] for which in ("fastest", "median", "slowest")] == [
        0.2,
        1.0,
        2.0,
    ]
    assert in_short("device_profiles", found) == "3 device models, 0.2 to 2 s per example"


def test_device_population(tmp_path):
    found = read_statistics(
        written(tmp_path, "device_model,share\na,1\nb,3\n"), "device_population"
    )
    assert found == {"device_models": 2, "most_common": "b", "largest_share": 0.75}


def test_bandwidth(tmp_path):
    found = read_statistics(
        written(tmp_path, "down_kbps,up_kbps\n100,10\n200,30\n300,50\n"), "bandwidth"
    )
    assert (found["links"], found["paired"]) == (3, True)
    assert (found["median_down_kbps"], found["median_up_kbps"]) == (200.0, 30.0)
    assert found["p95_down_kbps"] == pytest.approx(290)
    assert in_short("bandwidth", found) == "3 links, medians 200 kbit/s down and 30 up"


def test_a_generated_world_can_be_described_in_json(tmp_path):
    write_world(tmp_path, GeneratedAvailability(20), seed=1)
    for kind in KINDS:
        name = "sessions" if kind == "availability" else kind
        found = read_statistics(tmp_path / f"{name}.parquet", kind)
        assert json.loads(json.dumps(found, allow_nan=False)) == found
        assert in_short(kind, found)


def test_a_file_of_another_kind_is_refused(tmp_path):
    path = written(tmp_path, "device_model,share\na,1\n")
    with pytest.raises(MissingColumn):
        read_statistics(path, "availability")
