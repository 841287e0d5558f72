"""The feature service as a gateway process mounts it beside the device gateway's calls."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from sqlalchemy import Engine

from feature_catalog.blobs import BlobStore
from feature_catalog.on_device.rules import DeviceRules
from feature_catalog.online import OnlineStore
from feature_catalog.references import split_reference
from feature_catalog.service.access import DeviceAccess
from feature_catalog.service.cloud_assets import CloudAssets
from feature_catalog.service.device_manifest import ManifestMaker
from feature_catalog.service.made_manifests import MadeManifests, StoredFiles
from feature_catalog.service.served_contracts import ServedContracts
from feature_catalog.service.servicer import DeviceFeaturesService
from server.gateway.catalog import CatalogDevices
from server.gateway.feature_door import GatewayFeatureDoor
from server.gateway.metrics import GatewayMetrics
from server.gateway.served_blobs import ServedBlobs
from server.gateway.service import DeviceGatewayService
from server.gateway.state import GatewayState
from server.operations.settings import ServerSettings


def feature_service(
    settings: ServerSettings,
    engine: Engine,
    state: GatewayState,
    metrics: GatewayMetrics,
    gateway: DeviceGatewayService,
    blobs: BlobStore,
    served_blobs: ServedBlobs,
    *,
    clock: Callable[[], float],
    look_ups: int,
    stack: ExitStack,
) -> DeviceFeaturesService:
    """Assemble it.

    Args:
        settings: Of the deployment.
        engine: Of the catalog.
        state: Knows the open job.
        metrics: Count calls.
        gateway: Whose proofs, rates and slots for transfers it shares.
        blobs: Where assets' files are.
        served_blobs: Opens them.
        clock: Server's clock, seconds since the epoch.
        look_ups: Manifests and rows at once.
        stack: Closes what it opens.
    """
    store = OnlineStore(engine)
    stack.callback(store.close)
    cloud_assets = CloudAssets(blobs)
    return DeviceFeaturesService(
        GatewayFeatureDoor(
            gateway.authenticator,
            gateway.rates,
            metrics,
            CatalogDevices(engine),
            clock=clock,
            look_ups=threading.BoundedSemaphore(look_ups),
            transfers=gateway.fetch_slots,
        ),
        DeviceAccess(
            ServedContracts(engine),
            settings.device_feature_services,
            lambda: _open_services(state),
        ),
        MadeManifests(
            ManifestMaker(
                StoredFiles(blobs.exists),
                cloud_assets.of,
                DeviceRules.from_json(settings.device_rules),
            )
        ),
        store,
        cloud_assets,
        served_blobs.open,
        clock=clock,
    )


def _open_services(state: GatewayState) -> Iterator[tuple[str, bytes]]:
    job = state.job
    if job is not None and job.job.feature_service is not None:
        name, sha256 = split_reference(job.job.feature_service)
        if sha256 is not None:
            yield name, bytes.fromhex(sha256)
