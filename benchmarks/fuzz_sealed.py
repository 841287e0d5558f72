"""What `fuzz_parsers` runs of the rest: sealed and masked updates, policies, release calls."""

from typing import TypeVar

from google.protobuf.message import DecodeError, Message
from mutated_inputs import NoMessage, Target

from device_runtime.protocol import device_pb2 as device_pb
from device_runtime.release_policy import InvalidReleasePolicy, ReleasePolicy
from device_runtime.sealing import enclave_key_sha256, seal
from server.coordination.tasks import UpdateReference
from server.secure_aggregation import enclave_pb2 as pb
from server.secure_aggregation.masked_sums import MaskedSums
from server.secure_aggregation.release_rules import ReleaseRefused
from server.secure_aggregation.service import budget_message, budget_of
from server.update_gate.rejections import Rejection, RejectionReason
from tests.server.secure_aggregation.secure_devices import (
    JOB_ID,
    SIZE,
    SecureWorld,
    delta,
    secure_job,
)
from tests.server.update_examples import MODEL

_Message = TypeVar("_Message", bound=Message)


class Rejected(Exception):
    """An update that the gate refused, as it may."""

    def __init__(self, reason: RejectionReason) -> None:
        super().__init__(reason)
        self.refusal = reason


def _gate(answer: UpdateReference | Rejection) -> UpdateReference:
    if isinstance(answer, Rejection):
        raise Rejected(answer.reason)
    return answer


class _Enclave:
    """An open job of one mode; every input finds it as the first did."""

    def __init__(self, mode: str, **robustness: float) -> None:
        self._world = SecureWorld(secure_job(mode, robustness=robustness or None))
        self.envelope, self.payload = self._world.sealed("t-1", delta(1))
        opened = device_pb.SealedContent(app_id="app", pad_seed=bytes(range(16)))
        update = device_pb.Update(num_examples=10, loss_before=0.7, loss_after=0.6)
        if mode == "enclave":
            for parameter in MODEL.parameters:
                update.delta.tensors.add(
                    name=parameter.name,
                    dtype="float32",
                    shape=parameter.shape,
                    data=bytes(4 * parameter.size),
                )
        opened.update = update.SerializeToString()
        self.content = opened.SerializeToString()
        self.update = opened.update
        self.policy = self._world.policy

    def take_payload(self, payload: bytes) -> object:
        """A payload as it comes: no other than the sealed one may be taken."""
        reference = self._fold(payload)
        sealed = device_pb.SealedUpdate.FromString(payload).sealed
        assert sealed == device_pb.SealedUpdate.FromString(self.payload).sealed
        return reference

    def take_content(self, content: bytes) -> object:
        """Content that a hostile device has sealed well, whatever it is."""
        key = self._world.verified.enclave_key
        sealed_for = device_pb.SealedFor(
            task_id=self.envelope.task_id,
            job_id=JOB_ID,
            device_id=self.envelope.client_id,
            base_version=self.envelope.base_version,
        )
        message = device_pb.SealedUpdate(
            enclave_key_sha256=enclave_key_sha256(key), sealed=seal(key, sealed_for, content)
        )
        return self._fold(message.SerializeToString())

    def take_update(self, update: bytes) -> object:
        """An update in content that is otherwise good."""
        content = device_pb.SealedContent.FromString(self.content)
        content.update = update
        return self.take_content(content.SerializeToString())

    def prepare(self, data: bytes) -> object:
        """A host's call for an aggregate of nothing: it may never be let out."""
        request = _message(pb.PrepareRequest, data)
        budget = budget_of(request.budget)
        enclave = self._world.enclave
        enclave.prepare(request.job_id, request.release_id, request.version, budget)
        raise AssertionError("an aggregate of no devices was prepared")

    def release(self, data: bytes) -> object:
        """A host's call for an aggregate that was not prepared."""
        request = _message(pb.ReleaseRequest, data)
        receipt = budget_of(request.receipt)
        self._world.enclave.release(request.job_id, request.release_id, receipt)
        raise AssertionError("an aggregate that was not prepared was let out")

    def begin(self, data: bytes) -> object:
        """A host's word of the budget: no other than the known one may be taken."""
        request = _message(pb.BeginRequest, data)
        self._world.enclave.begin(request.job_id, budget_of(request.budget))
        assert budget_of(request.budget) == self._world.budget
        return None

    def attest(self, data: bytes) -> object:
        """A device's nonce, handed on by the host."""
        request = _message(pb.AttestRequest, data)
        return self._world.enclave.attest(request.job_id, request.nonce)

    def _fold(self, payload: bytes) -> UpdateReference:
        try:
            return _gate(self._world.enclave.fold(self.envelope, payload))
        finally:
            self._world.enclave.drop(self.envelope.base_version)

    def calls(self) -> tuple[bytes, bytes, bytes, bytes]:
        """Good requests: attest, begin, prepare, release."""
        budget = budget_message(self._world.budget)
        return (
            pb.AttestRequest(job_id=JOB_ID, nonce=bytes(range(32))).SerializeToString(),
            pb.BeginRequest(job_id=JOB_ID, budget=budget).SerializeToString(),
            pb.PrepareRequest(
                job_id=JOB_ID, release_id="r-1", version=1, budget=budget
            ).SerializeToString(),
            pb.ReleaseRequest(job_id=JOB_ID, release_id="r-1", receipt=budget).SerializeToString(),
        )


def _message(kind: type[_Message], data: bytes) -> _Message:
    try:
        return kind.FromString(data)
    except DecodeError:
        raise NoMessage from None


def _policy(data: bytes) -> object:
    return ReleasePolicy.from_json(data.decode(errors="replace"))


def _host_part(payload: bytes) -> object:
    parted = _HOST.part(payload)
    if isinstance(parted, Rejection):
        raise Rejected(parted.reason)
    assert parted.values.shape == (SIZE,)
    return parted


_PLAIN = _Enclave("enclave", max_update_norm=5.0)
_MASKED = _Enclave("masked")
_HOST = MaskedSums(SIZE, _MASKED.policy)
_ATTEST, _BEGIN, _PREPARE, _RELEASE = _PLAIN.calls()
_GATED = (Rejected,)
_CALLED = (ReleaseRefused, NoMessage)

TARGETS: dict[str, Target] = {
    "release_policy": Target(
        _policy,
        (_PLAIN.policy.to_json().encode(), _MASKED.policy.to_json().encode()),
        (InvalidReleasePolicy,),
    ),
    "sealed_update": Target(_PLAIN.take_payload, (_PLAIN.payload,), _GATED),
    "sealed_content": Target(_PLAIN.take_content, (_PLAIN.content,), _GATED),
    "sealed_plain_update": Target(_PLAIN.take_update, (_PLAIN.update,), _GATED),
    "masked_update_on_host": Target(_host_part, (_MASKED.payload,), _GATED),
    "masked_content": Target(_MASKED.take_content, (_MASKED.content,), _GATED),
    "attest_request": Target(_PLAIN.attest, (_ATTEST,), _CALLED),
    "begin_request": Target(_PLAIN.begin, (_BEGIN,), _CALLED),
    "prepare_request": Target(_PLAIN.prepare, (_PREPARE,), _CALLED),
    "release_request": Target(_PLAIN.release, (_RELEASE,), _CALLED),
}
