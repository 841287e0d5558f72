"""Where everything is: one settings file, written by `flint up`, read by every server process."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from device_runtime.errors import FlintError

DEVELOPMENT, PRODUCTION = "development", "production"
"""Profiles of `flint up`."""


class MissingSettings(FlintError):
    """No server was ever started in this data directory, or its settings file is damaged."""

    code = "FLN-1201"


def flint_home() -> Path:
    """Data directory: ``$FLINT_HOME``, else ``/var/lib/flint`` as root, else the user's own."""
    configured = os.environ.get("FLINT_HOME")
    if configured:
        return Path(configured).expanduser().absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/flint")
    return Path.home() / ".local" / "share" / "flint"


IN_PROCESS, PROCESS = "in-process", "process"
ENCLAVE, EXTERNAL_ENCLAVE = "enclave", "external-enclave"
AGGREGATORS = (IN_PROCESS, PROCESS, ENCLAVE, EXTERNAL_ENCLAVE)
"""Where updates are summed: in the gateway, in a process of its own, in an enclave's process that
``flint up`` starts, or in one that somebody starts with ``flint enclave up``."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Addresses and paths of one deployment.

    Attributes:
        database_url: SQLAlchemy URL of Postgres.
        blob_url: fsspec URL of the blob store.
        gateway_address: ``host:port`` devices dial (flint.device.v1).
        coordinator_address: ``host:port`` gateways dial (flint.fleet.v1).
        superlink_address: ``host:port`` of Flower's SuperLink (HTTP).
        gateway_metrics_port: Prometheus endpoint of the gateway, on loopback.
        coordinator_metrics_port: Prometheus endpoint of the coordinator, on loopback.
        insecure: No TLS anywhere; for experiments on one machine only.
        aggregator: One of `AGGREGATORS`.
        attestation: Provider that vouches for enclaves.
        check_ins_per_s: Rate that pace steering aims at, all devices together.
        gateways: Gateway processes that share the device port.
        more_gateway_metrics_ports: Prometheus endpoints of all gateways but the first.
        max_tasks_per_day: Tasks a device is given in a day (UTC); None for any number.
        device_feature_services: Feature services that devices may read besides those of open jobs:
            ``name``, or ``name@contract``.
        max_feature_keys_per_day: Keys that a device may ask features of in a day, at one gateway
            process.
        device_rules: What devices may spend on features, as
            `feature_catalog.on_device.rules.DeviceRules.from_json` reads it.
        profile: `DEVELOPMENT`, or `PRODUCTION`, which refuses what is not safe.
    """

    home: Path
    database_url: str
    blob_url: str
    gateway_address: str
    coordinator_address: str
    superlink_address: str
    gateway_metrics_port: int
    coordinator_metrics_port: int
    insecure: bool = False
    aggregator: str = IN_PROCESS
    attestation: str = "software_root"
    check_ins_per_s: float = 200.0
    gateways: int = 1
    more_gateway_metrics_ports: tuple[int, ...] = ()
    max_tasks_per_day: int | None = None
    device_feature_services: tuple[str, ...] = ()
    max_feature_keys_per_day: int = 20_000
    device_rules: dict[str, Any] = field(default_factory=dict)
    profile: str = DEVELOPMENT

    @property
    def has_enclave(self) -> bool:
        """Whether jobs with ``privacy.secure_aggregation`` can run here."""
        return self.aggregator in (ENCLAVE, EXTERNAL_ENCLAVE)

    @property
    def nodes_enclave(self) -> int:
        """Number of the enclave that Flower nodes seal to, after those of the gateways."""
        return self.gateways

    @property
    def attestation_trust(self) -> Path:
        """What an app pins to verify this deployment's enclaves by, under a software root."""
        return self.home / "tls" / "attestation_trust.json"

    @property
    def gateway_metrics_ports(self) -> tuple[int, ...]:
        """Prometheus endpoints of the gateways, by number."""
        return (self.gateway_metrics_port, *self.more_gateway_metrics_ports)

    @property
    def gateway_sockets(self) -> Path:
        """Folder, mode 0700, of the sockets over which gateway processes speak to each other."""
        return self.home / "run" / "gateways"

    @property
    def transfers(self) -> Path:
        """Folder, mode 0700, where gateways keep large transfers in files without a name."""
        return self.home / "run" / "transfers"

    @property
    def secrets(self) -> Path:
        """Folder of private keys, mode 0700."""
        return self.home / "secrets"

    @property
    def ca_certificate(self) -> Path:
        """Certificate devices, gateways and operators trust."""
        return self.home / "tls" / "ca.crt"

    def certificate(self, role: str) -> Path:
        """Certificate of ``"gateway"``, ``"coordinator"`` or ``"superlink"``."""
        return self.home / "tls" / f"{role}.crt"

    def private_key(self, role: str) -> Path:
        """Private key of a role, mode 0600."""
        return self.secrets / f"{role}.key"

    @property
    def token_key(self) -> Path:
        """Key that signs task tokens and device credentials; shared by all gateways."""
        return self.secrets / "token.key"

    @property
    def logs(self) -> Path:
        """Folder of the processes' logs."""
        return self.home / "logs"

    def save(self) -> Path:
        """Write ``<home>/run/settings.json`` atomically, mode 0600; returns its path."""
        path = settings_path(self.home)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".json.new")
        raw = asdict(self) | {"home": str(self.home)}
        draft.touch(mode=0o600)
        draft.write_text(json.dumps(raw, indent=2))
        draft.replace(path)
        return path

    @classmethod
    def load(cls, home: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            MissingSettings: If there is no readable settings file.
        """
        path = settings_path(home)
        try:
            raw = json.loads(path.read_text())
            lists = ("more_gateway_metrics_ports", "device_feature_services")
            typed: dict[str, Any] = {name: tuple(raw.get(name, ())) for name in lists}
            typed["home"] = Path(raw["home"])
            return cls(**(raw | typed))
        except FileNotFoundError as error:
            raise MissingSettings(
                f"no FLINT server is set up in {home}; start one with `flint up`, "
                "or point FLINT_HOME at the right directory"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise MissingSettings(
                f"{path} is damaged ({type(error).__name__}); `flint up` writes it anew"
            ) from error


def settings_path(home: Path) -> Path:
    """Where a deployment's settings file lies."""
    return home / "run" / "settings.json"
