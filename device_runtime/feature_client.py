"""What a device fetches of the feature catalog: its manifest, features by key, assets."""

import logging
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import grpc

from device_runtime.blob_cache import BlobCache, BlobRefused
from device_runtime.errors import FlintError
from device_runtime.feature_cache import CachedView
from device_runtime.feature_manifest import (
    FORMAT,
    FeatureManifest,
    InvalidFeatureManifest,
    ManifestAsset,
    ManifestView,
)
from device_runtime.feature_policies import Network
from device_runtime.feature_reader import Fetch, FetchedRow, FetchFailed
from device_runtime.feature_values import UnreadableFeatureValue, decode_row
from device_runtime.gateway_client import (
    GatewayBusy,
    GatewayError,
    GatewayRefused,
    sorted_errors,
)
from device_runtime.kept_manifests import KeptManifests
from device_runtime.manifest_parser import parse_manifest
from device_runtime.manifest_views import cloud_views
from device_runtime.protocol import features_pb2 as pb
from device_runtime.protocol.features_pb2_grpc import DeviceFeaturesStub
from device_runtime.request_signer import RequestSigner
from device_runtime.transform_assets import Asset, EmbeddingTable, InvalidAsset, Vocabulary

log = logging.getLogger(__name__)

ASSET_CACHE_BYTES = 512 * 2**20
_PARTIAL_MAX_AGE_S = 7 * 24 * 3600.0
"""An unmetered network may come once a night."""
_CALL_TIMEOUT_S = 30.0
_TRANSFER_TIMEOUT_S = 300.0
_MOST_CHUNK_BYTES = 2**20
_MOST_AGE_S = 1e10
_ZLIB = "zlib"
_Answer = TypeVar("_Answer")


class DamagedAsset(FlintError):
    """A download that is not the file which the manifest names."""

    code = "FLN-2950"
    exit_code = 1


