"""Facts are read back as a build wrote them; what is none is refused."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_catalog.table_files import UnreadableDataFile
from simulation.availability.build import build_availability
from simulation.availability.criteria_file import parse_criteria
from simulation.availability.kept_facts import NotBuilt, kept_facts, read_kept_facts


@pytest.fixture
def built(tmp_path):
    log = pa.table(
        {
            "device_id": ["a", "a", "b", "c"],
            "start": [0, 7200, 3600, 0],
            "end": [600, 9000, 4200, 60],
            "battery": [0.9, 0.1, 0.9, 0.2],
            "wifi": [False, True, True, True],
            "device_model": ["x", "x", None, "y"],
            "os_release": ["2019-09", "2019-09", None, "2021-03"],
        }
    )
    pq.write_table(log, tmp_path / "log.parquet")
    criteria = parse_criteria(
        "times: trace\nbegins: 2026-01-05\nstate: {wifi: true, min_battery: 0.8}"
    )
    facts = tmp_path / "facts.parquet"
    statistics = build_availability([tmp_path / "log.parquet"], criteria, None, facts=facts)
    return facts, statistics


def test_facts_of_a_build_are_read_back(built):
    path, statistics = built
    found = read_kept_facts(path)
    assert found.criteria == statistics.facts
    assert np.allclose(
        found.hourly, [np.nan if v is None else v for v in statistics.hourly], equal_nan=True
    )
    clients = found.clients
    assert clients.device_models.tolist() == ["x", None, "y"]
    assert clients.os_years.tolist() == [2019, 0, 2021]
    assert clients.sessions.tolist() == [2, 1, 1]
    assert clients.session_s.tolist() == [2400.0, 600.0, 60.0]
    # a has one session with WiFi and one with enough battery, but none with both.
    assert clients.passes_ever.tolist() == [3, 3, 1]
    assert clients.passes_all.tolist() == [False, True, False]
    assert clients.spans.tolist() == [0, 1, 0]


def test_statistics_as_the_catalog_keeps_them_are_read(built):
    _, statistics = built
    found = kept_facts(statistics.to_json(), source="app@1")
    assert found.criteria == statistics.facts
    assert found.clients is None


@pytest.mark.parametrize("build", [None, {}, {"facts": {}}, {"facts": None}, []])
def test_what_is_no_build_is_refused_with_how_to_make_one(build):
    with pytest.raises(NotBuilt, match="old@1 holds no facts of a build; make it with"):
        kept_facts(build, source="old@1")


def test_a_file_without_facts_is_refused(tmp_path, built):
    path = tmp_path / "other.parquet"
    pq.write_table(pa.table({"client_id": [1]}), path)
    with pytest.raises(NotBuilt, match="holds no facts"):
        read_kept_facts(path)
    (tmp_path / "x.csv").write_text("client_id\n1\n")
    with pytest.raises(NotBuilt, match="name the Parquet file"):
        read_kept_facts(tmp_path / "x.csv")
    with pytest.raises(UnreadableDataFile, match="there is no such file"):
        read_kept_facts(tmp_path / "none.parquet")
