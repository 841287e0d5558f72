"""Writes the quickstart's files: click data of 800 clients, and a generated week of 1,000 devices.

They are in this folder already; run it to see how they came about, or with other numbers.
"""

from pathlib import Path

from feature_catalog.splits import is_heldout
from flint.demo.click_data import ClickDataShape, generate_clicks, write_click_data
from simulation.traces.generate import GeneratedBandwidth, GeneratedDevices, write_world
from simulation.traces.generated_sessions import GeneratedAvailability

FOLDER = Path(__file__).parent
SEED = 7
DATASET = "quickstart_clicks"


def main() -> None:
    """Write all files."""
    clicks = generate_clicks(
        800,
        seed=SEED,
        is_held_out=lambda client: is_heldout(DATASET, client),
        shape=ClickDataShape(median_records=25.0, max_records=500),
    )
    write_click_data(clicks, FOLDER / f"{DATASET}.parquet")
    write_world(
        FOLDER,
        GeneratedAvailability(devices=1000),
        GeneratedDevices(median_per_example_s=0.2),
        GeneratedBandwidth(links=500),
        seed=SEED,
    )


if __name__ == "__main__":
    main()
