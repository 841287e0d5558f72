"""The demo's way from two Parquet files to a data set of joined features, step by step."""

from pathlib import Path

from feature_catalog.asset_files import add_asset_files
from feature_catalog.datasets import Dataset
from feature_catalog.definitions.files import load_definitions
from feature_catalog.feature_datasets import add_feature_dataset
from feature_catalog.offline import OfflineFeatures, blob_assets
from feature_catalog.online.materialization import Sources, materialize
from flint.demo.click_features import ROLES, SERVICE, write_click_features
from flint.demo.screen import Screen
from flint.deployment import Deployment
from modeling.spec import ModelSpec


def make_feature_dataset(
    deployment: Deployment,
    folder: Path,
    model: ModelSpec,
    screen: Screen,
    *,
    training_clients: int,
    seed: int,
) -> Dataset:
    """Generate clicks, define their features, bring the cloud's online, and join a data set.

    Args:
        folder: Gets the tables and the definitions.
        model: That the records are for.
        training_clients: Users that will train.
    """
    screen.step(f"writing what devices saw and what the cloud knows to {folder}")
    files = write_click_features(folder, training_clients=training_clients, seed=seed)
    screen.step(f"flint catalog apply {files.definitions}")
    deployment.features.apply(load_definitions([files.definitions]))
    state = deployment.features.state()
    contract = state.contracts[SERVICE]
    screen.done(f"{SERVICE} is the contract {contract[:16]}")
    screen.step(f"flint catalog asset add {files.vocabulary}")
    add_asset_files(deployment.engine, deployment.blobs, [files.vocabulary])
    screen.step(f"flint catalog materialize {SERVICE} --data {folder}")
    online = materialize(
        deployment.engine, state.definitions, [SERVICE], sources=Sources(files.data_folder)
    )
    screen.done(", ".join(f"{each.keys:,} keys of {each.view}" for each in online) + " are online")
    screen.step(f"flint dataset add {files.rows} --feature-service {SERVICE} --data {folder}")
    offline = OfflineFeatures(
        state.definitions, files.data_folder, deployment.engine, blob_assets(deployment.blobs)
    )
    made = add_feature_dataset(
        deployment.datasets, deployment.blobs, offline, files.rows, SERVICE, ROLES, model
    )
    row = made.row
    screen.done(
        f"{row.records:,} records of {row.clients:,} clients joined as of their moments, "
        f"{row.label_ratio:.1%} positive, {row.heldout_clients:,} clients held out"
    )
    return deployment.datasets.open(f"{row.name}@{row.version}")
