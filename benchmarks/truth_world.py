"""The world of the truth benchmark: clicks of 32 clients, devices, links, windows, two jobs."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from feature_catalog.datasets import Dataset
from feature_catalog.featurize import FieldRoles
from feature_catalog.splits import is_heldout
from flint.demo.click_data import (
    CLIENT_FIELD,
    LABEL_FIELD,
    ClickDataShape,
    generate_clicks,
    write_click_data,
)
from flint.deployment import Deployment
from modeling.zoo import get_model

MODEL = "sparse_mlp"
DEVICES = 32
STRATEGIES: dict[str, dict[str, Any]] = {
    "fedbuff": {"name": "fedbuff", "buffer_size": 8, "concurrency": 20, "max_staleness": 4},
    "fedavg": {
        "name": "fedavg",
        "cohort_size": 10,
        "over_commitment": 1.3,
        "round_deadline_s": 60,
        "min_updates": 5,
    },
}
BATCH_SIZE = 20
CHECK_INS_PER_S = 200.0


def write_world(folder: Path, dataset: str, seed: int) -> Path:
    """Write an environment of tasks of some 2 to 15 s and windows of a minute or two."""
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    models = {"old": 0.12, "usual": 0.07, "good": 0.045, "new": 0.03}
    links_kbps = np.exp(generator.normal(np.log(6_000), 0.5, 200))
    tables = {
        "device_profiles": {
            "device_model": list(models),
            "per_example_s": list(models.values()),
        },
        "device_population": {"device_model": list(models), "share": [0.15, 0.4, 0.3, 0.15]},
        "bandwidth": {"down_kbps": links_kbps, "up_kbps": 0.6 * links_kbps},
        "sessions": _sessions(generator),
    }
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    environment = {
        "dataset": dataset,
        "population": {"seed": seed},
        "check_in": {"period_s": 0.001, "jitter": 0.0, "check_ins_per_s": CHECK_INS_PER_S},
        "availability": "./sessions.parquet",
        "device_profiles": "./device_profiles.parquet",
        "device_population": "./device_population.parquet",
        "bandwidth": "./bandwidth.parquet",
    }
    path = folder / "environment.yaml"
    path.write_text(yaml.safe_dump(environment, sort_keys=False))
    return path


def _sessions(generator: np.random.Generator) -> dict[str, list[float]]:
    """Each device is there for 50 to 150 s, away for 15 to 45 s, and so on, each from elsewhere."""
    rows: dict[str, list[float]] = {
        name: [] for name in ("client_id", "start_s", "end_s", "repeat_every_s")
    }
    for client in range(DEVICES):
        open_s, closed_s = int(generator.integers(50, 151)), int(generator.integers(15, 46))
        period_s = open_s + closed_s
        start_s = int(generator.integers(0, period_s))
        end_s = start_s + open_s
        spans = [(start_s, end_s)]
        if end_s > period_s:
            spans = [(0, end_s - period_s), (start_s, period_s)]
        for span in spans:
            for name, value in zip(rows, (client, *span, period_s), strict=True):
                rows[name].append(value)
    return rows


def write_job(folder: Path, strategy: str, dataset: str, minutes: float) -> Path:
    job = {
        "name": f"truth-{strategy}",
        "model": MODEL,
        "client": {
            "local_epochs": 1,
            "batch_size": BATCH_SIZE,
            "max_records": 150,
            "optimizer": {"name": "sgd", "learning_rate": 1.0},
            "task_timeout_s": 60,
        },
        "strategy": STRATEGIES[strategy]
        | {"server_optimizer": {"name": "adam", "learning_rate": 0.003, "epsilon": 1e-4}},
        "evaluation": {"dataset": dataset, "metric": "auprc", "every": 5},
        "stop": {"max_hours": minutes / 60.0},
        "seed": 7,
    }
    path = folder / f"{job['name']}.yaml"
    path.write_text(yaml.safe_dump(job, sort_keys=False))
    return path


def add_clicks(deployment: Deployment, folder: Path, seed: int) -> Dataset:
    """Generated clicks of exactly `DEVICES` training clients, each of a few dozen records."""
    clicks = generate_clicks(
        DEVICES,
        seed=seed,
        is_held_out=lambda client: is_heldout("truth", client),
        shape=ClickDataShape(median_records=60, records_sigma=0.5, max_records=200),
    )
    path = folder / "truth.parquet"
    write_click_data(clicks, path)
    roles = FieldRoles(CLIENT_FIELD, LABEL_FIELD)
    row = deployment.datasets.add(path, roles, get_model(MODEL))
    if row.train_clients != DEVICES:
        raise SystemExit(f"{row.train_clients} training clients, not {DEVICES}; another --seed")
    return deployment.datasets.open(f"{row.name}@{row.version}")
