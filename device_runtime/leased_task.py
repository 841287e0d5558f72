"""A task in a device's hands: from its blobs to an update ready to be uploaded."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from device_runtime.attestation import AttestationTrust
from device_runtime.blob_cache import BlobCache
from device_runtime.compression import UpdateCodec, compress
from device_runtime.device_store import PendingUpdate
from device_runtime.encoded_tensors import EncodedTensor, all_decoded
from device_runtime.engine import LiteRtEngine
from device_runtime.examples import ExampleSource
from device_runtime.feature_tasks import FeatureTasks
from device_runtime.gateway_client import GatewayClient
from device_runtime.loaded_models import LoadedModels
from device_runtime.manifest import ParameterSpec
from device_runtime.participation import ParticipationPolicy
from device_runtime.protocol import device_pb2 as pb
from device_runtime.secure_updates import VerifiedEnclave
from device_runtime.task_fault import FAULTS, TaskDeclined, TaskFault
from device_runtime.training import TrainingResult, TrainingSession, peak_memory_bytes
from device_runtime.training_plan import TrainingPlan
from device_runtime.update_codec import (
    encode_compressed_update,
    encode_update,
    flatten,
    sha256_of,
    unflatten,
)


@dataclass(slots=True)
class SharedParts:
    """What the identities of one process share.

    Attributes:
        counts: Events by name, for progress reports.
        trust: What the app pins to verify enclaves by; None: it trusts none.
    """

    gateway: GatewayClient
    cache: BlobCache
    models: LoadedModels
    counts: Counter[str]
    trust: AttestationTrust | None = None


class LeasedTask:
    """One task, while this device holds its lease.

    Attributes:
        feeds_back: Whether what its update leaves out is to be kept; known once it is prepared.
        carried: What earlier updates of the job left out, to be sent with this one's; shape
            ``(parameters,)``, or None for nothing.
        unsent: What this one leaves out, less what was carried; None unless `feeds_back`.
        enclave: Verified before training; None where updates are not sealed.
    """

    def __init__(self, task: pb.Task, policy: ParticipationPolicy, shared: SharedParts) -> None:
        self.task = task
        self.policy = policy
        self.started = False
        self.feeds_back = False
        self.carried: NDArray[np.float32] | None = None
        self.unsent: NDArray[np.float32] | None = None
        self.enclave: VerifiedEnclave | None = None
        self._codec: UpdateCodec | None = None
        self._shared = shared
        self._session: TrainingSession | None = None
        self._bytes_down = 0

    @property
    def parameter_count(self) -> int:
        """Scalars of its model, once it is prepared."""
        return sum(parameter.size for parameter in self._prepared().manifest.parameters)

    def prepare(self, examples: ExampleSource, features: FeatureTasks | None = None) -> None:
        """Fetch what is not cached, load it, and set up the training.

        A fetch that breaks off goes on where it stopped when this is called again.

        Args:
            examples: What a task trains on that is not under a feature contract.
            features: Joins what one trains on that is; None: this device cannot.

        Raises:
            TaskDeclined: If the task's features are not for this device.
            TaskFault: If a blob, the plan or the local records will not do.
            GatewayBusy: Call again later.
            GatewayRefused: The lease is gone.
        """
        try:
            engine = self._shared.models.engine(
                self.task.artifact_sha256, self.task.manifest_sha256, self._obtain
            )
            plan = TrainingPlan.from_message(self.task.plan)
            plan.check(engine.manifest)
            self._codec = plan.codec
            self.feeds_back = plan.codec is not None and plan.codec.error_feedback
            base = self._shared.models.parameters(
                self.task.parameters_sha256, engine.manifest, self._obtain
            )
            before = 0 if features is None else features.bytes_down
            x, y = self._source(examples, features, engine).load(plan.max_records)
            if features is not None:
                self._bytes_down += features.bytes_down - before
                self._shared.counts["bytes_down"] += features.bytes_down - before
            if len(x) == 0:
                # A device may well have events of other services, or features it cannot fetch now.
                fault = TaskDeclined if self.task.HasField("features") else TaskFault
                raise fault("no_examples", "this device has no records for the task")
            self._session = TrainingSession(engine, plan, base, x, y)
        except FAULTS as error:
            raise TaskFault.of(error) from error

    def _source(
        self, examples: ExampleSource, features: FeatureTasks | None, engine: LiteRtEngine
    ) -> ExampleSource:
        if not self.task.HasField("features"):
            return examples
        if features is None:
            raise TaskDeclined("no_features", "the task is for features, and this app joins none")
        wanted = engine.manifest.input.shape
        if wanted != (self.task.features.places,):
            raise TaskFault(
                "unsuitable_features",
                f"the task says that its model reads {self.task.features.places} entries a record, "
                f"and its artefact takes {wanted}",
            )
        return features.examples(self.task.features, engine.manifest.label_shape)

    def train(self, budget_s: float) -> bool:
        """Train one slice; returns whether that was the last.

        Raises:
            TaskFault: If the engine fails.
        """
        self.started = True
        try:
            return self._prepared().run(budget_s)
        except (RuntimeError, ValueError) as error:
            raise TaskFault("engine", str(error)) from error

    def update(self) -> tuple[PendingUpdate, bytes]:
        """What the finished training gave, and its serialised form.

        Raises:
            TaskFault: If training left the range of float32.
        """
        session = self._prepared()
        result = session.result()
        if not result.is_finite:
            raise TaskFault("not_finite", "training diverged")
        payload = self._encoded(session.manifest.parameters, result)
        pending = PendingUpdate(
            task_id=self.task.task_id,
            job_id=self.task.job_id,
            payload_sha256=sha256_of(payload),
            task_token=self.task.token,
            contract_sha256=self.task.contract_sha256,
            answered=False,
            train_s=result.train_s,
            cpu_s=result.cpu_s,
            peak_memory_bytes=result.peak_memory_bytes,
            bytes_down=self._bytes_down,
        )
        return pending, payload

    def sealed_for(self, device_id: str) -> pb.SealedFor:
        """What its update's sealing is bound to."""
        return pb.SealedFor(
            task_id=self.task.task_id,
            job_id=self.task.job_id,
            device_id=device_id,
            base_version=self.task.base_version,
            codec="" if self._codec is None else self._codec.name,
        )

    def cost(self) -> pb.DeviceCost:
        """What the task has cost so far."""
        session = self._session
        return pb.DeviceCost(
            train_s=session.train_s if session else 0.0,
            cpu_s=session.cpu_s if session else 0.0,
            peak_memory_bytes=peak_memory_bytes(),
            bytes_down=self._bytes_down,
        )

    def _encoded(self, parameters: Sequence[ParameterSpec], result: TrainingResult) -> bytes:
        if self._codec is None:
            return encode_update(
                parameters,
                result.delta,
                num_examples=result.num_examples,
                loss_before=result.loss_before,
                loss_after=result.loss_after,
            )
        return encode_compressed_update(
            parameters,
            self._compressed(parameters, result.delta, self._codec),
            num_examples=result.num_examples,
            loss_before=result.loss_before,
            loss_after=result.loss_after,
        )

    def _compressed(
        self,
        parameters: Sequence[ParameterSpec],
        delta: Sequence[NDArray[np.float32]],
        codec: UpdateCodec,
    ) -> Sequence[EncodedTensor]:
        seed = self.task.plan.shuffle_seed
        if not self.feeds_back:
            return compress(delta, codec, seed=seed)
        learned = flatten(delta)
        whole = learned if self.carried is None else learned + self.carried
        tensors = compress(unflatten(parameters, whole), codec, seed=seed)
        self.unsent = learned - all_decoded(tensors)
        return tensors

    def _prepared(self) -> TrainingSession:
        if self._session is None:
            raise TaskFault("engine", "training asked for before its blobs were fetched")
        return self._session

    def _obtain(self, digest: bytes) -> Path:
        cache = self._shared.cache
        path = cache.path(digest)
        if path is not None:
            return path
        have = cache.partial_bytes(digest)
        path = cache.receive(
            digest, self._shared.gateway.fetch_blob(self.task.token, digest, offset=have)
        )
        fetched = path.stat().st_size - have
        self._bytes_down += fetched
        self._shared.counts["bytes_down"] += fetched
        return path
