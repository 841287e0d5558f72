"""Whole builds of messy logs, compared with plain Python."""

from collections import defaultdict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from simulation.availability.build import build_availability
from simulation.availability.client_keys import client_keys
from simulation.availability.criteria_file import parse_criteria
from simulation.availability.estimation import coins
from tests.simulation.availability import oracle
from tests.simulation.availability.conftest import MONDAY_S

ZONES = ("Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe")
# The weeks in which Berlin sets its clock forward, Lord Howe back, and Berlin back.
WEEKS = (MONDAY_S, MONDAY_S + oracle.WEEK_S, MONDAY_S + 30 * oracle.WEEK_S)
CRITERIA = """
measurements: {measurements}
device: {{min_os_release: 2019-09, max_train_s: 40, records: 1000}}
state: {{wifi: true, min_battery: 0.5, {state}}}
user: {{min_account_age_days: 30, min_reputation: 0.4, min_hours_between_participations: 12}}
sessions: {{max_background_gap_s: 90, min_length_s: 60, max_length_s: 9000, longer: {longer}}}
"""
NAMES = (
    *("min_os_release", "max_train_s", "wifi", "min_battery", "foreground", "allowed_hours"),
    *("min_account_age_days", "min_reputation", "min_hours_between_participations"),
)


def messy_rows(seed, week_s, clients=60, each=40):
    """Sessions that overlap, repeat, nearly touch, miss values and cross midnight and clocks."""
    generator = np.random.default_rng(seed)
    rows = []
    for client in range(clients):
        zone, month = ZONES[client % len(ZONES)], int(generator.integers(1, 13))
        model = f"m{client % 5}"
        for _ in range(each):
            # Nights of the weekend, when clocks change, are the busiest.
            day = generator.choice([0, 1, 2, 3, 4, 5, 6, 6, 6])
            start = week_s + int(day) * 86_400 + int(generator.integers(0, 90_000))
            end = start + int(np.exp(generator.normal(7.5, 1.2))) + 1
            lengths = generator.integers(1, max(2, (end - start) // 3), 2)
            foreground = [
                {"start": start, "end": start + int(lengths[0])},
                {"start": end - int(lengths[1]), "end": end},
            ]
            row = {
                "device_id": f"device {client}",
                "start": start,
                "end": end,
                "time_zone": zone,
                "device_model": model,
                "os_release": None if client % 17 == 0 else f"{2018 + client % 8}-{month:02d}",
                "wifi": None if generator.random() < 0.7 else bool(generator.random() < 0.9),
                "battery": None
                if generator.random() < 0.6
                else round(generator.random() ** 0.3, 2),
                "account_age_days": None if client % 13 == 0 else int(client * 17),
                "reputation": round(generator.random() ** 0.2, 2),
                "last_participation": None if generator.random() < 0.9 else start - 3600 * 11,
                "foreground": None if generator.random() < 0.1 else foreground,
            }
            rows.append(row)
            if generator.random() < 0.05:
                rows.append(dict(row))
    return rows


def expected(rows, state, seed, longer):
    """Passing sessions and shares by plain Python."""
    unique = {}
    for row in rows:
        unique.setdefault((row["device_id"], row["start"], row["end"]), row)
    train_s = {"m0": 100.0, "m1": 150.0, "m2": 50.0, "m3": 199.0}
    samples = {name: defaultdict(list) for name in ("wifi", "min_battery")}

    def hour_of(row):
        return int((oracle.local_s(row["start"], row["time_zone"]) // 3600 + 72) % 168)

    def known(row, name):
        return row["wifi"] if name == "wifi" else row["battery"] and row["battery"] >= 0.5

    for row in rows:  # the sample is of the rows as they come
        for name, column in (("wifi", "wifi"), ("min_battery", "battery")):
            if row[column] is not None:
                samples[name][hour_of(row)].append(bool(known(row, name)))

    def chance(name, hour):
        own = samples[name][hour]
        if own:
            return np.mean(own)
        daily = [each for day in range(7) for each in samples[name][day * 24 + hour % 24]]
        every = [each for values in samples[name].values() for each in values]
        return np.mean(daily or every)

    def sampled(row, name, column):
        if row[column] is not None:
            return bool(known(row, name))
        key = client_keys(pa.array([row["device_id"]], pa.large_string()))
        chances = np.array([chance(name, hour_of(row))])
        return bool(coins(seed, name, chances, key, np.array([float(row["start"])]))[0])

    passes = {}
    for at, row in unique.items():
        local = oracle.local_s(row["start"], row["time_zone"])
        length = row["end"] - row["start"]
        spans = row["foreground"] or []
        last = row["last_participation"]
        judged = {
            "min_os_release": (row["os_release"] or "") >= "2019-09",
            "max_train_s": train_s.get(row["device_model"], 1e9) / 5 <= 40,
            "wifi": sampled(row, "wifi", "wifi"),
            "min_battery": sampled(row, "min_battery", "battery"),
            "min_account_age_days": (row["account_age_days"] or -1) >= 30,
            "min_reputation": row["reputation"] >= 0.4,
            "min_hours_between_participations": last is None or row["start"] - last >= 43_200,
        }
        if "foreground" in state:
            inside = sum(end - start for start, end in oracle.united(pairs(spans)))
            judged["foreground"] = bool(spans) and (
                inside > 0 if "true" in state else inside < length
            )
        if "allowed" in state:
            judged["allowed_hours"] = bool(
                oracle.in_hours(local, local + length, 22 * 3600, 5 * 3600)
            )
        passes[at] = {name: judged[name] for name in NAMES if name in judged}
    sessions = []
    for at, row in unique.items():
        if all(passes[at].values()):
            sessions.append({"id": row["device_id"], "zone": row["time_zone"]})
            sessions[-1]["pieces"] = pieces(row, state)
    found = oracle.spans(
        sessions,
        gap_s=90,
        min_s=60,
        max_s=9000,
        drop=longer == "drop",
        hours=(22 * 3600, 5 * 3600) if "allowed" in state else None,
    )
    return unique, passes, found


def pairs(spans):
    return [[each["start"], each["end"]] for each in spans]


def pieces(row, state):
    whole = [[row["start"], row["end"]]]
    if row["foreground"] is None:
        return whole
    if "foreground: false" not in state:
        return pairs(row["foreground"])
    cuts = oracle.united(pairs(row["foreground"]))
    edges = [row["start"], *(edge for cut in cuts for edge in cut), row["end"]]
    left = zip(edges[::2], edges[1::2], strict=True)
    return [[start, end] for start, end in left if end > start]


@pytest.mark.parametrize(
    ("week_s", "state", "longer"),
    [
        (WEEKS[0], "foreground: true", "cut"),
        (WEEKS[1], 'allowed_hours: "22:00-05:00"', "drop"),
        (WEEKS[2], 'foreground: false, allowed_hours: "22:00-05:00"', "cut"),
    ],
)
def test_a_messy_log_becomes_what_plain_python_says(
    tmp_path, write_log, week_s, state, longer, monkeypatch
):
    # Small parts and batches, so that devices spread over many of them.
    monkeypatch.setattr("simulation.availability.spill.ROWS_PER_PART", 300)
    monkeypatch.setattr("simulation.availability.session_log.BATCH_ROWS", 257)
    rows = messy_rows(3, week_s)
    log = write_log(rows)
    measurements = tmp_path / "measurements.csv"
    measurements.write_text(
        "device_model,train_s_per_5000\nm0,100\nm1,150\nm2,50\nm3,190\nm3,208\n"
    )
    criteria = parse_criteria(
        CRITERIA.format(measurements=measurements, state=state, longer=longer)
    )
    found = build_availability(
        [log], criteria, tmp_path / "trace.parquet", facts=tmp_path / "facts.parquet", seed=5
    )
    unique, passes, spans = expected(rows, state, 5, longer)

    by_client = defaultdict(list)
    for row in pq.read_table(tmp_path / "trace.parquet").to_pylist():
        by_client[row["client_id"]].append([row["start_s"], row["end_s"]])
    local = [oracle.local_s(row["start"], row["time_zone"]) for row in rows]
    begins = min(local) // oracle.DAY_S * oracle.DAY_S
    wanted = {
        client: [[start - begins, end - begins] for start, end in each]
        for client, each in spans.items()
        if each
    }
    assert by_client == wanted
    assert found.sessions_out == sum(len(each) for each in wanted.values())

    names = found.facts.criteria
    assert tuple(next(iter(passes.values()))) == names
    for name in names:
        share = np.mean([judged[name] for judged in passes.values()])
        assert found.shares()["share_by_criterion"][name] == pytest.approx(share)
    for combination in (0, 1, 5, 2 ** len(names) - 1, 2 ** len(names) - 2):
        chosen = [name for bit, name in enumerate(names) if combination >> bit & 1]
        clients = {at[0] for at, judged in passes.items() if all(judged[n] for n in chosen)}
        assert found.facts.clients_by_combination[combination] == len(clients)

    zones = {row["device_id"]: row["time_zone"] for row in rows}
    first_s = min(row["start"] for row in rows)
    last_s = max(row["end"] for row in rows)
    means = oracle.hourly(spans, zones, first_s, last_s)
    assert found.hourly == pytest.approx(means)
    assert found.problems["duplicate"].count == len(rows) - len(unique)

    facts = {row["client_id"]: row for row in pq.read_table(tmp_path / "facts.parquet").to_pylist()}
    assert set(facts) == set(zones)
    for client, row in facts.items():
        own = [judged for at, judged in passes.items() if at[0] == client]
        assert row["sessions"] == len(own)
        assert row["passes_all"] == any(all(judged.values()) for judged in own)
        ever = sum(
            1 << bit for bit, name in enumerate(names) if any(judged[name] for judged in own)
        )
        assert row["passes_ever"] == ever
        assert row["available_s"] == sum(end - start for start, end in spans.get(client, []))


def test_the_order_of_rows_files_and_batches_changes_nothing(tmp_path, write_log, monkeypatch):
    rows = messy_rows(8, WEEKS[0], clients=20)
    criteria = parse_criteria("state: {wifi: true, min_battery: 0.5}")
    whole = write_log(rows, "whole.parquet")
    one = build_availability([whole], criteria, tmp_path / "one.parquet", seed=2)
    monkeypatch.setattr("simulation.availability.spill.ROWS_PER_PART", 50)
    monkeypatch.setattr("simulation.availability.session_log.BATCH_ROWS", 33)
    schema = pq.read_schema(whole)
    halves = [
        write_log(rows[500::-1], "b.parquet", schema),
        write_log(rows[501:], "a.parquet", schema),
    ]
    two = build_availability(halves, criteria, tmp_path / "two.parquet", seed=2)
    keys = ("client_id", "start_s", "end_s")

    def spans(name):
        table = pq.read_table(tmp_path / name)
        return sorted(tuple(row[key] for key in keys) for row in table.to_pylist())

    assert spans("one.parquet") == spans("two.parquet")
    assert one.hourly == pytest.approx(two.hourly)
    other = build_availability([whole], criteria, tmp_path / "other.parquet", seed=3)
    assert other.shares() != one.shares()
    monkeypatch.undo()
    build_availability([whole], criteria, tmp_path / "one-again.parquet", seed=2)
    first = (tmp_path / "one.parquet").read_bytes()
    assert (tmp_path / "one-again.parquet").read_bytes() == first
