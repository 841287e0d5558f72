"""The coordinator's end of flint.fleet.v1, played by a test over a real socket."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc

from server.fleet_protocol import fleet_pb2 as pb
from server.fleet_protocol import fleet_pb2_grpc
from server.job import Job
from server.operations.settings import ServerSettings
from tests.server.update_examples import MODEL, make_job

PATIENCE_S = 20.0


class ScriptedCoordinator(fleet_pb2_grpc.FleetLinkServicer):
    """Says what the test tells it to and remembers everything it hears."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._changed = threading.Condition()
        self._outgoing: queue.SimpleQueue[pb.CoordinatorMessage | None] = queue.SimpleQueue()
        self._server: grpc.Server | None = None
        self.heard: list[pb.GatewayMessage] = []
        self.job_id, self.epoch, self.sequence = "", 1, 0
        self.start()

    def start(self) -> None:
        settings = self._settings
        self._server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        fleet_pb2_grpc.add_FleetLinkServicer_to_server(self, self._server)
        if settings.insecure:
            self._server.add_insecure_port(settings.coordinator_address)
        else:
            pair = (
                settings.private_key("coordinator").read_bytes(),
                settings.certificate("coordinator").read_bytes(),
            )
            self._server.add_secure_port(
                settings.coordinator_address,
                grpc.ssl_server_credentials(
                    [pair], settings.ca_certificate.read_bytes(), require_client_auth=True
                ),
            )
        self._server.start()

    def stop(self) -> None:
        """Break every connection."""
        self._outgoing.put(None)
        assert self._server is not None
        self._server.stop(None).wait()

    def Attach(  # noqa: N802 - gRPC's name
        self, request_iterator: Iterator[pb.GatewayMessage], context: grpc.ServicerContext
    ) -> Iterator[pb.CoordinatorMessage]:
        outgoing = self._outgoing = queue.SimpleQueue()

        def read() -> None:
            try:
                for message in request_iterator:
                    with self._changed:
                        self.heard.append(message)
                        self._changed.notify_all()
            except grpc.RpcError:
                pass
            finally:
                outgoing.put(None)

        threading.Thread(target=read, daemon=True).start()
        while (message := outgoing.get()) is not None:
            yield message

    def wait_for(self, found: Callable[[pb.GatewayMessage], bool]) -> pb.GatewayMessage:
        """The first message heard of which ``found`` is true; waits for it."""
        deadline_s = time.monotonic() + PATIENCE_S
        with self._changed:
            while True:
                for message in self.heard:
                    if found(message):
                        return message
                left_s = deadline_s - time.monotonic()
                assert left_s > 0, f"not heard in time; heard {self.heard[-5:]}"
                self._changed.wait(left_s)

    def forget(self) -> None:
        with self._changed:
            self.heard.clear()

    def send(self, **body) -> None:
        self.sequence += 1
        self._outgoing.put(
            pb.CoordinatorMessage(
                job_id=self.job_id, epoch=self.epoch, sequence=self.sequence, **body
            )
        )

    # -- whole phrases -----------------------------------------------------------------------------

    def open(
        self,
        job_id: str,
        blobs: tuple[bytes, bytes, bytes],
        job: Job | None = None,
        *,
        slots: int = 100,
        committed_releases: tuple[str, ...] = (),
    ) -> pb.Progress:
        """Open a job at an attached gateway with version 1 and slots; returns its snapshot.

        Args:
            job_id: Anything.
            blobs: Digests of parameters, artefact and manifest.
        """
        self.wait_for(lambda m: m.HasField("hello"))
        self.job_id = job_id
        parameters, artifact, manifest = blobs
        self.send(
            open=pb.Open(
                job_json=(job or make_job()).to_json(),
                model_spec_json=MODEL.to_json(),
                artifact_sha256=artifact,
                manifest_sha256=manifest,
                contract_sha256=b"c" * 32,
                committed_releases=committed_releases,
            )
        )
        snapshot = self.wait_for(lambda m: m.job_id == job_id and m.progress.snapshot)
        self.send(set_model=pb.SetModel(version=1, parameters_sha256=parameters))
        self.grant("g1", slots)
        return snapshot.progress

    def grant(self, grant_id: str, count: int) -> None:
        self.send(grant=pb.Grant(grant_id=grant_id, count=count, task_timeout_s=60))

    def release(self, release_id: str) -> pb.Partial:
        self.send(release=pb.Release(release_id=release_id))
        return self.wait_for(lambda m: m.partial.release_id == release_id).partial

    def commit(self, release_id: str) -> None:
        self.send(commit=pb.Commit(release_id=release_id))

    def completed(self, task_id: str) -> pb.Completed:
        """What was reported of a folded task."""
        message = self.wait_for(lambda m: any(c.task_id == task_id for c in m.progress.completed))
        return next(c for c in message.progress.completed if c.task_id == task_id)

    def ended(self, task_id: str) -> pb.Ended:
        """What was reported of a task that ended."""
        message = self.wait_for(lambda m: any(e.task_id == task_id for e in m.progress.ended))
        return next(e for e in message.progress.ended if e.task_id == task_id)

    def refused(self, reason_code: int) -> None:
        """Wait until a refusal with this number is reported."""
        self.wait_for(lambda m: any(r.reason_code == reason_code for r in m.progress.refusals))
