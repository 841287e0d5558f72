"""flint.device.v1.DeviceFeatures: the calls, mapped onto contracts, rows and assets."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import NoReturn, Protocol

import grpc
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from device_runtime.errors import FlintError
from device_runtime.feature_manifest import FORMAT
from device_runtime.identity import FeatureRequest
from device_runtime.protocol import features_pb2 as pb
from device_runtime.protocol import features_pb2_grpc
from feature_catalog.blobs import BlobStoreUnreachable, MissingBlob
from feature_catalog.database import DatabaseUnreachable
from feature_catalog.definitions.views import FeatureView
from feature_catalog.on_device import DeviceProfile
from feature_catalog.online import OnlineStore
from feature_catalog.service.access import DeviceAccess
from feature_catalog.service.asset_chunks import AssetBytes, asset_chunks
from feature_catalog.service.cloud_assets import CloudAssets
from feature_catalog.service.errors import (
    FeaturesUnavailable,
    InvalidFeatureRequest,
    NotServedToDevices,
    OutdatedManifest,
    UnknownAsset,
)
from feature_catalog.service.feature_rows import check_keys, feature_rows
from feature_catalog.service.made_manifests import MadeManifests
from feature_catalog.service.profiles import device_profile
from feature_catalog.service.served_contracts import ServedContract

log = logging.getLogger(__name__)

_DIGEST_BYTES = 32
_LONGEST_NAME = 63
_MOST_COMPRESSIONS = 8

_STATUSES: dict[type[FlintError], grpc.StatusCode] = {
    NotServedToDevices: grpc.StatusCode.PERMISSION_DENIED,
    UnknownAsset: grpc.StatusCode.PERMISSION_DENIED,
    OutdatedManifest: grpc.StatusCode.FAILED_PRECONDITION,
    InvalidFeatureRequest: grpc.StatusCode.INVALID_ARGUMENT,
    MissingBlob: grpc.StatusCode.NOT_FOUND,
    BlobStoreUnreachable: grpc.StatusCode.UNAVAILABLE,
    DatabaseUnreachable: grpc.StatusCode.UNAVAILABLE,
    FeaturesUnavailable: grpc.StatusCode.UNAVAILABLE,
}


@dataclass(frozen=True, slots=True)
class AskingDevice:
    """Who asks, as its enrolment says.

    Attributes:
        app_id: Its host app.
        device_model: As it said when it enrolled; empty where that is not known.
        os_release: Likewise.
    """

    device_id: str
    app_id: str
    device_model: str = ""
    os_release: str = ""


class FeatureDoor(Protocol):
    """Lets devices in, a few at once. Each method ends a call that it does not let in."""

    def authenticate(self, request: FeatureRequest, context: grpc.ServicerContext) -> AskingDevice:
        """Whoever signed the request."""
        ...

    def look_up(
        self, device: AskingDevice, keys: int, context: grpc.ServicerContext
    ) -> AbstractContextManager[None]:
        """A manifest (0 keys) or rows of so many keys."""
        ...

    def transfer(
        self, device: AskingDevice, context: grpc.ServicerContext
    ) -> AbstractContextManager[None]:
        """An asset, or the rest of one."""
        ...

    def count(self, call: str, result: str) -> None:
        """Note what came of a call."""
        ...

    def count_bytes(self, size_bytes: int) -> None:
        """Note bytes of assets sent."""
        ...


OpenAsset = Callable[[bytes], AssetBytes]
"""Opens a stored file by its digest; raises what the blob store raises."""


class DeviceFeaturesService(features_pb2_grpc.DeviceFeaturesServicer):
    """Answers devices, from the threads of a gRPC server."""

    def __init__(
        self,
        door: FeatureDoor,
        access: DeviceAccess,
        manifests: MadeManifests,
        store: OnlineStore,
        cloud_assets: CloudAssets,
        open_asset: OpenAsset,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Assemble.

        Args:
            door: Knows devices, and how much they may ask.
            access: Knows which services they may read.
            manifests: Makes manifests.
            store: Where values are.
            cloud_assets: What the cloud's chains read.
            open_asset: Where assets' files are.
            clock: Server's clock, seconds since the epoch.
        """
        self._door = door
        self._access = access
        self._manifests = manifests
        self._store = store
        self._cloud_assets = cloud_assets
        self._open_asset = open_asset
        self._clock = clock

    def GetManifest(  # noqa: N802 - gRPC's names
        self, request: pb.GetManifestRequest, context: grpc.ServicerContext
    ) -> pb.GetManifestResponse:
        """What the device is to do for a feature service."""
        with self._refusing("manifest", context):
            _check_name("service", request.service)
            _check_digest("contract_sha256", request.contract_sha256, may_be_empty=True)
            _check_digest("known_manifest_sha256", request.known_manifest_sha256, may_be_empty=True)
        device = self._door.authenticate(request, context)
        with self._door.look_up(device, 0, context), self._refusing("manifest", context):
            if request.manifest_format < FORMAT:
                raise InvalidFeatureRequest(
                    f"the app reads manifests up to form {request.manifest_format}, and they are "
                    f"of form {FORMAT}; update the app"
                )
            contract = self._access.find(request.service, request.contract_sha256)
            made = self._manifests.get(contract, _profile(device, request.storage))
            is_known = made.sha256 == request.known_manifest_sha256
            self._door.count("manifest", "not_modified" if is_known else "answered")
            return pb.GetManifestResponse(
                manifest_sha256=made.sha256,
                manifest_json=b"" if is_known else made.content,
                server_time_ms=self._now_ms(),
            )

    def GetFeatures(  # noqa: N802
        self, request: pb.GetFeaturesRequest, context: grpc.ServicerContext
    ) -> pb.GetFeaturesResponse:
        """Rows of a view by key."""
        with self._refusing("features", context):
            _check_name("service", request.service)
            _check_name("view", request.view)
            _check_digest("contract_sha256", request.contract_sha256)
        device = self._door.authenticate(request, context)
        keys = list(request.keys)
        with self._door.look_up(device, len(keys), context), self._refusing("features", context):
            contract = self._access.find(request.service, request.contract_sha256)
            view = _cloud_view(contract, request.view, request.view_version)
            check_keys(contract.definitions, view, keys)
            rows = feature_rows(
                contract,
                view.name,
                keys,
                self._store,
                self._cloud_assets.of(contract),
                now_s=self._clock(),
            )
            self._door.count("features", "answered")
            return pb.GetFeaturesResponse(rows=rows, server_time_ms=self._now_ms())

    def FetchAsset(  # noqa: N802
        self, request: pb.FetchAssetRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.AssetChunk]:
        """Stream an asset that the service's features need on devices."""
        with self._refusing("asset", context):
            _check_name("service", request.service)
            _check_digest("contract_sha256", request.contract_sha256)
            _check_digest("asset_sha256", request.asset_sha256)
        device = self._door.authenticate(request, context)
        with self._door.transfer(device, context):
            with self._refusing("asset", context):
                contract = self._access.find(request.service, request.contract_sha256)
                _check_asset(contract, request.asset_sha256)
                content = self._open_asset(request.asset_sha256)
                if request.offset > content.size:
                    raise InvalidFeatureRequest(
                        f"the asset has {content.size} bytes, and byte {request.offset} was asked "
                        "for; begin anew"
                    )
            for chunk in asset_chunks(
                content, request.offset, request.compressions[:_MOST_COMPRESSIONS]
            ):
                self._door.count_bytes(len(chunk.data))
                yield chunk
            self._door.count("asset", "answered")

    @contextmanager
    def _refusing(self, call: str, context: grpc.ServicerContext) -> Iterator[None]:
        """End a call with a refusal in one sentence; what is wrong here goes to the log alone."""
        try:
            yield
        except SQLAlchemyError as error:
            self._refuse(
                call,
                FeaturesUnavailable(f"the database does not answer ({_cause(error)})"),
                context,
            )
        except FlintError as error:
            self._refuse(call, error, context)

    def _refuse(self, call: str, error: FlintError, context: grpc.ServicerContext) -> NoReturn:
        status = _STATUSES.get(type(error))
        if status is None:
            # Of the catalog or its values, not of the request: the sentence may tell of sources.
            log.error("%s: %s", call, error)
            self._door.count(call, "unavailable")
            context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"the feature service cannot be served as it is; the server's log says why "
                f"[{error.code}]",
            )
        is_here = status in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE)
        if is_here:
            log.error("%s: %s", call, error)
        self._door.count(call, "unavailable" if is_here else "refused")
        said = f"the server cannot give it now [{error.code}]" if is_here else str(error)
        context.abort(status, said)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _profile(device: AskingDevice, storage: pb.DeviceStorage) -> DeviceProfile:
    return device_profile(
        device_model=device.device_model,
        os_release=device.os_release,
        app=device.app_id,
        free_bytes=storage.free_bytes,
        memory_bytes=storage.memory_bytes,
        locale=storage.locale,
    )


