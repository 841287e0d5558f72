"""A gateway without sockets: state, orders, intake, a real aggregator, on the test's clock."""

from collections import Counter
from itertools import count

from device_runtime.protocol import device_pb2 as device_pb
from device_runtime.update_codec import sha256_of
from server.aggregation.mean import MeanAggregator
from server.fleet_protocol import fleet_pb2 as pb
from server.gateway.answers import Answer
from server.gateway.fold_barrier import FoldBarrier
from server.gateway.intake import UpdateIntake
from server.gateway.orders import OrderDesk
from server.gateway.pace import PaceSteering
from server.gateway.state import CAPACITY, GatewayState
from server.gateway.task_book import TaskCost
from server.gateway.tokens import TokenMint
from server.job import Job
from server.update_gate.envelope import UploadEnvelope
from tests.server.update_examples import MODEL, make_job

CONTRACT = b"c" * 32
ARTIFACT = b"a" * 32
MANIFEST = b"m" * 32
KEY = b"k" * 32


def parameters_of(version: int) -> bytes:
    return bytes([version]) * 32


class StoredOutcomes:
    """What the database would know."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}

    def find(self, task_id: str) -> Answer | None:
        return self.answers.get(task_id)


class Desk:
    """One gateway boot and the coordinator's side of the conversation."""

    def __init__(
        self,
        boot_id: str = "boot-1",
        outcomes: StoredOutcomes | None = None,
        capacity: int = CAPACITY,
    ) -> None:
        self.now_s = 1000.0
        self.counted: Counter[tuple[str, str]] = Counter()
        self.sessions: Counter[str] = Counter()
        self.outcomes = outcomes or StoredOutcomes()
        self.aggregator = MeanAggregator()
        self.mint = TokenMint(KEY)
        numbers = count()
        self.state = GatewayState(
            boot_id,
            self.mint,
            PaceSteering(check_ins_per_s=200),
            capacity=capacity,
            count_tasks=self._count,
            count_session=self._count_session,
            new_task_id=lambda: f"{boot_id}-t{next(numbers)}",
        )
        barrier = FoldBarrier()
        self.orders = OrderDesk(self.state, self.aggregator, barrier)
        self.intake = UpdateIntake(
            self.state,
            self.aggregator,
            barrier,
            self.outcomes,
            observe_fold_s=lambda seconds: None,
        )
        self.job_id, self.epoch, self.sequence = "j-1", 1, 0
        self.policy = make_job().participation.policy()

    def _count(self, outcome: str, reason: str, number: int) -> None:
        self.counted[(outcome, reason)] += number

    def _count_session(self, shape: str) -> None:
        self.sessions[shape] += 1

    # -- as the coordinator ----------------------------------------------------------------------

    def order(self, **body) -> list[pb.GatewayMessage]:
        self.sequence += 1
        return self.orders.carry_out(
            pb.CoordinatorMessage(
                job_id=self.job_id, epoch=self.epoch, sequence=self.sequence, **body
            )
        )

    def open(
        self,
        job: Job | None = None,
        committed_releases: tuple[str, ...] = (),
        undecided_releases: tuple[str, ...] = (),
        feature_hash_seed: int = 0,
    ) -> list[pb.GatewayMessage]:
        job = job or make_job()
        self.policy = job.participation.policy()
        return self.order(
            open=pb.Open(
                job_json=job.to_json(),
                model_spec_json=MODEL.to_json(),
                artifact_sha256=ARTIFACT,
                manifest_sha256=MANIFEST,
                contract_sha256=CONTRACT,
                committed_releases=committed_releases,
                undecided_releases=undecided_releases,
                feature_hash_seed=feature_hash_seed,
            )
        )

    def set_model(self, version: int, oldest_live: int = 0) -> None:
        self.order(
            set_model=pb.SetModel(
                version=version,
                parameters_sha256=parameters_of(version),
                oldest_live_version=oldest_live,
            )
        )

    def grant(self, count: int, grant_id: str = "g1", pinned_to: int | None = None) -> None:
        self.order(
            grant=pb.Grant(
                grant_id=grant_id,
                count=count,
                pinned=pinned_to is not None,
                base_version=pinned_to or 0,
                task_timeout_s=60,
            )
        )

    def cancel(self, grant_id: str = "g1", running_too: bool = True) -> None:
        self.order(cancel=pb.Cancel(grant_id=grant_id, running_too=running_too))

    def release(self, release_id: str = "r1") -> tuple[list[pb.Progress], pb.Partial]:
        *progress, last = self.order(release=pb.Release(release_id=release_id))
        return [message.progress for message in progress], last.partial

    def commit(self, release_id: str = "r1") -> None:
        self.order(commit=pb.Commit(release_id=release_id))

    def progress(self) -> pb.Progress:
        """Everything not told yet; empty when nothing is."""
        message = self.state.take_progress()
        return pb.Progress() if message is None else message.progress

    # -- as a device -----------------------------------------------------------------------------

    def check_in(self, device_id: str = "d1", pending: tuple[str, ...] = ()):
        return self.state.check_in(device_id, self.policy.sha256(), pending, self.now_s)

    def lease(self, device_id: str = "d1") -> device_pb.Task:
        task = self.check_in(device_id).task
        assert task is not None
        return task

    def upload(
        self,
        task: device_pb.Task,
        payload: bytes,
        *,
        device_id: str = "d1",
        contract: bytes = CONTRACT,
        digest: bytes | None = None,
        course: str = "",
    ) -> device_pb.UploadResponse:
        return self.intake.take(
            device_id,
            self.mint.open_task(task.token),
            UploadEnvelope(digest or sha256_of(payload), contract, payload),
            TaskCost(train_s=2.0, bytes_down=7, bytes_up=len(payload)),
            self.now_s,
            course,
        )

    def settle(self, task: device_pb.Task, payload: bytes) -> device_pb.Settlement:
        claims = self.mint.open_task(task.token)
        assert claims is not None
        settled = self.state.settle(claims, sha256_of(payload))
        if settled is None:
            stored = self.outcomes.find(claims.task_id)
            settled = self.state.settle_unknown(claims, stored, self.now_s)
        return settled


def opened(capacity: int = CAPACITY, **job) -> Desk:
    """A desk with a job open, version 1 to train on and eight slots."""
    desk = Desk(capacity=capacity)
    desk.open(make_job(**job))
    desk.set_model(1)
    desk.grant(8)
    return desk
