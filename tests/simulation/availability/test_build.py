"""Small logs whose traces can be told by hand."""

import datetime as dt
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flint.trace_statistics import read_statistics
from simulation.availability.build import build_availability
from simulation.availability.criteria_file import parse_criteria
from simulation.availability.first_pass import NoValidSession
from simulation.availability.session_log import find_session_files
from simulation.traces.generate import write_world
from simulation.traces.generated_sessions import GeneratedAvailability
from simulation.traces.session_files import read_sessions
from tests.simulation.availability.conftest import MONDAY_S, session

HOUR_S, DAY_S = 3600, 86_400


def spans(rows):
    return [(row["client_id"], row["start_s"], row["end_s"]) for row in rows]


# ---------------------------------------------------------------------- plain traces


def test_a_plain_trace_with_empty_criteria_passes_through_unchanged(tmp_path):
    write_world(tmp_path, GeneratedAvailability(devices=200), seed=4)
    log, output = tmp_path / "sessions.parquet", tmp_path / "out.parquet"
    found = build_availability([log], parse_criteria(""), output)
    assert pq.read_table(output).equals(pq.read_table(log), check_metadata=False)
    assert found.sessions_in == found.sessions_out == pq.read_metadata(log).num_rows
    trace = read_sessions(output)
    assert found.clients == found.clients_out == len(trace)
    counts = trace.count_available(np.arange(0, 604_800, 60)).reshape(168, 60).mean(axis=1)
    assert found.hourly == pytest.approx(counts, abs=1.5)
    assert found.eligible_peak_share == pytest.approx(max(found.hourly) / len(trace))


def test_a_plain_trace_in_csv_keeps_its_ids_and_touching_spans(write_log, build):
    rows = [
        {"client_id": 7, "start_s": 0, "end_s": 50},
        {"client_id": 7, "start_s": 50, "end_s": 60.5},
        {"client_id": 11, "start_s": 3, "end_s": 4},
    ]
    found, trace = build(write_log(rows, "trace.csv"), "")
    assert spans(trace) == [(7, 0, 50), (7, 50, 60.5), (11, 3, 4)]
    assert (found.begins, dict(found.problems)) == (None, {})


def test_what_trace_show_would_say_is_said_without_reading_the_trace_again(tmp_path, write_log):
    rows = [
        session(f"d{n % 7}", n * 1000, n * 1000 + 200 + 31 * n, device_model="m") for n in range(60)
    ]
    output = tmp_path / "out.parquet"
    found = build_availability([write_log(rows)], parse_criteria("time_zone: UTC"), output)
    read = read_statistics(output, "availability")
    ours = found.of_trace()
    assert ours.pop("available_share") == pytest.approx(read.pop("available_share"))
    assert ours == read


# ---------------------------------------------------------------------- local time


def test_spans_lie_on_the_local_clock_of_each_device(write_log, build):
    rows = [
        session("berlin", 0, 600, time_zone="Europe/Berlin"),
        session("delhi", 0, 600, time_zone="Asia/Kolkata"),
        session("new york", 0, 600, time_zone="America/New_York"),
    ]
    found, trace = build(write_log(rows), "")
    # New York is still on Sunday: its midnight is second 0.
    assert found.begins == "2025-03-23"
    hours = {client: start / HOUR_S for client, start, _ in spans(trace)}
    assert hours == {"berlin": 25.0, "delhi": 29.5, "new york": 20.0}


def berlin_s(*clock, fold=0):
    from zoneinfo import ZoneInfo

    moment = dt.datetime(*clock, tzinfo=ZoneInfo("Europe/Berlin"), fold=fold)
    return int(moment.timestamp()) - MONDAY_S


def test_a_session_across_clocks_set_forward_keeps_its_true_length(write_log, build):
    # 01:30 to 03:30 on the wall is one hour.
    row = session("a", berlin_s(2025, 3, 30, 1, 30), berlin_s(2025, 3, 30, 3, 30))
    _, trace = build(write_log([row]), "time_zone: Europe/Berlin")
    assert spans(trace) == [("a", 1.5 * HOUR_S, 2.5 * HOUR_S)]


