"""A generated log is one that an app could have written, and the same for the same seed."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from simulation.availability.build import build_availability
from simulation.availability.criteria_file import load_criteria, parse_criteria
from simulation.availability.generated_log import (
    GeneratedLog,
    InvalidGeneratedLog,
    write_example,
    write_session_log,
)
from simulation.availability.trace_output import UnwritableOutput


def test_it_has_nothing_bad_and_is_busier_in_the_evening(tmp_path):
    log = tmp_path / "log.parquet"
    rows = write_session_log(log, GeneratedLog(clients=800), seed=1)
    found = build_availability([log], parse_criteria(""), tmp_path / "trace.parquet", strict=True)
    assert found.sessions_in == found.sessions_valid == rows
    assert rows == pytest.approx(800 * 7 * 6, rel=0.1)
    by_hour = np.array(found.hourly).reshape(7, 24).mean(axis=0)
    assert by_hour[[19, 20, 21]].min() > 3 * by_hour[[7, 8, 9]].max()


def test_its_own_criteria_keep_some_of_it(tmp_path):
    write_example(tmp_path, GeneratedLog(clients=300))
    criteria = load_criteria(tmp_path / "criteria.yaml")
    found = build_availability([tmp_path / "sessions.parquet"], criteria, None)
    shares = found.shares()["share_by_criterion"]
    assert set(shares) == set(found.facts.criteria)
    assert 0.05 < found.shares()["share_all"] < min(shares.values())
    assert set(found.problems) == {"model_not_measured"}


def test_the_same_seed_writes_the_same_log(tmp_path):
    def written(name, **settings):
        write_session_log(tmp_path / name, GeneratedLog(clients=50, **settings), seed=2)
        return pq.read_table(tmp_path / name)

    assert written("one.parquet").equals(written("two.parquet"))
    without = written("three.parquet", foreground=False)
    assert "foreground" not in without.column_names


def test_what_cannot_be_made_is_said(tmp_path):
    with pytest.raises(InvalidGeneratedLog, match="days = 0 cannot make a log"):
        write_session_log(tmp_path / "log.parquet", GeneratedLog(clients=5, days=0))
    (tmp_path / "file").touch()
    with pytest.raises(UnwritableOutput, match="cannot be written"):
        write_example(tmp_path / "file" / "folder", GeneratedLog(clients=5))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
