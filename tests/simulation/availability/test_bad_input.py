"""Bad rows are counted by kind with their first example, never passed over."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from feature_catalog.table_files import UnreadableDataFile
from simulation.availability.build import (
    BadInputRefused,
    NobodyAvailable,
    build_availability,
)
from simulation.availability.criteria_file import (
    CriteriaFileError,
    InvalidCriteriaValue,
    UnknownCriteriaKey,
    load_criteria,
    parse_criteria,
)
from simulation.availability.estimation import NoSample
from simulation.availability.first_pass import NoValidSession
from simulation.availability.instants import UnusableLogColumn
from simulation.availability.session_log import (
    MissingLogColumn,
    NoSessionFiles,
    find_session_files,
)
from simulation.availability.session_rows import NoTimeZone
from simulation.availability.trace_output import UnwritableOutput
from tests.simulation.availability.conftest import MONDAY_S, session

GOOD = [session("good", 0, 600), session("other", 0, 600)]
FUTURE = 10**10 - MONDAY_S


@pytest.mark.parametrize(
    ("bad", "kind", "example"),
    [
        (session("x", 600, 0), "ends_before_start", "2025-03-24T00:10:00Z to 2025-03-24T00:00:00Z"),
        (session("x", 60, 60), "empty_session", "of device x in sessions.csv, row 3"),
        (session("x", 0, FUTURE), "in_future", "2286"),
        (session("x", -2 * MONDAY_S, 0), "before_1970", "1914-10-11T00:00:00Z"),
        (session("good", 0, 600), "duplicate", "sessions.csv, row 3 (after sessions.csv, row 1)"),
        (session("good", 300, 900), "overlapping", "of device good in sessions.csv, row 3"),
        (session("", 0, 600), "no_device_id", "sessions.csv, row 3"),
        (session() | {"end": "soon"}, "not_a_time", "to 'soon' in sessions.csv, row 3"),
        (session() | {"start": None}, "not_a_time", "'None' to"),
        (session(time_zone="Mars/Olympus"), "unknown_time_zone", "'Mars/Olympus' in sessions.csv"),
        (session(battery=71), "battery_out_of_range", "'71' in sessions.csv, row 3"),
        (session(battery="full"), "battery_not_understood", "'full' in sessions.csv, row 3"),
    ],
)
def test_a_bad_row_among_good_ones_is_counted_with_its_place(write_log, build, bad, kind, example):
    columns = {"time_zone": "UTC", "battery": 0.5}
    log = write_log([columns | row for row in [*GOOD, bad]], "sessions.csv")
    criteria = "time_zone: UTC\nstate: {min_battery: 0.1}"
    found, trace = build(log, criteria)
    assert {name: problem.count for name, problem in found.problems.items()} == {kind: 1}
    assert example in found.problems[kind].example
    assert (found.sessions_in, found.sessions_valid) == (
        3,
        2 if found.problems[kind].dropped else 3,
    )
    assert {row["client_id"] for row in trace} >= {"good", "other"}
    with pytest.raises(BadInputRefused, match=r"as --strict asks: .*: 1[ ,]"):
        build(log, criteria, strict=True)


def test_spans_of_a_trace_before_its_beginning_or_beyond_belief_are_left_out(write_log, build):
    rows = [
        {"client_id": "a", "start_s": -5, "end_s": 5},
        {"client_id": "a", "start_s": 7, "end_s": 2**33},
        {"client_id": "a", "start_s": 8, "end_s": 9},
    ]
    found, trace = build(write_log(rows), "")
    assert {name: problem.example for name, problem in found.problems.items()} == {
        "before_trace": "-5 s to 5 s of device a in sessions.parquet, row 1",
        "beyond_trace": "7 s to 8.58993e+09 s of device a in sessions.parquet, row 2",
    }
    assert [row["start_s"] for row in trace] == [8]


def test_overlaps_are_united(write_log, build):
    rows = [session("a", 0, 600), session("a", 100, 200), session("a", 500, 900)]
    found, trace = build(write_log(rows))
    assert [(row["start_s"], row["end_s"]) for row in trace] == [(0, 900)]
    assert found.problems["overlapping"].count == 2


def test_a_clock_that_was_never_set_does_not_move_the_trace(write_log, build):
    rows = [session("unset", -MONDAY_S + 100, -MONDAY_S + 200), *GOOD]
    found, trace = build(write_log(rows))
    problem = found.problems["clock_not_set"]
    assert (problem.count, problem.dropped) == (1, True)
    assert problem.example == "1970-01-01T00:01:40Z of device unset in sessions.parquet, row 1"
    assert [(row["client_id"], row["start_s"]) for row in trace] == [("good", 0), ("other", 0)]
    assert (found.begins, found.clients, found.hourly[0]) == ("2025-03-24", 2, 2.0)
    # A log that is all of 1970 is believed.
    found, trace = build(write_log(rows[:1]))
    assert (found.begins, trace[0]["end_s"], dict(found.problems)) == ("1970-01-01", 200, {})


def test_a_row_without_zone_is_left_out_where_no_default_is_given(write_log, build):
    rows = [session("a", time_zone="UTC"), session("b", time_zone=None)]
    found, trace = build(write_log(rows), "")
    assert found.problems["no_time_zone"].example == "sessions.parquet, row 2"
    assert [row["client_id"] for row in trace] == ["a"]


def test_a_log_without_any_zone_is_refused(write_log, build):
    with pytest.raises(NoTimeZone, match="nothing says in which time zone"):
        build(write_log(GOOD), "")


def test_real_times_under_the_names_of_a_trace_are_no_trace(write_log, build):
    rows = [{"client_id": "a", "start_s": MONDAY_S, "end_s": MONDAY_S + 60}]
    with pytest.raises(NoTimeZone, match="so from 1970 and not from the beginning of a trace"):
        build(write_log(rows), "")
    _, trace = build(write_log(rows), "time_zone: UTC")
    assert trace[0]["end_s"] == 60
    _, trace = build(write_log(rows), "times: trace")
    assert trace[0]["start_s"] == MONDAY_S


def test_files_of_no_bytes_or_no_rows_are_counted(tmp_path, write_log, build):
    write_log(GOOD, "log/a.csv")
    (tmp_path / "log" / "b.csv").touch()
    (tmp_path / "log" / "c.csv").write_text("device_id,start,end\n")
    (tmp_path / "log" / "d.parquet").touch()
    found, trace = build(find_session_files(str(tmp_path / "log")))
    assert found.problems["empty_file"].count == 3
    assert found.problems["empty_file"].example == "b.csv is of 0 bytes"
    assert len(trace) == 2


def test_lines_with_too_few_fields_are_counted(tmp_path, build):
    log = tmp_path / "log.csv"
    log.write_text(f"device_id,start,end\na,{MONDAY_S},{MONDAY_S + 60}\nb,{MONDAY_S}\n")
    found, trace = build(log)
    assert found.problems["malformed_row"].count == 1
    assert "2 fields, not 3" in found.problems["malformed_row"].example
    assert len(trace) == 1


def test_a_log_in_which_everything_is_bad_is_refused_and_leaves_nothing(tmp_path, write_log, build):
    rows = [session(f"d{n}", 600, 0) for n in range(12)]
    with pytest.raises(NoValidSession, match="none of its 12 rows is a session: sessions that end"):
        build(write_log(rows))
    assert [path.name for path in tmp_path.iterdir()] == ["sessions.parquet"]


def test_an_empty_log_is_refused(tmp_path, build):
    (tmp_path / "log.csv").touch()
    with pytest.raises(NoValidSession, match=r"log.csv is of 0 bytes"):
        build(tmp_path / "log.csv")


def test_a_damaged_file_is_refused(tmp_path, build):
    (tmp_path / "log.parquet").write_bytes(b"PAR1 not really PAR1")
    with pytest.raises(UnreadableDataFile, match="cannot be read"):
        build(tmp_path / "log.parquet")


@pytest.mark.parametrize(
    "damaged",
    [
        b"device_id,\xb9start,end\na,1,2\n",
        b"device_id,start,end\na,1,2\n\xce,3\n",
        b"\x00\x01\x02",
    ],
)
def test_a_csv_that_is_no_text_is_refused_without_a_traceback(tmp_path, build, capfd, damaged):
    (tmp_path / "log.csv").write_bytes(damaged)
    with pytest.raises((UnreadableDataFile, MissingLogColumn, NoValidSession)):
        build(tmp_path / "log.csv")
    assert capfd.readouterr().err == ""


def test_a_strict_build_writes_nothing(tmp_path, write_log):
    log = write_log([*GOOD, session("x", 60, 0)])
    output, facts = tmp_path / "t.parquet", tmp_path / "f.parquet"
    with pytest.raises(BadInputRefused):
        build_availability(
            [log], parse_criteria("time_zone: UTC"), output, facts=facts, strict=True
        )
    assert [path.name for path in tmp_path.iterdir()] == ["sessions.parquet"]


@pytest.mark.parametrize(
    ("criteria", "sentence"),
    [
        ("state: {wifi: true}", "state.wifi needs a column wifi, which .* does not have"),
        ("device: {min_os_release: 2019-09}", "device.min_os_release needs a column os_release"),
        ("columns: {start: startt}", r"columns.start names 'startt'.*\(did you mean start\?\)"),
        ("only: {app: main}", "only names column 'app'"),
    ],
)
def test_criteria_of_missing_columns_are_refused(write_log, build, criteria, sentence):
    with pytest.raises(MissingLogColumn, match=sentence):
        build(write_log(GOOD), "time_zone: UTC\n" + criteria)


def test_a_column_of_another_type_is_refused(write_log, build):
    rows = [row | {"wifi": [1]} for row in GOOD]
    with pytest.raises(UnusableLogColumn, match="column wifi holds list"):
        build(write_log(rows), "time_zone: UTC\nstate: {wifi: true}")


def test_ids_in_the_place_of_time_zones_or_models_are_refused(write_log, build, monkeypatch):
    rows = [session(f"d{n}", time_zone=f"zone {n}", device_model=f"m{n}") for n in range(2100)]
    with pytest.raises(UnusableLogColumn, match="more than 2000 names that are none"):
        build(write_log(rows), "")
    monkeypatch.setattr("simulation.availability.device_models._MOST_MODELS", 2000)
    with pytest.raises(UnusableLogColumn, match="more than 2000 different values, such as 'm2000'"):
        build(write_log([row | {"time_zone": "UTC"} for row in rows]), "")


@pytest.mark.parametrize("role", ["device_model", "time_zone"])
def test_a_column_of_names_that_holds_lists_or_bytes_is_refused(write_log, build, role):
    for value in ([1], b"\xff", 1.5):
        rows = [row | {role: value} for row in GOOD]
        with pytest.raises(UnusableLogColumn, match=f"column {role} holds"):
            build(write_log(rows))


def test_a_criterion_that_no_session_tells_is_refused(write_log, build):
    rows = [row | {"battery": 55.0} for row in GOOD]
    with pytest.raises(NoSample, match=r"min_battery cannot be judged: not one of 2"):
        build(write_log(rows), "time_zone: UTC\nstate: {min_battery: 0.5}")


def test_criteria_that_nobody_meets_are_refused_with_what_each_keeps(write_log, build):
    rows = [session("a", wifi=True, reputation=0.1), session("b", wifi=False, reputation=0.9)]
    with pytest.raises(NobodyAvailable, match=r"wifi 50.0%, min_reputation 50.0% of 2 sessions"):
        build(write_log(rows), "time_zone: UTC\nstate: {wifi: true}\nuser: {min_reputation: 0.5}")


def test_without_a_file_to_write_nobody_available_is_a_result(write_log):
    log = write_log([session("a", reputation=0.1)])
    criteria = parse_criteria("time_zone: UTC\nuser: {min_reputation: 0.5}")
    found = build_availability([log], criteria, None)
    assert (found.sessions_out, found.eligible_peak_share, found.trough_peak_ratio) == (0, 0, None)


def test_a_session_that_has_just_ended_is_not_in_the_future(write_log, build):
    found, _ = build(write_log(GOOD), now_s=MONDAY_S + 600)
    assert not found.problems
    with pytest.raises(NoValidSession, match="in the future: 2"):
        build(write_log(GOOD), now_s=MONDAY_S + 599)


@pytest.mark.parametrize(
    ("text", "error", "sentence"),
    [
        ("state: {wfi: true}", UnknownCriteriaKey, r"did you mean wifi\?"),
        ("wifi: true", UnknownCriteriaKey, "belongs into the block state"),
        ("participation: {}", UnknownCriteriaKey, "at the top"),
        ("state: {min_battery: 80}", InvalidCriteriaValue, "state.min_battery = 80"),
        ("time_zone: Berlin", InvalidCriteriaValue, "'Berlin' is no time zone"),
        ("device: {max_train_s: 9}", InvalidCriteriaValue, "add measurements: FILE"),
        ("begins: 2025-02-30", InvalidCriteriaValue, "'2025-02-30' is no date"),
        ("sessions: {min_length_s: 9, max_length_s: 3}", InvalidCriteriaValue, "no span would be"),
        ("state: [", CriteriaFileError, "mend the YAML"),
    ],
)
def test_a_slip_in_the_criteria_file_is_one_sentence(text, error, sentence):
    with pytest.raises(error, match=sentence):
        parse_criteria(text)


def test_a_criteria_file_of_comments_asks_for_nothing(tmp_path):
    path = tmp_path / "criteria.yaml"
    path.write_text("# nothing yet\n")
    assert load_criteria(path).thresholds() == {}
    with pytest.raises(CriteriaFileError, match="there is no criteria file"):
        load_criteria(tmp_path / "other.yaml")


def test_no_files_and_no_place_to_write_are_said(tmp_path, write_log, build):
    with pytest.raises(NoSessionFiles, match=r"no \.parquet or \.csv file"):
        find_session_files(str(tmp_path / "*.parquet"))
    log = write_log(GOOD)
    for output in (tmp_path / "t.csv", tmp_path / "nowhere" / "t.parquet"):
        with pytest.raises(UnwritableOutput):
            build_availability([log], parse_criteria("time_zone: UTC"), output)


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, write_log):
    log = write_log([session(f"d{n}", n, n + 60) for n in range(20_000)])
    (tmp_path / "temporary").mkdir()
    script = f"""
import pathlib, resource, sys
from simulation.availability.build import NoRoomForSessions, build_availability
from simulation.availability.criteria_file import parse_criteria
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    build_availability(
        [pathlib.Path({str(log)!r})], parse_criteria("time_zone: UTC"), pathlib.Path("t.parquet")
    )
except NoRoomForSessions as error:
    sys.exit(str(error))
"""
    finished = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "TMPDIR": str(tmp_path / "temporary"), "PYTHONPATH": str(Path.cwd())},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.stderr.startswith("there is no room left"), finished.stderr
    assert list((tmp_path / "temporary").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sessions.parquet", "temporary"]


def test_infinite_and_huge_times_are_no_times(write_log, build):
    rows = [{"device_id": "x", "start": float(MONDAY_S), "end": end} for end in (math.inf, 1e300)]
    rows.append({"device_id": "good", "start": float(MONDAY_S), "end": MONDAY_S + 60.5})
    found, trace = build(write_log(rows))
    assert found.problems["not_a_time"].count == 2
    assert [(row["start_s"], row["end_s"]) for row in trace] == [(0.0, 60.5)]
