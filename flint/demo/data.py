"""What the demo trains on: the user's file, or click data generated for it."""

from dataclasses import dataclass
from pathlib import Path

from feature_catalog.featurize import FieldRoles
from feature_catalog.splits import is_heldout
from flint.demo.click_data import CLIENT_FIELD, LABEL_FIELD, generate_clicks, write_click_data

GENERATED_NAME = "clicks"


@dataclass(frozen=True, slots=True)
class DemoData:
    """A data file and what its columns are for."""

    path: Path
    roles: FieldRoles


def generate_demo_data(folder: Path, *, training_clients: int, seed: int) -> DemoData:
    """Write generated clicks as a Parquet file, which is then read like any user's.

    Args:
        training_clients: Clients that will train; about a fifth as many are held out on top.
    """
    clicks = generate_clicks(
        training_clients,
        seed=seed,
        is_held_out=lambda client: is_heldout(GENERATED_NAME, client),
    )
    path = folder / f"{GENERATED_NAME}.parquet"
    write_click_data(clicks, path)
    return DemoData(path, FieldRoles(CLIENT_FIELD, LABEL_FIELD))
