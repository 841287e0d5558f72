"""A process that runs devices: what they share, and the command line they have in common."""

import argparse
import platform
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc

from device_runtime.attestation import AttestationTrust
from device_runtime.blob_cache import BlobCache
from device_runtime.conditioned_runner import ConditionedRunner
from device_runtime.device_state import HostDeviceState
from device_runtime.device_store import DeviceStore
from device_runtime.errors import FlintError
from device_runtime.examples import SqliteExampleStore
from device_runtime.feature_client import FeatureClient
from device_runtime.feature_tasks import FeatureTasks
from device_runtime.gateway_client import GatewayClient, open_channel
from device_runtime.imposed_conditions import Epoch, ImposedConditions
from device_runtime.leased_task import SharedParts
from device_runtime.loaded_models import LoadedModels
from device_runtime.pacing import Pacing
from device_runtime.protocol import features_pb2 as features_pb
from device_runtime.request_signer import DeviceDescription, RequestSigner
from device_runtime.runner import DeviceRunner
from device_runtime.this_machine import free_bytes, host_device_model, memory_bytes

EXAMPLES_FILE = "examples.sqlite"
"""Name of the example store in a device's folder."""

Imposed = tuple[ImposedConditions, Epoch]
"""What a device is imposed, and when its windows begin to count."""

_MAX_PORT = 65535


class InvalidHostOptions(FlintError):
    """Command-line options of a device process that contradict each other or name no file."""

    code = "FLN-1413"


@dataclass(frozen=True, slots=True)
class HostSettings:
    """How a process runs its devices.

    Attributes:
        server: ``host:port`` of a gateway.
        ca_certificate: What to trust; None speaks without TLS.
        cache_folder: Of fetched blobs; processes of one host may share it.
        cache_bytes: Bound on that folder.
        trust: What the app pins to verify enclaves by; None: it trusts none.
    """

    server: str
    ca_certificate: Path | None
    cache_folder: Path
    cache_bytes: int
    description: DeviceDescription
    pacing: Pacing
    state: HostDeviceState
    trust: AttestationTrust | None = None


class DeviceHost:
    """Shared parts of one process, and the devices it has opened."""

    def __init__(self, settings: HostSettings, models: LoadedModels) -> None:
        """Open channel and cache; nothing is contacted yet.

        Args:
            settings: How to run.
            models: What the devices share in memory.

        Raises:
            UnreadableCertificate: If there is nothing to trust the gateway by.
        """
        self._settings = settings
        self._channel: grpc.Channel = open_channel(settings.server, settings.ca_certificate)
        self._stores: list[DeviceStore] = []
        self._features: list[FeatureTasks] = []
        self.counts: Counter[str] = Counter()
        self._shared = SharedParts(
            gateway=GatewayClient(self._channel),
            cache=BlobCache(settings.cache_folder, settings.cache_bytes),
            models=models,
            counts=self.counts,
            trust=settings.trust,
        )

    def open_device(self, folder: Path, imposed: Imposed | None = None) -> DeviceRunner:
        """Run the device in ``folder``; a folder without a device becomes a new one.

        Args:
            imposed: Conditions other than the host's own, and when they begin; None for none.

        Raises:
            UnreadableDevice, DeviceInUse: See `DeviceStore`.
        """
        store = DeviceStore(folder)
        try:
            store.take()
        except FlintError:
            store.close()
            raise
        self._stores.append(store)
        runner: Callable[..., DeviceRunner] = DeviceRunner
        if imposed is not None:
            runner = partial(ConditionedRunner, conditions=imposed[0], epoch=imposed[1])
        return runner(
            store,
            SqliteExampleStore(folder / EXAMPLES_FILE),
            self._settings.state,
            self._shared,
            self._settings.description,
            self._settings.pacing,
            jitter=random.Random(store.key.public_key_der),  # noqa: S311 (spreads load)
            features=partial(self._feature_tasks, folder),
        )

    def _feature_tasks(self, folder: Path, signer: RequestSigner) -> FeatureTasks:
        features = FeatureTasks(
            folder,
            FeatureClient(
                self._channel,
                signer,
                folder,
                assets=self._shared.cache,
                storage=lambda: features_pb.DeviceStorage(
                    free_bytes=free_bytes(folder), memory_bytes=memory_bytes()
                ),
            ),
            self._settings.description.app_id,
            lambda: self._settings.state.read().unmetered_network,
        )
        self._features.append(features)
        return features

    def disconnect(self) -> None:
        """Break off calls that are still going on."""
        self._channel.close()

    def close(self) -> None:
        """Let go of everything."""
        self._channel.close()
        for features in self._features:
            features.close()
        for store in self._stores:
            store.close()


