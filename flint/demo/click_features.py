"""Click data in two places, as a feature service has them: events on devices, tables in the cloud.

The same clicks as `click_data` generates, taken apart: what a device sees when it shows an ad goes
into ``clicks.parquet``, one row an impression; what the company knows of its ads into
``ads.parquet``. ``publishers.txt`` is a vocabulary that devices look publishers up in, and
``features.yaml`` says how all belong together.
"""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from device_runtime.transform_assets import Vocabulary
from feature_catalog.feature_datasets import RowRoles
from feature_catalog.splits import is_heldout
from flint.demo.click_data import generate_clicks

SERVICE = "click_features"
ROLES = RowRoles("user_id", "clicked", "ts")
ROWS_NAME = "clicks"

DEFINITIONS = """\
# Features of a click model: what devices see, and what the company knows of its ads.
# docs/feature-catalog.md explains every key.
entities:
  - {name: ad, join_keys: [ad_id], owner: ads}

assets:
  - name: click_publishers
    type: vocabulary
    version: 1
    sha256: VOCABULARY_SHA256
    size_bytes: VOCABULARY_BYTESB
    entries: VOCABULARY_ENTRIES

feature_views:
  # In the cloud. A device fetches an ad's row when it first needs it, and keeps it for a week.
  - name: ads
    entities: [ad]
    source: {path: ads.parquet}
    schema:
      - {name: topic, dtype: string}
      - {name: ctr_28d, dtype: float32}
    cache: {mode: on_demand, max_age: 7d, max_bytes: 1MB, network: any}

  # On the device, and never anywhere else.
  - name: impressions
    entities: [ad]
    source:
      event: ad_impression
      schema:
        - {name: publisher, dtype: string}
        - {name: position, dtype: int32}
        - {name: hour, dtype: int32}
        - {name: handset, dtype: string}
        - {name: interests, dtype: string, shape: [4]}
    retention: {max_age: 90d, max_records: 5000, max_bytes: 4MB}

feature_services:
  - name: click_features
    description: What the demo's click model is trained and served with.
    features:
      - ads:topic
      # Rates become whole numbers before a device gets them: the model reads tokens.
      - ref: ads:ctr_28d
        transforms:
          - op: bucketize
            run_at: cloud
            parameters: {boundaries: [0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6]}
      # Publishers that are not in the vocabulary share eight numbers.
      - ref: impressions:publisher
        transforms:
          - op: vocab
            run_at: device_read
            parameters: {asset: click_publishers, hash_buckets: 8}
      - impressions:position
      - impressions:interests
      # The hour itself is not kept: six parts of the day are.
      - ref: impressions:hour
        name: part_of_day
        transforms:
          - {op: bucketize, run_at: device_ingest, parameters: {boundaries: [4, 8, 12, 16, 20]}}
      - ref: impressions:handset
        transforms: [{op: hash, run_at: device_read, parameters: {buckets: 8}}]
"""

_START = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
_DAYS = 28
_KNOWN_PUBLISHERS = 30


@dataclass(frozen=True, slots=True)
class ClickFeatures:
    """Where the files are.

    Attributes:
        rows: What devices saw, and whether their users clicked.
        definitions: Of the features.
        data_folder: Of the cloud's tables.
        vocabulary: Of publishers.
    """

    rows: Path
    definitions: Path
    data_folder: Path
    vocabulary: Path


def write_click_features(folder: Path, *, training_clients: int, seed: int) -> ClickFeatures:
    """Generate clicks and write them as devices and cloud have them, with definitions.

    Args:
        training_clients: Users that will train; about a fifth as many are held out on top.
        seed: The same seed writes the same rows.
    """
    clicks = generate_clicks(
        training_clients, seed=seed, is_held_out=lambda user: is_heldout(ROWS_NAME, user)
    )
    generator = np.random.Generator(np.random.Philox(key=[seed, 1]))
    seen_s = generator.integers(0, _DAYS * 86_400, len(clicks.clicked))
    folder.mkdir(parents=True, exist_ok=True)
    columns = clicks.columns
    numbers = {
        name: pa.array([int(text.rpartition("-")[2]) for text in columns[name]], pa.int32())
        for name in ("position", "hour")
    }
    rows = pa.table(
        {
            "user_id": pa.array(clicks.client_id.tolist()),
            "ad_id": pa.array(columns["ad"].tolist()),
            "ts": pa.array([_START + dt.timedelta(seconds=s) for s in seen_s.tolist()]),
            "clicked": pa.array(clicks.clicked, pa.int8()),
            "publisher": pa.array(columns["publisher"].tolist()),
            **numbers,
            "handset": pa.array(columns["handset"].tolist()),
            "interests": pa.array([list(each) for each in clicks.interests], pa.list_(pa.string())),
        }
    )
    ads, place = np.unique(columns["ad"], return_inverse=True)
    shown = np.bincount(place)
    chance = np.bincount(place, weights=clicks.probability) / shown
    topics = dict(zip(columns["ad"].tolist(), columns["topic"].tolist(), strict=True))
    table = pa.table(
        {
            "ad_id": pa.array(ads.tolist()),
            "event_ts": pa.array([_START - dt.timedelta(days=1)] * len(ads)),
            "topic": pa.array([topics[ad] for ad in ads.tolist()]),
            # As a count of four weeks before would have it: of as many showings as there were.
            "ctr_28d": pa.array(generator.binomial(shown, chance) / shown, pa.float32()),
        }
    )
    publishers, shown = np.unique(columns["publisher"], return_counts=True)
    most_shown = publishers[np.argsort(-shown, kind="stable")][:_KNOWN_PUBLISHERS]
    vocabulary = Vocabulary.of(tuple(most_shown.tolist()))
    files = ClickFeatures(
        folder / f"{ROWS_NAME}.parquet",
        folder / "features.yaml",
        folder,
        folder / "publishers.txt",
    )
    files.vocabulary.write_bytes(vocabulary.to_bytes())
    rows = rows.sort_by([("user_id", "ascending"), ("ts", "ascending")])
    pq.write_table(rows, files.rows, compression="zstd")
    pq.write_table(table, folder / "ads.parquet", compression="zstd")
    files.definitions.write_text(
        DEFINITIONS.replace("VOCABULARY_SHA256", vocabulary.sha256.hex())
        .replace("VOCABULARY_BYTES", str(len(vocabulary.to_bytes())))
        .replace("VOCABULARY_ENTRIES", str(len(vocabulary.tokens)))
    )
    return files