def test_a_session_across_clocks_set_back_keeps_its_true_length(write_log, build):
    # 01:30 to 03:30 on the wall is three hours.
    row = session("a", berlin_s(2025, 10, 26, 1, 30), berlin_s(2025, 10, 26, 3, 30))
    _, trace = build(write_log([row]), "time_zone: Europe/Berlin")
    assert spans(trace) == [("a", 1.5 * HOUR_S, 4.5 * HOUR_S)]


def test_both_passes_of_a_repeated_hour_lie_on_one_hour_and_are_no_bad_input(write_log, build):
    rows = [
        session("a", berlin_s(2025, 10, 26, 2, 10), berlin_s(2025, 10, 26, 2, 40)),
        session("a", berlin_s(2025, 10, 26, 2, 20, fold=1), berlin_s(2025, 10, 26, 2, 50, fold=1)),
    ]
    found, trace = build(write_log(rows), "time_zone: Europe/Berlin")
    assert spans(trace) == [("a", 2 * HOUR_S + 600, 2 * HOUR_S + 3000)]
    assert (dict(found.problems), found.joined) == ({}, {"over_a_clock_change": 1})


def test_local_times_in_a_repeated_hour_end_after_they_start(write_log, build):
    rows = [{"device_id": "a", "start": "2025-10-26 02:50:00", "end": "2025-10-26 02:10:00"}]
    found, trace = build(write_log(rows, "log.csv"), "time_zone: Europe/Berlin")
    ((_, start, end),) = spans(trace)
    assert (end - start, dict(found.problems)) == (20 * 60, {})


@pytest.mark.parametrize("form", ["seconds", "milliseconds", "offset", "local", "timestamp"])
def test_the_same_sessions_in_any_form_of_time_are_the_same_trace(write_log, build, form):
    starts = [MONDAY_S + 7 * HOUR_S, MONDAY_S + 31 * HOUR_S + 17]

    def written(seconds):
        moment = dt.datetime.fromtimestamp(seconds, tz=dt.UTC)
        return {
            "seconds": seconds,
            "milliseconds": seconds * 1000,
            "offset": moment.astimezone(dt.timezone(dt.timedelta(hours=-3))).isoformat(),
            "local": (moment + dt.timedelta(hours=1)).replace(tzinfo=None).isoformat(" "),
            "timestamp": moment,
        }[form]

    rows = [{"device_id": "a", "start": written(s), "end": written(s + 900)} for s in starts]
    name = "log.parquet" if form == "timestamp" else "log.csv"
    _, trace = build(write_log(rows, name), "time_zone: Europe/Berlin")
    assert spans(trace) == [
        ("a", 8 * HOUR_S, 8 * HOUR_S + 900),
        ("a", 32 * HOUR_S + 17, 32 * HOUR_S + 917),
    ]


# ---------------------------------------------------------------------- gaps, hours, folding


def test_short_background_gaps_are_subtracted_and_long_ones_split(write_log, build):
    text = ";".join(
        f"{MONDAY_S + start}/{MONDAY_S + end}" for start, end in [(0, 100), (130, 200), (900, 950)]
    )
    rows = [session("a", 0, 1000, foreground=text)]
    criteria = "time_zone: UTC\nsessions: {max_background_gap_s: 60}"
    _, trace = build(write_log(rows, "log.csv"), criteria)
    assert spans(trace) == [("a", 0, 170), ("a", 900, 950)]


def test_the_background_is_what_foreground_false_asks_for(write_log, build):
    foreground = [{"start": MONDAY_S + 100, "end": MONDAY_S + 200}]
    rows = [session("a", 0, 1000, foreground=foreground), session("b", 0, 9, foreground=None)]
    found, trace = build(write_log(rows), "time_zone: UTC\nstate: {foreground: false}")
    assert spans(trace) == [("a", 0, 100), ("a", 200, 1000)]
    assert found.problems["foreground_unknown"].count == 1