def add_host_options(parser: argparse.ArgumentParser) -> None:
    """Options every device process takes."""
    parser.add_argument("--server", required=True, metavar="HOST:PORT", help="gateway to dial")
    parser.add_argument("--ca", type=Path, metavar="FILE", help="CA certificate to trust")
    parser.add_argument(
        "--insecure", action="store_true", help="no TLS; for experiments on one machine only"
    )
    parser.add_argument(
        "--enrolment-token-file", type=Path, metavar="FILE", help="needed until enrolled"
    )
    parser.add_argument(
        "--attestation-trust",
        type=Path,
        metavar="FILE",
        help="what the app pins to verify enclaves by; without it, secure jobs are declined",
    )
    parser.add_argument("--cache", type=Path, metavar="DIR", help="folder of fetched models")
    parser.add_argument("--cache-mb", type=int, default=256, metavar="MB")
    parser.add_argument("--app-id", default="host", help="host app told at enrolment")
    parser.add_argument(
        "--device-model", default=host_device_model(), help="told at enrolment, e.g. 'Pixel 8'"
    )
    parser.add_argument(
        "--os-release",
        default=platform.release(),
        metavar="YYYY-MM",
        help="told at enrolment: the month of its OS release",
    )
    parser.add_argument(
        "--slice-s", type=float, default=0.5, help="training between two looks at the device"
    )
    parser.add_argument(
        "--recheck-s", type=float, default=900.0, help="wait of a device that may not take part"
    )
    parser.add_argument(
        "--battery", type=float, metavar="SHARE", help="charge to report instead of the host's"
    )
    parser.add_argument("--metered", action="store_true", help="the network is not free of charge")
    parser.add_argument("--background", action="store_true", help="the app is not in front")
    parser.add_argument("--account-age-days", type=float, metavar="DAYS")
    parser.add_argument("--log-level", default="warning", choices=("debug", "info", "warning"))


def host_settings(options: argparse.Namespace, default_cache: Path) -> HostSettings:
    """Settings from parsed options.

    Raises:
        InvalidHostOptions: If they contradict each other.
    """
    if options.insecure == (options.ca is not None):
        raise InvalidHostOptions(
            "give either --ca FILE with the server's ca.crt, or --insecure for a server without TLS"
        )
    host, _, port = options.server.rpartition(":")
    if not (host and port.isdecimal() and 0 < int(port) <= _MAX_PORT):
        raise InvalidHostOptions(
            f"--server {options.server} is not HOST:PORT; give the gateway's address as `flint up` "
            "prints it, e.g. 127.0.0.1:9510"
        )
    return HostSettings(
        server=options.server,
        ca_certificate=options.ca,
        cache_folder=options.cache or default_cache,
        cache_bytes=options.cache_mb * 2**20,
        description=DeviceDescription(
            app_id=options.app_id,
            device_model=options.device_model,
            os_release=options.os_release,
            enrolment_token=_read_token(options.enrolment_token_file),
        ),
        pacing=Pacing(slice_s=options.slice_s, recheck_s=options.recheck_s),
        state=HostDeviceState(
            unmetered_network=not options.metered,
            foreground=not options.background,
            account_age_days=options.account_age_days,
            battery=options.battery,
        ),
        trust=(
            AttestationTrust.read(options.attestation_trust) if options.attestation_trust else None
        ),
    )


def _read_token(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InvalidHostOptions(
            f"cannot read the enrolment token in {path} ({why}); "
            "make one with `flint device enrol-token --output FILE`"
        ) from error
    if not token:
        raise InvalidHostOptions(
            f"{path} holds no enrolment token; "
            "make one with `flint device enrol-token --output FILE`"
        )
    return token
