"""The files that transforms read, from the blob store or a folder, known by their digests."""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from device_runtime.errors import named_in
from device_runtime.transform_assets import Asset as Loaded
from device_runtime.transform_assets import EmbeddingTable, InvalidAsset, Vocabulary
from feature_catalog.blobs import BlobStore, MissingBlob
from feature_catalog.definitions.assets import Asset, AssetType
from feature_catalog.definitions.catalog_set import DefinitionSet
from feature_catalog.definitions.served import ServedFeature
from feature_catalog.offline.errors import MissingAsset

AssetReader = Callable[[Asset], bytes]
"""The bytes of an asset's file; raises `MissingAsset` where they are not there."""


def asset_folder(folder: Path) -> AssetReader:
    """Assets that lie in a folder, under any name: what tells them is their digest."""

    def read(asset: Asset) -> bytes:
        try:
            files = sorted(each for each in folder.iterdir() if each.is_file())
            for file in files:
                if file.stat().st_size != asset.size_bytes:
                    continue
                content = file.read_bytes()
                if hashlib.sha256(content).hexdigest() == asset.sha256:
                    return content
        except OSError as error:
            raise MissingAsset(
                f"the folder of assets {folder} cannot be read ({error.strerror}); give another"
            ) from error
        raise MissingAsset(
            f"no file in {folder} is the asset {asset.name}: {asset.size_bytes} bytes, SHA-256 "
            f"{asset.sha256}; put it there, or apply the definition of the file that is there"
        )

    return read


def blob_assets(blobs: BlobStore) -> AssetReader:
    """Assets that are in the blob store."""

    def read(asset: Asset) -> bytes:
        try:
            return blobs.get(bytes.fromhex(asset.sha256))
        except MissingBlob as error:
            raise MissingAsset(
                f"the file of the asset {asset.name} (SHA-256 {asset.sha256}) is not in the blob "
                "store; give the folder it is in (assets=asset_folder(...), --assets FOLDER)"
            ) from error

    return read


def load_assets(
    definitions: DefinitionSet, served: Iterable[ServedFeature], read: AssetReader | None
) -> dict[str, Loaded]:
    """Every asset that features' transforms read, by name.

    Raises:
        MissingAsset: If one is not there.
        InvalidAsset: If one is not what its definition says.
    """
    names = {step.asset for each in served for step in each.feature.transforms if step.asset}
    assets = (definitions.asset(name) for name in sorted(names))
    return {asset.name: _load(asset, read) for asset in assets if asset is not None}


def _load(asset: Asset, read: AssetReader | None) -> Loaded:
    if read is None:
        raise MissingAsset(
            f"a feature needs the asset {asset.name}, and nothing says where assets are; give the "
            "folder it is in (assets=asset_folder(...), --assets FOLDER)"
        )
    content = read(asset)
    with named_in(f"asset {asset.name}"):
        if hashlib.sha256(content).hexdigest() != asset.sha256:
            raise InvalidAsset(f"its bytes are not those of SHA-256 {asset.sha256}; fetch it anew")
        if asset.type is AssetType.VOCABULARY:
            return Vocabulary.from_bytes(content)
        loaded = EmbeddingTable.from_bytes(content)
        if loaded.table.shape[1] != asset.dimension:
            raise InvalidAsset(
                f"its rows have {loaded.table.shape[1]} numbers and its definition says "
                f"{asset.dimension}; correct the dimension"
            )
    return loaded
