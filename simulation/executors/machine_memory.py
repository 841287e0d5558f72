"""How much memory a process can have: the machine's, its control group's, its own limit."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from device_runtime import this_machine

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]

_SYSTEM = Path("/")
_GROUPS = Path("sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Available:
    """Memory that can still be had.

    Attributes:
        whose: What bounds it, in words.
    """

    bytes: int
    whose: str


def memory_bytes() -> int:
    """Memory that this process can have: the machine's, or its control group's if that is less."""
    return min([this_machine.memory_bytes(), *(limit for limit, _ in _group_limits(_SYSTEM))])


def available_memory(system: Path = _SYSTEM) -> Available | None:
    """Memory that is free or would be made so, of the machine or of a control group; the least.

    Pages of files do not count as used: they go when memory is wanted.

    Args:
        system: Where the kernel's files are.

    Returns:
        None where the kernel does not say.
    """
    found = [Available(max(0, left), "its container's limit") for _, left in _group_limits(system)]
    free = _numbers(system / "proc/meminfo").get("MemAvailable:")
    if free is not None:
        found.append(Available(1024 * free, "the machine's memory"))
    return min(found, key=lambda each: each.bytes, default=None)


def address_space_left() -> Available | None:
    """What this process may still map; None without a limit."""
    if resource is None:
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    try:
        mapped = int(Path("/proc/self/statm").read_text().split()[0])
    except (OSError, ValueError):
        return None
    if limit == resource.RLIM_INFINITY:
        return None
    left = limit - mapped * os.sysconf("SC_PAGE_SIZE")
    return Available(max(0, left), "its address space (ulimit -v)")


def _group_limits(system: Path) -> Iterator[tuple[int, int]]:
    """Limits of the control groups this process is in, and what is left of each."""
    for folder, limit, used, of_files in (
        *((group, "memory.max", "memory.current", "file") for group in _own_groups(system)),
        (
            system / _GROUPS / "memory",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_cache",
        ),
    ):
        try:
            most = int((folder / limit).read_text())
            taken = int((folder / used).read_text())
        except (OSError, ValueError):  # no such group, or "max"
            continue
        yield most, most - taken + _numbers(folder / "memory.stat").get(of_files, 0)


def _own_groups(system: Path) -> Iterator[Path]:
    """Of version 2, this process's own first, then those it is in."""
    try:
        lines = (system / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    root = system / _GROUPS
    yield from (root / own, *(each for each in (root / own).parents if each.is_relative_to(root)))


def _numbers(path: Path) -> dict[str, int]:
    """First two words of each line, where the second is a number."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    words = (line.split() for line in lines)
    return {each[0]: int(each[1]) for each in words if len(each) > 1 and each[1].isdigit()}