class FeatureClient:
    """One device's calls of ``flint.device.v1.DeviceFeatures``.

    Without a network the last good manifest and the assets fetched before go on being used.
    """

    def __init__(
        self,
        channel: grpc.Channel,
        signer: RequestSigner,
        folder: Path,
        *,
        assets: BlobCache | None = None,
        storage: Callable[[], pb.DeviceStorage] = pb.DeviceStorage,
    ) -> None:
        """Assemble; nothing is made on disk before there is something to keep.

        Args:
            channel: To the gateway; may be shared.
            signer: Of an enrolled device.
            folder: The device's own; manifests and assets are kept below it.
            assets: Where assets are kept, if not there; devices of one machine may share it.
            storage: What the device says of its storage when it asks for a manifest.
        """
        self._stub = DeviceFeaturesStub(channel)
        self._signer = signer
        self._folder = folder
        self._kept = KeptManifests(folder / "manifests")
        self._assets = assets
        self._storage = storage

    def manifest(self, service: str, contract_sha256: bytes = b"") -> FeatureManifest:
        """The manifest of a service, from the gateway; the last good one where that cannot be.

        Args:
            contract_sha256: Of the contract it is to be of; empty: the one served now.

        Raises:
            GatewayBusy: If the gateway cannot be reached and none is kept.
            GatewayRefused: If this device may not read the service under that contract.
            InvalidFeatureManifest: If the gateway sent none that this runtime can go by, and none
                is kept.
        """
        kept = self._kept.find(service, contract_sha256)
        try:
            known_sha256 = b"" if kept is None else kept.sha256
            response = self._ask_manifest(service, contract_sha256, known_sha256)
            self._signer.heard_time(response.server_time_ms)
            if kept is not None and response.manifest_sha256 == kept.sha256:
                return kept.manifest
            manifest = _manifest_of(service, contract_sha256, response.manifest_json)
        except (GatewayBusy, FlintError) as error:
            if kept is None:
                raise
            log.info("the kept manifest of %s is used: %s", service, error)
            return kept.manifest
        try:
            self._kept.keep(manifest, response.manifest_json)
        except OSError as error:
            log.warning("the manifest of %s cannot be kept (%s)", service, error)
        return manifest

    def cached_views(self, manifest: FeatureManifest) -> tuple[CachedView, ...]:
        """What a `FeatureCache` is to be opened with when a task of the manifest runs.

        Besides its own views those of the other services this device has a manifest of: a cache
        deletes what is of no view it is opened with.
        """
        views = {}
        for each in (*reversed(self._kept.all()), manifest):
            views.update({view.name: view.cached() for view in cloud_views(each)})
        return tuple(views[name] for name in sorted(views))

    def fetch(self, manifest: FeatureManifest) -> Fetch:
        """What gets rows for a `FeatureReader` of the manifest's views."""

        def rows(view: str, version: int, keys: Sequence[bytes]) -> Mapping[bytes, FetchedRow]:
            request = pb.GetFeaturesRequest(
                service=manifest.service,
                contract_sha256=manifest.contract_sha256,
                view=view,
                view_version=version,
                keys=keys,
            )
            try:
                response = self._ask_rows(request)
            except GatewayError as error:
                log.info("no rows of %s: %s", view, error)
                raise FetchFailed(str(error)) from error
            return _rows(manifest.views[view], keys, response)

        return rows

    def assets(
        self, manifest: FeatureManifest, *, unmetered: bool | None = True
    ) -> dict[str, Asset]:
        """What the manifest's transforms read on this device, by the names in the chains.

        What is here is not fetched again; a download that was cut goes on where it was.

        Args:
            unmetered: Whether the network is; None: there is none.

        Raises:
            GatewayBusy: Call again later, or over another network; what has come is kept.
            GatewayRefused: It will not be given.
            DamagedAsset: If what came is not what the manifest names; it is deleted.
            InvalidAsset: If it is, but no vocabulary or embedding.
        """
        return {
            name: self._asset(manifest, each, unmetered) for name, each in manifest.assets.items()
        }

    def _asset(
        self, manifest: FeatureManifest, asset: ManifestAsset, unmetered: bool | None
    ) -> Asset:
        cache = self._asset_cache()
        content = cache.read(asset.sha256)
        if content is None:
            if not unmetered and (unmetered is None or asset.network is Network.UNMETERED):
                raise GatewayBusy(
                    "UNAVAILABLE", f"{_told(asset)} waits for a network over which it may come"
                )
            self._download(cache, manifest, asset)
            content = cache.read(asset.sha256)
        if content is None:
            raise DamagedAsset(f"{_told(asset)} was lost as soon as it was stored; free space")
        kind = Vocabulary if asset.type == "vocabulary" else EmbeddingTable
        try:
            return kind.from_bytes(content)
        except InvalidAsset as error:
            raise InvalidAsset(f"{_told(asset)}: {error.sentence}") from error

    def _download(self, cache: BlobCache, manifest: FeatureManifest, asset: ManifestAsset) -> None:
        cache.adopt_partial(asset.sha256)
        try:
            self._mending_clock(
                lambda: cache.receive(asset.sha256, self._parts(cache, manifest, asset))
            )
        except BlobRefused as error:
            raise DamagedAsset(
                f"{_told(asset)} came damaged and is deleted ({error}); it is fetched anew next "
                "time"
            ) from error
        except DamagedAsset:
            cache.forget_partial(asset.sha256)
            raise

    def _parts(
        self, cache: BlobCache, manifest: FeatureManifest, asset: ManifestAsset
    ) -> Iterator[bytes]:
        """Bytes of an asset from where its download has come to."""
        offset = cache.partial_bytes(asset.sha256)
        if offset >= asset.size_bytes:
            return  # All of it is here; its digest says whether it is sound.
        request = pb.FetchAssetRequest(
            service=manifest.service,
            contract_sha256=manifest.contract_sha256,
            asset_sha256=asset.sha256,
            offset=offset,
            compressions=[_ZLIB],
        )
        self._signer.sign_feature_request(request)
        with sorted_errors():
            stream = self._stub.FetchAsset(request, timeout=_TRANSFER_TIMEOUT_S)
            try:
                for chunk in stream:
                    part = _unpacked(chunk, asset)
                    offset += len(part)
                    if chunk.total_bytes != asset.size_bytes or offset > asset.size_bytes:
                        raise DamagedAsset(
                            f"{_told(asset)} is sent as {chunk.total_bytes} bytes, and the "
                            f"manifest says {asset.size_bytes}; it is fetched anew next time"
                        )
                    yield part
            finally:
                stream.cancel()

    def _ask_manifest(
        self, service: str, contract_sha256: bytes, known_sha256: bytes
    ) -> pb.GetManifestResponse:
        request = pb.GetManifestRequest(
            service=service,
            contract_sha256=contract_sha256,
            known_manifest_sha256=known_sha256,
            manifest_format=FORMAT,
            storage=self._storage(),
        )

        def call() -> pb.GetManifestResponse:
            self._signer.sign_feature_request(request)
            response: pb.GetManifestResponse
            with sorted_errors():
                response = self._stub.GetManifest(request, timeout=_CALL_TIMEOUT_S)
            return response

        return self._mending_clock(call)

    def _ask_rows(self, request: pb.GetFeaturesRequest) -> pb.GetFeaturesResponse:
        def call() -> pb.GetFeaturesResponse:
            self._signer.sign_feature_request(request)
            response: pb.GetFeaturesResponse
            with sorted_errors():
                response = self._stub.GetFeatures(request, timeout=_CALL_TIMEOUT_S)
            return response

        return self._mending_clock(call)

    def _mending_clock(self, call: Callable[[], _Answer]) -> _Answer:
        """Call; once more where the gateway only took the request for one of another time."""
        try:
            return call()
        except GatewayRefused as error:
            if not self._signer.mends_clock(error.server_time_ms):
                raise
        return call()

    def _asset_cache(self) -> BlobCache:
        if self._assets is None:
            self._assets = BlobCache(
                self._folder / "assets",
                ASSET_CACHE_BYTES,
                partial_max_age_s=_PARTIAL_MAX_AGE_S,
            )
        return self._assets


