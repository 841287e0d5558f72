"""What the processes of one deployment use: CPU seconds and resident memory, by process."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

from feature_catalog.postmaster import postmaster_pid
from server.operations.supervisor import read_status


class ServerProcesses:
    """CPU seconds since it was made; of processes that go on all the while."""

    def __init__(self, home: Path) -> None:
        self._roots = {
            p.name: psutil.Process(p.pid) for p in read_status(home).processes if p.pid is not None
        }
        found = next((home / "postgres").rglob("postmaster.pid"), None)
        pid = None if found is None else postmaster_pid(found.parent)
        if pid is not None:
            self._roots["postgres"] = psutil.Process(pid)
        self._before = self._totals()

    def cpu_s(self) -> dict[str, float]:
        """By process, with its children."""
        now = self._totals()
        return {name: now[name] - self._before[name] for name in now}

    def gateway_threads(self) -> "ThreadTimes":
        """What the threads of all gateways have used since they began."""
        gateways = [root for name, root in self._roots.items() if name.startswith("gateway")]
        return sum((ThreadTimes.of(gateway.pid) for gateway in gateways), ThreadTimes())

    def resident_mb(self) -> dict[str, float]:
        """Resident memory of each process alone, 10**6 bytes."""
        return {name: root.memory_info().rss / 1e6 for name, root in self._roots.items()}

    def _totals(self) -> dict[str, float]:
        totals = {}
        for name, root in self._roots.items():
            total = 0.0
            for process in [root, *root.children(recursive=True)]:
                try:
                    times = process.cpu_times()
                except psutil.NoSuchProcess:
                    continue
                # Children that have ended are in their parent's account: Postgres forks a process
                # a connection.
                total += times.user + times.system + times.children_user + times.children_system
            totals[name] = total
        return totals


@dataclass(frozen=True, slots=True)
class ThreadTimes:
    """What the threads of a process have used that run at this moment.

    Attributes:
        kernel_s: CPU in the kernel.
        grpc_s: CPU of gRPC's own threads, in the kernel and not.
        switches: How often a thread gave its core away, by itself or not.
    """

    kernel_s: float = 0.0
    grpc_s: float = 0.0
    switches: int = 0

    def __add__(self, other: Self) -> "ThreadTimes":
        """Of both together."""
        return ThreadTimes(
            self.kernel_s + other.kernel_s,
            self.grpc_s + other.grpc_s,
            self.switches + other.switches,
        )

    @classmethod
    def of(cls, pid: int) -> Self:
        """Read them (Linux)."""
        kernel = grpc = switches = 0
        for task in Path(f"/proc/{pid}/task").iterdir():
            try:
                name, fields = (task / "stat").read_text().split("(", 1)[1].rsplit(")", 1)
                status = (task / "status").read_text()
            except OSError:
                continue  # it has ended
            user, system = map(int, fields.split()[11:13])
            kernel += system
            grpc += (user + system) * (name == "event_engine")
            switches += sum(int(n.split()[1]) for n in status.splitlines() if "_ctxt_switches" in n)
        ticks = os.sysconf("SC_CLK_TCK")
        return cls(kernel / ticks, grpc / ticks, switches)


def counter(text: str, metric: str, **labels: str) -> float:
    """Sum of a Prometheus counter over all label sets that hold these labels."""
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    lines = [line for line in text.splitlines() if line.startswith((f"{metric}{{", f"{metric} "))]
    return sum(
        float(line.rsplit(" ", 1)[1]) for line in lines if all(label in line for label in wanted)
    )
