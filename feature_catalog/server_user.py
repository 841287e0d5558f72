"""Whose process the embedded Postgres is: ours, or as root a system user of its own.

Postgres refuses to run as root. There the server runs as the system user ``flint-postgres``, which
is created when missing.
"""

import contextlib
import os
import pwd
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from device_runtime.errors import FlintError

SYSTEM_USER = "flint-postgres"


class MissingSystemUser(FlintError):
    """The system user that embedded Postgres runs as does not exist and cannot be created."""

    code = "FLN-1233"


class DirectoryNotTraversable(FlintError):
    """A directory on the way to the database is closed to the user the server runs as."""

    code = "FLN-1232"


@dataclass(frozen=True, slots=True)
class ServerUser:
    """The operating-system user of the server's processes.

    Attributes:
        is_caller: Whether it is the user of this process, so nothing needs to change hands.
    """

    name: str
    uid: int
    gid: int
    is_caller: bool

    def run(self, command: Sequence[str | Path], cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run a command as this user and capture its output; never raises for its exit status.

        Raises:
            OSError: If the command cannot be executed.
        """
        user, group, groups = (
            (None, None, None) if self.is_caller else (self.uid, self.gid, list[int]())
        )
        return subprocess.run(  # noqa: S603 - words of this package, no shell
            [str(word) for word in command],
            cwd=cwd,
            user=user,
            group=group,
            extra_groups=groups,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,
        )

    def start(self, command: Sequence[str | Path], cwd: Path, log: Path) -> int:
        """Start a command that outlives this process, output appended to ``log``.

        It runs in a session of its own (Ctrl-C in the caller's terminal does not reach it) and is
        no child of this process (nobody here has to wait for it when it ends).

        Returns:
            Its process id.

        Raises:
            OSError: If a shell cannot be executed.
        """
        script = 'log=$1; shift; "$@" </dev/null >>"$log" 2>&1 & echo $!'
        done = self.run(["/bin/sh", "-c", script, "sh", log, *command], cwd)
        return int(done.stdout)

    def environment(self) -> dict[str, str]:
        """Environment of the server's processes: none of the caller's ``PG*`` settings."""
        return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}

    def own(self, path: Path) -> None:
        """Give a path of ours inside the data directory to this user."""
        if not self.is_caller:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def own_tree(self, path: Path) -> None:
        """Give a directory and all in it to this user, unless it is his already.

        A volume that outlives its container may know the system user by another number.
        """
        if self.is_caller or not path.exists() or path.stat().st_uid == self.uid:
            return
        for folder, _, names in os.walk(path):
            for name in names:
                self.own(Path(folder) / name)
            self.own(Path(folder))

    def require_access(self, path: Path, mend: str) -> None:
        """Check that this user can reach a directory.

        Args:
            path: An existing directory.
            mend: What to do if it cannot, the end of the error's sentence.

        Raises:
            DirectoryNotTraversable: Names the topmost directory that is closed.
        """
        if self._may_enter(path):
            return
        closed = next((d for d in [*reversed(path.parents), path] if not self._may_enter(d)), None)
        if closed is None:
            return  # the check itself was broken off, by a signal say; it passes now
        raise DirectoryNotTraversable(
            f"embedded Postgres runs as the system user {self.name}, which may not enter {closed}; "
            f"{mend.format(directory=closed)}"
        )

    def _may_enter(self, directory: Path) -> bool:
        if self.is_caller:
            return True
        return self.run(["/bin/sh", "-c", 'test -x "$0"', directory], Path("/")).returncode == 0


def server_user() -> ServerUser:
    """The user that a server started by this process runs as.

    Raises:
        MissingSystemUser: As root, if the system user does not exist and cannot be created; or
            if this process's user has no entry in the user database.
    """
    uid = os.geteuid()
    if uid == 0:
        entry = _system_user()
    else:
        try:
            entry = pwd.getpwuid(uid)
        except KeyError as error:
            raise MissingSystemUser(
                f"user id {uid} has no name on this machine, and Postgres needs one; run FLINT as "
                "a user with an entry in /etc/passwd, or set FLINT_DATABASE_URL to a database "
                "elsewhere"
            ) from error
    return ServerUser(entry.pw_name, entry.pw_uid, entry.pw_gid, is_caller=uid != 0)


def _system_user() -> pwd.struct_passwd:
    with contextlib.suppress(KeyError):  # there is none yet: it is created
        return pwd.getpwnam(SYSTEM_USER)
    command = [
        *("useradd", "--system", "--user-group", "--no-create-home"),
        *("--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", SYSTEM_USER),
    ]
    useradd = shutil.which(command[0], path="/usr/sbin:/sbin:/usr/bin:/bin")
    detail = "there is no useradd"
    if useradd is not None:
        done = subprocess.run(  # noqa: S603 - words of this package, no shell
            [useradd, *command[1:]], capture_output=True, text=True, check=False
        )
        detail = done.stderr.strip() or f"useradd ended with {done.returncode}"
    try:
        # Also when useradd failed: another process may have created the user just before.
        return pwd.getpwnam(SYSTEM_USER)
    except KeyError as error:
        raise MissingSystemUser(
            f"Postgres does not run as root and the system user {SYSTEM_USER} cannot be created "
            f"({detail}); create it with `{' '.join(command)}`, run FLINT as another user, or set "
            "FLINT_DATABASE_URL"
        ) from error
