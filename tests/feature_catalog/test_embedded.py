"""The embedded Postgres: started by several, survived by its data, stopped for good."""

import gc
import multiprocessing
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import text

from feature_catalog.database import DatabaseUnreachable, connect, upgrade
from feature_catalog.embedded import EmbeddedPostgres, EmbeddedPostgresFailed, database_url
from feature_catalog.server_user import SYSTEM_USER, DirectoryNotTraversable

pytestmark = pytest.mark.integration
as_root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def server(flint_home: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(flint_home / "postgres")
    yield server
    server.stop()


def postmaster(server: EmbeddedPostgres) -> psutil.Process:
    return psutil.Process(
        int((server.data_dir / "pgdata" / "postmaster.pid").read_text().splitlines()[0])
    )


def is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def wait_until(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "condition not met in time"
        time.sleep(0.02)


def query(url: str, statement: str) -> list[tuple[object, ...]]:
    engine = connect(url)
    with engine.begin() as connection:
        result = connection.execute(text(statement))
        rows = [tuple(row) for row in result] if result.returns_rows else []
    engine.dispose()
    return rows


def test_it_starts_empty_in_utf8_and_keeps_what_was_written(server: EmbeddedPostgres) -> None:
    url = server.start()
    assert server.is_running()
    assert query(url, "SHOW server_encoding") == [("UTF8",)]
    query(url, "CREATE TABLE t AS SELECT 'ä' AS word")
    server.stop()
    assert not server.is_running()
    assert server.start() == url
    assert query(url, "SELECT word FROM t") == [("ä",)]


def test_asking_whether_it_runs_leaves_nothing_for_the_garbage_collector(
    server: EmbeddedPostgres,
) -> None:
    server.start()
    assert server.is_running()
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            assert server.is_running()
        assert gc.collect() < 200  # an engine of SQLAlchemy's each time would be some thousands
    finally:
        gc.enable()


def test_it_listens_on_its_private_socket_only(server: EmbeddedPostgres) -> None:
    url = server.start()
    assert query(url, "SHOW listen_addresses") == [("",)]
    assert query(url, "SHOW fsync") == [("on",)]
    process = postmaster(server)
    assert [c for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN] == []
    for private in ("pgdata", "socket"):
        status = (server.data_dir / private).stat()
        assert stat.S_IMODE(status.st_mode) == 0o700
        assert status.st_uid == process.uids().effective
    assert query(url, "SELECT DISTINCT type, auth_method FROM pg_hba_file_rules") == [
        ("local", "peer")
    ]


def test_attaching_starts_nothing_new(server: EmbeddedPostgres) -> None:
    url = server.start()
    first = postmaster(server)
    assert EmbeddedPostgres(server.data_dir).start() == url
    assert postmaster(server) == first


def _start_and_upgrade(data_dir: Path, barrier: "multiprocessing.synchronize.Barrier") -> None:
    barrier.wait()
    upgrade(connect(EmbeddedPostgres(data_dir).start()))


def test_three_processes_starting_and_migrating_at_once_share_one_server(
    server: EmbeddedPostgres,
) -> None:
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(3)
    processes = [
        spawn.Process(target=_start_and_upgrade, args=(server.data_dir, barrier)) for _ in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert server.is_running()  # it outlives those who started it
    assert query(server.url("flint"), "SELECT count(*) FROM jobs") == [(0,)]
    servers = [
        p
        for p in psutil.process_iter(["cmdline"])
        if str(server.data_dir / "pgdata") in (p.info["cmdline"] or [])
    ]
    assert len(servers) == 1


def test_it_comes_back_after_kill_9_with_every_committed_row(server: EmbeddedPostgres) -> None:
    url = server.start()
    query(url, "CREATE TABLE t AS SELECT 1 AS kept")
    postmaster(server).kill()
    wait_until(lambda: not server.is_running())
    assert server.start() == url
    assert query(url, "SELECT kept FROM t") == [(1,)]


def test_a_stale_pid_file_with_another_programs_number_is_seen_through(
    server: EmbeddedPostgres,
) -> None:
    server.start()
    pid_file = server.data_dir / "pgdata" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    owner = pid_file.stat()
    server.stop()
    # A process of the server's own user, which Postgres itself would take for a live server.
    other = (
        subprocess.Popen(["sleep", "60"], user=owner.st_uid, group=owner.st_gid, extra_groups=[])
        if os.geteuid() == 0
        else subprocess.Popen(["sleep", "60"])
    )
    try:
        pid_file.write_text("\n".join([str(other.pid), *lines[1:]]) + "\n")
        os.chown(pid_file, owner.st_uid, owner.st_gid)
        assert not server.is_running()
        server.stop()
        assert other.poll() is None
        server.start()
        assert server.is_running()
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


@pytest.mark.parametrize("content", ["", "garbage\n", "-1\n"])
def test_a_damaged_pid_file_does_not_keep_it_from_starting(
    server: EmbeddedPostgres, content: str
) -> None:
    server.start()
    server.stop()
    (server.data_dir / "pgdata" / "postmaster.pid").write_text(content)
    server.start()
    assert server.is_running()


def test_an_interrupted_set_up_is_done_anew(server: EmbeddedPostgres) -> None:
    (server.data_dir / "pgdata.new" / "base").mkdir(parents=True)
    server.start()
    assert server.is_running()
    assert not (server.data_dir / "pgdata.new").exists()


def test_ctrl_c_in_the_starters_terminal_does_not_reach_it(server: EmbeddedPostgres) -> None:
    server.start()
    process = postmaster(server)
    assert os.getsid(process.pid) != os.getsid(0)
    assert os.getpgid(process.pid) != os.getpgid(0)


def test_ctrl_c_ends_the_starter_and_leaves_the_server(server: EmbeddedPostgres) -> None:
    script = (
        "import sys, pathlib, time\n"
        "from feature_catalog.embedded import EmbeddedPostgres\n"
        "EmbeddedPostgres(pathlib.Path(sys.argv[1])).start()\n"
        "print('started', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(server.data_dir)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == "started\n"
        os.killpg(starter.pid, signal.SIGINT)
    assert starter.returncode != 0
    assert server.is_running()


def test_stop_leaves_no_process_even_with_clients_connected(server: EmbeddedPostgres) -> None:
    engine = connect(server.start())
    process = postmaster(server)
    family = [process, *process.children(recursive=True)]
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        server.stop()
        wait_until(
            lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family)
        )
        connection.invalidate()
    assert not server.is_running()
    server.stop()  # and stopping what does not run is nothing
    EmbeddedPostgres(server.data_dir / "never-started").stop()
    assert not (server.data_dir / "never-started").exists()


def test_a_server_in_use_is_not_stopped_under_its_users(server: EmbeddedPostgres) -> None:
    url = server.start()
    with server.in_use(), EmbeddedPostgres(server.data_dir).in_use():
        server.stop()
        assert query(url, "SELECT 1") == [(1,)]
    server.stop()
    assert not server.is_running()


def test_a_data_directory_too_deep_for_a_socket_works(flint_home: Path) -> None:
    deep = flint_home / ("d" * 60) / ("e" * 60)
    server = EmbeddedPostgres(deep / "postgres")
    try:
        url = server.start()
        assert query(url, "SELECT 1") == [(1,)]
        (directory,) = Path("/tmp").glob("flint-postgres-*") if url else ()
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    finally:
        server.stop()
        shutil.rmtree(directory)


def test_a_socket_directory_that_others_could_have_made_is_refused(flint_home: Path) -> None:
    server = EmbeddedPostgres(flint_home / "postgres")
    server.data_dir.mkdir()
    (server.data_dir / "socket").mkdir(mode=0o755)
    with pytest.raises(EmbeddedPostgresFailed, match="with mode 0700 and is not"):
        server.start()


def test_what_postgres_said_is_in_the_sentence_when_it_does_not_start(
    server: EmbeddedPostgres,
) -> None:
    server.start()
    server.stop()
    config = server.data_dir / "pgdata" / "postgresql.conf"
    config.write_text(config.read_text() + "\nno_such_setting = on\n")
    with pytest.raises(EmbeddedPostgresFailed, match="configuration file") as error:
        server.start()
    assert "\n" not in str(error.value)


def test_data_of_another_major_version_is_refused(server: EmbeddedPostgres) -> None:
    server.start()
    server.stop()
    (server.data_dir / "pgdata" / "PG_VERSION").write_text("15\n")
    with pytest.raises(EmbeddedPostgresFailed, match="made by Postgres 15"):
        server.start()


def test_a_path_that_cannot_be_a_directory_is_refused(flint_home: Path) -> None:
    (flint_home / "postgres").write_text("a file")
    with pytest.raises(EmbeddedPostgresFailed, match="cannot be written"):
        EmbeddedPostgres(flint_home / "postgres").start()


def test_a_configured_url_is_used_instead(
    flint_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLINT_DATABASE_URL", "postgresql://elsewhere/flint")
    assert database_url(flint_home) == "postgresql://elsewhere/flint"
    assert list(flint_home.iterdir()) == []


@as_root_only
def test_as_root_the_server_is_the_system_users_and_no_parent_changes(
    flint_home: Path, server: EmbeddedPostgres
) -> None:
    before = [(p, p.stat().st_mode, p.stat().st_uid) for p in (flint_home, *flint_home.parents)]
    server.start()
    assert postmaster(server).username() == SYSTEM_USER
    assert [(p, p.stat().st_mode, p.stat().st_uid) for p, _, _ in before] == before


@as_root_only
def test_as_root_a_closed_parent_is_refused_with_the_mend(flint_home: Path) -> None:
    closed = flint_home / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(DirectoryNotTraversable, match=f"chmod o\\+x {closed}`"):
        EmbeddedPostgres(closed / "postgres").start()
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@as_root_only
def test_another_user_gets_no_connection(server: EmbeddedPostgres) -> None:
    url = server.start()
    # Even past the closed directory, the kernel tells Postgres who is calling.
    (server.data_dir / "socket").chmod(0o755)
    (server.data_dir / "socket" / ".s.PGSQL.5432").chmod(0o777)
    try:
        assert "Peer authentication failed" in _as_nobody(_connection_error, url)
    finally:
        (server.data_dir / "socket").chmod(0o700)


@as_root_only
def test_an_ordinary_user_runs_it_as_himself(flint_home: Path) -> None:
    user = pwd.getpwnam("nobody")
    os.chown(flint_home, user.pw_uid, user.pw_gid)
    server = EmbeddedPostgres(flint_home / "postgres")
    assert _as_nobody(_start_and_name_owner, server.data_dir) == "nobody"
    # Root comes later and may attach and stop, but writes nothing where another user could
    # have put links.
    assert query(server.start(), "SELECT 1") == [(1,)]
    server.stop()
    with pytest.raises(EmbeddedPostgresFailed, match="run FLINT as that user"):
        server.start()
    assert _as_nobody(_start_and_name_owner, server.data_dir) == "nobody"
    server.stop()


@as_root_only
def test_a_volume_from_where_the_system_user_had_another_number_is_taken_over(
    server: EmbeddedPostgres,
) -> None:
    url = server.start()
    query(url, "CREATE TABLE t AS SELECT 1 AS kept")
    server.stop()
    for place in ("pgdata", "socket"):
        subprocess.run(["chown", "-R", "12345:12345", server.data_dir / place], check=True)
    server.start()
    assert query(url, "SELECT kept FROM t") == [(1,)]
    assert postmaster(server).username() == SYSTEM_USER


@as_root_only
def test_a_server_of_another_user_is_refused_in_one_sentence(server: EmbeddedPostgres) -> None:
    server.start()
    assert "cannot be written" in _as_nobody(_start_error, server.data_dir)


def _connection_error(url: str) -> str:
    try:
        connect(url)
    except DatabaseUnreachable as error:
        return str(error)
    return "connected"


def _start_error(data_dir: Path) -> str:
    try:
        EmbeddedPostgres(data_dir).start()
    except EmbeddedPostgresFailed as error:
        return str(error)
    return "started"


def _start_and_name_owner(data_dir: Path) -> str:
    server = EmbeddedPostgres(data_dir)
    server.start()
    return postmaster(server).username()


def _as_nobody(function: Callable[[Any], str], argument: object) -> str:
    """Call a function in a forked process of the user ``nobody``.

    Forked, not spawned: the interpreter may lie in a home that user cannot read.
    """
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)

    def call() -> None:
        user = pwd.getpwnam("nobody")
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
        try:
            sender.send(function(argument))
        except BaseException as error:
            sender.send(repr(error))
            raise

    process = fork.Process(target=call)
    process.start()
    answer = receiver.recv() if receiver.poll(60) else "no answer"
    process.join()
    return str(answer)
