"""What a smaller vocabulary, or hashing, costs in quality: bytes on the device beside AUPRC.

What is compared: `flint catalog vocab advise`'s schemes: each column's full vocabulary, cut to its
most frequent tokens at several sizes, or hashed into as many buckets. How: the same logistic
regression over one-hot ids for each, trained on four fifths of the clients, AUPRC on the others;
errors from 100 resamples of those clients. The limit is the full vocabulary; the beginning of the
scale is a random ranking, whose AUPRC is the share of positives. FLINT's ads vocabularies have
1.28 MB and map over 70 % of the features (section 4.2).

    python benchmarks/vocabulary_sizes.py                               # generated clicks
    python benchmarks/vocabulary_sizes.py --data ads_movielens.parquet \
        --client client_id --label label --column item_id --column genre_mask ...

The generated clicks are on items of Zipf frequencies, each with a rate of its own that its category
explains in part; the category, the position and the hour are columns too.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_catalog.table_files import open_table
from feature_catalog.vocabularies.advice import advise
from feature_catalog.vocabularies.records import read_token_records
from flint.vocabulary_view import describe_advice, draw

CLIENTS, RECORDS, ITEMS, CATEGORIES = 400, 60_000, 20_000, 40
GENERATED = ("item", "category", "position", "hour")
SEED = 3


def generated_clicks(path: Path) -> None:
    """Write clicks of a seed."""
    rng = np.random.default_rng(SEED)
    weight = 1.0 / np.arange(1, ITEMS + 1) ** 0.9
    item = rng.choice(ITEMS, RECORDS, p=weight / weight.sum())
    category = rng.integers(0, CATEGORIES, ITEMS)
    rate = rng.normal(0, 0.7, CATEGORIES)[category] + rng.normal(0, 0.9, ITEMS)
    position, hour = rng.integers(0, 8, RECORDS), rng.integers(0, 24, RECORDS)
    client = rng.integers(0, CLIENTS, RECORDS)
    logit = rate[item] - 0.2 * position - 1.5 + rng.normal(0, 0.5, CLIENTS)[client]
    columns = {
        "client": client,
        "label": (rng.random(RECORDS) < 1.0 / (1.0 + np.exp(-logit))).astype(np.int8),
        "item": [f"item-{n:05d}" for n in item],
        "category": [f"category-{n}" for n in category[item]],
        "position": position,
        "hour": hour,
    }
    pq.write_table(pa.table(columns), path)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--client", default="client")
    parser.add_argument("--label", default="label")
    parser.add_argument("--column", action="append")
    parser.add_argument("--plot", type=Path, help="draw the figure here, .svg")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.data or Path(folder) / "generated_clicks.parquet"
        if options.data is None:
            generated_clicks(path)
        began_s = time.process_time()
        records = read_token_records(
            open_table(path),
            options.column or GENERATED,
            client=options.client,
            label=options.label,
        )
        advice = advise(records)
        spent_s = time.process_time() - began_s
    if options.plot is not None:
        draw(advice, options.plot)
    columns = {column.name: column.known for column in records.columns}
    print(
        json.dumps(
            {
                "data": path.stem,
                "tokens": columns,
                "processor_s": round(spent_s, 1),
                **describe_advice(advice),
            }
        )
    )


if __name__ == "__main__":
    main()