def _cloud_view(contract: ServedContract, name: str, version: int) -> FeatureView:
    view = contract.views.get(name)
    if view is None or view.is_on_device:
        raise InvalidFeatureRequest(
            f"the feature service {contract.service} has no view {name} in the cloud; fetch its "
            "manifest again"
        )
    if version != contract.view_version(name):
        raise OutdatedManifest(
            f"the view {name} is not served in version {version} (any more); fetch the manifest "
            "again"
        )
    return view


def _check_asset(contract: ServedContract, sha256: bytes) -> None:
    """Whether a device of this service may need the asset, itself or as a fallback."""
    if sha256 not in contract.device_assets:
        raise UnknownAsset(
            f"the feature service {contract.service} needs no asset {sha256.hex()[:16]} on "
            "devices; fetch its manifest again"
        )


def _cause(error: SQLAlchemyError) -> str:
    """In a line, without the statement: its parameters are keys that devices asked for."""
    cause = error.orig if isinstance(error, DBAPIError) else type(error).__name__
    return " ".join(str(cause).split())[:300]


def _check_name(key: str, name: str) -> None:
    if not 0 < len(name) <= _LONGEST_NAME or not (name.isascii() and name.isidentifier()):
        raise InvalidFeatureRequest(f"{key} is none; give a name of the feature catalog")


def _check_digest(key: str, digest: bytes, *, may_be_empty: bool = False) -> None:
    if len(digest) != _DIGEST_BYTES and not (may_be_empty and not digest):
        raise InvalidFeatureRequest(f"{key} has {len(digest)} bytes; give a SHA-256")
