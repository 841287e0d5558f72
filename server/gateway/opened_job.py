"""The open job, as a gateway needs it to hand out tasks."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Self

from device_runtime.protocol import device_pb2 as device_pb
from modeling.feature_input_form import input_form
from modeling.spec import ModelSpec
from server.coordination.selection import shuffle_seed
from server.fleet_protocol import fleet_pb2 as fleet_pb
from server.gateway.tokens import TaskClaims
from server.job import Job
from server.secure_aggregation.demands import secure_aggregation_message
from server.update_gate.envelope import max_payload_bytes

_SEALING_BYTES = 512
"""Most that sealing adds to an update: keys, tag, digest, host app and framing."""


@dataclass(frozen=True, slots=True)
class OpenedJob:
    """What the coordinator's `Open` said, read once.

    Attributes:
        epoch: Incarnation of the coordinator for this job.
        policy: What devices have to satisfy, with its digest.
        secure_aggregation: What devices must see proven first; None where updates are not sealed.
        max_payload_bytes: Largest update that can be one of this model's.
        features: What devices are to join; None where they train on what their apps have stored.
    """

    job_id: str
    epoch: int
    job: Job
    model: ModelSpec
    artifact_sha256: bytes
    manifest_sha256: bytes
    contract_sha256: bytes
    policy: device_pb.ParticipationPolicy
    max_payload_bytes: int
    secure_aggregation: device_pb.SecureAggregation | None = None
    features: device_pb.TaskFeatures | None = None

    @classmethod
    def read(cls, job_id: str, epoch: int, message: fleet_pb.Open) -> Self:
        """Parse an `Open` message."""
        job = Job.model_validate_json(message.job_json)
        model = ModelSpec.from_json(message.model_spec_json)
        policy = job.participation.policy()
        return cls(
            job_id,
            epoch,
            job,
            model,
            message.artifact_sha256,
            message.manifest_sha256,
            message.contract_sha256,
            device_pb.ParticipationPolicy(
                policy_sha256=policy.sha256(), policy_json=policy.to_json()
            ),
            max_payload_bytes(model) + _SEALING_BYTES,
            secure_aggregation_message(job),
            _task_features(job, model, message.feature_hash_seed),
        )

    def least_runtime(self, *, seals: int, joins: int) -> int:
        """The least `CheckInRequest.runtime_version` that does all its tasks ask for."""
        if self.features is not None:
            return joins
        return 0 if self.secure_aggregation is None else seals

    def blobs(self, parameters_sha256: bytes) -> tuple[bytes, ...]:
        """What a task on this base version may fetch."""
        return parameters_sha256, self.artifact_sha256, self.manifest_sha256

    def task(
        self,
        claims: TaskClaims,
        token: bytes,
        parameters_sha256: bytes,
        codecs: Collection[str] = (),
    ) -> device_pb.Task:
        """The task a device is handed.

        Its plan depends on job, task id and base version; and a device that does not know the
        job's update codec is asked for plain float32.

        Args:
            codecs: Update codecs the device knows.
        """
        client = self.job.client
        task = device_pb.Task(
            task_id=claims.task_id,
            token=token,
            job_id=self.job_id,
            base_version=claims.base_version,
            parameters_sha256=parameters_sha256,
            artifact_sha256=self.artifact_sha256,
            manifest_sha256=self.manifest_sha256,
            contract_sha256=self.contract_sha256,
            plan=device_pb.TrainingPlan(
                local_epochs=client.local_epochs,
                batch_size=client.batch_size,
                max_records=client.max_records,
                learning_rate=client.optimizer.learning_rate_at(claims.base_version),
                proximal_mu=client.proximal_mu,
                shuffle_seed=shuffle_seed(self.job.seed, claims.task_id),
            ),
            deadline_ms=claims.deadline_ms,
        )
        if self.secure_aggregation is not None:
            task.secure_aggregation.CopyFrom(self.secure_aggregation)
        if self.features is not None:
            task.features.CopyFrom(self.features)
        codec = client.compression.codec
        if codec is not None and codec.name in codecs:
            task.plan.codec.CopyFrom(codec.to_message())
        return task


def _task_features(job: Job, model: ModelSpec, hash_seed: int) -> device_pb.TaskFeatures | None:
    if job.feature_service is None:
        return None
    form = input_form(model, hash_seed)
    return device_pb.TaskFeatures(
        service=job.feature_service.partition("@")[0],
        contract_sha256=job.feature_contract_sha256,
        reads=form.reads,
        places=form.places,
        ids=form.ids,
        hash_seed=form.seed,
    )
