"""What `flint up --profile production` refuses: settings that are fine on a desk and not outside.

Each is a class with a code, a page and the mend. Only what an operator sets is looked at, nothing
that changes by itself: a server that was let up once starts again after a crash, by night.
"""

import ipaddress
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, func, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from device_runtime.attestation_software import PROVIDER as SOFTWARE_ROOT
from device_runtime.errors import FlintError
from feature_catalog.schema import EnrolmentTokenRecord

MOST_DEVICES_A_TOKEN = 1_000_000
LONGEST_TOKEN_DAYS = 30

_ENCRYPTED = frozenset({"require", "verify-ca", "verify-full"})
_TEMPORARY_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm", "/run")  # noqa: S108 - refused, not used
# An overlay is a container's own layer, gone with the container; a volume is a mount of its own.
_TEMPORARY_KINDS = frozenset({"tmpfs", "ramfs", "overlay"})
_MOUNTS = Path("/proc/self/mountinfo")


class UnsafeForProduction(FlintError):
    """A setting that the production profile refuses."""


class PlainTraffic(UnsafeForProduction):
    """No TLS between devices, gateways and the coordinator."""

    code = "FLN-1220"


class EmbeddedDatabase(UnsafeForProduction):
    """The embedded Postgres, which lives and dies with this machine."""

    code = "FLN-1221"


class PlainDatabaseTraffic(UnsafeForProduction):
    """A database on another machine, without TLS on the way."""

    code = "FLN-1222"


class TemporaryStorage(UnsafeForProduction):
    """Data directory or blob store where files do not last."""

    code = "FLN-1223"


class OpenDataDirectory(UnsafeForProduction):
    """A data directory that other users can write to."""

    code = "FLN-1224"


class RootServer(UnsafeForProduction):
    """A server that parses what strangers send, as root."""

    code = "FLN-1225"


class OpenSuperLink(UnsafeForProduction):
    """A SuperLink that other machines reach, and with it submitting and stopping."""

    code = "FLN-1226"


class NamelessGateway(UnsafeForProduction):
    """A gateway for other machines, whose certificate bears no name they could dial."""

    code = "FLN-1227"


class SoftwareAttestation(UnsafeForProduction):
    """Enclaves that a key on this very host vouches for."""

    code = "FLN-1219"


class UnlimitedEnrolment(UnsafeForProduction):
    """An enrolment token without a sensible limit."""

    code = "FLN-1228"


@dataclass(frozen=True, slots=True)
class PlannedServer:
    """What `flint up` was asked for.

    Attributes:
        database_url: As configured; None for the embedded Postgres.
        database_sslmode: ``$PGSSLMODE``, which counts where the URL says nothing.
        blob_url: As it will be used.
        user_id: Effective, of this process.
        attestation: Provider that vouches for enclaves; empty where there are none.
    """

    home: Path
    insecure: bool
    host: str
    superlink_host: str
    hostnames: Sequence[str]
    database_url: str | None
    blob_url: str
    database_sslmode: str | None = None
    user_id: int = -1
    attestation: str = ""


def require_safe(planned: PlannedServer) -> None:
    """Refuse what is not safe, one thing after the other.

    Raises:
        UnsafeForProduction: The first there is; names the codes of the others.
    """
    found = list(find_unsafe(planned))
    if found:
        others = ", ".join(problem.code for problem in found[1:])
        more = f"; then there is also {others}" if others else ""
        raise type(found[0])(f"{found[0].sentence}{more}")


def find_unsafe(planned: PlannedServer) -> Iterator[UnsafeForProduction]:
    """Everything the production profile refuses, in a fixed order."""
    for check in _CHECKS:
        problem = check(planned)
        if problem is not None:
            yield problem


def require_limited_tokens(engine: Engine) -> None:
    """Refuse a database with an enrolment token that lets nearly everybody in, nearly for ever.

    Raises:
        UnlimitedEnrolment: If there is one that is still valid.
    """
    record = EnrolmentTokenRecord
    days = func.extract("epoch", record.expires_at - record.created_at) / 86400
    limit = (record.max_devices > MOST_DEVICES_A_TOKEN) | (days > LONGEST_TOKEN_DAYS + 0.01)
    statement = select(func.count()).where(record.expires_at > func.now(), limit)
    with engine.connect() as connection:
        count = connection.execute(statement.select_from(record)).scalar_one()
    if count:
        raise UnlimitedEnrolment(
            f"{count} enrolment token(s) let in more than {MOST_DEVICES_A_TOKEN:,} devices or last "
            f"longer than {LONGEST_TOKEN_DAYS} days; end them with `flint device end-tokens` and "
            "make others"
        )


def require_limited_token(max_devices: int, valid_hours: float) -> None:
    """Refuse to make such a token.

    Raises:
        UnlimitedEnrolment: If it is one.
    """
    if max_devices > MOST_DEVICES_A_TOKEN or valid_hours > LONGEST_TOKEN_DAYS * 24:
        raise UnlimitedEnrolment(
            f"a token for {max_devices:,} devices and {valid_hours / 24:g} days keeps nobody out; "
            f"in production make ones for at most {MOST_DEVICES_A_TOKEN:,} devices "
            f"(--max-devices) and {LONGEST_TOKEN_DAYS} days (--valid-hours)"
        )


def _plain_traffic(planned: PlannedServer) -> UnsafeForProduction | None:
    if not planned.insecure:
        return None
    return PlainTraffic(
        "without TLS everybody on the way reads models and updates, and may send others; leave "
        "--insecure out"
    )


