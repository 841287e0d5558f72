"""Facts of builds as `flint availability build` keeps them, made of known chances."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from simulation.availability.statistics import length_edges_s

FLINT_TABLE_1 = {"min_os_release": 0.70, "min_battery": 0.34, "min_account_age_days": 0.93}
THRESHOLDS = {"min_os_release": "2019-09", "min_battery": 0.8, "min_account_age_days": 30}


def build_of(
    sessions_by_mask: dict[int, int],
    criteria=tuple(FLINT_TABLE_1),
    *,
    clients_by_combination=None,
    hourly=None,
    spans=None,
    has_weekdays=True,
    **changed,
):
    """Statistics of a build in which each session is a client's only one, ten minutes long."""
    combinations = [
        sum(n for mask, n in sessions_by_mask.items() if mask & wanted == wanted)
        for wanted in range(2 ** len(criteria))
    ]
    clients_by_combination = clients_by_combination or combinations
    clients = clients_by_combination[0]
    edges = list(length_edges_s())
    if hourly is None:
        hourly = [clients * (0.2 + 0.1 * np.cos(2 * np.pi * (h % 24 - 3) / 24)) for h in range(168)]
    observed = [h for h in hourly if h is not None]
    spans = spans if spans is not None else [10 * (i > 20) for i in range(len(edges))]
    build = {
        "sessions_in": sum(sessions_by_mask.values()),
        "sessions_valid": sum(sessions_by_mask.values()),
        "sessions_out": sum(spans),
        "clients": clients,
        "clients_out": clients_by_combination[-1],
        "hourly": hourly,
        "eligible_peak_share": max(observed) / clients,
        "eligible_mean_share": sum(observed) / len(observed) / clients,
        "trough_peak_ratio": min(observed) / max(observed),
        "begins": "2026-05-04" if has_weekdays else None,
        "has_weekdays": has_weekdays,
        "problems": {"overlapping": {"count": 3, "dropped": False, "example": "log.csv: row 7"}},
        "estimated": {},
        "seed": 7,
        "thresholds": THRESHOLDS,
        "facts": {
            "criteria": list(criteria),
            "sessions_by_mask": {str(k): v for k, v in sessions_by_mask.items()},
            "seconds_by_mask": {str(k): 600.0 * v for k, v in sessions_by_mask.items()},
            "clients_by_combination": list(clients_by_combination),
            "lengths": {"edges_s": edges, "sessions": list(spans), "spans": list(spans)},
        },
    }
    return json.loads(json.dumps(build | changed))


def independent_masks(count: int, shares=FLINT_TABLE_1) -> dict[int, int]:
    """Sessions by mask, in the very proportions of independent criteria."""
    masks = {}
    for mask in range(2 ** len(shares)):
        chance = 1.0
        for bit, share in enumerate(shares.values()):
            chance *= share if mask >> bit & 1 else 1 - share
        masks[mask] = round(count * chance)
    return masks


def write_facts(path: Path, clients: int = 9000, *, seed: int = 0, **changed) -> Path:
    """A facts file: slow phones have old systems, and old systems do not pass."""
    draw = np.random.default_rng(seed)
    model = draw.choice(["slow", "middle", "fast"], size=clients)
    year = np.where(model == "slow", 2017, np.where(model == "middle", 2019, 2021))
    recent = (year >= 2019) | (draw.random(clients) < 0.1)
    charged = draw.random(clients) < 0.34
    old = draw.random(clients) < 0.93
    masks = recent.astype(int) | charged.astype(int) << 1 | old.astype(int) << 2
    counts = np.bincount(masks, minlength=8)
    build = build_of({mask: int(n) for mask, n in enumerate(counts)}, **changed)
    sessions = np.ones(clients, dtype=np.int64)
    table = pa.table(
        {
            "client_id": np.arange(clients),
            "device_model": model,
            "os_release": [f"{y}-09" for y in year],
            "time_zone": ["Europe/Berlin"] * clients,
            "sessions": sessions,
            "session_s": 60.0 + draw.exponential(600.0, clients),
            "passes_ever": masks.astype(np.uint16),
            "passes_all": masks == 7,
            "spans": (masks == 7).astype(np.int64),
            "available_s": np.where(masks == 7, 600.0, 0.0),
        }
    )
    metadata = {"flint_availability": json.dumps(build)}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    return path


def write_world(folder: Path) -> dict[str, Path]:
    """Profiles of the three models and links of one speed."""
    profiles, links = folder / "profiles.csv", folder / "links.csv"
    profiles.write_text("device_model,mean_s,stdev_s\nslow,0.2,0\nmiddle,0.05,0\nfast,0.01,0\n")
    links.write_text("down_kbps,up_kbps\n8000,8000\n")
    return {"profiles": profiles, "bandwidth": links}