def test_spans_are_cut_to_the_allowed_hours_of_every_day(write_log, build):
    rows = [session("a", 20 * HOUR_S, 3 * DAY_S), session("b", 8 * HOUR_S, 9 * HOUR_S)]
    criteria = 'time_zone: UTC\nstate: {allowed_hours: "22:00-06:00"}'
    found, trace = build(write_log(rows), criteria)
    assert [(c, s / HOUR_S, e / HOUR_S) for c, s, e in spans(trace)] == [
        ("a", 22, 30),
        ("a", 46, 54),
        ("a", 70, 72),
    ]
    assert found.shares()["share_by_criterion"] == {"allowed_hours": 0.5}


def test_a_session_of_days_is_cut_or_dropped(write_log, build):
    log = write_log([session("a", 0, 3 * DAY_S), session("b", 0, 60)])
    rule = "time_zone: UTC\nsessions: {max_length_s: 7200, longer: %s}"
    assert spans(build(log, rule % "cut")[1]) == [("a", 0, 7200), ("b", 0, 60)]
    assert spans(build(log, rule % "drop")[1]) == [("b", 0, 60)]


def test_days_are_folded_and_the_trace_repeats(write_log, build):
    rows = [
        session("a", 23 * HOUR_S, 25 * HOUR_S),
        session("a", 2 * DAY_S + 1800, 2 * DAY_S + 7200),
    ]
    found, trace = build(write_log(rows), "time_zone: UTC\nfold: day")
    assert spans(trace) == [("a", 0, 7200), ("a", 23 * HOUR_S, DAY_S)]
    assert {row["repeat_every_s"] for row in trace} == {DAY_S}
    assert found.hourly[:2] == (1.0, 1.0)
    assert (found.hourly[23], found.hourly[47], sum(found.hourly)) == (1.0, 1.0, 21.0)


def test_hours_the_log_does_not_cover_say_nothing(write_log, build):
    rows = [session("a", 8 * HOUR_S, 9 * HOUR_S), session("b", 9 * HOUR_S, 10 * HOUR_S + 60)]
    found, _ = build(write_log(rows), "time_zone: UTC")
    assert {hour: mean for hour, mean in enumerate(found.hourly) if mean is not None} == {
        8: 1.0,
        9: 1.0,
    }
    assert (found.eligible_peak_share, found.trough_peak_ratio) == (0.5, 1.0)


def test_a_trace_with_a_date_knows_its_days_of_the_week(write_log, build):
    rows = [{"client_id": "a", "start_s": 0, "end_s": HOUR_S}]
    rows.append({"client_id": "b", "start_s": DAY_S, "end_s": DAY_S + HOUR_S})
    log = write_log(rows)
    without, _ = build(log, "")
    assert (without.hourly[0], without.hourly[24], without.begins) == (1.0, 1.0, None)
    dated, trace = build(log, "times: trace\nbegins: 2025-03-28")  # a Friday
    assert (dated.hourly[96], dated.hourly[120], dated.begins) == (1.0, 1.0, "2025-03-28")
    assert [row["start_s"] for row in trace] == [0, DAY_S]


def test_weeks_are_folded_from_monday(write_log, build):
    rows = [
        session("a", 3 * DAY_S + week * 604_800, 3 * DAY_S + week * 604_800 + 60 * (week + 1))
        for week in range(3)
    ]
    found, trace = build(write_log(rows), "time_zone: UTC\nfold: week")
    assert spans(trace) == [("a", 3 * DAY_S, 3 * DAY_S + 180)]
    assert (found.hourly[72], found.repeat_every_s) == (0.05, 604_800)


# ---------------------------------------------------------------------- files and columns


def test_columns_are_mapped_and_rows_chosen(write_log, build):
    rows = [
        {"uid": 5, "begin": MONDAY_S, "finish": MONDAY_S + 60, "app": 2, "unmetered": "yes"},
        {"uid": 6, "begin": MONDAY_S, "finish": MONDAY_S + 60, "app": 2, "unmetered": "no"},
        {"uid": 7, "begin": MONDAY_S, "finish": MONDAY_S + 60, "app": 3, "unmetered": "yes"},
    ]
    criteria = """
        columns: {device_id: uid, start: begin, end: finish, wifi: unmetered}
        only: {app: 2}
        time_zone: UTC
        state: {wifi: true}
    """
    for name in ("log.parquet", "log.csv"):
        found, trace = build(write_log(rows, name), criteria)
        assert spans(trace) == [(5, 0, 60)]
        assert (found.sessions_in, found.clients) == (2, 2)
    with pytest.raises(NoValidSession, match="no row has app: 9"):
        build(write_log(rows), criteria.replace("app: 2", "app: 9"))