def _embedded_database(planned: PlannedServer) -> UnsafeForProduction | None:
    if planned.database_url is not None:
        return None
    return EmbeddedDatabase(
        "the embedded Postgres has no replica and no point-in-time recovery; set "
        "FLINT_DATABASE_URL to a Postgres that is operated as one"
    )


def _plain_database_traffic(planned: PlannedServer) -> UnsafeForProduction | None:
    url = _parsed(planned.database_url)
    if url is None or _is_on_this_machine(url):
        return None
    mode = url.query.get("sslmode", planned.database_sslmode)
    if mode in _ENCRYPTED:
        return None
    return PlainDatabaseTraffic(
        f"the database at {url.host} is reached without enforced TLS (sslmode "
        f"{mode or 'not set'}); add ?sslmode=verify-full&sslrootcert=FILE to FLINT_DATABASE_URL"
    )


def _temporary_storage(planned: PlannedServer) -> UnsafeForProduction | None:
    places = [("the data directory", planned.home)]
    scheme, separator, path = planned.blob_url.partition("://")
    if not separator:
        scheme, path = "file", planned.blob_url
    if scheme == "memory":
        return TemporaryStorage(
            "a blob store in memory keeps no model over a restart; set FLINT_BLOB_URL to a "
            "directory on a disk or to an object store"
        )
    if scheme in {"file", "local"}:
        places.append(("the blob store", Path(path)))
    for name, place in places:
        why = why_temporary(place)
        if why:
            return TemporaryStorage(
                f"{name} {place} does not last: it is {why}; put it on a disk (in a container: on "
                "a volume) with --home, FLINT_HOME or FLINT_BLOB_URL"
            )
    return None


def _open_data_directory(planned: PlannedServer) -> UnsafeForProduction | None:
    try:
        status = planned.home.stat()
    except FileNotFoundError:
        return None
    if not stat.S_IMODE(status.st_mode) & 0o022 and status.st_uid == planned.user_id:
        return None
    return OpenDataDirectory(
        f"others can write to {planned.home}, where the keys are; give it to the server's user "
        f"alone: chown that user {planned.home} and chmod go-w {planned.home}"
    )


def _root_server(planned: PlannedServer) -> UnsafeForProduction | None:
    if planned.user_id != 0:
        return None
    return RootServer(
        "a server that parses what strangers send does not run as root; run it as a user of its "
        "own, e.g. with deploy/flint.service or deploy/Dockerfile"
    )


def _open_superlink(planned: PlannedServer) -> UnsafeForProduction | None:
    if _is_loopback(planned.superlink_host):
        return None
    return OpenSuperLink(
        f"whoever reaches SuperLink on {planned.superlink_host} may submit and stop runs; leave "
        "--superlink-host at 127.0.0.1 and let SuperNodes of other machines come through a tunnel "
        "(ssh -L, WireGuard)"
    )


def _software_attestation(planned: PlannedServer) -> UnsafeForProduction | None:
    if planned.attestation != SOFTWARE_ROOT:
        return None
    return SoftwareAttestation(
        "enclaves are vouched for by a software root, whose key lies on this host: devices would "
        "be promised what root here can break; use --attestation aws_nitro, or a provider of your "
        "own"
    )


def _nameless_gateway(planned: PlannedServer) -> UnsafeForProduction | None:
    if _is_loopback(planned.host) or planned.hostnames:
        return None
    return NamelessGateway(
        f"devices of other machines cannot verify a gateway on {planned.host} without a name; say "
        "under which names they dial it, with --hostname (also several times)"
    )


_CHECKS: tuple[Callable[[PlannedServer], UnsafeForProduction | None], ...] = (
    _plain_traffic,
    _embedded_database,
    _plain_database_traffic,
    _temporary_storage,
    _open_data_directory,
    _root_server,
    _open_superlink,
    _nameless_gateway,
    _software_attestation,
)


def why_temporary(place: Path) -> str:
    """Why files do not last there; empty if they do, as far as can be told."""
    there = next((p for p in (place, *place.parents) if p.exists()), Path("/")).resolve()
    for folder in {*_TEMPORARY_FOLDERS, tempfile.gettempdir()}:
        if there.is_relative_to(folder):
            return f"in {folder}, which is emptied"
    kind = _kind_of_mount(there)
    return f"on {kind}" if kind in _TEMPORARY_KINDS else ""


def _kind_of_mount(place: Path) -> str:
    """Filesystem of a path, e.g. ``"ext4"``; empty if that cannot be told."""
    try:
        lines = _MOUNTS.read_text().splitlines()
    except OSError:
        return ""
    longest, kind = -1, ""
    for line in lines:
        before, _, after = line.partition(" - ")
        mounted = os.fsdecode(before.split()[4].encode().decode("unicode_escape"))
        if place.is_relative_to(mounted) and len(mounted) >= longest:
            longest, kind = len(mounted), after.split()[0]
    return kind


def _parsed(database_url: str | None) -> URL | None:
    try:
        return None if database_url is None else make_url(database_url)
    except ArgumentError:
        return None  # connecting tells what is wrong with it


def _is_on_this_machine(url: URL) -> bool:
    host = url.host or url.query.get("host")
    if not isinstance(host, str) or not host:
        return host is None
    return host.startswith("/") or _is_loopback(host)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
