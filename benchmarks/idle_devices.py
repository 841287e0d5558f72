"""What 10,000 enrolled devices that wait for work cost: a check-in every 5 minutes in the mean.

Every check-in is a TLS connection of its own, as after a phone's sleep: handshake, one signed
call, good-bye. Devices come as a Poisson process at 10,000 / 300 s = 33 a second; before the
measurement each has checked in once, so that the gateway knows all of them. The devices are a
process of their own. Percent of one core and resident memory of every server process; no job runs.

Physical limit: one P-256 handshake and two signature checks are some 0.3 ms of CPU, 1 % at this
rate.

    python benchmarks/idle_devices.py
"""

import argparse
import json
import multiprocessing
import random
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path

from server_processes import ServerProcesses

from device_runtime.gateway_client import GatewayClient, open_channel
from device_runtime.identity import DeviceKey, sign_check_in, sign_enrol
from device_runtime.protocol import device_pb2 as pb
from flint.deployment import Deployment
from server.operations.up import ServerOptions, start_up

_THREADS = 16


class IdleDevice:
    """An identity that only ever asks for work."""

    def __init__(self, client: GatewayClient, token: str) -> None:
        self._key = DeviceKey.generate()
        request = pb.EnrolRequest(
            enrolment_token=token,
            app_id="com.example.idle",
            device_model="idle",
            os_release="2024-05",
        )
        sign_enrol(self._key, request)
        enrolled = client.enrol(request)
        self._id, self._credential = enrolled.device_id, enrolled.credential

    def check_in(self, client: GatewayClient) -> None:
        """Ask, and be told when to come back."""
        request = pb.CheckInRequest(runtime_version=1)
        sign_check_in(
            self._key,
            request,
            device_id=self._id,
            credential=self._credential,
            timestamp_ms=int(time.time() * 1000),
        )
        client.check_in(request)


def drive(
    address: str,
    ca: Path,
    token: str,
    options: argparse.Namespace,
    ready: Event,
    report: "Queue[dict[str, float]]",
) -> None:
    with ThreadPoolExecutor(_THREADS) as pool:
        channels = [open_channel(address, ca) for _ in range(_THREADS)]
        clients = [GatewayClient(channel) for channel in channels]
        devices = list(
            pool.map(lambda n: IdleDevice(clients[n % _THREADS], token), range(options.devices))
        )
        list(pool.map(lambda n: devices[n].check_in(clients[n % _THREADS]), range(options.devices)))
        for channel in channels:
            channel.close()
        ready.set()

        def come(device: IdleDevice) -> float:
            begun_s = time.monotonic()
            channel = open_channel(address, ca)
            device.check_in(GatewayClient(channel))
            channel.close()
            return time.monotonic() - begun_s

        draws = random.Random(7)
        cpu_before_s, begun_s = time.process_time(), time.monotonic()
        at_s, coming = begun_s, []
        while at_s < begun_s + options.seconds:
            at_s += draws.expovariate(options.devices / options.mean_s)
            time.sleep(max(0.0, at_s - time.monotonic()))
            coming.append(pool.submit(come, draws.choice(devices)))
        took_s = sorted(each.result() for each in coming)
        report.put(
            {
                "check_ins": len(took_s),
                "median_s": took_s[len(took_s) // 2],
                "p99_s": took_s[int(0.99 * len(took_s))],
                "cpu_s": time.process_time() - cpu_before_s,
            }
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--mean-s", type=float, default=300.0)
    parser.add_argument("--seconds", type=float, default=120.0)
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    ready, report = context.Event(), context.Queue()
    with tempfile.TemporaryDirectory(prefix="flint-idle-") as folder:
        home = Path(folder)
        home.chmod(0o755)
        supervisor = start_up(
            home,
            ServerOptions(
                gateway_port=0,
                coordinator_port=0,
                superlink_port=0,
                gateway_metrics_port=0,
                coordinator_metrics_port=0,
            ),
        )
        try:
            deployment = Deployment.attach(home)
            token = deployment.devices.create_enrolment_token(options.devices, 3600)
            settings = deployment.settings
            devices = context.Process(
                target=drive,
                args=(
                    settings.gateway_address,
                    settings.ca_certificate,
                    token,
                    options,
                    ready,
                    report,
                ),
            )
            devices.start()
            ready.wait()
            processes, begun_s = ServerProcesses(home), time.monotonic()
            told = report.get()
            took_s, cpu_s = time.monotonic() - begun_s, processes.cpu_s()
            resident_mb = processes.resident_mb()
            devices.join()
        finally:
            supervisor.stop()
    share = {name: round(100 * seconds / took_s, 1) for name, seconds in sorted(cpu_s.items())}
    figures = {
        "figure": "idle_devices",
        "devices": options.devices,
        "mean_check_in_s": options.mean_s,
        "check_ins_per_s": round(told["check_ins"] / took_s, 1),
        "gateway_core_percent": share["gateway"],
        "gateway_resident_mb": round(resident_mb["gateway"]),
        "gateway_cpu_ms_per_check_in": round(1e3 * cpu_s["gateway"] / told["check_ins"], 2),
        "core_percent": share,
        "resident_mb": {name: round(mb) for name, mb in sorted(resident_mb.items())},
        "check_in_median_s": round(told["median_s"], 4),
        "check_in_p99_s": round(told["p99_s"], 4),
        "devices_cpu_ms_per_check_in": round(1e3 * told["cpu_s"] / told["check_ins"], 2),
        "aim_core_percent": 10,
        "aim_resident_mb": 300,
        "seconds": round(took_s, 1),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