def test_rows_are_chosen_by_truth_values_too(write_log, build):
    log = write_log([session("a", beta=True), session("b", beta=False), session("c", beta=None)])
    _, trace = build(log, "time_zone: UTC\nonly: {beta: true}")
    assert [row["client_id"] for row in trace] == ["a"]


def test_a_folder_and_a_pattern_are_logs_of_many_files(tmp_path, write_log, build):
    for number in range(3):
        write_log([session(f"d{number}", 0, 60 + number)], f"logs/day={number}/part.parquet")
    write_log([session("not a log")], "logs/_temporary.parquet")
    for where in (tmp_path / "logs", tmp_path / "logs" / "*" / "*.parquet"):
        found, trace = build(find_session_files(str(where)))
        assert (found.sessions_in, len(trace)) == (3, 3)
    write_log([session("d", 60, 0)], "logs/day=3/part.parquet")
    found, _ = build(find_session_files(str(tmp_path / "logs")))
    assert "logs/day=3/part.parquet, row 1" in found.problems["ends_before_start"].example


# ---------------------------------------------------------------------- coins


def sampled_rows(count=6000):
    """On WiFi at night always, at noon never; one in ten says."""
    generator = np.random.default_rng(1)
    rows = []
    for number in range(count):
        hour = 2 if number % 2 else 12
        start = (number % 5) * DAY_S + hour * HOUR_S + int(generator.integers(0, 3000))
        known = generator.random() < 0.1
        rows.append(session(f"d{number}", start, start + 300, wifi=hour == 2 if known else None))
    return rows


