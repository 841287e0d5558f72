"""Updates a second through a whole server: gateway, gate, FedBuff (buffer 50), Postgres versions.

Replayed updates of 188,141 parameters (`sparse_mlp`) from enrolled identities over TLS: each
session checks in with a signature, leases, downloads the version's parameters (0.75 MB; artefact
and manifest once a device) and uploads 0.75 MB (int8: 0.19 MB), signed and checked. The server is
the one `flint up` runs. The devices are processes of their own on the same cores, their CPU time
told apart. `updates_per_s` is by the clock, with devices and server on those cores.
`updates_per_s_of_two_cores` is computed, not seen: two over the server's CPU seconds an update,
what two cores would do that need not run the devices as well, if they shared the work evenly.

Where the time goes: `server_cpu_ms_per_update` is by process; `gateway_ms_per_update` tells how
much of the gateway's ran in the kernel (sockets, and threads handing over to each other) and in
gRPC's own threads (TLS and HTTP/2 of what comes in).

Physical limit: folding alone takes 0.12 ms an update in memory (`aggregation`), TLS 1.5 MB up and
down some 1 ms of AES-GCM and copies.

    python benchmarks/gateway_load.py [--gateways 2] [--codec int8] [--new-connections]
"""

import argparse
import json
import multiprocessing
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

from replayed_devices import Replay, drive
from server_processes import ServerProcesses, counter

from flint.deployment import Deployment
from flint.submission import stop, submit
from server.job import Job
from server.operations.settings import ServerSettings
from server.operations.up import ServerOptions, start_up

WARM_UP_S = 8.0


def job(codec: str | None, concurrency: int) -> Job:
    client: dict[str, Any] = {"optimizer": {"learning_rate": 0.05}}
    if codec is not None:
        client["compression"] = {"name": codec}
    return Job.model_validate(
        {
            "name": "load",
            "model": "sparse_mlp",
            "client": client,
            "strategy": {"name": "fedbuff", "buffer_size": 50, "concurrency": concurrency},
            "stop": {"max_aggregations": 1_000_000},
        }
    )


def scrape(settings: ServerSettings) -> dict[str, float]:
    texts = []
    for port in settings.gateway_metrics_ports:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            texts.append(answer.read().decode())
    whole = "\n".join(texts)
    return {
        "succeeded": counter(whole, "flint_gateway_updates_total", outcome="succeeded"),
        "stale": counter(whole, "flint_gateway_updates_total", outcome="stale"),
        "check_ins": counter(whole, "flint_gateway_check_ins_total"),
        "handed_on": counter(whole, "flint_gateway_handed_on_total", result="answered"),
        "turned_away": counter(whole, "flint_gateway_turned_away_total"),
        "fold_s": counter(whole, "flint_gateway_fold_seconds_sum"),
        "upload_s": counter(whole, "flint_gateway_upload_seconds_sum"),
    }


def measure(deployment: Deployment, options: argparse.Namespace) -> dict[str, Any]:
    settings = deployment.settings
    codec = None if options.codec == "float32" else options.codec
    context = multiprocessing.get_context("spawn")
    report, begin = context.Queue(), context.Event()
    token = deployment.devices.create_enrolment_token(options.devices, 3600)
    replay = Replay(
        address=settings.gateway_address,
        ca_certificate=settings.ca_certificate,
        enrolment_token=token,
        devices=options.devices // options.processes,
        model="sparse_mlp",
        codec=codec,
        new_connections=options.new_connections,
        seconds=WARM_UP_S + options.seconds + 2.0,
        seed=1,
    )
    generators = []
    for _ in range(options.processes):
        enrolled = context.Event()
        generator = context.Process(target=drive, args=(replay, enrolled, begin, report))
        generator.start()
        generators.append((generator, enrolled))
    for _, enrolled in generators:
        enrolled.wait(120)
    submitted = submit(deployment, job(codec, options.concurrency), lambda _: None)
    while not deployment.jobs.get(submitted.job_id).progress:
        time.sleep(0.1)
    begin.set()
    time.sleep(WARM_UP_S)
    before, processes, begun_s = scrape(settings), ServerProcesses(settings.home), time.monotonic()
    threads_before = processes.gateway_threads()
    time.sleep(options.seconds)
    after, cpu_s, took_s = scrape(settings), processes.cpu_s(), time.monotonic() - begun_s
    threads = processes.gateway_threads()
    resident_mb = processes.resident_mb()
    counts: Counter[str] = Counter()
    for _ in generators:
        counts.update(report.get(timeout=120))
    stop(deployment, submitted.job_id)
    for generator, _ in generators:
        generator.join(30)
    told = {name: after[name] - before[name] for name in after}
    updates, server_s = told["succeeded"], sum(cpu_s.values())
    served = counts["accepted"]
    return {
        "updates_per_s": round(updates / took_s, 1),
        "updates_per_s_of_two_cores": round(2 * updates / server_s, 1),
        "server_cores_used": round(server_s / took_s, 2),
        "server_cpu_ms_per_update": {
            name: round(1e3 * seconds / updates, 2) for name, seconds in sorted(cpu_s.items())
        },
        "gateway_ms_per_update": {
            "in_kernel": round(1e3 * (threads.kernel_s - threads_before.kernel_s) / updates, 2),
            "in_grpc_threads": round(1e3 * (threads.grpc_s - threads_before.grpc_s) / updates, 2),
        },
        "gateway_switches_per_update": round(
            (threads.switches - threads_before.switches) / updates
        ),
        "fold_ms": round(1e3 * told["fold_s"] / updates, 2),
        "upload_ms": round(1e3 * told["upload_s"] / updates, 2),
        "check_ins_per_update": round(told["check_ins"] / updates, 2),
        "handed_on_per_update": round(told["handed_on"] / updates, 2),
        "stale": int(told["stale"]),
        "turned_away": int(told["turned_away"]),
        "resident_mb": {name: round(mb) for name, mb in sorted(resident_mb.items())},
        "devices_cpu_ms_per_update": round(1e3 * counts["cpu_s"] / served, 2),
        "devices_saw": {k: v for k, v in sorted(counts.items()) if k != "cpu_s"},
        "seconds": round(took_s, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--gateways", type=int, default=1)
    parser.add_argument("--codec", default="float32", choices=["float32", "float16", "int8"])
    parser.add_argument("--devices", type=int, default=600)
    parser.add_argument("--processes", type=int, default=2, help="of devices")
    parser.add_argument("--concurrency", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--new-connections", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flint-load-") as folder:
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
                check_ins_per_s=2000.0,
                gateways=options.gateways,
            ),
        )
        try:
            figures = measure(Deployment.attach(home), options)
        finally:
            supervisor.stop()
    known = {
        "figure": "gateway_load",
        "model": "sparse_mlp",
        "parameters": 188_141,
        "codec": options.codec,
        "gateways": options.gateways,
        "devices": options.devices,
        "new_connections": options.new_connections,
        "buffer_size": 50,
        "aim_updates_per_s": 400 if options.codec == "int8" else 200,
    }
    print(json.dumps(known | figures))


if __name__ == "__main__":
    main()
