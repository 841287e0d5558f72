"""The build of `availability_build.py` as one writes it with pandas, the whole log in memory.

It shares nothing with ours but the coins' random stream (what it draws is part of the definition).
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from simulation.availability.client_keys import client_keys
from simulation.availability.estimation import coins

DAY_S = 86_400
NAMES = (
    *("min_os_release", "max_train_s", "max_memory_mb", "wifi", "min_battery", "allowed_hours"),
    *("min_account_age_days", "min_reputation", "min_hours_between_participations"),
)
OPENS_S, OPEN_S = 6 * 3600, 20 * 3600
GAP_S, MIN_S, MAX_S = 300, 60, 14_400


def local_seconds(utc_s: pd.Series, zone: pd.Series) -> pd.Series:
    """Seconds since 1970 on each row's wall clock."""
    local = pd.Series(0, index=utc_s.index, dtype="int64")
    for name, rows in utc_s.groupby(zone, observed=True):
        clock = pd.to_datetime(rows, unit="s", utc=True).dt.tz_convert(str(name))
        local[rows.index] = clock.dt.tz_localize(None).astype("datetime64[s]").astype("int64")
    return local


def build(log: Path, measurements: Path, output: Path) -> dict[str, object]:
    frame = pd.read_parquet(log)
    frame = frame[frame.end > frame.start]
    frame = frame.sort_values(["device_id", "start", "end"], kind="stable")
    frame = frame.drop_duplicates(["device_id", "start", "end"]).reset_index(drop=True)
    frame["local"] = local_seconds(frame.start, frame.time_zone)
    length = frame.end - frame.start
    measured = pd.read_csv(measurements).set_index("device_model")
    train_s = frame.device_model.astype(str).map(measured.train_s_per_5000)
    memory_mb = frame.device_model.astype(str).map(measured.memory_mb)
    asked = pd.to_datetime(frame.start, unit="s", utc=True)
    since_s = (asked - frame.last_participation).dt.total_seconds()
    opened = (frame.local - OPENS_S) // DAY_S * DAY_S + OPENS_S
    inside = frame.local - opened < OPEN_S
    passes = pd.DataFrame(
        {
            "min_os_release": frame.os_release_date.astype(str) >= "2019-09",
            "max_train_s": train_s <= 120,
            "max_memory_mb": memory_mb <= 50,
            "wifi": frame.wifi.eq(True).fillna(False).astype(bool),
            "min_battery": frame.battery.ge(0.5).fillna(False).astype(bool),
            "allowed_hours": inside | (opened + DAY_S < frame.local + length),
            "min_account_age_days": frame.account_age_days >= 30,
            "min_reputation": frame.reputation >= 0.5,
            "min_hours_between_participations": ~((since_s >= 0) & (since_s < 12 * 3600)),
        }
    )
    hour = (frame.local // 3600 + 72) % 168
    keys = client_keys(pa.array(frame.device_id.to_list(), pa.large_string()))
    for name, column in (("wifi", "wifi"), ("min_battery", "battery")):
        known = frame[column].notna()
        chance = passes[name][known].groupby(hour[known]).mean()
        unknown = np.flatnonzero(~known)
        passes.loc[unknown, name] = coins(
            0,
            name,
            hour[unknown].map(chance).to_numpy(),
            keys[unknown],
            frame.start[unknown].to_numpy(float),
        )
    every = passes.all(axis=1)
    spans = spans_of(frame[every].reset_index(drop=True))
    spans[["client_id", "start_s", "end_s"]].assign(
        start_s=lambda s: s.start_s - first_midnight(frame),
        end_s=lambda s: s.end_s - first_midnight(frame),
    ).to_parquet(output)
    clients = frame.device_id.nunique()
    hourly = hourly_means(frame, spans)
    return {
        "sessions_valid": len(frame),
        "sessions_out": len(spans),
        "clients": clients,
        "share_by_criterion": {name: float(passes[name].mean()) for name in NAMES},
        "share_all": float(every.mean()),
        "client_share_all": float(every.groupby(frame.device_id).any().mean()),
        "hourly": hourly.tolist(),
        "eligible_peak_share": float(hourly.max() / clients),
        "eligible_mean_share": float(hourly.mean() / clients),
        "trough_peak_ratio": float(hourly.min() / hourly.max()),
    }


def first_midnight(frame: pd.DataFrame) -> int:
    return int(frame.local.min()) // DAY_S * DAY_S


def spans_of(frame: pd.DataFrame) -> pd.DataFrame:
    """Spans of passing sessions, in order, none of which overlap: the log has no such."""
    gap = frame.start - frame.groupby("device_id").end.shift()
    joined = frame.groupby((gap.isna() | (gap > GAP_S)).cumsum()).agg(
        client_id=("device_id", "first"),
        time_zone=("time_zone", "first"),
        start_s=("local", "first"),
        first=("start", "first"),
        length=("end", "sum"),
        begun=("start", "sum"),
    )
    joined["length"] = (joined.length - joined.begun).clip(upper=MAX_S)
    joined["end_s"] = joined.start_s + joined.length
    opened = (joined.start_s - OPENS_S) // DAY_S * DAY_S + OPENS_S
    parts = []
    for day in range(int(-(-(joined.end_s - opened).max() // DAY_S))):
        part = joined.copy()
        part["start_s"] = part.start_s.clip(lower=opened + day * DAY_S)
        part["end_s"] = part.end_s.clip(upper=opened + day * DAY_S + OPEN_S)
        parts.append(part)
    found = pd.concat(parts, ignore_index=True)
    return found[found.end_s - found.start_s >= MIN_S]


def hourly_means(frame: pd.DataFrame, spans: pd.DataFrame) -> np.ndarray:
    """Mean number available by hour of the local week, zone by zone."""
    means = np.zeros(168)
    for zone in frame.time_zone.cat.categories:
        edges = local_seconds(
            pd.Series([frame.start.min(), frame.start.min()]), pd.Series([zone, zone])
        )
        begin = int(edges.iloc[0])
        window = pd.DataFrame(
            {"start_s": [begin], "end_s": [begin + int(frame.end.max() - frame.start.min())]}
        )
        means += seconds_by_hour(spans[spans.time_zone == zone]) / seconds_by_hour(window)
    return means


def seconds_by_hour(spans: pd.DataFrame) -> np.ndarray:
    first = spans.start_s // 3600
    hours = (spans.end_s - 1) // 3600 - first + 1
    row = np.repeat(np.arange(len(spans)), hours)
    hour = np.repeat(first.to_numpy(), hours) + np.concatenate([np.arange(n) for n in hours])
    start, end = spans.start_s.to_numpy()[row], spans.end_s.to_numpy()[row]
    seconds = np.minimum(end, (hour + 1) * 3600) - np.maximum(start, hour * 3600)
    return np.bincount((hour + 72) % 168, weights=seconds, minlength=168)
