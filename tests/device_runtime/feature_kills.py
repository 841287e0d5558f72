"""Kills `feature_worker` at random moments and looks at what it left (test, benchmark)."""

import os
import random
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from device_runtime.feature_cache import EntryKey, entry_bytes
from tests.device_runtime.feature_worker import World

WORKER = "tests.device_runtime.feature_worker"
_DEADLINE_S = 120.0
_STEPS_AT_MOST = 20_000


@dataclass
class KillFigures:
    """What all kills together gave.

    Attributes:
        observed: How often another process looked at the totals while the worker ran.
        wrongs: Limits exceeded, torn or expired values returned, totals that are not the sum.
    """

    steps: int = 0
    kills: int = 0
    observed: int = 0
    values_checked: int = 0
    wrongs: list[str] = field(default_factory=list)


def run_kills(
    folder: Path, *, steps: int, seed: int, steps_a_kill: int, least_kills: int = 1
) -> KillFigures:
    """Run ``steps`` steps or some more; about every ``steps_a_kill`` the process gets SIGKILL.

    On a busy machine a kill may come late; then more steps are run, until there are enough kills.
    """
    draws = random.Random(seed)
    figures = KillFigures()
    (folder / "steps").write_bytes(bytes(8))
    while (figures.steps < steps or figures.kills < least_kills) and not figures.wrongs:
        kill_at = figures.steps + draws.randint(1, 2 * steps_a_kill)
        last = kill_at + _STEPS_AT_MOST  # so that it ends if whoever kills it is gone
        process = subprocess.Popen(
            [sys.executable, "-m", WORKER, str(folder), str(seed), str(last)],
            stderr=subprocess.PIPE,
            text=True,
        )
        _watch(folder, process, kill_at, figures)
        time.sleep(draws.random() * 0.002)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            figures.kills += 1
        said = process.communicate()[1]
        if process.returncode not in (0, -signal.SIGKILL):
            figures.wrongs.append(said.strip()[-500:])
        figures.steps = steps_done(folder)
        _look(folder, figures)
    return figures


def steps_done(folder: Path) -> int:
    return int(struct.unpack("<q", (folder / "steps").read_bytes())[0])


def _watch(folder: Path, process: subprocess.Popen, kill_at: int, figures: KillFigures) -> None:
    """Until it is time to kill, look at the totals as another process sees them."""
    world = World(folder, steps_done(folder)) if (folder / "features.sqlite").exists() else None
    deadline_s = time.monotonic() + _DEADLINE_S
    while process.poll() is None and steps_done(folder) < kill_at:
        if world is not None:
            figures.wrongs += [f"seen: {wrong}" for wrong in world.wrongs_of_limits()]
            figures.observed += 1
        time.sleep(0.0005)
        if time.monotonic() > deadline_s:
            process.kill()
            figures.wrongs.append("the worker stands still")
    if world is not None:
        world.database.close()


def _look(folder: Path, figures: KillFigures) -> None:
    """What a killed process left: first as it lies in the file, then as a device opens it."""
    with sqlite3.connect(folder / "features.sqlite") as raw:
        sound = raw.execute("PRAGMA integrity_check").fetchone()[0]
        if sound != "ok":
            figures.wrongs.append(sound)
        for part in ("entries", "records"):
            lie = raw.execute(f"SELECT count(*), coalesce(sum(bytes), 0) FROM {part}").fetchone()
            told = raw.execute(
                "SELECT coalesce(sum(rows), 0), coalesce(sum(bytes), 0) FROM totals WHERE part = ?",
                (part,),
            ).fetchone()
            if lie != told:
                figures.wrongs.append(f"{part}: totals say {told}, the rows {lie}")
        query = "SELECT app, view, key, transform, assets, body, bytes FROM entries"
        for app, view, key, transform, assets, body, counted in raw.execute(query):
            if entry_bytes(app, view, EntryKey(key, transform, assets), body) != counted:
                figures.wrongs.append(f"{view} {key!r} counts as {counted} bytes")
            figures.values_checked += 1
    raw.close()
    world = World(folder, figures.steps)
    figures.wrongs += world.wrongs_of_limits() + world.wrongs_of_values()
    world.database.close()