def _manifest_of(service: str, contract_sha256: bytes, content: bytes) -> FeatureManifest:
    manifest = parse_manifest(content)
    wanted = contract_sha256 or manifest.contract_sha256
    if (manifest.service, manifest.contract_sha256) != (service, wanted):
        raise InvalidFeatureManifest(
            f"the feature manifest is of {manifest.service} under contract "
            f"{manifest.contract_sha256.hex()[:16]}, which was not asked for; fetch it again"
        )
    return manifest


def _rows(
    view: ManifestView, keys: Sequence[bytes], response: pb.GetFeaturesResponse
) -> dict[bytes, FetchedRow]:
    """What a gateway sent, by key; a key without any value is left out.

    Raises:
        FetchFailed: If it is no answer to what was asked.
    """
    if len(response.rows) != len(keys):
        raise FetchFailed(f"{len(response.rows)} rows were sent for {len(keys)} keys")
    found = {}
    for key, row in zip(keys, response.rows, strict=True):
        if row.status == pb.FeatureRow.PRESENT or row.values:
            try:
                values = decode_row(row.values) if row.values else {}
            except UnreadableFeatureValue as error:
                raise FetchFailed(str(error)) from error
            if not 0 <= row.age_s <= _MOST_AGE_S:
                raise FetchFailed("a row was sent with an age that cannot be")
            found[key] = FetchedRow(values, _age_in_cache_s(view, row.age_s))
    return found


def _age_in_cache_s(view: ManifestView, age_s: float) -> float:
    """How old a row counts as when it is put into the cache.

    The cache's greatest age counts from when the cloud sent a value; but none is to be used for
    longer than it is true, ``ttl`` after its event. So it counts as new, unless that end comes
    first: then as just so old that it leaves the cache with it.
    """
    max_age_s = None if view.cache is None else view.cache.max_age_s
    if view.ttl_s is None or max_age_s is None:
        return 0.0
    return max(0.0, age_s - (view.ttl_s - max_age_s))


def _unpacked(chunk: pb.AssetChunk, asset: ManifestAsset) -> bytes:
    """A chunk's bytes, never more than it may have, whatever it was compressed from.

    Raises:
        DamagedAsset: If they are not what it says.
    """
    if chunk.size_bytes > _MOST_CHUNK_BYTES:
        raise DamagedAsset(f"{_told(asset)} is sent in chunks of {chunk.size_bytes} bytes")
    data: bytes = chunk.data
    if chunk.compression == _ZLIB:
        unpacking = zlib.decompressobj()
        try:
            data = unpacking.decompress(chunk.data, chunk.size_bytes + 1)
        except zlib.error as error:
            raise DamagedAsset(f"{_told(asset)} is sent damaged ({error})") from error
        is_whole = unpacking.eof and not unpacking.unused_data
    else:
        is_whole = not chunk.compression
    if not is_whole or len(data) != chunk.size_bytes:
        raise DamagedAsset(
            f"{_told(asset)} is sent damaged: a chunk has not the {chunk.size_bytes} bytes that it "
            "says; it is fetched anew next time"
        )
    return data


def _told(asset: ManifestAsset) -> str:
    return f"asset {asset.uses} ({asset.sha256.hex()[:12]})"
