"""Peak memory of one device process over three real tasks of 500 records on sparse_mlp.

The device is ``python -m device_runtime.device`` in a process of its own: it enrols, checks in,
fetches artefact and version, trains one epoch in slices and uploads, over TLS. Its peak is
``VmHWM`` as it reports it itself; ``imports_mb`` is ``VmHWM`` of a fresh process that has only
imported the same module. The gateway here leases a task to whoever asks.

Aim: at most 110 MB, at most 35 MB of it over the imports. Lower limit over the imports: the model
file, the base version, the local parameters, the delta and the serialised update are 0.75 MB each;
the rest is gRPC with TLS, XNNPACK and LiteRT's buffers for the gradients.

    python benchmarks/device_memory.py
"""

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np

from device_runtime.examples import SqliteExampleStore
from device_runtime.participation import ParticipationPolicy
from device_runtime.protocol import device_pb2 as pb
from device_runtime.protocol.device_pb2_grpc import (
    DeviceGatewayServicer,
    add_DeviceGatewayServicer_to_server,
)
from device_runtime.update_codec import encode_parameters
from modeling.tflite import build_artifact
from modeling.zoo import get_model
from server.operations.settings import ServerSettings
from server.operations.tls import ensure_keys

BATCH_SIZE = 20
VERSION_EVERY = 20
SHOW_PEAK = (
    "import device_runtime.device\n"
    "from device_runtime.training import peak_memory_bytes\n"
    "print(peak_memory_bytes())"
)


class GenerousGateway(DeviceGatewayServicer):
    """Leases a task at every check-in, settles every update, makes a version every 20 tasks."""

    def __init__(self, local_epochs: int) -> None:
        self._model = get_model("sparse_mlp")
        artifact = build_artifact(self._model, batch_size=BATCH_SIZE)
        self._blobs: dict[bytes, bytes] = {}
        self._artifact_sha256 = self._put(artifact.model_bytes)
        self._manifest_sha256 = self._put(artifact.manifest.to_json().encode())
        self._policy = ParticipationPolicy()
        self._local_epochs = local_epochs
        self._tasks = 0

    def Enrol(self, request, context):  # noqa: ANN001, ANN201, ARG002, D102, N802
        return pb.EnrolResponse(
            device_id=hashlib.sha256(request.public_key).hexdigest(),
            credential=bytes(100),
            server_time_ms=round(time.time() * 1000),
        )

    def CheckIn(self, request, context):  # noqa: ANN001, ANN201, ARG002, D102, N802
        response = pb.CheckInResponse(
            settlements=[
                pb.Settlement(task_id=p.task_id, state=pb.Settlement.COMMITTED)
                for p in request.pending
            ],
            come_back_after_s=0.001,
            server_time_ms=round(time.time() * 1000),
        )
        if request.satisfied_policy_sha256 == self._policy.sha256():
            response.task.CopyFrom(self._lease())
        else:
            response.policy.policy_sha256 = self._policy.sha256()
            response.policy.policy_json = self._policy.to_json()
        return response

    def FetchBlob(self, request, context):  # noqa: ANN001, ANN201, ARG002, D102, N802
        blob = self._blobs[request.blob_sha256]
        for start in range(request.offset, len(blob), 256 * 1024):
            yield pb.BlobChunk(data=blob[start : start + 256 * 1024], total_bytes=len(blob))

    def Upload(self, request, context):  # noqa: ANN001, ANN201, ARG002, D102, N802
        return pb.UploadResponse(verdict=pb.UploadResponse.ACCEPTED, come_back_after_s=0.001)

    def _lease(self) -> pb.Task:
        if self._tasks % VERSION_EVERY == 0:
            parameters = self._model.initial_parameters(seed=self._tasks)
            self._version = self._put(encode_parameters(self._model.parameters, parameters))
        self._tasks += 1
        return pb.Task(
            task_id=f"t-{self._tasks}",
            token=bytes(200),
            job_id="j-bench",
            parameters_sha256=self._version,
            artifact_sha256=self._artifact_sha256,
            manifest_sha256=self._manifest_sha256,
            contract_sha256=bytes(32),
            plan=pb.TrainingPlan(
                local_epochs=self._local_epochs,
                batch_size=BATCH_SIZE,
                max_records=500,
                learning_rate=0.05,
                shuffle_seed=self._tasks,
            ),
        )

    def _put(self, blob: bytes) -> bytes:
        digest = hashlib.sha256(blob).digest()
        self._blobs[digest] = blob
        return digest


@contextmanager
def serving(gateway: GenerousGateway, home: Path) -> Iterator[list[str]]:
    """Serve over TLS; gives the options a device process needs to reach it."""
    settings = ServerSettings(
        home=home,
        database_url="",
        blob_url="",
        gateway_address="127.0.0.1:0",
        coordinator_address="127.0.0.1:0",
        superlink_address="127.0.0.1:0",
        gateway_metrics_port=0,
        coordinator_metrics_port=0,
    )
    ensure_keys(settings)
    server = grpc.server(
        futures.ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", -1)]
    )
    add_DeviceGatewayServicer_to_server(gateway, server)
    key = settings.private_key("gateway").read_bytes()
    certificate = settings.certificate("gateway").read_bytes()
    credentials = grpc.ssl_server_credentials([(key, certificate)])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    token = home / "enrolment.token"
    token.write_text("benchmark")
    server.start()
    try:
        yield [
            *("--server", f"127.0.0.1:{port}"),
            *("--ca", str(settings.ca_certificate)),
            *("--enrolment-token-file", str(token)),
            *("--report-every-s", "3600"),
        ]
    finally:
        server.stop(0).wait()


def fill_examples(path: Path, records: int, seed: int) -> None:
    """Random records of the model's form; labels follow the first bucket."""
    draws = np.random.default_rng(seed)
    x = draws.integers(0, 1024, (records, 64), dtype=np.int32)
    x[:, 30:] = -1
    SqliteExampleStore(path).fill(x, (x[:, :1] < 200).astype(np.float32))


def last_report(*command: str) -> dict:
    """Run a device process to its end; its last progress line."""
    done = subprocess.run(
        [sys.executable, "-m", *command], check=True, capture_output=True, text=True
    )
    report: dict = json.loads(done.stdout.splitlines()[-1])
    return report


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        fill_examples(home / "device" / "examples.sqlite", records=500, seed=1)
        with serving(GenerousGateway(local_epochs=1), home) as reach:
            device = ("device_runtime.device", "--home", str(home / "device"), "--tasks", "3")
            report = last_report(*device, *reach)
    imports = subprocess.run(
        [sys.executable, "-c", SHOW_PEAK], check=True, capture_output=True, text=True
    )
    peak_mb, imports_mb = report["peak_memory_bytes"] / 1e6, int(imports.stdout) / 1e6
    figures = {
        "figure": "device_memory",
        "model": "sparse_mlp",
        "records": 500,
        "tasks": report["finished_tasks"],
        "peak_mb": round(peak_mb, 1),
        "imports_mb": round(imports_mb, 1),
        "over_imports_mb": round(peak_mb - imports_mb, 1),
        "aim_peak_mb": 110,
        "aim_over_imports_mb": 35,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