def test_unknown_sessions_follow_the_sample_of_their_hour(write_log, build):
    found, trace = build(write_log(sampled_rows()), "time_zone: UTC\nstate: {wifi: true}")
    assert {int(row["start_s"]) % DAY_S // HOUR_S for row in trace} == {2}
    assert len(trace) == 3000
    estimate = found.estimated["wifi"]
    assert estimate.known + estimate.unknown == 6000
    assert estimate.hours_without_sample == 158


def test_coins_fall_as_often_as_the_sample_says(write_log, build):
    generator = np.random.default_rng(2)
    rows = [
        session(
            f"d{n}",
            n % 7 * DAY_S,
            n % 7 * DAY_S + 60,
            battery=[0.2, 0.9][n % 3 > 0] if n < 3000 else None,
        )
        for n in generator.permutation(20_000).tolist()
    ]
    found, _ = build(write_log(rows), "time_zone: UTC\nstate: {min_battery: 0.8}")
    estimate = found.estimated["min_battery"]
    assert (estimate.known, estimate.unknown) == (3000, 17_000)
    assert estimate.known_passing_share == pytest.approx(2 / 3)
    # Four standard deviations of a mean of 17,000 coins.
    assert estimate.coin_passing_share == pytest.approx(2 / 3, abs=0.0145)


def test_an_hour_without_sample_takes_that_of_the_same_hour_on_other_days(write_log, build):
    rows = [session(f"s{n}", 2 * HOUR_S, 2 * HOUR_S + 60, wifi=True) for n in range(50)]
    rows += [session(f"n{n}", 12 * HOUR_S, 12 * HOUR_S + 60, wifi=False) for n in range(50)]
    rows += [
        session(f"u{n}", 3 * DAY_S + hour * HOUR_S, 3 * DAY_S + hour * HOUR_S + 60, wifi=None)
        for hour in (2, 12)
        for n in range(50)
    ]
    _, trace = build(write_log(rows), "time_zone: UTC\nstate: {wifi: true}")
    late = [row["start_s"] % DAY_S for row in trace if row["start_s"] > DAY_S]
    assert late == [2 * HOUR_S] * 50


# ---------------------------------------------------------------------- what is kept


def test_the_trace_and_the_facts_carry_their_statistics(tmp_path, write_log):
    log = write_log([session("a"), session("b", 0, 60)])
    criteria = parse_criteria("time_zone: UTC\nsessions: {min_length_s: 100}")
    trace, facts = tmp_path / "t.parquet", tmp_path / "f.parquet"
    found = build_availability([log], criteria, trace, facts=facts)
    for path in (trace, facts):
        said = json.loads(pq.read_metadata(path).metadata[b"flint_availability"])
        assert said == json.loads(json.dumps(found.to_json()))
    assert [row["spans"] for row in pq.read_table(facts).to_pylist()] == [1, 0]


def test_a_relaxed_combination_can_be_read_off_the_facts(write_log, build):
    rows = [
        session("a", 0, 100, wifi=True, reputation=0.9),
        session("a", 200, 300, wifi=False, reputation=0.1),
        session("b", 0, 100, wifi=True, reputation=0.1),
        session("c", 0, 300, wifi=False, reputation=0.9),
    ]
    found, _ = build(
        write_log(rows), "time_zone: UTC\nstate: {wifi: true}\nuser: {min_reputation: 0.5}"
    )
    facts = found.facts
    assert facts.criteria == ("wifi", "min_reputation")
    assert facts.clients_by_combination == (3, 2, 2, 1)
    assert [facts.session_share(each) for each in range(4)] == [1.0, 0.5, 0.5, 0.25]
    assert facts.time_share(2) == pytest.approx(400 / 600)


def test_device_models_go_along_and_their_results_decide(tmp_path, write_log, build):
    measurements = tmp_path / "m.csv"
    measurements.write_text("device_model,train_s_per_5000,memory_mb\nfast,50,40\nslow,500,40\n")
    rows = [session(name, device_model=name) for name in ("fast", "slow", "new")]
    criteria = (
        f"time_zone: UTC\nmeasurements: {measurements}\ndevice: {{max_train_s: 10, records: 1000}}"
    )
    found, trace = build(write_log(rows), criteria)
    assert [(row["client_id"], row["device_model"]) for row in trace] == [("fast", "fast")]
    problem = found.problems["model_not_measured"]
    assert (problem.count, problem.dropped) == (1, False)
    assert problem.example == "'new' in sessions.parquet, row 3"


@pytest.mark.parametrize(
    "profiles",
    [
        "device_model,per_example_s\nfast,0.006\nfast,0.012\nslow,0.009\nslow,0.013\n",
        "device_model,mean_s,stdev_s\nfast,0.009,0.003\nslow,0.011,0.002\n",
    ],
)
def test_profiles_of_a_dry_run_judge_device_models_by_their_mean(
    tmp_path, write_log, build, profiles
):
    (tmp_path / "p.csv").write_text(profiles)
    rows = [session(name, device_model=name) for name in ("fast", "slow", "new")]
    criteria = f"time_zone: UTC\nmeasurements: {tmp_path / 'p.csv'}\ndevice: {{max_train_s: 50}}"
    found, trace = build(write_log(rows), criteria)
    assert [row["client_id"] for row in trace] == ["fast"]
    assert found.problems["model_not_measured"].count == 1


def test_a_model_that_takes_no_memory_beyond_what_is_there_passes(tmp_path, write_log, build):
    (tmp_path / "m.csv").write_text("device_model,train_s_per_5000,memory_mb\ntiny,5,0.0\n")
    criteria = f"time_zone: UTC\nmeasurements: {tmp_path / 'm.csv'}\ndevice: {{max_memory_mb: 50}}"
    found, _ = build(write_log([session("a", device_model="tiny")]), criteria)
    assert found.clients_out == 1


def test_an_id_beyond_a_signed_number_is_a_text(write_log, build):
    rows = [session(2**63 + 5), session(1)]
    schema = pa.schema([("device_id", pa.uint64()), ("start", pa.int64()), ("end", pa.int64())])
    _, trace = build(write_log(rows, schema=schema))
    assert [row["client_id"] for row in trace] == ["1", "9223372036854775813"]
