"""Vocabularies and embeddings that transforms in the cloud read, from the blob store."""

from collections.abc import Iterable

from device_runtime.transform_assets import Assets, EmbeddingTable, InvalidAsset, Vocabulary
from feature_catalog.blobs import BlobStore, MissingBlob
from feature_catalog.definitions import AssetType
from feature_catalog.definitions.catalog_set import DefinitionSet
from feature_catalog.online.errors import MissingAsset


def stored_assets(
    definitions: DefinitionSet, names: Iterable[str], blobs: BlobStore
) -> dict[str, Vocabulary | EmbeddingTable]:
    """Assets by name.

    Raises:
        MissingAsset: If the file of one is not in the blob store, or is none of its type.
        BlobStoreUnreachable: If the store cannot be read.
        CorruptBlob: If the file was damaged in the store.
    """
    found: dict[str, Vocabulary | EmbeddingTable] = {}
    for name in names:
        asset = definitions.asset(name)
        if asset is None:
            raise LookupError(f"asset {name} was not looked for before")
        try:
            content = blobs.get(bytes.fromhex(asset.sha256))
            if asset.type is AssetType.VOCABULARY:
                found[name] = Vocabulary.from_bytes(content)
            else:
                found[name] = EmbeddingTable.from_bytes(content)
        except MissingBlob as error:
            raise MissingAsset(
                f"the file of the asset {name} (SHA-256 {asset.sha256[:12]}...) is not in the blob "
                "store; add it with `flint catalog asset add FILE`"
            ) from error
        except InvalidAsset as error:
            raise MissingAsset(f"the asset {name}: {error.sentence}") from error
    return found


__all__ = ["Assets", "stored_assets"]
