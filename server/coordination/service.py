"""The coordinator process: takes jobs from the queue one by one and drives each to its end."""

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from functools import partial

import grpc
from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from sqlalchemy.exc import InterfaceError, OperationalError

from device_runtime.engine import LiteRtEngine
from device_runtime.errors import FlintError
from device_runtime.manifest import ArtifactManifest
from feature_catalog.blobs import BlobStore, BlobStoreUnreachable
from feature_catalog.database import PATIENCE_WITH_DATABASE_S, DatabaseUnreachable, connect
from feature_catalog.datasets import DatasetCatalog
from feature_catalog.jobs import (
    JobNotClaimable,
    JobQueue,
    JobRow,
    JobTakenOver,
    LeaderLock,
    leader_lock,
)
from feature_catalog.model_store import ArtifactRow, ModelStore
from feature_catalog.release_budgets import ReleaseBudgets
from modeling.spec import ModelSpec
from modeling.zoo import get_model
from server.aggregation.process import AggregatorLost, aggregator_socket
from server.coordination.catalog_versions import CatalogVersions
from server.coordination.composite_fleet import CompositeFleet
from server.coordination.evaluation import CentralEvaluation
from server.coordination.fleet import OpenJob
from server.coordination.job_observers import CatalogProgress, Observers
from server.coordination.job_runner import JobRunner
from server.coordination.progress import JobResult
from server.fleet_protocol.endpoint import serve_gateways
from server.fleet_protocol.gateway_fleet import GatewayFleet
from server.flower.adapter import FlowerRun
from server.flower.control import FlowerRefused, SuperLinkUnreachable
from server.flower.grid_fleet import GridFleet
from server.initial_version import starting_point
from server.job import Job
from server.monitoring import CoordinatorMetrics
from server.operations.deployment_metrics import DeploymentCollector
from server.operations.settings import ENCLAVE, ServerSettings
from server.secure_aggregation.client import RemoteEnclave

log = logging.getLogger(__name__)

_POLL_S = 0.5
_SAVE_S = 1.0
_STORE_AGAIN_S = 5.0
_FLOWER_RETRY_S = 5.0


class MissingArtifact(FlintError):
    """The model artefact a job needs was never built."""

    code = "FLN-1007"


class ShuttingDown(Exception):
    """The process was asked to stop; the job stays in the queue and is taken up again."""


class LeadershipLost(Exception):
    """The connection that held the leader's lock broke: another coordinator may drive the job."""


