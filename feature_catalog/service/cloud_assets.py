"""Vocabularies and embeddings that the cloud's own chains read, in bounded memory."""

import threading
from collections import OrderedDict

from device_runtime.transform_assets import Asset as AssetFile
from device_runtime.transform_assets import InvalidAsset
from feature_catalog.asset_files import read_asset
from feature_catalog.blobs import BlobStore, MissingBlob
from feature_catalog.definitions.assets import Asset
from feature_catalog.definitions.transforms import RunAt
from feature_catalog.on_device.served_views import chain_at
from feature_catalog.service.served_contracts import ServedContract

_MOST_BYTES = 512 * 2**20


class CloudAssets:
    """Reads assets from the blob store, the least recently used out first."""

    def __init__(self, blobs: BlobStore, *, max_bytes: int = _MOST_BYTES) -> None:
        """Assemble.

        Args:
            blobs: Where files are.
            max_bytes: Of files whose content is kept in memory; one alone may be larger.
        """
        self._blobs = blobs
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, tuple[int, AssetFile]] = OrderedDict()

    def of(self, contract: ServedContract) -> dict[str, AssetFile]:
        """What a contract's cloud chains read, by name.

        Raises:
            InvalidAsset: If a file is not there, or not what it should be.
            BlobStoreUnreachable: If the blob store does not answer.
        """
        chains = [chain_at(each, RunAt.CLOUD) for each in contract.features]
        names = {name for chain in chains for name in chain.asset_names}
        found = ((name, contract.definitions.asset(name)) for name in sorted(names))
        return {name: self._read(asset) for name, asset in found if asset is not None}

    def _read(self, asset: Asset) -> AssetFile:
        digest = bytes.fromhex(asset.sha256)
        with self._lock:
            if digest in self._kept:
                self._kept.move_to_end(digest)
                return self._kept[digest][1]
        try:
            content = self._blobs.get(digest)
        except MissingBlob as error:
            raise InvalidAsset(
                f"the file of asset {asset.name} is not in the blob store; add it with "
                "`flint catalog asset add FILE`"
            ) from error
        found = read_asset(asset, content)
        with self._lock:
            self._kept[digest] = (len(content), found)
            while len(self._kept) > 1 and sum(n for n, _ in self._kept.values()) > self._max_bytes:
                self._kept.popitem(last=False)
        return found
