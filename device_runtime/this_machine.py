"""What this machine is called, and what it has, where it stands for a device."""

import os
import platform
import shutil
from pathlib import Path


def host_device_model() -> str:
    """Name of its product: ``host`` and its processor's; benchmarks and enrolment use the same."""
    return f"host {processor_name() or platform.machine()}"[:100].rstrip()


def processor_name() -> str:
    """Model name of the first core, as Linux says it; empty where it does not."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    names = (line.partition(":")[2] for line in text.splitlines() if line.startswith("model name"))
    return " ".join("".join(c if c.isprintable() else " " for c in next(names, "")).split())


def memory_bytes() -> int:
    """Bytes of memory it has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def free_bytes(folder: Path) -> int:
    """Bytes that are free where a folder is, or is going to be."""
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    return shutil.disk_usage(there).free
