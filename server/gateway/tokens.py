"""Task tokens and device credentials: signed, self-contained, checked without asking anybody."""

import hashlib
import hmac
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from server.gateway import tokens_pb2 as pb

_MAC_BYTES = 32
_TASK = b"flint.gateway.v1/TaskToken\0"
_CREDENTIAL = b"flint.gateway.v1/DeviceCredential\0"
MAX_TOKEN_BYTES = 4096


@dataclass(frozen=True, slots=True)
class TaskClaims:
    """What a task token says.

    Attributes:
        device_id: The lessee.
        boot_id: The gateway process that minted it and folds its update.
        deadline_ms: Server clock.
        blobs: Digests the task may fetch.
    """

    task_id: str
    job_id: str
    grant_id: str
    base_version: int
    device_id: str
    boot_id: str
    deadline_ms: int
    blobs: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class DeviceClaims:
    """What a device's credential says: it is enrolled, with this key.

    Attributes:
        public_key: P-256, DER SubjectPublicKeyInfo.
        app_id: Host app it enrolled from.
    """

    device_id: str
    public_key: bytes
    app_id: str


class TokenMint:
    """Signs and opens with HMAC-SHA256 under the key all gateways of a deployment share.

    Each kind of token has a prefix of its own under the MAC, so one is never taken for the other.
    """

    def __init__(self, key: bytes) -> None:
        self._keyed = hmac.new(key, digestmod=hashlib.sha256)

    def task_token(self, claims: TaskClaims) -> bytes:
        """Sign a task's claims."""
        message = pb.TaskClaims(
            task_id=claims.task_id,
            job_id=claims.job_id,
            grant_id=claims.grant_id,
            base_version=claims.base_version,
            device_id=claims.device_id,
            boot_id=claims.boot_id,
            deadline_ms=claims.deadline_ms,
            blobs=claims.blobs,
        )
        return self._sign(_TASK, message.SerializeToString(deterministic=True))

    def open_task(self, token: bytes) -> TaskClaims | None:
        """The claims of a task token, or None if it was not signed with this key."""
        body = self._open(_TASK, token)
        if body is None:
            return None
        try:
            message = pb.TaskClaims.FromString(body)
        except DecodeError:
            return None
        return TaskClaims(
            message.task_id,
            message.job_id,
            message.grant_id,
            message.base_version,
            message.device_id,
            message.boot_id,
            message.deadline_ms,
            tuple(message.blobs),
        )

    def credential(self, claims: DeviceClaims) -> bytes:
        """Sign a device's claims."""
        message = pb.DeviceClaims(
            device_id=claims.device_id, public_key=claims.public_key, app_id=claims.app_id
        )
        return self._sign(_CREDENTIAL, message.SerializeToString(deterministic=True))

    def open_credential(self, credential: bytes) -> DeviceClaims | None:
        """The claims of a credential, or None if it was not signed with this key."""
        body = self._open(_CREDENTIAL, credential)
        if body is None:
            return None
        try:
            message = pb.DeviceClaims.FromString(body)
        except DecodeError:
            return None
        return DeviceClaims(message.device_id, message.public_key, message.app_id)

    def _sign(self, kind: bytes, body: bytes) -> bytes:
        return self._mac(kind, body) + body

    def _open(self, kind: bytes, token: bytes) -> bytes | None:
        if not _MAC_BYTES < len(token) <= MAX_TOKEN_BYTES:
            return None
        mac, body = token[:_MAC_BYTES], token[_MAC_BYTES:]
        return body if hmac.compare_digest(mac, self._mac(kind, body)) else None

    def _mac(self, kind: bytes, body: bytes) -> bytes:
        # Not hmac.digest, which lets go of the interpreter for a message as short as this.
        mac = self._keyed.copy()
        mac.update(kind + body)
        return mac.digest()
