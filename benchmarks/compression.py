r"""What a job's update codec saves and costs: bytes, server and device time, and the metric.

Of updates of model B (188,141 parameters), for each codec of ``client.compression``:

- ``bytes_per_update``: of a serialised update whose values are drawn from a normal distribution
  (top_k's positions anywhere); a dry-run charges the same.
- ``server_ms``: processor time of what a server does with the bytes of one: digest, decoding, the
  whole content gate, weighted sum. gRPC and TLS are apart and shrink with the bytes. ``per_s`` is
  what one core would so take in.
- ``device_ms``: processor time of encoding one here, a host; a phone's is several times that.

Of dry-runs of the quickstart (generated clicks, FedBuff, 30 updates a version), alike but for
codec and seed: AUPRC on held-out clients after the same number of versions, and its difference to
the plain run of the same seed (so of the same initial model), as mean and range over the seeds;
virtual hours and gigabytes up likewise. What seeds differ by without any codec is ``none``'s range:
a difference within it says little.

What limits the figure: a client trains about twice in these runs, so error feedback has few chances
to send what it kept; and what is kept was learned from a model many versions older. Buffers here
wait for devices to check in, not for uploads of a second: fewer bytes do not shorten virtual time.

    python benchmarks/compression.py
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from device_runtime.compression import compress
from device_runtime.update_codec import encode_compressed_update, encode_update, sha256_of
from flint.catalog_session import CatalogSession, open_catalog
from modeling.zoo import get_model
from server.aggregation.aggregator import Envelope
from server.aggregation.mean import MeanAggregator
from server.coordination.tasks import UpdateReference
from server.job import Job
from server.update_gate.envelope import UploadEnvelope, check_bytes, max_payload_bytes
from simulation.catalog_inputs import CatalogInputs
from simulation.environment import load_environment
from simulation.evaluation import TorchEvaluation
from simulation.executors.make import make_executor
from simulation.preparation import prepare
from simulation.trial import Trial

CODECS: dict[str, dict[str, Any]] = {
    "none": {"name": "none"},
    "float16": {"name": "float16"},
    "int8": {"name": "int8"},
    "top_k 10 %": {"name": "top_k", "fraction": 0.1},
    "top_k 1 %": {"name": "top_k", "fraction": 0.01},
    "top_k 1 %, int8": {"name": "top_k", "fraction": 0.01, "values": "int8"},
    "top_k 1 %, no feedback": {"name": "top_k", "fraction": 0.01, "error_feedback": False},
}
QUICKSTART = Path(__file__).resolve().parents[1] / "examples" / "quickstart"
MODEL = get_model("sparse_mlp")
UPDATES = 64  # 48 MB of plain ones: none is in the L2 cache when its turn comes
ROUNDS = 5
CONTRACT = b"c" * 32


def job_of(codec: str, seed: int = 7) -> Job:
    raw = yaml.safe_load((QUICKSTART / "job.yaml").read_text())
    raw["client"]["compression"] = CODECS[codec]
    return Job.model_validate(raw | {"seed": seed})


def cpu_ms(act: Callable[[], object]) -> float:
    begun_s = time.thread_time()
    act()
    return 1e3 * (time.thread_time() - begun_s)


def encoded(delta: Sequence[np.ndarray], job: Job) -> bytes:
    said = {"num_examples": 50, "loss_before": 0.7, "loss_after": 0.6}
    codec = job.client.compression.codec
    if codec is None:
        return encode_update(MODEL.parameters, delta, **said)
    return encode_compressed_update(MODEL.parameters, compress(delta, codec, seed=7), **said)


def encode_to(payloads: list[bytes], delta: Sequence[np.ndarray], job: Job) -> None:
    payloads.append(encoded(delta, job))


def take_in(aggregator: MeanAggregator, number: int, upload: UploadEnvelope) -> None:
    refused = check_bytes(upload, contract_sha256=CONTRACT, max_bytes=max_payload_bytes(MODEL))
    envelope = Envelope(f"t{number}", f"d{number}", 0, upload.payload_sha256)
    if refused or not isinstance(aggregator.fold(envelope, upload.payload), UpdateReference):
        raise TypeError("an honest update was refused")


def costs(codec: str) -> dict[str, float]:
    """Bytes, and processor time of server and device; medians over many updates."""
    job, generator = job_of(codec), np.random.default_rng(0)
    drawn = [generator.standard_normal(p.shape, np.float32) for p in MODEL.parameters]
    payloads: list[bytes] = []
    device_ms, server_ms = [], []
    for number in range(UPDATES):
        delta = [np.roll(values, 7919 * number) for values in drawn]
        device_ms.append(cpu_ms(partial(encode_to, payloads, delta, job)))
    uploads = [UploadEnvelope(sha256_of(payload), CONTRACT, payload) for payload in payloads]
    for _ in range(ROUNDS):
        aggregator = MeanAggregator()
        aggregator.open("j-1", job, MODEL)
        server_ms += [
            cpu_ms(partial(take_in, aggregator, number, upload))
            for number, upload in enumerate(uploads)
        ]
    median_ms = statistics.median(server_ms)
    return {
        "bytes_per_update": round(statistics.mean(map(len, payloads))),
        "server_ms": round(median_ms, 3),
        "per_s": round(1e3 / median_ms),
        "device_ms": round(statistics.median(device_ms), 2),
    }


def dry_run(catalog: CatalogSession, codec: str, seed: int) -> dict[str, float]:
    job = job_of(codec, seed)
    environment = load_environment(QUICKSTART / "environment.yaml")
    inputs = CatalogInputs(QUICKSTART, catalog.environment_inputs)
    prepared = prepare(job, environment, QUICKSTART, inputs, catalog.datasets, catalog.models, seed)
    if prepared.evaluation is None:
        raise ValueError("the quickstart's job measures nothing")
    evaluate = TorchEvaluation(MODEL, *prepared.evaluation.heldout(), "auprc")
    executor = make_executor("local", 1, MODEL, job.client, prepared.records)
    result = Trial(prepared.dry_run, 0, executor, evaluate).run()
    executor.close()
    metrics = [metric for metric in result.trajectory["metric"].to_pylist() if metric is not None]
    print(f"{codec}, seed {seed}: {metrics[-1]:.4f}, {result.wall_s:.0f} s", file=sys.stderr)
    return {
        "auprc": metrics[-1],
        "hours": result.virtual_s / 3600.0,
        "gb_up": result.trajectory["bytes_up"].to_pylist()[-1] / 1e9,
        "updates": sum(result.trajectory["updates"].to_pylist()),
    }


def spread(values: Sequence[float], digits: int) -> dict[str, float]:
    return {
        "mean": round(statistics.mean(values), digits),
        "least": round(min(values), digits),
        "most": round(max(values), digits),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--seeds", type=int, default=8, help="dry-runs of each codec")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        Path(folder).chmod(0o711)  # Postgres runs as a user of its own
        catalog = stack.enter_context(open_catalog(Path(folder) / "home"))
        seeds = range(1, options.seeds + 1)
        runs = {codec: [dry_run(catalog, codec, seed) for seed in seeds] for codec in CODECS}
    figures = {}
    for codec, found in runs.items():
        plain = zip(found, runs["none"], strict=True)
        figures[codec] = costs(codec) | {
            "auprc": spread([run["auprc"] for run in found], 4),
            "auprc_to_none": spread([run["auprc"] - base["auprc"] for run, base in plain], 4),
            "virtual_hours": spread([run["hours"] for run in found], 2),
            "gb_up": round(statistics.mean(run["gb_up"] for run in found), 4),
        }
    print(
        json.dumps(
            {
                "benchmark": "compression",
                "parameters": MODEL.parameter_count,
                "seeds": options.seeds,
                "updates_per_run": runs["none"][0]["updates"],
                "codecs": figures,
                "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            }
        )
    )


if __name__ == "__main__":
    main()
