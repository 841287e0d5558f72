"""`flint up`: everything a server needs, prepared and kept running."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from feature_catalog.audit_log import AuditLog
from feature_catalog.database import connect, upgrade
from feature_catalog.embedded import EmbeddedPostgres, database_url
from server.aggregation.process import aggregator_socket
from server.flower.superlink import (
    superlink_answers,
    superlink_command,
    superlink_environment,
    write_flower_configuration,
)
from server.operations.console import Console
from server.operations.enclaves import enclave_command, write_attestation_trust
from server.operations.home_claim import AlreadyRunning, HomeClaim, claim_home, running_server
from server.operations.memory import FEW_HEAPS, HEAPS_GIVE_BACK
from server.operations.ports import (
    choose_ports,
    is_accepting,
    is_accepting_socket,
    join_address,
)
from server.operations.processes import ProcessSpec
from server.operations.production import PlannedServer, require_limited_tokens, require_safe
from server.operations.settings import (
    DEVELOPMENT,
    ENCLAVE,
    EXTERNAL_ENCLAVE,
    IN_PROCESS,
    PROCESS,
    PRODUCTION,
    ServerSettings,
)
from server.operations.supervisor import Supervisor
from server.operations.tls import ensure_keys
from server.operations.told_changes import (
    renew_and_tell,
    settings_before,
    tell_keys,
    tell_settings,
)

if TYPE_CHECKING:
    from feature_catalog.on_device.rules import DeviceRules

DATABASE_URL_VARIABLE = "FLINT_DATABASE_URL"
BLOB_URL_VARIABLE = "FLINT_BLOB_URL"

_LOOPBACK = "127.0.0.1"
_ENCLAVES = (ENCLAVE, EXTERNAL_ENCLAVE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """What an operator may choose at `flint up`. A port of 0 picks a free one.

    Attributes:
        insecure: No TLS anywhere; for experiments on one machine only.
        host: Address the gateway listens on; ``0.0.0.0`` lets devices of other machines in.
        superlink_host: Address SuperLink listens on. Whoever reaches it may submit and stop
            Flower runs, so it is loopback unless SuperNodes on other machines are to join.
        hostnames: Names and addresses under which clients dial, for the certificates; localhost
            and the addresses above are always in them.
        aggregator: One of `server.operations.settings.AGGREGATORS`.
        attestation: Provider that vouches for enclaves.
        check_ins_per_s: Rate that pace steering aims at, all devices together.
        gateways: Gateway processes that share the device port. The metrics of the second are ten
            ports above those of the first, and so on.
        max_tasks_per_day: Tasks a device is given in a day (UTC); None for any number.
        device_feature_services: Feature services that devices may read besides those of open jobs:
            ``name`` (its newest contract), or ``name@contract``.
        max_feature_keys_per_day: Keys that a device may ask features of in a day, at one gateway
            process.
        device_rules: What devices may spend on features; None: `DEFAULT_RULES`.
        blob_url: fsspec URL of the blob store; None means ``$FLINT_BLOB_URL``, else a folder in
            the data directory.
        profile: ``"production"`` refuses what is not safe (`server.operations.production`).
    """

    insecure: bool = False
    host: str = _LOOPBACK
    superlink_host: str = _LOOPBACK
    hostnames: Sequence[str] = ()
    gateway_port: int = 9510
    coordinator_port: int = 9511
    superlink_port: int = 9512
    gateway_metrics_port: int = 9513
    coordinator_metrics_port: int = 9514
    aggregator: str = IN_PROCESS
    attestation: str = "software_root"
    check_ins_per_s: float = 200.0
    gateways: int = 1
    max_tasks_per_day: int | None = None
    device_feature_services: tuple[str, ...] = ()
    max_feature_keys_per_day: int = 20_000
    device_rules: "DeviceRules | None" = None
    blob_url: str | None = None
    profile: str = DEVELOPMENT


_DEFAULTS = ServerOptions()


def run_up(home: Path, options: ServerOptions = _DEFAULTS, *, quiet: bool = False) -> None:
    """Prepare ``home`` and serve until SIGINT, SIGTERM or SIGHUP.

    Args:
        quiet: Print the supervisor's own lines only; the logs are in ``<home>/logs``.

    Raises:
        FlintError: In one sentence what stands in the way: another server, a taken port, a dead
            database, a process that does not start.
    """
    home = home.absolute()  # the processes have a working directory of their own
    console = Console(quiet=quiet)
    with claim_home(home) as claim:
        database = guarded_database(home, claim)
        try:
            settings = prepare(home, options)
            specs = server_processes(settings)
        except BaseException:
            if database is not None:
                database.stop()
            raise
        _announce(settings, console)
        Supervisor(
            settings,
            specs,
            database=database,
            claim=claim,
            console=console,
            renew=lambda: renew_and_tell(settings),
        ).run()


def start_up(home: Path, options: ServerOptions = _DEFAULTS) -> Supervisor:
    """Like `run_up`, but return the supervisor once everything serves; its `stop` ends it all.

    For demos and tests that go on in the same process; nothing is printed.

    Raises:
        FlintError: See `run_up`.
    """
    home = home.absolute()
    database = embedded_database(home)
    try:
        settings = prepare(home, options)
        supervisor = Supervisor(
            settings,
            server_processes(settings),
            database=database,
            renew=lambda: renew_and_tell(settings),
        )
    except AlreadyRunning:
        raise
    except BaseException:
        if database is not None:
            database.stop()
        raise
    supervisor.start()
    return supervisor


def prepare(home: Path, options: ServerOptions = _DEFAULTS) -> ServerSettings:
    """Make everything the processes need and write ``<home>/run/settings.json``.

    Ports are checked first, before anything is made or started. Leaves the database running and
    up to date, embedded or the user's own (``$FLINT_DATABASE_URL``).

    Raises:
        AlreadyRunning: If a server runs in ``home``.
        UnsafeForProduction: If the profile is for production and a setting is not.
        PortInUse, UnusableAddress: If it cannot listen where it should.
        UnusableKeys: If certificates or keys are damaged.
        FlintError: If the database cannot be reached, started or migrated.
    """
    home = home.absolute()
    holder = running_server(home)
    if holder is not None and holder != os.getpid():
        raise AlreadyRunning(f"a FLINT server is already running in {home} (process {holder})")
    if options.profile == PRODUCTION:
        require_safe(_planned(home, options))
    ports = choose_ports(
        {
            "gateway": (options.host, options.gateway_port),
            "coordinator": (_LOOPBACK, options.coordinator_port),
            "superlink": (options.superlink_host, options.superlink_port),
            "gateway_metrics": (_LOOPBACK, options.gateway_metrics_port),
            "coordinator_metrics": (_LOOPBACK, options.coordinator_metrics_port),
        }
        | _more_metrics(options)
    )
    home.mkdir(parents=True, exist_ok=True)
    url = database_url(home)
    settings = ServerSettings(
        home=home,
        database_url=url,
        blob_url=_blob_url(home, options),
        gateway_address=join_address(options.host, ports["gateway"]),
        coordinator_address=join_address(_LOOPBACK, ports["coordinator"]),
        superlink_address=join_address(options.superlink_host, ports["superlink"]),
        gateway_metrics_port=ports["gateway_metrics"],
        coordinator_metrics_port=ports["coordinator_metrics"],
        insecure=options.insecure,
        aggregator=options.aggregator,
        attestation=options.attestation,
        check_ins_per_s=options.check_ins_per_s,
        gateways=options.gateways,
        more_gateway_metrics_ports=tuple(ports[name] for name in _more_metrics(options)),
        max_tasks_per_day=options.max_tasks_per_day,
        device_feature_services=options.device_feature_services,
        max_feature_keys_per_day=options.max_feature_keys_per_day,
        device_rules={} if options.device_rules is None else options.device_rules.to_json(),
        profile=options.profile,
    )
    engine = connect(url)
    try:
        upgrade(engine)
        if options.profile == PRODUCTION:
            require_limited_tokens(engine)
        before = settings_before(home)
        made = ensure_keys(settings, [*options.hostnames, options.host, options.superlink_host])
        if settings.has_enclave:
            write_attestation_trust(settings)
        write_flower_configuration(settings)
        settings.save()
        audit = AuditLog(engine)
        tell_settings(audit, before, settings)
        tell_keys(audit, made)
    finally:
        engine.dispose()
    return settings


def embedded_database(home: Path) -> EmbeddedPostgres | None:
    """The Postgres under ``home``; None when the user brings one."""
    if os.environ.get(DATABASE_URL_VARIABLE):
        return None
    return EmbeddedPostgres(home / "postgres")


def guarded_database(home: Path, claim: HomeClaim) -> EmbeddedPostgres | None:
    """`embedded_database`, known to the guardian before it is started."""
    database = embedded_database(home)
    if database is not None:
        claim.guardian.watch_postgres(database.data_dir)
    return database


def server_processes(settings: ServerSettings) -> tuple[ProcessSpec, ...]:
    """The processes of one deployment, in the order in which they start."""
    home = ("--home", str(settings.home))
    python = (sys.executable, "-P", "-m")  # -P: a folder of the user's never shadows a package
    # One BLAS thread a process: arrays here are small, and idle BLAS threads spin.
    environment = {
        "FLINT_HOME": str(settings.home),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        **HEAPS_GIVE_BACK,
    }
    specs = [
        ProcessSpec(
            "superlink",
            superlink_command(settings),
            lambda: superlink_answers(settings),
            superlink_environment(settings),
            stop_timeout_s=5.0,
            reads_once=None if settings.insecure else settings.certificate("superlink"),
        ),
    ]
    if settings.aggregator == ENCLAVE:
        nodes_socket = aggregator_socket(settings.home, settings.nodes_enclave)
        # Before the coordinator, which takes up a job at once.
        specs.append(
            ProcessSpec(
                "enclave-nodes",
                (*python, *enclave_command(settings, settings.nodes_enclave)),
                lambda: is_accepting_socket(nodes_socket),
                environment,
            )
        )
    specs.append(
        ProcessSpec(
            "coordinator",
            (*python, "server.coordination", *home),
            lambda: is_accepting(settings.coordinator_address),
            {**environment, **FEW_HEAPS},
        )
    )
    for number in range(settings.gateways):
        specs += _gateway_processes(settings, number, python, environment)
    return tuple(specs)


def _gateway_processes(
    settings: ServerSettings,
    number: int,
    python: tuple[str, ...],
    environment: Mapping[str, str],
) -> list[ProcessSpec]:
    """One gateway, with its aggregator before it where that is a process of its own."""
    suffix = f"-{number + 1}" if number else ""
    specs = []
    path = aggregator_socket(settings.home, number)
    commands = {
        PROCESS: (*python, "server.aggregation", "--socket", str(path)),
        ENCLAVE: (*python, *enclave_command(settings, number)),
    }
    if settings.aggregator in commands:
        specs.append(
            ProcessSpec(
                f"{'enclave' if settings.aggregator == ENCLAVE else 'aggregator'}{suffix}",
                commands[settings.aggregator],
                lambda: is_accepting_socket(path),
                environment,
            )
        )
    # The device port answers when any gateway does; each one's metrics are its own.
    metrics = join_address(_LOOPBACK, settings.gateway_metrics_ports[number])
    specs.append(
        ProcessSpec(
            f"gateway{suffix}",
            (*python, "server.gateway", "--home", str(settings.home), "--number", str(number)),
            lambda: is_accepting(metrics) and is_accepting(settings.gateway_address),
            environment,
        )
    )
    return specs


def _more_metrics(options: ServerOptions) -> dict[str, tuple[str, int]]:
    """Ports for the metrics of all gateways but the first."""
    first = options.gateway_metrics_port
    return {
        f"gateway_metrics {number + 1}": (_LOOPBACK, first + 10 * number if first else 0)
        for number in range(1, options.gateways)
    }


def _planned(home: Path, options: ServerOptions) -> PlannedServer:
    return PlannedServer(
        home=home,
        insecure=options.insecure,
        host=options.host,
        superlink_host=options.superlink_host,
        hostnames=options.hostnames,
        database_url=os.environ.get(DATABASE_URL_VARIABLE) or None,
        blob_url=_blob_url(home, options),
        database_sslmode=os.environ.get("PGSSLMODE"),
        user_id=os.geteuid(),
        attestation=options.attestation if options.aggregator in _ENCLAVES else "",
    )


def _blob_url(home: Path, options: ServerOptions) -> str:
    return options.blob_url or os.environ.get(BLOB_URL_VARIABLE) or f"file://{home / 'blobs'}"


def _announce(settings: ServerSettings, console: Console) -> None:
    console.say(f"data directory {settings.home}")
    trust = "no TLS" if settings.insecure else f"TLS, trust {settings.ca_certificate}"
    console.say(f"devices dial {settings.gateway_address} ({trust})")
    console.say(f"Flower SuperNodes dial {settings.superlink_address}")
    console.say(
        f"metrics: http://{_LOOPBACK}:{settings.gateway_metrics_port}/metrics (gateway), "
        f"http://{_LOOPBACK}:{settings.coordinator_metrics_port}/metrics (coordinator)"
    )
