"""A cap on a process's memory, by a control group, on machines that let us make one."""

import contextlib
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_V1 = Path("/sys/fs/cgroup/memory")
_V2 = Path("/sys/fs/cgroup")


@cache
def can_cap_memory() -> bool:
    """Whether this process may make control groups that cap memory."""
    group = _group(f"flint-probe-{os.getpid()}")
    if group is None:
        return False
    try:
        group[0].mkdir()
    except OSError:
        return False
    usable = group[1].exists()
    group[0].rmdir()
    return usable


@contextlib.contextmanager
def memory_capped(pid: int, cap_mb: float | None) -> Iterator[bool]:
    """Have the kernel kill a process that takes more than ``cap_mb`` MB (10^6 bytes).

    ``RLIMIT_AS`` would be no substitute: address space is several times what is used.

    Args:
        pid: Of a process that has just started.
        cap_mb: None for no cap.

    Yields:
        Whether it is capped; False where the machine does not let us.
    """
    group = _group(f"flint-bench-{pid}") if cap_mb is not None and can_cap_memory() else None
    if group is None or cap_mb is None:
        yield False
        return
    folder, limit = group
    folder.mkdir()
    try:
        limit.write_text(str(int(cap_mb * 1e6)))
        with contextlib.suppress(ProcessLookupError):  # it has ended already
            (folder / "cgroup.procs").write_text(str(pid))
        yield True
    finally:
        with contextlib.suppress(OSError):  # while the kernel still counts the process in it
            folder.rmdir()


def _group(name: str) -> tuple[Path, Path] | None:
    """Folder and limit file of a group by this name; None without control groups."""
    if (_V1 / "memory.limit_in_bytes").exists():
        return _V1 / name, _V1 / name / "memory.limit_in_bytes"
    controllers = _V2 / "cgroup.subtree_control"
    try:
        if "memory" in controllers.read_text().split():
            return _V2 / name, _V2 / name / "memory.max"
    except OSError:
        return None
    return None
