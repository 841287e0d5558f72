"""A round of 100 clients on a model of 25 million parameters (100 MB): 20 GB exchanged.

Every device is an enrolled identity over TLS: it checks in with a signature, downloads the version
(100 MB) and uploads an update (100 MB, in parts, signed) through gateway, both halves of the gate
and a FedAvg round of 100; every version is in Postgres and the blob store. Nothing trains: updates
are replayed, by a process whose CPU time is told apart. It shares the cores with the server.

Resident memory of each server process is sampled five times a second: the median and the highest of
each round. What grows by design, one file of 100 MB a version, is on disk. (Flower's 2020 paper
exchanges 20 GB a round with 100 clients and a model of this size.)

Physical limits of an exchanged byte: TLS and gRPC on both sides; of an uploaded one SHA-256, a file
and back, the gate's pass over the values and the sum's.

    python benchmarks/large_model.py [--clients 20] [--rounds 3] [--aggregator process]
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from replayed_devices import Replay, ReplayedDevice
from server_processes import ServerProcesses

from device_runtime.gateway_client import GatewayError
from device_runtime.hashing import MAX_IDS, PADDING
from device_runtime.manifest import ArtifactManifest, InputSpec
from device_runtime.update_codec import encode_update, sha256_of
from flint.deployment import Deployment
from modeling import zoo
from modeling.spec import Dense, HashedBag, ModelSpec
from server.flower.adapter import submit_run
from server.job import Job
from server.operations.processes import ProcessSpec
from server.operations.supervisor import Supervisor
from server.operations.up import ServerOptions, embedded_database, prepare, server_processes

MODEL = ModelSpec(
    name="large_mlp",
    layers=(
        HashedBag("bag", 137_000, 180),
        Dense("hidden", 180, 1800, "relu"),
        Dense("logit", 1800, 1, "none"),
    ),
    input=InputSpec("bucket_ids", (MAX_IDS,), "int32", PADDING),
    label_shape=(1,),
    loss="binary_cross_entropy",
    metric="auprc",
)
OPTIONS = ServerOptions(
    gateway_port=0,
    coordinator_port=0,
    superlink_port=0,
    gateway_metrics_port=0,
    coordinator_metrics_port=0,
    check_ins_per_s=1000.0,
)
SAMPLE_S = 0.2
LONGEST_WAIT_S = 2.0


def register_model() -> None:
    zoo.MODELS = {**zoo.MODELS, MODEL.name: MODEL}


def coordinate() -> int:
    """The coordinator, in whose registry the benchmark's model is too."""
    from server.coordination.__main__ import main as coordinator

    register_model()
    sys.argv = ["server.coordination", *sys.argv[2:]]
    return coordinator()


def job(clients: int, rounds: int) -> Job:
    return Job.model_validate(
        {
            "name": "large-model",
            "model": MODEL.name,
            "client": {"optimizer": {"learning_rate": 0.05}, "task_timeout_s": 3600},
            "strategy": {
                "name": "fedavg",
                "cohort_size": clients,
                "over_commitment": 1.0,
                "round_deadline_s": 3600,
                "min_updates": clients,
            },
            "stop": {"max_aggregations": rounds},
        }
    )


def submit(deployment: Deployment, wanted: Job) -> str:
    """As `flint submit`, with an artefact that nobody opens."""
    manifest = ArtifactManifest(
        model=MODEL.name,
        model_sha256=sha256_of(b"not a model").hex(),
        model_bytes=len(b"not a model"),
        batch_size=wanted.client.batch_size,
        optimizer=wanted.client.optimizer.name,
        proximal=False,
        parameters=MODEL.parameters,
        tensor_names={},
        input=MODEL.input,
        label_shape=MODEL.label_shape,
        loss=MODEL.loss,
    )
    deployment.models.register_artifact(b"not a model", manifest)
    run_id = submit_run(deployment.settings, wanted.name)
    return deployment.jobs.submit(wanted.to_json(), wanted.name, run_id)


# -- devices ------------------------------------------------------------------------------------


def drive(replay: Replay, at_once: int, ready: Any, over: Any, report: Any) -> None:  # noqa: ANN401
    """The devices' process: identities take turns on ``at_once`` threads until ``over`` is set."""
    register_model()
    generator = np.random.default_rng(replay.seed)
    delta = [
        generator.standard_normal(p.shape, np.float32) * np.float32(1e-4) for p in MODEL.parameters
    ]
    payload = encode_update(
        MODEL.parameters, delta, num_examples=20, loss_before=0.7, loss_after=0.6
    )
    del delta
    payloads = [(payload, sha256_of(payload))]
    devices = [ReplayedDevice(replay, payloads) for _ in range(replay.devices)]
    ready.set()
    counts: Counter[str] = Counter()
    changed = threading.Lock()
    idle = list(reversed(devices))

    def work() -> None:
        mine: Counter[str] = Counter()
        while not over.is_set():
            with changed:
                device = idle.pop() if idle else None
            if device is None:
                time.sleep(0.05)
                continue
            try:
                before = mine["accepted"]
                wait_s = device.session(mine)
                if mine["accepted"] == before:
                    time.sleep(min(wait_s, LONGEST_WAIT_S) / len(devices) * at_once)
            except GatewayError as error:
                mine[f"error_{error.status}"] += 1
                time.sleep(0.5)
            with changed:
                idle.insert(0, device)
        with changed:
            counts.update(mine)

    with ThreadPoolExecutor(at_once) as pool:
        for future in [pool.submit(work) for _ in range(at_once)]:
            future.result()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    counts["cpu_s"] = round(usage.ru_utime + usage.ru_stime, 1)  # type: ignore[assignment]
    report.put(dict(counts))
    for device in devices:
        device.close()


