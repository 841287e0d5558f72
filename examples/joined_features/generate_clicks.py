"""Write clicks in two places, as in life: what devices saw, and what the cloud knows of the ads.

    python examples/joined_features/generate_clicks.py click-data

Gives ``clicks.parquet`` (a row an impression), ``ads.parquet`` (a row an ad), ``publishers.txt`` (a
vocabulary) and ``features.yaml``, which says how they belong together. Values are drawn from a
fixed seed.
"""

import argparse
from pathlib import Path

from flint.demo.click_features import write_click_features

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--users", type=int, default=60, help="that train; more are held out")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    write_click_features(options.folder, training_clients=options.users, seed=options.seed)