class Coordinator:
    """Owns the gateways' endpoint and the job queue's head; one per deployment."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._engine = connect(settings.database_url, PATIENCE_WITH_DATABASE_S)
        self._blobs = BlobStore(settings.blob_url)
        self._blobs.remove_drafts()
        self._models = ModelStore(self._engine, self._blobs)
        self._jobs = JobQueue(self._engine)
        self._gateways = GatewayFleet()
        self._stopping = threading.Event()
        registry = CollectorRegistry()
        self._metrics = CoordinatorMetrics(registry)
        self._metrics.watch_gateways(self._gateways.gateways)
        ProcessCollector(registry=registry)
        registry.register(DeploymentCollector(settings))
        start_http_server(settings.coordinator_metrics_port, "127.0.0.1", registry)
        self._server: grpc.Server = serve_gateways(self._gateways, settings)

    def stop(self) -> None:
        """Ask `run` to return soon; safe in a signal handler."""
        self._stopping.set()

    def run(self) -> None:
        """Drive jobs, oldest first, until `stop`; one coordinator at a time holds the lock.

        Raises:
            AnotherLeader: If another coordinator holds the lock and keeps it.
            DatabaseUnreachable: If the database breaks off; the next start goes on with the job.
        """
        try:
            with leader_lock(self._engine) as lock:
                log.info("ready: gateways attach at %s", self._settings.coordinator_address)
                self._run_jobs(lock)
        except (OperationalError, InterfaceError, LeadershipLost) as error:
            raise DatabaseUnreachable(
                "the database broke off; the coordinator ends and goes on with the job when it is "
                f"started again, as `flint up` does by itself ({type(error).__name__})"
            ) from error
        finally:
            # However this ends: the stream of an attached gateway would keep the process alive.
            self._server.stop(grace=1.0).wait()

    def _run_jobs(self, lock: LeaderLock) -> None:
        while not self._stopping.is_set():
            if not lock.is_held():
                raise LeadershipLost
            row = self._jobs.running() or self._jobs.next_queued()
            if row is None:
                self._stopping.wait(_POLL_S)
                continue
            try:
                self._run_job(row, lock)
            except JobNotClaimable as error:
                log.info("%s", error)  # stopped in the moment it was to start
            except ShuttingDown:
                log.info("job %s waits for the next start", row.job_id)

    def _run_job(self, row: JobRow, lock: LeaderLock) -> None:
        epoch = self._jobs.claim(row.job_id)
        log.info("job %s (%s), epoch %d", row.job_id, row.name, epoch)
        try:
            flower = FlowerRun.acquire(self._settings, row.flower_run_id, row.name)
        except (SuperLinkUnreachable, FlowerRefused) as error:
            # Not the job's fault: it stays the running one and is taken up again.
            log.warning("job %s waits for Flower: %s", row.job_id, error)
            self._stopping.wait(_FLOWER_RETRY_S)
            return
        try:
            self._jobs.set_flower_run(row.job_id, flower.run_id)
            self._metrics.job_begins(epoch)
            result = self._drive(row, epoch, flower, lock)
        except (AggregatorLost, BlobStoreUnreachable, JobTakenOver):
            flower.abandon()
            raise  # nor is this; the process ends, is started again and goes on with the job
        except FlintError as error:
            log.error("job %s failed: %s", row.job_id, error)
            self._gateways.close("failed")
            self._jobs.finish(row.job_id, "failed", str(error))
            flower.finish("failed", str(error))
            return
        except BaseException:
            flower.abandon()
            raise
        finally:
            self._metrics.job_ends()
        stopped = result.reason.startswith("stopped")
        log.info("job %s ended: %s", row.job_id, result.reason)
        self._jobs.finish(row.job_id, "stopped" if stopped else "finished", result.reason)
        flower.finish("stopped" if stopped else "completed", result.reason)

    def _drive(self, row: JobRow, epoch: int, flower: FlowerRun, lock: LeaderLock) -> JobResult:
        job = Job.model_validate_json(row.job_json)
        model = get_model(job.model)
        artifact = self._artifact(job)
        opened = OpenJob(
            row.job_id,
            epoch,
            job,
            model,
            artifact.artifact_sha256,
            artifact.manifest_sha256,
            contract_sha256(model, artifact, job.feature_contract_sha256),
            feature_hash_seed=self._feature_hash_seed(job),
        )
        stop_requested = self._stop_check(row.job_id, flower, lock)
        versions = CatalogVersions(
            self._models,
            row.job_id,
            epoch,
            job.name,
            model,
            opened.contract_sha256,
            feature_contract_sha256=job.feature_contract_sha256,
            on_stored=self._gateways.acknowledge,
            try_again=lambda: self._may_store_again(stop_requested),
        )
        self._begin(versions, job, model)
        progress = CatalogProgress(self._jobs, row.job_id)
        is_secure = job.privacy.secure_aggregation is not None
        enclave = self._nodes_enclave() if is_secure else None
        nodes = []
        if job.feature_service is not None:
            log.info("Flower nodes join no features; none takes part in job %s", row.job_id)
        elif enclave is not None or not is_secure:
            nodes.append(GridFleet(flower.grid, self._blobs, enclave=enclave))
        runner = JobRunner(
            opened,
            CompositeFleet(self._gateways, nodes),
            versions,
            Observers([progress, self._metrics]),
            evaluate=self._evaluation(job, model, artifact),
            stop_requested=stop_requested,
            poll_s=_POLL_S,
            released_version=(
                partial(ReleaseBudgets(self._engine).newest_version, row.job_id)
                if is_secure
                else None
            ),
            save_every_s=_SAVE_S,
        )
        try:
            result = runner.run()
        finally:
            if enclave is not None:
                enclave.close()
        progress.report(result.progress)
        return result

    def _nodes_enclave(self) -> RemoteEnclave | None:
        """The enclave that Flower nodes seal to, beside those of the gateways; None without one.

        Raises:
            AggregatorLost: If it does not answer.
        """
        slot = self._settings.nodes_enclave
        path = aggregator_socket(self._settings.home, slot)
        if self._settings.aggregator != ENCLAVE and not path.exists():
            log.info("no enclave is there for Flower nodes (%s); none takes part", path)
            return None
        return RemoteEnclave(path, ReleaseBudgets(self._engine), slot)

    def _artifact(self, job: Job) -> ArtifactRow:
        client = job.client
        proximal = client.proximal_mu > 0
        artifact = self._models.find_artifact(
            job.model, client.batch_size, client.optimizer.name, proximal
        )
        if artifact is None:
            raise MissingArtifact(
                f"no artefact of {job.model} for batch size {client.batch_size} and "
                f"{client.optimizer.name} is in the model store; `flint submit` builds it"
            )
        return artifact

    def _begin(self, versions: CatalogVersions, job: Job, model: ModelSpec) -> None:
        start = starting_point(job, model, self._models)
        versions.begin(start.parameters, start.version.id if start.version else None)

    def _evaluation(
        self, job: Job, model: ModelSpec, artifact: ArtifactRow
    ) -> CentralEvaluation | None:
        if job.evaluation is None:
            return None
        inputs, labels = (
            DatasetCatalog(self._engine, self._blobs).open(job.evaluation.dataset).heldout()
        )
        manifest = ArtifactManifest.from_json(self._blobs.get(artifact.manifest_sha256).decode())
        engine = LiteRtEngine(self._blobs.get(artifact.artifact_sha256), manifest)
        return CentralEvaluation(model, engine, inputs, labels, job.evaluation.metric)

    def _feature_hash_seed(self, job: Job) -> int:
        """How devices hash features: as the data set does that the model is measured on."""
        if job.feature_service is None or job.evaluation is None:
            return 0
        return DatasetCatalog(self._engine, self._blobs).get(job.evaluation.dataset).hash_seed

    def _may_store_again(self, stop_requested: Callable[[], str | None]) -> bool:
        """Wait a while for the blob store; not when the job is to end, which needs none of it."""
        self._stopping.wait(_STORE_AGAIN_S)
        return stop_requested() is None

    def _stop_check(
        self, job_id: str, flower: FlowerRun, lock: LeaderLock
    ) -> Callable[[], str | None]:
        checked_s, run_id = 0.0, flower.run_id

        def stop_requested() -> str | None:
            nonlocal checked_s, run_id
            if self._stopping.is_set():
                raise ShuttingDown
            if time.monotonic() - checked_s < 1.0:
                return None
            checked_s = time.monotonic()
            if not lock.is_held():
                raise LeadershipLost
            if self._jobs.stop_requested(job_id):
                return "stopped with `flint stop`"
            if flower.stopped():
                return "stopped with `flwr stop`"
            if flower.run_id != run_id:
                run_id = flower.run_id  # SuperLink had lost the one before
                self._jobs.set_flower_run(job_id, run_id)
            return None

        return stop_requested


def contract_sha256(
    model: ModelSpec, artifact: ArtifactRow, feature_contract_sha256: bytes | None
) -> bytes:
    """Digest of what server and device must agree on; devices echo it with every update.

    Args:
        feature_contract_sha256: Of the job's feature service, if it names one.
    """
    digest = hashlib.sha256(model.to_json().encode())
    digest.update(artifact.artifact_sha256)
    digest.update(artifact.manifest_sha256)
    digest.update(feature_contract_sha256 or b"")
    return digest.digest()
