"""A device whose every byte the test decides, over real gRPC."""

import time

import grpc

from device_runtime.gateway_client import open_channel
from device_runtime.identity import DeviceKey, sign_check_in, sign_enrol, sign_upload
from device_runtime.protocol import device_pb2 as pb
from device_runtime.protocol.device_pb2_grpc import DeviceGatewayStub
from device_runtime.request_signer import RUNTIME_VERSION
from device_runtime.update_codec import sha256_of
from server.operations.settings import ServerSettings


class ScriptedDevice:
    """One enrolled identity."""

    def __init__(self, settings: ServerSettings, enrolment_token: str) -> None:
        ca = None if settings.insecure else settings.ca_certificate
        self.channel = open_channel(settings.gateway_address, ca)
        self.stub = DeviceGatewayStub(self.channel)
        self.key = DeviceKey.generate()
        self.skew_ms = 0
        self.runtime_version = RUNTIME_VERSION
        enrolled = self.enrol(enrolment_token)
        self.device_id, self.credential = enrolled.device_id, enrolled.credential

    def close(self) -> None:
        self.channel.close()

    def enrol(self, enrolment_token: str) -> pb.EnrolResponse:
        request = pb.EnrolRequest(
            enrolment_token=enrolment_token,
            app_id="com.example.mail",
            device_model="Pixel 9",
            os_release="Android 16",
        )
        sign_enrol(self.key, request)
        return self.stub.Enrol(request)

    def now_ms(self) -> int:
        return int(time.time() * 1000) + self.skew_ms

    def check_in_request(self, policy_sha256: bytes = b"", pending=()) -> pb.CheckInRequest:
        request = pb.CheckInRequest(
            satisfied_policy_sha256=policy_sha256,
            pending=pending,
            runtime_version=self.runtime_version,
        )
        sign_check_in(
            self.key,
            request,
            device_id=self.device_id,
            credential=self.credential,
            timestamp_ms=self.now_ms(),
        )
        return request

    def check_in(self, policy_sha256: bytes = b"", pending=()) -> pb.CheckInResponse:
        return self.stub.CheckIn(self.check_in_request(policy_sha256, pending))

    def lease(self) -> pb.Task:
        """Learn the policy, satisfy it, take a task."""
        policy = self.check_in().policy
        response = self.check_in(policy.policy_sha256)
        assert response.HasField("task"), response
        return response.task

    def fetch(self, task_token: bytes, digest: bytes, offset: int = 0) -> bytes:
        request = pb.FetchBlobRequest(task_token=task_token, blob_sha256=digest, offset=offset)
        return b"".join(chunk.data for chunk in self.stub.FetchBlob(request))

    def upload_request(
        self,
        task: pb.Task,
        payload: bytes,
        *,
        digest: bytes | None = None,
        contract: bytes | None = None,
        token: bytes | None = None,
    ) -> pb.UploadRequest:
        request = pb.UploadRequest(
            task_token=task.token if token is None else token,
            payload_sha256=sha256_of(payload) if digest is None else digest,
            contract_sha256=task.contract_sha256 if contract is None else contract,
            payload=payload,
            cost=pb.DeviceCost(train_s=1.5, bytes_down=11),
        )
        sign_upload(
            self.key,
            request,
            device_id=self.device_id,
            credential=self.credential,
            timestamp_ms=self.now_ms(),
        )
        return request

    def upload(self, task: pb.Task, payload: bytes, **claims) -> pb.UploadResponse:
        return self.stub.Upload(self.upload_request(task, payload, **claims))

    def pending(self, task: pb.Task, payload: bytes) -> pb.PendingUpdate:
        return pb.PendingUpdate(
            task_id=task.task_id, payload_sha256=sha256_of(payload), task_token=task.token
        )

    def settlement(self, task: pb.Task, payload: bytes) -> pb.Settlement:
        (settlement,) = self.check_in(pending=[self.pending(task, payload)]).settlements
        assert settlement.task_id == task.task_id
        return settlement


def status_of(call) -> grpc.StatusCode:
    """The status a call fails with."""
    try:
        call()
    except grpc.RpcError as error:
        return error.code()
    raise AssertionError("the call succeeded")


def wait_until(condition, patience_s: float = 15.0) -> None:
    """Ask until it is so."""
    deadline_s = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline_s, "not so in time"
        time.sleep(0.01)
