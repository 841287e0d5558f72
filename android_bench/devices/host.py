"""This machine as a device: a fresh process for each repeat, pinned to a core of its own."""

from android_bench.devices.cores import Cores
from android_bench.devices.local_worker import Conditions, LocalWorker
from android_bench.devices.repeats import answer_of_repeats
from android_bench.package import BenchPackage
from android_bench.protocol import BenchSpec, DeviceInfo
from android_bench.worker import describe_host


class HostDevice:
    """Runs workers of this machine.

    Args:
        cores: Where workers may run; shared by all devices that run here.
        worker: What runs them.
    """

    def __init__(self, cores: Cores, worker: LocalWorker | None = None) -> None:
        self._cores = cores
        self._worker = worker or LocalWorker()

    def describe(self) -> DeviceInfo:
        """See `Device.describe`."""
        return describe_host()

    def run(self, spec: BenchSpec, package: BenchPackage) -> bytes:
        """See `Device.run`."""
        with self._cores.lent() as core:
            return answer_of_repeats(
                self.describe(),
                spec,
                lambda one: self._worker.run(one, package, Conditions(core)),
            )

    def close(self) -> None:
        """See `Device.close`."""
        self._worker.close()
