r"""Updates a second through the aggregator's seam: plain, enclave and masked, at three model sizes.

Each is a process of its own behind its unix socket, as a deployment runs it, on one Postgres:
``plain`` is `python -m server.aggregation`; ``enclave`` and ``masked`` are `python -m
server.secure_aggregation`, whose aggregates of 50 are budgeted in the catalog before they are let
out. What devices do (verify, seal, mask) is done before and is not measured.

The three take turns in one run; medians are reported with the processor time of the aggregating
process (in masked mode also of the host's sums, in this process), and what went in and out.
Physical limit of ``enclave`` over ``plain``: AES-128-GCM has to read every byte once more, and
writes it; the bytes cross the socket in both.

    python benchmarks/secure_aggregation.py
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from device_runtime.manifest import InputSpec
from device_runtime.protocol import device_pb2 as pb
from device_runtime.secure_updates import VerifiedEnclave, seal_update
from device_runtime.update_codec import encode_update, sha256_of, unflatten
from feature_catalog.database import connect, upgrade
from feature_catalog.embedded import EmbeddedPostgres
from feature_catalog.release_budgets import ReleaseBudgets
from modeling.spec import Dense, ModelSpec
from modeling.zoo import get_model
from server.aggregation.aggregator import Envelope
from server.aggregation.process import RemoteAggregator
from server.coordination.tasks import Release
from server.job import Job
from server.secure_aggregation.client import RemoteEnclave
from server.update_gate.rejections import Rejection

MODES = ("plain", "enclave", "masked")
BUFFER = 50
THREADS = 4  # as many as a gateway folds at once
MILLION = ModelSpec(
    "million",
    (Dense("hidden", 1000, 1000, "relu"), Dense("logit", 1000, 1, "none")),
    InputSpec("x", (1000,), "float32"),
    (1,),
    "binary_cross_entropy",
    "auprc",
)
MODELS = {
    "1.5k": get_model("tiny_mlp"),
    "189k": get_model("sparse_mlp"),
    "1M": MILLION,
}


@dataclass
class Side:
    """One aggregator process with its open job and updates that are ready to be handed in."""

    mode: str
    job_id: str
    aggregator: RemoteAggregator
    process: psutil.Process
    traffic: dict[str, int]
    uploads: list[tuple[Envelope, bytes]]
    version: int = 0


def job(model: ModelSpec, mode: str) -> Job:
    secure: dict[str, Any] | None = None
    if mode != "plain":
        secure = {"mode": mode, "release_threshold": 20, "allowed_measurements": ["ab" * 32]}
    return Job.model_validate(
        {
            "name": f"benchmark-{mode}",
            "model": model.name,
            "client": {"optimizer": {"learning_rate": 0.1}},
            "strategy": {"name": "fedbuff", "buffer_size": BUFFER, "concurrency": 100},
            "stop": {"max_hours": 1},
            "privacy": {"secure_aggregation": secure},
        }
    )


@contextmanager
def side(folder: Path, mode: str, model: ModelSpec, budgets: ReleaseBudgets) -> Iterator[Side]:
    """Start an aggregator process and open a job in it."""
    socket_path = folder / f"{mode}.sock"
    module = "server.aggregation" if mode == "plain" else "server.secure_aggregation"
    command = [sys.executable, "-m", module, "--socket", str(socket_path)]
    if mode != "plain":
        command += ["--secrets", str(folder)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    traffic: dict[str, int] = defaultdict(int)

    def count(direction: str, size_bytes: int) -> None:
        traffic[direction] += size_bytes

    try:
        if mode == "plain":
            aggregator = RemoteAggregator(socket_path)
        else:
            aggregator = RemoteEnclave(socket_path, budgets, slot=0, count_bytes=count)
        job_id = f"j-{mode}-{model.name}"
        aggregator.open(job_id, job(model, mode), model)
        yield Side(mode, job_id, aggregator, psutil.Process(process.pid), traffic, [])
        aggregator.close()
    finally:
        process.terminate()
        process.wait()


def prepare(one: Side, model: ModelSpec, count: int, round_number: int) -> None:
    """What devices would hand in: ``count`` updates, sealed where the job is secure."""
    generator = np.random.default_rng(round_number)
    delta = generator.normal(0, 0.01, model.parameter_count).astype(np.float32)
    update = encode_update(
        model.parameters,
        unflatten(model.parameters, delta),
        num_examples=50,
        loss_before=0.7,
        loss_after=0.6,
    )
    enclave = None
    policy = job(model, one.mode).release_policy()
    if policy is not None and isinstance(one.aggregator, RemoteEnclave):
        evidence = one.aggregator.attest(one.job_id, bytes(32))
        enclave = VerifiedEnclave(evidence.enclave_key, policy)
    one.uploads = []
    for number in range(count):
        task_id, device_id = f"t-{round_number}-{number}", f"d-{number}"
        # A release is due every BUFFER updates, and each advances the version.
        version = one.version + number // BUFFER
        payload = update
        if enclave is not None:
            sealed_for = pb.SealedFor(
                task_id=task_id, job_id=one.job_id, device_id=device_id, base_version=version
            )
            payload = seal_update(enclave, sealed_for, "app", update)
        envelope = Envelope(task_id, device_id, version, sha256_of(payload))
        one.uploads.append((envelope, payload))


def run(one: Side) -> tuple[float, float, float]:
    """Hand all in, releasing every BUFFER; returns seconds, CPU of it, CPU of this process."""
    own, before = psutil.Process(), one.process.cpu_times()
    own_before = own.cpu_times()
    begun_s = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(one.uploads), BUFFER):
            part = one.uploads[start : start + BUFFER]
            for folded in pool.map(lambda upload: one.aggregator.fold(*upload), part):
                if isinstance(folded, Rejection):
                    raise SystemExit(f"{one.mode}: {folded}")
            release_id = f"r-{one.version}"
            (partial,) = one.aggregator.reduce(Release(release_id, (), one.version))
            if partial.weight != BUFFER:
                raise SystemExit(f"{one.mode}: {partial.weight} updates were released")
            one.aggregator.commit(release_id)
            one.version += 1
    wall_s = time.perf_counter() - begun_s
    after, own_after = one.process.cpu_times(), own.cpu_times()
    cpu_s = after.user + after.system - before.user - before.system
    own_s = own_after.user + own_after.system - own_before.user - own_before.system
    return wall_s, cpu_s, own_s


def measured(name: str, budgets: ReleaseBudgets, rounds: int, updates: int) -> dict[str, Any]:
    """The three modes on one model, in turns."""
    model = MODELS[name]
    results: dict[str, list[tuple[float, float, float]]] = {mode: [] for mode in MODES}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flint-sa-")))
        folder.chmod(0o700)
        sides = [stack.enter_context(side(folder, mode, model, budgets)) for mode in MODES]
        for round_number in range(rounds + 1):  # the first warms up
            for one in sides:
                prepare(one, model, updates, round_number)
                result = run(one)
                if round_number:
                    results[one.mode].append(result)
                else:
                    one.traffic.clear()
        handed_in = rounds * updates
        figures: dict[str, Any] = {"parameters": model.parameter_count}
        for one in sides:
            walls, cpus, owns = zip(*results[one.mode], strict=True)
            figures[one.mode] = {
                "updates_per_s": round(updates / statistics.median(walls), 1),
                "aggregator_cpu_ms_per_update": round(statistics.median(cpus) / updates * 1e3, 3),
                "caller_cpu_ms_per_update": round(statistics.median(owns) / updates * 1e3, 3),
            }
            if one.mode != "plain":
                figures[one.mode]["bytes_in_per_update"] = round(one.traffic["in"] / handed_in)
                figures[one.mode]["bytes_out_per_release"] = round(
                    one.traffic["out"] / (handed_in / BUFFER)
                )
    for mode in MODES[1:]:
        figures[f"{mode}_over_plain"] = round(
            statistics.median(ratios(results["plain"], results[mode])), 3
        )
    return figures


def ratios(
    plain: Sequence[tuple[float, float, float]], secure: Sequence[tuple[float, float, float]]
) -> list[float]:
    """Speed over plain's, of rounds that followed each other."""
    return [one[0] / other[0] for one, other in zip(plain, secure, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--updates", type=int, default=100, help="a round, mode and model")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flint-sa-db-") as folder:
        root = Path(folder)
        root.chmod(0o755)  # as root Postgres has a user of its own
        postgres = EmbeddedPostgres(root / "postgres")
        engine = connect(postgres.start())
        try:
            upgrade(engine)
            budgets = ReleaseBudgets(engine)
            figures = {
                name: measured(name, budgets, options.rounds, options.updates) for name in MODELS
            }
        finally:
            engine.dispose()
            postgres.stop()
    print(json.dumps({"buffer": BUFFER, "threads": THREADS} | {"models": figures}))


if __name__ == "__main__":
    main()