# -- measuring ----------------------------------------------------------------------------------


class MemoryOverTime:
    """Resident memory of the server's processes, sampled, in stretches; 10**6 bytes."""

    def __init__(self, processes: ServerProcesses) -> None:
        self._processes = processes
        self._lock = threading.Lock()
        self._stretches: list[dict[str, list[float]]] = [{}]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def next_stretch(self) -> None:
        """What is sampled from here on is told apart."""
        with self._lock:
            self._stretches.append({})

    def stop(self) -> list[dict[str, list[float]]]:
        """All samples of each stretch, by process."""
        self._over.set()
        self._thread.join()
        return [stretch for stretch in self._stretches if stretch]

    def _sample(self) -> None:
        while not self._over.wait(SAMPLE_S):
            resident = self._processes.resident_mb()
            with self._lock:
                for name, mb in resident.items():
                    self._stretches[-1].setdefault(name, []).append(mb)


def measure(deployment: Deployment, options: argparse.Namespace) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    report, ready, over = context.Queue(), context.Event(), context.Event()
    settings = deployment.settings
    replay = Replay(
        address=settings.gateway_address,
        ca_certificate=settings.ca_certificate,
        enrolment_token=deployment.devices.create_enrolment_token(options.clients, 3600),
        devices=options.clients,
        model=MODEL.name,
        codec=None,
        new_connections=False,
        seconds=0.0,
        seed=1,
    )
    generator = context.Process(target=drive, args=(replay, options.at_once, ready, over, report))
    generator.start()
    if not ready.wait(300):
        raise SystemExit("the devices did not enrol")
    processes = ServerProcesses(settings.home)
    memory = MemoryOverTime(processes)
    begun_s = time.monotonic()
    job_id = submit(deployment, job(options.clients, options.rounds))
    round_ends_s: list[float] = []
    while (row := deployment.jobs.get(job_id)).status in {"queued", "running"}:
        if row.progress.get("version", 0) > len(round_ends_s):
            round_ends_s.append(time.monotonic())
            memory.next_stretch()
            print(
                f"round {len(round_ends_s)} after {round_ends_s[-1] - begun_s:.0f} s",
                file=sys.stderr,
            )
        if not generator.is_alive():
            raise SystemExit("the devices' process ended")
        time.sleep(0.1)
    if row.status != "finished":
        raise SystemExit(f"the job ended {row.status}: {row.detail}")
    cpu_s, took_s = processes.cpu_s(), time.monotonic() - begun_s
    over.set()
    counts = report.get(timeout=120)
    generator.join(60)
    stretches = memory.stop()
    exchanged = counts["bytes_down"] + counts["bytes_up"]
    updates = row.progress["updates"]
    # The job's last sums come just before it ends: the last stretch may be none of a round.
    rounds = stretches[: options.rounds]
    gb = exchanged / 1e9
    return {
        "updates": updates,
        "gb_exchanged": round(gb, 2),
        "seconds": round(took_s, 1),
        "mb_per_s": round(exchanged / 1e6 / took_s, 1),
        "gb_a_round": round(gb / options.rounds, 2),
        "server_cpu_s": {name: round(s, 1) for name, s in sorted(cpu_s.items())},
        "server_cpu_s_per_gb": round(sum(cpu_s.values()) / gb, 2),
        "devices_cpu_s": counts["cpu_s"],
        "resident_mb_by_round": {
            name: {
                "median": [round(statistics.median(stretch[name])) for stretch in rounds],
                "highest": [round(max(stretch[name])) for stretch in rounds],
            }
            for name in ("gateway", "aggregator", "coordinator", "postgres", "superlink")
            if name in rounds[0]
        },
        "devices_saw": {k: v for k, v in sorted(counts.items()) if k != "cpu_s"},
        "blobs_on_disk_mb": round(
            sum(f.stat().st_size for f in (settings.home / "blobs").rglob("*") if f.is_file()) / 1e6
        ),
    }


def with_our_coordinator(specs: tuple[ProcessSpec, ...], home: Path) -> list[ProcessSpec]:
    command = (sys.executable, str(Path(__file__).resolve()), "coordinate", "--home", str(home))
    return [
        replace(spec, command=command) if spec.name == "coordinator" else spec for spec in specs
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--at-once", type=int, default=6, help="devices that transfer at a time")
    parser.add_argument("--aggregator", default="in-process", choices=["in-process", "process"])
    options = parser.parse_args()
    register_model()
    with tempfile.TemporaryDirectory(prefix="flint-large-") as folder:
        home = Path(folder)
        home.chmod(0o755)
        database = embedded_database(home)
        try:
            settings = prepare(home, replace(OPTIONS, aggregator=options.aggregator))
        except BaseException:
            if database is not None:
                database.stop()
            raise
        specs = with_our_coordinator(server_processes(settings), home)
        supervisor = Supervisor(settings, specs, database=database)
        supervisor.start()
        try:
            figures = measure(Deployment.attach(home), options)
        finally:
            supervisor.stop()
    known = {
        "figure": "large_model",
        "parameters": MODEL.parameter_count,
        "model_mb": round(4 * MODEL.parameter_count / 1e6, 1),
        "clients_a_round": options.clients,
        "rounds": options.rounds,
        "aggregator": options.aggregator,
    }
    print(json.dumps(known | figures))


if __name__ == "__main__":
    if sys.argv[1:2] == ["coordinate"]:
        sys.exit(coordinate())
    main()
