"""Write the cloud side of the example: two Parquet tables and a vocabulary.

    python examples/features/generate.py feature-data

Values are drawn from a fixed seed; the same seed writes the same rows.
"""

import argparse
import datetime as dt
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CATEGORIES = ("books", "films", "food", "games", "garden", "music", "sports", "travel")
USERS = 200
ADS = 80
DAYS = 30
START = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
SEED = 7


def user_stats(rng: np.random.Generator) -> pa.Table:
    """A row a user and day, written up to six hours after the day it tells of."""
    users = np.repeat(np.arange(USERS), DAYS)
    days = np.tile(np.arange(DAYS), USERS)
    event_ts = [START + dt.timedelta(days=int(day)) for day in days]
    late_s = rng.integers(0, 6 * 3600, len(users))
    return pa.table(
        {
            "user_id": [f"user-{user:03d}" for user in users],
            "event_ts": event_ts,
            "created_ts": [
                ts + dt.timedelta(seconds=int(s)) for ts, s in zip(event_ts, late_s, strict=True)
            ],
            "country": rng.choice(["de", "fr", "jp", "us"], USERS)[users],
            "clicks_7d": rng.poisson(3.0, len(users)).astype(np.int64),
            "account_age_days": rng.integers(1, 2000, USERS)[users] + days,
        }
    )


def ad_stats(rng: np.random.Generator) -> pa.Table:
    """A row an ad and day."""
    ads = np.repeat(np.arange(ADS), DAYS)
    days = np.tile(np.arange(DAYS), ADS)
    return pa.table(
        {
            "ad_id": [f"ad-{ad:03d}" for ad in ads],
            "event_ts": [START + dt.timedelta(days=int(day)) for day in days],
            "category": rng.choice(CATEGORIES, ADS)[ads],
            "ctr_30d": rng.beta(2.0, 60.0, len(ads)).astype(np.float32),
        }
    )


def write(folder: Path) -> None:
    """Write all files."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(SEED)
    pq.write_table(user_stats(rng), folder / "user_stats.parquet")
    pq.write_table(ad_stats(rng), folder / "ad_stats.parquet")
    (folder / "ad_categories.txt").write_bytes("".join(f"{c}\n" for c in CATEGORIES).encode())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    write(parser.parse_args().folder)
