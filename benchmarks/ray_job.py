"""The quickstart by ``ray job submit`` on a cluster of one node, beside the same run without Ray.

What is compared: events, trajectory and metric of ``flint simulate``, submitted as docs/cluster.md
says to a cluster that is started for it (``ray start --head``, dashboard included), with those of
``executors: {kind: local}``. ``same`` says whether all are equal, to the bit. The seconds beside it
are wall seconds of both commands, Python and Ray's own starts included.

    python benchmarks/ray_job.py
"""

import argparse
import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
EQUAL = ("trajectory_sha256", "events_sha256", "metric")
EXECUTORS = 2
_BIN = Path(sys.executable).parent


def free_port() -> int:
    """One that the system gives to nobody by itself: Ray's processes take those as they start."""
    while True:
        port = secrets.randbelow(10_000) + 20_000
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


@contextlib.contextmanager
def one_node(folder: Path) -> Iterator[str]:
    """A cluster whose processes end with the block; yields where jobs are submitted."""
    dashboard = free_port()
    command = [str(_BIN / "ray"), "start", "--head", "--num-cpus", str(EXECUTORS)]
    command += ["--port", str(free_port()), "--temp-dir", str(folder / "ray")]
    command += ["--ray-client-server-port", str(free_port()), "--disable-usage-stats"]
    command += ["--include-dashboard=true", "--dashboard-port", str(dashboard)]
    starter = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        if starter.wait() != 0:
            raise SystemExit("ray start failed")
        deadline_s = time.monotonic() + 120
        while not answers(dashboard):
            if time.monotonic() > deadline_s:
                raise SystemExit("the cluster that was started takes no jobs")
            time.sleep(0.2)
        yield f"http://127.0.0.1:{dashboard}"
    finally:
        # Not by ray stop, which ends every cluster of this machine.
        for _ in range(2):
            every = psutil.process_iter(["cmdline"])
            started = [each for each in every if is_of(each, folder, starter.pid)]
            for process in started:
                process.kill()
            psutil.wait_procs(started, timeout=30)


def is_of(process: psutil.Process, folder: Path, session: int) -> bool:
    """Whether a process names the folder or is of the session; Ray's agents have no arguments."""
    if str(folder) in " ".join(process.info["cmdline"] or ()):
        return True
    with contextlib.suppress(ProcessLookupError, PermissionError):
        return os.getsid(process.pid) == session
    return False


def answers(port: int) -> bool:
    """Whether jobs can be submitted."""
    with contextlib.suppress(OSError), urlopen(f"http://127.0.0.1:{port}/api/version") as answer:
        return bool(answer.status == 200)
    return False


def last_json(said: str) -> dict[str, Any]:
    """The run's figures among whatever else was printed."""
    lines = [line for line in said.splitlines() if line.startswith('{"run_id"')]
    if not lines:
        raise SystemExit(said[-3000:])
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def run(command: list[str], **environment: str) -> tuple[dict[str, Any], float]:
    began_s = time.perf_counter()
    finished = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        cwd=EXAMPLES.parent,
        env={**os.environ, **environment},
    )
    return last_json(finished.stdout), time.perf_counter() - began_s


def measure() -> dict[str, object]:
    folder = Path(tempfile.mkdtemp(prefix="flint-job-", dir="/tmp"))
    home = folder / "home"
    home.mkdir()
    for each in (folder, home):
        each.chmod(0o755)  # as root Postgres has a user of its own
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    flint = [str(_BIN / "flint"), "simulate", "--json", "--executors", str(EXECUTORS)]
    try:
        with one_node(folder) as address:
            submit = [str(_BIN / "ray"), "job", "submit", "--working-dir", str(EXAMPLES)]
            variables = {"env_vars": {"FLINT_HOME": str(home)}}
            submit += ["--runtime-env-json", json.dumps(variables), "--"]
            files = ["quickstart/job.yaml", "-e", "cluster/environment.yaml"]
            there, there_s = run([*submit, *flint, *files], RAY_API_SERVER_ADDRESS=address)
        files = [str(EXAMPLES / "quickstart" / name) for name in ("job.yaml", "environment.yaml")]
        here, here_s = run([*flint, files[0], "-e", files[1]], FLINT_HOME=str(home))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "figure": "ray_job",
        "executors": EXECUTORS,
        "aggregations": there["aggregations"],
        "tasks": there["tasks_started"],
        "same": all(there[name] == here[name] for name in EQUAL),
        "submitted_wall_s": round(there_s, 1),
        "local_wall_s": round(here_s, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--json", action="store_true", help="one line, which is all there is")
    parser.parse_args()
    print(json.dumps(measure()))


if __name__ == "__main__":
    main()
